from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from longtailed.errors import LongTailedError
from longtailed.losses import isda_logits, risda_logits, semantic_variance

# torch's own forward-mode formulas are compiled at their first use, in a way that it warns of.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script")

FORMS = [("full", 9), ("full", 3), ("diagonal", 9), ("diagonal", 3)]  # more and fewer than classes
CLASSES, FEATURES = 5, 4


def example(kind: str, samples: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return weight, labels (some classes absent) and covariance in float64."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(CLASSES, FEATURES, generator=generator, dtype=torch.float64)
    labels = torch.randint(CLASSES - 1, (samples,), generator=generator)
    root = torch.randn(CLASSES, FEATURES, FEATURES, generator=generator, dtype=torch.float64)
    covariance = root @ root.mT if kind == "full" else root[:, 0].square()
    return weight, labels, covariance


def by_loop(weight: Tensor, labels: Tensor, covariance: Tensor) -> Tensor:
    rows = []
    for label in labels.tolist():
        matrix = covariance[label] if covariance.ndim == 3 else covariance[label].diag()
        rows.append(
            torch.stack([(w - weight[label]) @ matrix @ (w - weight[label]) for w in weight])
        )
    return torch.stack(rows)


def symmetric(covariance: Tensor) -> Tensor:
    return 0.5 * (covariance + covariance.mT) if covariance.ndim == 3 else covariance


@pytest.mark.parametrize(("kind", "samples"), FORMS)
def test_variance_and_gradients_equal_an_explicit_loop(kind: str, samples: int) -> None:
    weight, labels, covariance = example(kind, samples)
    inputs = (weight.requires_grad_(), covariance.requires_grad_())
    ours = semantic_variance(weight, labels, covariance)
    theirs = by_loop(weight, labels, covariance)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    direction = torch.randn(theirs.shape, dtype=torch.float64)
    for got, wanted in zip(
        torch.autograd.grad(ours, inputs, direction),
        torch.autograd.grad(theirs, inputs, direction),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("kind", "samples"), FORMS)
def test_derivatives_of_first_and_second_order(kind: str, samples: int) -> None:
    weight, labels, covariance = example(kind, samples)
    inputs = (weight.requires_grad_(), covariance.requires_grad_())

    def variance(weight: Tensor, covariance: Tensor) -> Tensor:
        return semantic_variance(weight, labels, symmetric(covariance))

    assert torch.autograd.gradcheck(
        variance, inputs, check_forward_ad=True, check_batched_grad=True
    )
    assert torch.autograd.gradgradcheck(variance, inputs, check_fwd_over_rev=True)


@pytest.mark.parametrize(("kind", "samples"), FORMS)
def test_function_transforms_equal_double_backward(kind: str, samples: int) -> None:
    weight, labels, covariance = example(kind, samples)
    logits = torch.randn(samples, CLASSES, dtype=torch.float64)
    tangent = torch.randn_like(weight)

    def by_covariance(weight: Tensor) -> Tensor:
        def loss(covariance: Tensor) -> Tensor:
            return cross_entropy(isda_logits(logits, labels, weight, covariance, 0.7), labels)

        return torch.func.grad(loss)(covariance)

    change = torch.func.jvp(by_covariance, (weight,), (tangent,))[1]
    weight.requires_grad_()
    leaf = covariance.clone().requires_grad_()
    augmented = logits + 0.35 * by_loop(weight, labels, leaf)
    (first,) = torch.autograd.grad(cross_entropy(augmented, labels), weight, create_graph=True)
    (wanted,) = torch.autograd.grad((first * tangent).sum(), leaf)
    torch.testing.assert_close(change, symmetric(wanted), rtol=1e-10, atol=1e-12)

    each = torch.func.vmap(lambda s: semantic_variance(weight.detach(), labels, s * covariance))
    scales = torch.tensor([1.0, 2.0], dtype=torch.float64)
    wanted = semantic_variance(weight.detach(), labels, covariance)
    torch.testing.assert_close(each(scales), torch.stack([wanted, 2 * wanted]))


@pytest.mark.parametrize(("kind", "samples"), FORMS)
def test_the_true_class_has_variance_exactly_zero_and_a_common_shift_changes_nothing(
    kind: str, samples: int
) -> None:
    weight, labels, covariance = (
        x.float() if x.is_floating_point() else x for x in example(kind, samples)
    )
    variance = semantic_variance(weight, labels, covariance)
    assert variance.gather(1, labels[:, None]).eq(0).all()
    assert variance.ge(0).all()
    shifted = semantic_variance(weight + 100, labels, covariance)
    torch.testing.assert_close(shifted, variance, rtol=1e-4, atol=1e-4)
    assert shifted.gather(1, labels[:, None]).eq(0).all()


@pytest.mark.parametrize("samples", [9, 3])
def test_full_equals_diagonal_for_diagonal_covariances(samples: int) -> None:
    weight, labels, variances = example("diagonal", samples)
    full = semantic_variance(weight, labels, variances.diag_embed())
    torch.testing.assert_close(
        full, semantic_variance(weight, labels, variances), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(("kind", "samples"), FORMS)
def test_logits_are_shifted_by_half_the_scaled_variance(kind: str, samples: int) -> None:
    weight, labels, covariance = example(kind, samples)
    logits = torch.randn(samples, CLASSES, dtype=torch.float64)
    wanted = logits + 0.5 * 0.3 * by_loop(weight, labels, covariance)
    for strength in (0.3, torch.tensor(0.3, dtype=torch.float64)):
        torch.testing.assert_close(
            isda_logits(logits, labels, weight, covariance, strength),
            wanted,
            rtol=1e-12,
            atol=1e-12,
        )
    assert isda_logits(logits, labels, weight, covariance, 0.0).equal(logits)
    assert isda_logits(logits, labels, weight, 0 * covariance, 1.0).equal(logits)


@pytest.mark.parametrize(("kind", "samples"), FORMS)
def test_the_mean_shift_equals_an_explicit_loop(kind: str, samples: int) -> None:
    weight, labels, covariance = example(kind, samples)
    logits = torch.randn(samples, CLASSES, dtype=torch.float64)
    displacement = torch.randn(CLASSES, FEATURES, dtype=torch.float64)
    wanted = logits + 0.5 * 0.3 * by_loop(weight, labels, covariance)
    for i, y in enumerate(labels.tolist()):
        wanted[i] += 0.7 * torch.stack([(w - weight[y]) @ displacement[y] for w in weight])
    alpha, beta = torch.tensor(0.7, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    got = risda_logits(logits, labels, weight, covariance, displacement, alpha, beta)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    own = got.gather(1, labels[:, None])
    assert own.equal(logits.gather(1, labels[:, None]))


@pytest.mark.parametrize(("kind", "samples"), FORMS)
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_computed_in_float32(kind: str, samples: int, autocast: bool) -> None:
    weight, labels, covariance = (
        x.float() if x.is_floating_point() else x for x in example(kind, samples)
    )
    displacement = torch.randn(CLASSES, FEATURES)
    half = torch.randn(samples, CLASSES).bfloat16()
    given = weight if autocast else weight.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        got = risda_logits(half, labels, given, covariance, displacement, 0.5, 0.5)
    assert got.dtype == torch.float32
    wanted = risda_logits(half.float(), labels, given.float(), covariance, displacement, 0.5, 0.5)
    assert got.equal(wanted)


def test_misfits_are_refused_in_words() -> None:
    weight, labels, covariance = example("full", 9)
    logits = torch.zeros(9, CLASSES)
    with pytest.raises(
        LongTailedError, match=r"covariance must be .* diagonal \[5, 4\] or full \[5, 4, 4\]"
    ):
        semantic_variance(weight, labels, covariance[:, :3])
    with pytest.raises(LongTailedError, match="covariance must be floating point"):
        semantic_variance(weight, labels, covariance.long())
    with pytest.raises(LongTailedError, match=r"weight must be floating point \[C, A\]"):
        semantic_variance(weight[0], labels, covariance)
    with pytest.raises(LongTailedError, match=r"labels must be int64 \[N\]"):
        semantic_variance(weight, labels.float(), covariance)
    with pytest.raises(LongTailedError, match=r"labels must be int64 .9."):
        isda_logits(logits, labels[:3], weight, covariance, 1.0)
    with pytest.raises(
        LongTailedError, match="one row for each of the 4 columns of logits; it has 5"
    ):
        isda_logits(logits[:, :4], labels, weight, covariance, 1.0)
    with pytest.raises(
        LongTailedError, match=r"displacement must have the weight's shape \[5, 4\]"
    ):
        risda_logits(logits, labels, weight, covariance, covariance, 1.0, 1.0)
