from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from longtailed.errors import LongTailedError
from longtailed.losses import focal_loss

GOLDEN = Path(__file__).parents[1] / "golden"


def example(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(7, 4, generator=generator, dtype=torch.float64) * 2
    labels = torch.randint(4, (7,), generator=generator)
    weights = torch.rand(4, generator=generator, dtype=torch.float64) + 0.2
    return logits, labels, weights


@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_golden_values_and_gradients(weighted: bool) -> None:
    golden = np.load(GOLDEN / "focal.npz")
    logits = torch.tensor(golden["logits_0"], requires_grad=True)
    weights = torch.tensor(golden["weight_0"]) if weighted else None
    suffix = "w_0" if weighted else "_0"
    loss = focal_loss(logits, torch.tensor(golden["target_0"]), float(golden["gamma_0"]), weights)
    loss.backward()
    np.testing.assert_allclose(loss.item(), golden["loss" + suffix], rtol=1e-5)
    np.testing.assert_allclose(logits.grad, golden["grad" + suffix], rtol=3e-4, atol=1e-7)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.7])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_an_explicit_loop(gamma: float, weighted: bool) -> None:
    logits, labels, weights = example()
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        probability = math.exp(row[label]) / sum(math.exp(value) for value in row)
        loss = -math.log(probability) * (weights[label].item() if weighted else 1)
        total += (1 - math.exp(-loss)) ** gamma * loss
    value = focal_loss(logits, labels, gamma, weights if weighted else None)
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(total / len(labels), rel=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_gradient(gamma: float) -> None:
    logits, labels, weights = example()
    torch.autograd.gradcheck(
        lambda z: focal_loss(z, labels, gamma, weights), logits.requires_grad_()
    )


def test_gamma_zero_is_the_cross_entropy() -> None:
    logits, labels, _ = example()
    torch.testing.assert_close(
        focal_loss(logits, labels, gamma=0.0), cross_entropy(logits, labels), rtol=1e-14, atol=0
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_certain_samples_have_finite_gradients(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 1.0]], requires_grad=True)
    focal_loss(logits, torch.tensor([0, 0]), gamma).backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
    assert logits.grad[0].tolist() == [0, 0]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("ignored", [-100, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_ignored_rows_do_not_count(gamma: float, ignored: int, weighted: bool) -> None:
    logits, labels, weights = example()
    labels = labels.clamp_max(2)
    class_weights = weights if weighted else None
    kept = torch.tensor([0, 1, 3, 5])
    filled = torch.full_like(labels, ignored).index_copy(0, kept, labels[kept])
    logits.requires_grad_()
    loss = focal_loss(logits, filled, gamma, class_weights, ignore_index=ignored)
    expected = focal_loss(logits[kept], labels[kept], gamma, class_weights)
    torch.testing.assert_close(loss, expected, rtol=1e-14, atol=0)
    ours, theirs = (torch.autograd.grad(value, logits)[0] for value in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=0)


def test_gamma_zero_ignores_as_the_cross_entropy_does() -> None:
    logits, labels, _ = example()
    labels[2:4] = -100
    torch.testing.assert_close(focal_loss(logits, labels, gamma=0.0), cross_entropy(logits, labels))


def test_half_precision_is_computed_in_float32() -> None:
    logits, labels, weights = example()
    half = logits.bfloat16()
    loss = focal_loss(half, labels, class_weights=weights)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(
        loss, focal_loss(half.float(), labels, class_weights=weights.float())
    )


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), r"logits must have the shape \[N, C\]"),
        (torch.zeros(3, 2), torch.zeros(3), "labels must be int64 .3."),
        (torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64), "one for each row of logits"),
        (torch.zeros(3, 2).long(), torch.zeros(3).long(), "logits must be floating point"),
    ],
)
def test_bad_shapes_and_types_are_refused(logits, labels, words: str) -> None:
    with pytest.raises(LongTailedError, match=words):
        focal_loss(logits, labels)


def test_bad_options_are_refused() -> None:
    logits, labels, _ = example()
    with pytest.raises(LongTailedError, match="gamma must not be negative"):
        focal_loss(logits, labels, gamma=-1)
    with pytest.raises(LongTailedError, match=r"class_weights must have the shape \[4\]"):
        focal_loss(logits, labels, class_weights=torch.ones(3))
