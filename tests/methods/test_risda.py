"""RISDA: golden steps through the method, the graph and prototypes that it settles on, options."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from longtailed.data import Batch
from longtailed.errors import LongTailedError
from longtailed.methods import RISDA, Progress, build_method, class_relation_graph
from longtailed.methods.relations import tail_classes
from longtailed.nn import Network
from longtailed.nn.backbone import Backbone
from longtailed.nn.heads import LinearHead
from longtailed.training.fit import fit
from longtailed.training.job import Job
from longtailed.training.optim import Optimizer
from longtailed.training.options import FitOptions

GOLDEN = Path(__file__).parents[1] / "golden"
COUNTS = [24, 12, 6, 3]


class Features(Backbone):
    """Passes features through, as if they were images."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features, self.stage_channels = num_features, (3, num_features)

    def run_stage(self, stage, maps):
        return maps

    def pool(self, maps):
        return maps


def golden_case(name: str):
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key.removesuffix("_0"): torch.from_numpy(arrays[key]) for key in arrays}


def golden_method(g, head: int, **options) -> RISDA:
    """Return the method in the golden state; its counts say which classes are head classes."""
    classes, features = g["weight"].shape
    network = Network(Features(features), LinearHead(features, classes)).double()
    counts = list(range(classes, 0, -1))
    method = RISDA(
        network, counts, alpha=1.0, beta=1.0, start=1, head_classes=head, **options
    ).double()
    with torch.no_grad():
        network.head.weight.copy_(g["weight"])
        network.head.bias.copy_(g["bias"])
        method.weights.copy_(g["class_weights"])
        method.graph.copy_(g["graph"])
        for ours, theirs in (("covariance", "cov"), ("mean", "mean"), ("count", "count")):
            getattr(method.statistics, ours).copy_(g[f"{theirs}_in"])
    return method.train()


def golden_loss(method: RISDA, features, labels, fraction) -> torch.Tensor:
    progress = Progress(2, 2, torch.Generator())
    progress.enter(1, 0.1)
    progress.fraction_tensor = fraction
    batch = Batch((features,), labels, torch.arange(len(labels)))
    return method.loss({"train": batch}, progress)["risda"]


def test_golden_steps():
    g = golden_case("risda")
    method = golden_method(g, int(g["head"]))
    method.displacement.copy_(g["displacement"])
    method.alpha, method.strength = g["alpha"].item(), g["beta"].item()
    for step in range(2):
        raw = g[f"step{step}_raw_features"].clone().requires_grad_()
        loss = golden_loss(method, raw, g["labels"], torch.ones((), dtype=torch.float64))
        method.zero_grad()
        loss.backward()
        head = method.network.head
        close = {"rtol": 1e-9, "atol": 1e-12}
        assert loss.item() == pytest.approx(g[f"step{step}_loss"].item(), rel=1e-9)
        torch.testing.assert_close(raw.grad, g[f"step{step}_grad_raw_features"], **close)
        torch.testing.assert_close(head.bias.grad, g[f"step{step}_grad_bias"], **close)
        for ours, theirs in (("covariance", "cov"), ("mean", "mean"), ("count", "count")):
            expected = g[f"step{step}_{theirs}"].double()
            torch.testing.assert_close(getattr(method.statistics, ours), expected, **close)
        torch.testing.assert_close(head.weight.grad, g[f"step{step}_grad_weight"], **close)


def test_golden_loss_with_a_single_shift():
    g = golden_case("risda")
    method = golden_method(g, int(g["head"]))
    method.displacement.copy_(g["displacement"])
    method.alpha, method.strength, method.shift = g["alpha"].item(), g["beta"].item(), 1.0
    for step in range(2):
        raw, one = g[f"step{step}_raw_features"], torch.ones((), dtype=torch.float64)
        loss = golden_loss(method, raw, g["labels"], one)
        assert loss.item() == pytest.approx(g[f"step{step}_loss_single_shift"].item(), rel=1e-9)


def test_the_single_shift_leaves_the_statistics_to_the_features(small_network):
    method = RISDA(small_network(), COUNTS, start=1, mean_shift="paper").train()
    method.displacement.fill_(1.0)
    progress = Progress(10, 4, torch.Generator())
    progress.enter(5, 0.1)
    labels, images = torch.arange(12) % 4, torch.randn(12, 3, 8, 8)
    method.loss({"train": Batch((images,), labels, labels)}, progress)
    with torch.no_grad():
        features = method.network.features(images)
    expected = torch.stack([features[labels == c].mean(0) for c in range(4)])
    torch.testing.assert_close(method.statistics.mean, expected, rtol=1e-4, atol=1e-5)


def test_golden_steps_of_the_diagonal_variant_without_a_shift():
    g = golden_case("risda_diag")
    options = {"covariance": "diagonal", "mean_shift": "off"}
    method = golden_method(g, len(g["weight"]) - len(g["tail"]), **options)
    method.tail.copy_(g["tail"])
    method.strength = g["beta"].item()
    for step in range(2):
        features = g[f"step{step}_features"].clone().requires_grad_()
        loss = golden_loss(method, features, g["labels"], torch.ones((), dtype=torch.float64))
        method.zero_grad()
        loss.backward()
        head, close = method.network.head, {"rtol": 1e-9, "atol": 1e-12}
        assert loss.item() == pytest.approx(g[f"step{step}_loss"].item(), rel=1e-9)
        torch.testing.assert_close(features.grad, g[f"step{step}_grad_features"], **close)
        torch.testing.assert_close(head.weight.grad, g[f"step{step}_grad_weight"], **close)
        torch.testing.assert_close(method.statistics.covariance, g[f"step{step}_cov"], **close)


def test_golden_graph():
    g = golden_case("risda_graph")
    predictions = g["logits"].argmax(1)
    graph = class_relation_graph(predictions, g["labels"], g["logits"].shape[1])
    torch.testing.assert_close(graph, g["graph"], rtol=0, atol=1e-6)
    displacement = graph @ g["class_means"] - g["class_means"]
    torch.testing.assert_close(displacement.float(), g["displacement"].float(), rtol=0, atol=1e-6)


def test_exact_shares_sum_to_one_and_an_absent_class_is_its_own():
    predictions, labels = torch.tensor([0, 1, 1, 2, 0]), torch.tensor([0, 0, 0, 2, 2])
    graph = class_relation_graph(predictions, labels, 4, decimals=None)
    third = 1 / 3
    expected = [[third, 2 * third, 0, 0], [0, 1, 0, 0], [0.5, 0, 0.5, 0], [0, 0, 0, 1]]
    torch.testing.assert_close(graph, torch.tensor(expected, dtype=torch.float64))
    rounded = class_relation_graph(predictions, labels, 4)
    assert rounded[0].tolist() == [0.33, 0.67, 0, 0]
    with pytest.raises(LongTailedError, match="predictions must be classes"):
        class_relation_graph(torch.zeros(5, 4), labels, 4)


def test_head_classes_go_by_size_not_by_number():
    counts = torch.tensor([3, 50, 7, 50, 9])
    assert tail_classes(counts, 2).tolist() == [0, 2, 4]
    assert tail_classes(counts, 0.2).tolist() == [0, 2, 3, 4]
    assert tail_classes(torch.arange(10), 0.2).tolist() == list(range(8))
    assert len(tail_classes(torch.ones(100), 0.2)) == 80


@pytest.mark.parametrize(("head", "group"), [(4, "tail"), (0.99, "tail"), (20, "tail")])
def test_an_empty_group_is_one_sentence(small_network, head, group):
    with pytest.raises(LongTailedError, match=f"leaves no {group} class of 4") as caught:
        build_method("risda", small_network(), COUNTS, head_classes=head)
    assert "\n" not in str(caught.value)


def test_a_start_without_an_epoch_before_is_refused(small_network):
    with pytest.raises(LongTailedError, match="RISDA needs at least one epoch before its start"):
        build_method("risda", small_network(), COUNTS, start=0)


def train(method, splits, fabric, epochs=4):
    options = FitOptions(epochs=epochs, batch_size=12, optimizer=Optimizer(lr=0.02))
    fit(method, Job(fabric, splits, options, show_progress=False))
    return method


@pytest.mark.parametrize("graph", ["running", "last", "best"])
def test_graph_and_displacement_are_settled_before_the_start_and_stay(
    small_network, splits, fabric, graph
):
    short = train(
        RISDA(small_network(), COUNTS, start=3, graph=graph, decimals=None), splits, fabric, 3
    )
    long = train(
        RISDA(small_network(), COUNTS, start=3, graph=graph, decimals=None), splits, fabric, 5
    )
    torch.testing.assert_close(short.graph, long.graph, rtol=0, atol=0)
    torch.testing.assert_close(short.displacement, long.displacement, rtol=0, atol=0)
    assert short.statistics.count.sum() == 0
    assert long.statistics.count.sum() == 2 * 36
    torch.testing.assert_close(short.graph.sum(1), torch.ones(4))
    sums, predicted, labels = torch.zeros(4, short.displacement.shape[1]), [], []
    with torch.no_grad():
        for batch in splits.scan("train", view="standard"):
            features = short.eval().network.features(batch.images[0])
            sums.index_add_(0, batch.labels, features)
            predicted.append(short.network.head(features).argmax(1))
            labels.append(batch.labels)
    means = sums / torch.tensor(COUNTS)[:, None]
    torch.testing.assert_close(
        short.displacement, short.graph @ means - means, rtol=1e-4, atol=1e-5
    )
    if graph == "last":
        expected = class_relation_graph(torch.cat(predicted), torch.cat(labels), 4, None)
        torch.testing.assert_close(short.graph, expected.float())


def test_the_best_graph_is_kept(small_network, splits, fabric):
    method = train(RISDA(small_network(), COUNTS, start=3, graph="best"), splits, fabric, 2)
    assert 0 < method.best_accuracy <= 1
    kept = method.graph.clone()
    method.best_accuracy.fill_(0.5)
    method._settle_graph(torch.ones(4, 4))  # an accuracy of 0.25
    assert torch.equal(method.graph, kept)
    assert method.best_accuracy == 0.5
    method._settle_graph(10 * torch.eye(4))
    assert torch.equal(method.graph, torch.eye(4))
    assert method.best_accuracy == 1


def test_reasoning_from_the_collected_statistics_does_not_compound(small_network):
    def stepped(persist):
        method = RISDA(small_network(), COUNTS, start=1, persist=persist).train()
        method.graph.copy_(torch.full((4, 4), 0.25))
        progress = Progress(10, 4, torch.Generator())
        progress.enter(5, 0.1)
        labels = torch.arange(12) % 4
        images = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        for _ in range(2):
            method.loss({"train": Batch((images,), labels, labels)}, progress)
        return method.statistics.covariance

    kept, raw = stepped(True), stepped(False)
    torch.testing.assert_close(kept[1], kept[2], rtol=0, atol=0)  # mixtures of the same
    assert not torch.allclose(raw[1], raw[2])
    torch.testing.assert_close(kept[0], raw[0])


class Snapshots(RISDA):
    """Keeps the parameters after each epoch."""

    def begin(self, run):
        super().begin(run)
        self.taken = []

    def end_epoch(self, run, progress):
        super().end_epoch(run, progress)
        self.taken.append([p.detach().clone() for p in self.network.parameters()])


def test_a_frozen_backbone_learns_no_more(small_network, splits, fabric):
    method = Snapshots(small_network(), COUNTS, start=1, freeze_start=2, rectify=True)
    train(method, splits, fabric, 4)
    assert (method.displacement >= 0).all()
    for epoch in range(1, 4):
        before, after = method.taken[epoch - 1 : epoch + 1]
        changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert all(changed[-2:])
        assert all(changed) if epoch == 1 else not any(changed[:-2])


def test_strength_zero_is_weighted_cross_entropy(small_network):
    method = RISDA(small_network(), COUNTS, alpha=0.0, beta=0.0, start=1).train()
    progress = Progress(10, 4, torch.Generator())
    progress.enter(5, 0.1)
    labels, images = torch.arange(12) % 4, torch.randn(12, 3, 8, 8)
    loss = method.loss({"train": Batch((images,), labels, labels)}, progress)["risda"]
    expected = F.cross_entropy(method.network(images), labels, weight=method.weights)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
