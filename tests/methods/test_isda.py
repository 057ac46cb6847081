"""ISDA: its limits, its schedule, what it remembers, and its criteria."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from longtailed.data import Batch
from longtailed.errors import LongTailedError
from longtailed.losses import isda_logits, ldam_margins, margin_cross_entropy
from longtailed.methods import ISDA, CrossEntropy, Progress, build_method
from longtailed.nn import Network

GOLDEN = Path(__file__).parents[1] / "golden"
COUNTS = [24, 12, 6, 3]


def progress_at(epoch: int, epochs: int = 10) -> Progress:
    progress = Progress(epochs, 4, torch.Generator().manual_seed(0))
    progress.enter(epoch, 0.1)
    return progress


def batch_of(size: int = 12, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 3, 8, 8, generator=generator)
    return Batch((images,), torch.arange(size) % 4, torch.arange(size))


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_strength_zero_is_cross_entropy(small_network, covariance):
    isda = ISDA(small_network(), COUNTS, strength=0.0, covariance=covariance)
    plain = CrossEntropy(small_network(), COUNTS)
    batches, progress = {"train": batch_of()}, progress_at(5)
    ours, theirs = isda.train().loss(batches, progress), plain.train().loss(batches, progress)
    assert ours["isda"].item() == pytest.approx(theirs["cross_entropy"].item(), rel=1e-6)


def test_the_statistics_take_in_the_batch_before_its_logits_and_only_from_the_start(small_network):
    method = ISDA(small_network(), COUNTS, strength=2.0, start=4).train()
    batch = batch_of()
    method.loss({"train": batch}, progress_at(3))
    assert method.statistics.count.sum() == 0
    loss = method.loss({"train": batch}, progress_at(5))["isda"]
    assert method.statistics.count.tolist() == [3, 3, 3, 3]
    with torch.no_grad():
        features = method.network.features(batch.images[0])
    expected = torch.zeros_like(method.statistics.covariance)
    for c in range(4):
        own = features[batch.labels == c]
        expected[c] = (own - own.mean(0)).T @ (own - own.mean(0)) / len(own)
    torch.testing.assert_close(method.statistics.covariance, expected, rtol=1e-4, atol=1e-6)
    head = method.network.head
    logits = isda_logits(head(features), batch.labels, head.weight, expected, 2.0 * 5 / 10)
    assert loss.item() == pytest.approx(F.cross_entropy(logits, batch.labels).item(), rel=1e-5)


def test_ldam_criterion_without_and_with_a_scale(small_network):
    batches, progress = {"train": batch_of()}, progress_at(5)
    labels = batches["train"].labels
    for scale in (1.0, 30.0):
        network = small_network(head="cosine")
        method = ISDA(network, COUNTS, strength=0.0, criterion="ldam", scale=scale)
        with torch.no_grad():
            loss = method.train().loss(batches, progress)["isda"]
            logits = network(batches["train"].images[0])
            expected = margin_cross_entropy(logits, labels, ldam_margins(COUNTS), scale)
            predicted = method.eval().predict(batches["train"].images[0])
            raw = network(batches["train"].images[0])
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        torch.testing.assert_close(predicted, scale * raw)


def test_a_cosine_head_is_augmented_on_the_sphere(small_network):
    network: Network = small_network(head="cosine")
    method = ISDA(network, COUNTS, strength=1.0, scale=10.0).train()
    batch = batch_of()
    with torch.no_grad():
        loss = method.loss({"train": batch}, progress_at(5))["isda"]
        features = F.normalize(network.features(batch.images[0]), dim=1)
        weight = 10 * F.normalize(network.head.weight, dim=1)
        logits = features @ weight.T
        covariance = method.statistics.covariance
        logits = isda_logits(logits, batch.labels, weight, covariance, 0.5)
    assert loss.item() == pytest.approx(F.cross_entropy(logits, batch.labels).item(), rel=1e-5)
    norms = method.statistics.mean.norm(dim=1)
    assert (norms <= 1 + 1e-6).all()


@pytest.mark.parametrize("gamma", [1, 2])
def test_focal_criterion_is_the_weighted_mean_of_golden_values(small_network, gamma):
    golden = np.load(GOLDEN / "metasaug_focal.npz")
    adjusted = torch.from_numpy(golden["adjusted_logits_0"])
    labels = torch.from_numpy(golden["labels_0"])
    weights = torch.from_numpy(golden["class_weights_0"])
    method = ISDA(small_network(), COUNTS, criterion="focal", gamma=float(gamma))
    weighted = method.criterion(adjusted, labels, weights)
    assert weighted.item() == pytest.approx(
        golden[f"g{gamma}_loss_weighted_mean_0"].item(), rel=1e-9
    )
    plain = method.criterion(adjusted, labels, None)
    assert plain.item() == pytest.approx(
        golden[f"g{gamma}_loss_unweighted_mean_0"].item(), rel=1e-9
    )


def test_unknown_choices_are_one_sentence(small_network):
    with pytest.raises(LongTailedError, match="option 'covariance' of method 'isda' cannot be"):
        build_method("isda", small_network(), COUNTS, covariance="low-rank")
    with pytest.raises(LongTailedError, match="option 'criterion' of method 'isda' cannot be"):
        build_method("isda", small_network(), COUNTS, criterion="hinge")
