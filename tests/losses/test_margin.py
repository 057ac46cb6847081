from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from longtailed.errors import LongTailedError
from longtailed.losses import ldam_loss, ldam_margins, margin_cross_entropy

GOLDEN = Path(__file__).parents[1] / "golden"
COUNTS = [90, 20, 5, 1]


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.rand(6, 4, generator=generator, dtype=torch.float64) * 2 - 1
    labels = torch.tensor([0, 3, 1, 2, 3, 0])
    weights = torch.rand(4, generator=generator, dtype=torch.float64) + 0.2
    return logits, labels, weights


@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_golden_values_and_gradients(weighted: bool) -> None:
    golden = np.load(GOLDEN / "ldam.npz")
    logits = torch.tensor(golden["logits_0"], requires_grad=True)
    max_margin, scale = float(golden["max_m_0"]), float(golden["s_0"])
    weights = torch.tensor(golden["weight_0"]) if weighted else None
    suffix = "w_0" if weighted else "_0"
    labels = torch.tensor(golden["target_0"])
    loss = ldam_loss(logits, labels, golden["cls_num_0"], max_margin, scale, weights)
    loss.backward()
    margins = ldam_margins(golden["cls_num_0"], max_margin)
    np.testing.assert_allclose(margins, golden["m_list_0"], rtol=1e-6)
    np.testing.assert_allclose(loss.item(), golden["loss" + suffix], rtol=1e-5)
    np.testing.assert_allclose(logits.grad, golden["grad" + suffix], rtol=3e-4, atol=1e-6)


def test_margins_equal_the_golden_values_of_metasaug() -> None:
    golden = np.load(GOLDEN / "metasaug_class_weights.npz")
    margins = ldam_margins(golden["counts_0"], dtype=torch.float64)
    np.testing.assert_allclose(margins, golden["ldam_margins_0"], rtol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_equals_an_explicit_loop(weighted: bool) -> None:
    logits, labels, weights = example()
    total = norm = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        row[label] -= 0.4 * COUNTS[label] ** -0.25 / max(n**-0.25 for n in COUNTS)
        row = [10 * value for value in row]
        weight = weights[label].item() if weighted else 1.0
        total += weight * (math.log(sum(math.exp(value) for value in row)) - row[label])
        norm += weight
    value = ldam_loss(logits, labels, COUNTS, 0.4, 10, weights if weighted else None)
    assert value.item() == pytest.approx(total / norm, rel=1e-12)


def test_gradient() -> None:
    logits, labels, weights = example()
    torch.autograd.gradcheck(
        lambda z: ldam_loss(z, labels, COUNTS, scale=5, class_weights=weights),
        logits.requires_grad_(),
    )


def test_zero_margin_is_the_cross_entropy_of_scaled_logits() -> None:
    logits, labels, weights = example()
    expected = cross_entropy(30 * logits, labels, weight=weights)
    torch.testing.assert_close(ldam_loss(logits, labels, COUNTS, 0, 30, weights), expected)
    torch.testing.assert_close(
        margin_cross_entropy(logits, labels, torch.zeros(4), 30, weights), expected
    )


def test_an_absent_class_has_the_largest_margin_and_changes_no_other() -> None:
    margins = ldam_margins([90, 0, 5])
    torch.testing.assert_close(margins[[0, 2]], ldam_margins([90, 5]))
    assert margins[1].item() == 0.5


def test_half_precision_is_computed_in_float32() -> None:
    logits, labels, _ = example()
    half = logits.half()
    loss = ldam_loss(half, labels, COUNTS)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, ldam_loss(half.float(), labels, COUNTS))


def test_bad_arguments_are_refused() -> None:
    logits, labels, _ = example()
    with pytest.raises(LongTailedError, match="class_counts must be 4 numbers"):
        ldam_loss(logits, labels, [3, 2])
    with pytest.raises(LongTailedError, match="max_margin must not be negative"):
        ldam_loss(logits, labels, COUNTS, max_margin=-0.1)
    with pytest.raises(LongTailedError, match=r"margins must have the shape \[4\]"):
        margin_cross_entropy(logits, labels, torch.zeros(3))
