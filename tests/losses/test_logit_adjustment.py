from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from longtailed.errors import LongTailedError
from longtailed.losses import log_prior, logit_adjusted_loss, soft_cross_entropy

GOLDEN = Path(__file__).parents[1] / "golden"
COUNTS = [50, 9, 2]


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 2, 1, 0, 2])
    soft = torch.rand(5, 3, generator=generator, dtype=torch.float64).softmax(dim=1)
    return logits, labels, soft


@pytest.mark.parametrize("kind", ["hard", "soft", "mix"])
def test_equals_the_golden_values_and_gradients(kind: str) -> None:
    golden = np.load(GOLDEN / "logit_adjust.npz")
    logits = torch.tensor(golden["logits_0"], requires_grad=True)
    first, second = torch.tensor(golden["targets_0"]), torch.tensor(golden["targets_b_0"])
    share = float(golden["lam_0"])
    num_classes = logits.shape[1]
    targets = {
        "hard": first,
        "soft": torch.tensor(golden["soft_targets_0"]),
        "mix": share * one_hot(first, num_classes) + (1 - share) * one_hot(second, num_classes),
    }[kind]
    loss = logit_adjusted_loss(logits, targets, golden["cls_num_0"], float(golden["tau_0"]))
    loss.backward()
    assert loss.dtype == torch.float32
    np.testing.assert_allclose(loss.item(), golden[f"loss_{kind}_0"], rtol=1e-5)
    np.testing.assert_allclose(logits.grad, golden[f"grad_{kind}_0"], rtol=3e-4, atol=1e-6)


def test_equals_an_explicit_loop() -> None:
    logits, labels, soft = example()
    hard_total = soft_total = 0.0
    for row, label, target in zip(logits.tolist(), labels.tolist(), soft.tolist(), strict=True):
        shifted = [z + 0.7 * math.log(n / sum(COUNTS)) for z, n in zip(row, COUNTS, strict=True)]
        log_sum = math.log(sum(math.exp(z) for z in shifted))
        hard_total += log_sum - shifted[label]
        soft_total += sum(t * (log_sum - z) for t, z in zip(target, shifted, strict=True))
    hard = logit_adjusted_loss(logits, labels, COUNTS, tau=0.7)
    assert hard.item() == pytest.approx(hard_total / 5, rel=1e-12)
    value = logit_adjusted_loss(logits, soft, COUNTS, tau=0.7)
    assert value.item() == pytest.approx(soft_total / 5, rel=1e-12)


def test_gradients() -> None:
    logits, labels, soft = example()
    logits.requires_grad_()
    torch.autograd.gradcheck(lambda z: logit_adjusted_loss(z, labels, COUNTS), logits)
    torch.autograd.gradcheck(
        lambda z, t: logit_adjusted_loss(z, t, COUNTS, tau=1.5), (logits, soft.requires_grad_())
    )


def test_tau_zero_is_the_cross_entropy() -> None:
    logits, labels, soft = example()
    assert torch.equal(
        logit_adjusted_loss(logits, labels, COUNTS, tau=0), cross_entropy(logits, labels)
    )
    torch.testing.assert_close(
        logit_adjusted_loss(logits, soft, COUNTS, tau=0), cross_entropy(logits, soft)
    )


def test_balanced_counts_change_nothing() -> None:
    logits, labels, _ = example()
    torch.testing.assert_close(
        logit_adjusted_loss(logits, labels, [7, 7, 7]), cross_entropy(logits, labels)
    )


def test_an_absent_class_counts_as_one_sample() -> None:
    logits, labels, soft = example()
    for targets in (labels, soft):
        loss = logit_adjusted_loss(logits, targets, [50, 0, 2])
        torch.testing.assert_close(loss, logit_adjusted_loss(logits, targets, [50, 1, 2]))
        assert bool(loss.isfinite())


def test_log_prior_is_normalized() -> None:
    assert log_prior([8, 0, 3]).exp().sum().item() == pytest.approx(1)


def test_soft_targets_may_be_negative() -> None:
    logits, _, soft = example()
    log_probability = logits.log_softmax(dim=1)
    targets = 2 * soft - 0.5
    torch.testing.assert_close(
        soft_cross_entropy(logits, targets), -(targets * log_probability).sum() / len(logits)
    )


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = logit_adjusted_loss(logits, torch.tensor([[0.2, 0.5, 0.3]]), COUNTS)
    loss.backward()
    assert logits.grad is not None
    assert bool(loss.isfinite() & logits.grad.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    logits, labels, _ = example()
    half = logits.to(dtype)
    loss = logit_adjusted_loss(half, labels, COUNTS)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, logit_adjusted_loss(half.float(), labels, COUNTS))


def test_bad_shapes_are_refused() -> None:
    logits, labels, soft = example()
    with pytest.raises(LongTailedError, match=r"soft targets must both have the shape \[N, C\]"):
        logit_adjusted_loss(logits, soft[:, :2], COUNTS)
    with pytest.raises(LongTailedError, match=r"labels must be int64 \[5\]"):
        logit_adjusted_loss(logits, labels.int(), COUNTS)
    with pytest.raises(LongTailedError, match="class_counts must be 3 numbers"):
        logit_adjusted_loss(logits, labels, [3, 2])
