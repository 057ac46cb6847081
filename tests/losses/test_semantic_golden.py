"""Semantic augmentation against values and gradients of the public implementations (float64)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from longtailed.losses import (
    ClassStatistics,
    focal_loss,
    isda_logits,
    ldam_margins,
    margin_cross_entropy,
    reason_covariance,
    risda_logits,
    semantic_variance,
)

GOLDEN = Path(__file__).parents[1] / "golden"
INPUTS = ("features", "weight", "bias", "cov")


def load(name: str, prefix: str = "") -> dict[str, Tensor]:
    """Return the file's first case, names without case and prefix."""
    with np.load(GOLDEN / f"{name}.npz") as archive:
        arrays = {key.removesuffix("_0"): torch.tensor(archive[key]) for key in archive.files}
    return {key.removeprefix(prefix): value for key, value in arrays.items()}


def close(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


def augmented(golden: dict[str, Tensor]) -> Tensor:
    for name in INPUTS:
        golden[name].requires_grad_()
    logits = linear(golden["features"], golden["weight"], golden["bias"])
    return isda_logits(logits, golden["labels"], golden["weight"], golden["cov"], golden["ratio"])


def assert_gradients(golden: dict[str, Tensor], loss: Tensor, prefix: str = "") -> None:
    loss.backward()
    for name in INPUTS:
        close(golden[name].grad, golden[f"{prefix}grad_{name}"])


def held(golden: dict[str, Tensor], kind: str) -> ClassStatistics:
    """Return class statistics that begin with what the file says."""
    statistics = ClassStatistics(*golden["weight"].shape, kind).double()
    for name, buffer in (("cov", "covariance"), ("mean", "mean"), ("count", "count")):
        statistics.get_buffer(buffer).copy_(golden[f"{name}_in"])
    return statistics


def assert_statistics(statistics: ClassStatistics, golden: dict[str, Tensor], prefix: str) -> None:
    close(statistics.covariance, golden[f"{prefix}_cov"])
    close(statistics.mean, golden[f"{prefix}_mean"])
    close(statistics.count, golden[f"{prefix}_count"].double())


@pytest.mark.parametrize("name", ["isda_full", "isda_diag"])
def test_isda_loss_and_gradients(name: str) -> None:
    golden = load(name)
    logits = augmented(golden)
    variance = semantic_variance(golden["weight"], golden["labels"], golden["cov"])
    close(golden["ratio"] * variance, golden["sigma2"])
    close(logits, golden["adjusted_logits"])
    loss = cross_entropy(logits, golden["labels"])
    close(loss, golden["loss"])
    assert_gradients(golden, loss)


@pytest.mark.parametrize(("name", "kind"), [("isda_full", "full"), ("isda_diag", "diagonal")])
def test_isda_steps_from_empty_statistics(name: str, kind: str) -> None:
    golden = load(name)
    weight, labels = golden["weight"].requires_grad_(), golden["labels"]
    statistics = ClassStatistics(*weight.shape, kind).double()
    base = golden["features"].requires_grad_()
    for step, features in enumerate((base, base + 0.3 * base.roll(1, dims=0))):
        weight.grad = base.grad = None
        statistics.update(features, labels)
        assert_statistics(statistics, golden, f"step{step}")
        logits = linear(features, weight, golden["bias"])
        covariance = statistics.covariance.clone()
        logits = isda_logits(logits, labels, weight, covariance, golden["ratio"])
        loss = cross_entropy(logits, labels)
        loss.backward()
        close(loss, golden[f"step{step}_loss"])
        close(weight.grad, golden[f"step{step}_grad_weight"])
        close(base.grad, golden[f"step{step}_grad_features0"])


@pytest.mark.parametrize(("prefix", "kind"), [("full_", "full"), ("diag_", "diagonal")])
def test_metasaug_cross_entropy(prefix: str, kind: str) -> None:
    golden = load("metasaug_ce", prefix)
    logits, labels = augmented(golden), golden["labels"]
    close(logits, golden["adjusted_logits"])
    loss = cross_entropy(logits, labels, weight=golden["class_weights"])
    close(loss, golden["loss"])
    assert_gradients(golden, loss)
    statistics = ClassStatistics(*golden["weight"].shape, kind).double()
    statistics.update(golden["features"], labels)
    assert_statistics(statistics, golden, "est")


def test_metasaug_ldam() -> None:
    golden = load("metasaug_ldam")
    margins = ldam_margins(golden["class_counts"], float(golden["max_m"]), torch.float64)
    close(margins, golden["margins"])
    logits, weights = augmented(golden), golden["class_weights"]
    loss = margin_cross_entropy(logits, golden["labels"], margins, 1.0, weights)
    close(loss, golden["loss"])
    assert_gradients(golden, loss)


@pytest.mark.parametrize(("prefix", "gamma"), [("g1_", 1.0), ("g2_", 2.0)])
def test_metasaug_focal_of_the_plain_mean(prefix: str, gamma: float) -> None:
    golden = load("metasaug_focal")
    logits = augmented(golden)
    close(logits, golden["adjusted_logits"])
    loss = focal_loss(logits, golden["labels"], gamma)
    close(loss, golden[f"{prefix}loss_unweighted_mean"])


def test_risda_steps() -> None:
    golden = load("risda")
    weight, bias = golden["weight"].requires_grad_(), golden["bias"].requires_grad_()
    labels, alpha, beta = golden["labels"], golden["alpha"], golden["beta"]
    displacement, statistics = golden["displacement"], held(golden, "full")
    tail = torch.arange(int(golden["head"]), len(weight))
    for step in ("step0", "step1"):
        weight.grad = bias.grad = None
        raw = golden[f"{step}_raw_features"].requires_grad_()
        statistics.update(raw + alpha * displacement[labels], labels)
        reasoned = reason_covariance(statistics.covariance, golden["graph"], tail)
        statistics.covariance.copy_(reasoned)
        assert_statistics(statistics, golden, step)
        rest = (labels, weight, reasoned, displacement)
        once = risda_logits(linear(raw, weight, bias), *rest, alpha, beta)
        twice = risda_logits(linear(raw, weight, bias), *rest, 2 * alpha, beta)
        weights = golden["class_weights"]
        close(cross_entropy(once, labels, weight=weights), golden[f"{step}_loss_single_shift"])
        # The public code also shifts the features, which moves all logits of a row alike.
        wanted = golden[f"{step}_adjusted_logits"]
        close(twice.log_softmax(dim=1), wanted.log_softmax(dim=1))
        loss = cross_entropy(twice, labels, weight=weights)
        close(loss, golden[f"{step}_loss"])
        loss.backward()
        close(raw.grad, golden[f"{step}_grad_raw_features"])
        close(weight.grad, golden[f"{step}_grad_weight"])
        close(bias.grad, golden[f"{step}_grad_bias"])


def test_risda_steps_with_diagonal_covariance() -> None:
    golden = load("risda_diag")
    weight, labels = golden["weight"].requires_grad_(), golden["labels"]
    statistics = held(golden, "diagonal")
    for step in ("step0", "step1"):
        weight.grad = None
        features = golden[f"{step}_features"].requires_grad_()
        statistics.update(features, labels)
        covariance = reason_covariance(statistics.covariance, golden["graph"], golden["tail"])
        statistics.covariance.copy_(covariance)
        assert_statistics(statistics, golden, step)
        logits = linear(features, weight, golden["bias"])
        adjusted = isda_logits(logits, labels, weight, covariance, golden["beta"])
        close(adjusted, golden[f"{step}_adjusted_logits"])
        loss = cross_entropy(adjusted, labels, weight=golden["class_weights"])
        close(loss, golden[f"{step}_loss"])
        loss.backward()
        close(features.grad, golden[f"{step}_grad_features"])
        close(weight.grad, golden[f"{step}_grad_weight"])
