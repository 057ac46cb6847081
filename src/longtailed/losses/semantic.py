"""Semantic augmentation: the loss of infinitely many augmented features, through shifted logits.

Features of class y augmented with normal noise of covariance rho * S_y have, in expectation, a
cross entropy of at most that of the logits

    z'_ic = z_ic + rho / 2 * sigma2_ic,     sigma2_ic = (w_c - w_y)^T S_y (w_c - w_y),   y = y_i,

with the last layer's rows w_c. `semantic_variance` is sigma2, `isda_logits` is z'; `risda_logits`
also moves the mean. The gradient reaches W through z and through sigma2, and S if it wants one.
Row i of sigma2 depends on i only through its label, so there are at most min(N, C) different rows.
With diagonal covariances only matrices are formed. With full ones and C <= N all pairs of classes
are, 2 min(N, C) C A numbers; with C > N the outer products of the rows of W, C A^2, in their place.
Nothing of size N x C x C or N x A x A is ever formed.

Papers: ISDA (arXiv 1909.12220, 2007.10538), MetaSAug (arXiv 2103.12579), RISDA (arXiv 2112.07928).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longtailed.errors import LongTailedError
from longtailed.losses.covariance import centred, check_covariance, outer_sums, without_autocast
from longtailed.losses.inputs import check_labels, full_precision


def semantic_variance(weight: Tensor, labels: Tensor, covariance: Tensor) -> Tensor:
    """Return the variance of each logit relative to the true class's, sigma2 [N, C].

    sigma2_ic = (w_c - w_y)^T S_y (w_c - w_y) with y = y_i, weight W [C, A], labels [N] and
    covariance S full [C, A, A] (symmetric) or diagonal [C, A]; exactly 0 at c = y_i. In float32
    at least. Differentiable in W and S any number of times, also in forward mode.

    Cost, forward and backward by W, in multiplications and numbers held:

    * diagonal: 5 R C A, 4 C A + 4 R A + 2 R C, where R = min(N, C): products of matrices only;
    * full, C <= N: C^2 A^2, 2 C^2 A: one batched product, and none to go back;
    * full, C > N: 2 C^2 A^2, 3 C A^2: products of S with the outer products of W's rows.

    Raises `LongTailedError` for shapes or types that do not fit.
    """
    check_covariance(weight, covariance)
    if labels.dtype != torch.int64 or labels.ndim != 1:
        raise LongTailedError(
            f"labels must be int64 [N], one for each sample; they are {labels.dtype} "
            f"{list(labels.shape)}."
        )
    classes, few_classes = len(weight), len(weight) <= len(labels)
    with without_autocast(weight):
        weight = centred(weight, covariance)
        covariance = covariance.to(weight.dtype)
        if covariance.ndim == 3 and few_classes:
            pairs: Tensor = _ClassPairVariance.apply(weight, covariance)[0]
            return pairs.index_select(0, labels)
        if covariance.ndim == 3:
            table = _outer_variance(weight, covariance)
        elif few_classes:
            table = _diagonal_variance(weight, weight, covariance)
        else:
            rows, variances = weight.index_select(0, labels), covariance.index_select(0, labels)
            is_target = labels[:, None] == torch.arange(classes, device=labels.device)
            return _diagonal_variance(weight, rows, variances).masked_fill(is_target, 0)
        is_target = torch.eye(classes, dtype=torch.bool, device=labels.device)
        return table.masked_fill(is_target, 0).index_select(0, labels)


def isda_logits(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor,
    covariance: Tensor,
    strength: float | Tensor,
) -> Tensor:
    """Return the logits of implicit semantic data augmentation, [N, C]: z + rho / 2 * sigma2.

    For logits z [N, C], `semantic_variance` sigma2 and the strength rho, a number or a 0-d tensor.
    The labels' own logits stay as they are; the cross entropy (or another loss) of the result is
    the augmented loss. Only for training. Strength 0 or a zero covariance changes nothing.

    Raises `LongTailedError` for shapes or types that do not fit.
    Papers: arXiv 1909.12220; with a meta-learned covariance 2103.12579.
    """
    _check_logits(logits, labels, weight)
    variance = semantic_variance(weight, labels, covariance)
    return full_precision(logits) + 0.5 * strength * variance


def risda_logits(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor,
    covariance: Tensor,
    displacement: Tensor,
    alpha: float | Tensor,
    beta: float | Tensor,
) -> Tensor:
    """Return the logits of reasoning-based semantic data augmentation, [N, C].

    z_ic + beta / 2 * sigma2_ic + alpha * (w_c - w_y) . D_y with y = y_i: `isda_logits` of strength
    beta, and a shift of class y's mean by alpha * D_y, the displacement D [C, A]. The logits are
    those of features that are not shifted. alpha and beta are numbers or 0-d tensors.

    Raises `LongTailedError` for shapes or types that do not fit. Paper: arXiv 2112.07928.
    Departure from the authors' code: it shifts the features and the logits, so twice; the same
    loss comes from giving 2 * alpha here.
    """
    if displacement.shape != weight.shape:
        raise LongTailedError(
            f"displacement must have the weight's shape {list(weight.shape)}; it is "
            f"{list(displacement.shape)}."
        )
    augmented = isda_logits(logits, labels, weight, covariance, beta)
    with without_autocast(weight):
        rows = full_precision(weight)
        displacement = displacement.to(rows.dtype)
        if len(weight) <= len(labels):
            shift = (displacement @ rows.mT).index_select(0, labels)
        else:
            shift = displacement.index_select(0, labels) @ rows.mT
    return augmented + alpha * (shift - shift.gather(1, labels[:, None]))


def _check_logits(logits: Tensor, labels: Tensor, weight: Tensor) -> None:
    check_labels(logits, labels)
    if logits.shape[1] != len(weight):
        raise LongTailedError(
            f"weight must have one row for each of the {logits.shape[1]} columns of logits; it has "
            f"{len(weight)}."
        )


def _diagonal_variance(weight: Tensor, rows: Tensor, variances: Tensor) -> Tensor:
    """Return sum_a s_ra (w_ca - v_ra)^2 as [R, C], from its three terms."""
    scaled = variances * rows
    constant = (scaled * rows).sum(dim=1, keepdim=True)
    linear = torch.addmm(constant, scaled, weight.mT, alpha=-2)
    return torch.addmm(linear, variances, weight.square().mT)


def _outer_variance(weight: Tensor, covariance: Tensor) -> Tensor:
    """Return the variances of all pairs of classes [C, C] without anything of size C x C x A."""
    covariance = 0.5 * (covariance + covariance.mT)  # so that its gradient is symmetric too
    outer = (weight[:, :, None] * weight[:, None, :]).flatten(1)
    scaled = torch.bmm(covariance, weight[:, :, None]).squeeze(2)
    constant = (scaled * weight).sum(dim=1, keepdim=True)
    linear = torch.addmm(constant, scaled, weight.mT, alpha=-2)
    return torch.addmm(linear, covariance.flatten(1), outer.mT)


class _ClassPairVariance(torch.autograd.Function):
    """The variances of all pairs of classes [C, C], and S_u (w_c - w_u) as [C, C, A].

    With the second output the gradient by W needs no further batched product, where
    automatic differentiation would do one. It is an output so that derivatives of the gradient
    find it; its own gradient is asked for only by them. Needs symmetric covariances.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        difference = weight[None] - weight[:, None]
        product = torch.bmm(difference, covariance)
        return torch.linalg.vecdot(product, difference), product

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, output[1])
        ctx.save_for_forward(*inputs, output[1])

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor | None, product_gradient: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        weight, covariance, product = ctx.saved_tensors
        by_weight, by_covariance = None, None
        if gradient is not None:
            # Row c of W is w_c in column c of the table and w_u in row c.
            in_column = torch.bmm(
                gradient.mT.contiguous()[:, None], product.transpose(0, 1)
            ).squeeze(1)
            in_row = torch.bmm(gradient[:, None], product).squeeze(1)
            by_weight = 2 * (in_column - in_row)
            if ctx.needs_input_grad[1]:
                by_covariance = outer_sums(weight, weight, gradient)
        if product_gradient is not None:
            through = torch.bmm(product_gradient, covariance)
            more = through.sum(dim=0) - through.sum(dim=1)
            by_weight = more if by_weight is None else by_weight + more
            if ctx.needs_input_grad[1]:
                difference = weight[None] - weight[:, None]
                sums = torch.bmm(difference.mT, product_gradient)
                more = 0.5 * (sums + sums.mT)  # the gradient among symmetric covariances
                by_covariance = more if by_covariance is None else by_covariance + more
        return by_weight, by_covariance

    @staticmethod
    def jvp(
        ctx: Any, weight_tangent: Tensor | None, covariance_tangent: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        weight, covariance, product = ctx.saved_tensors
        variance, change = torch.zeros_like(product[..., 0]), torch.zeros_like(product)
        if weight_tangent is not None:
            difference = weight_tangent[None] - weight_tangent[:, None]
            variance = variance + 2 * torch.linalg.vecdot(product, difference)
            change = change + torch.bmm(difference, covariance)
        if covariance_tangent is not None:
            difference = weight[None] - weight[:, None]
            by_covariance = torch.bmm(difference, covariance_tangent)
            variance = variance + torch.linalg.vecdot(by_covariance, difference)
            change = change + by_covariance
        return variance, change
