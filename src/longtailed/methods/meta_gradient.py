"""MetaSAug's meta gradient: how the loss on a meta batch depends on the class covariances."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812

from longtailed.errors import LongTailedError
from longtailed.losses.inputs import full_precision
from longtailed.methods.tangents import ConvolutionRecord, buffer_copies, logits_tangent

MetaCriterion = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
LabelledInputs = tuple[Tensor, Tensor]


def meta_covariance_gradient(
    model: nn.Module,
    criterion: MetaCriterion,
    covariance: Tensor,
    batch: LabelledInputs,
    meta_batch: LabelledInputs,
    inner_lr: float | Tensor,
) -> Tensor:
    """Return dL2/dS, of the shape of S = `covariance`: [C, A, A] or [C, A].

    With theta the parameters of `model` that require a gradient and W its head's weight [C, A],

        L1(theta, S) = criterion(z(theta; x), y, W, S)           on `batch` = (x, y)
        theta~ = theta - inner_lr * dL1/dtheta                   one virtual step
        L2(theta~) = cross-entropy of z(theta~; x'), y'          on `meta_batch` = (x', y')
        dL2/dS = -inner_lr * d/dt [dL1/dS at theta + t V] at 0   with V = dL2/dtheta~

    `model(x)` returns (features [N, A], logits [N, C]), and `model.head.weight` is W. `criterion`
    must be differentiable twice. The derivative in t is one forward-mode pass of the network; no
    graph of second order is built of it, and the result is exact. The model stays as it is, with
    its running statistics; in training mode its passes use those of their batches.

    Raises `LongTailedError` if nothing of the model requires a gradient or the covariance has
    another number of classes or features than the head's weight. Paper: arXiv 2103.12579.
    """
    with ConvolutionRecord() as record:
        logits = functional_call(model, buffer_copies(model), (batch[0],))[1]
    return gradient_from_logits(
        model, logits, record, criterion, covariance, batch, meta_batch, inner_lr
    )


def gradient_from_logits(
    model: nn.Module,
    logits: Tensor,
    record: ConvolutionRecord,
    criterion: MetaCriterion,
    covariance: Tensor,
    batch: LabelledInputs,
    meta_batch: LabelledInputs,
    inner_lr: float | Tensor,
) -> Tensor:
    """Return `meta_covariance_gradient`, given the logits of `batch` and the record of that pass.

    The graph of the logits is kept, so that the ordinary step can use it too.
    """
    head: Any = model.head
    _check_covariance(covariance, head.weight)
    z, weight, leaf = (
        tensor.detach().requires_grad_() for tensor in (logits, head.weight, covariance)
    )
    loss = criterion(z, batch[1], weight, leaf)
    dz, dw = torch.autograd.grad(loss, (z, weight), create_graph=True)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    through_logits = torch.autograd.grad(
        logits, list(parameters.values()), dz.detach(), retain_graph=True, allow_unused=True
    )
    with torch.no_grad():
        gradients = {
            name: torch.zeros_like(p) if g is None else g
            for (name, p), g in zip(parameters.items(), through_logits, strict=True)
        }
        for name, parameter in parameters.items():
            if parameter is head.weight:
                gradients[name] = gradients[name] + dw
    direction = _meta_direction(model, parameters, gradients, meta_batch, inner_lr)
    moved_logits = logits_tangent(model, parameters, direction, batch[0], record)
    # d/dt dL1/dS along (dz/dt, dW/dt) is the derivative in S of L1's slope along them.
    slope = (dz * moved_logits).sum()
    for name, parameter in parameters.items():
        if parameter is head.weight:
            slope = slope + (dw * direction[name]).sum()
    (gradient,) = torch.autograd.grad(slope, leaf)
    return -inner_lr * gradient


def _meta_direction(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    meta_batch: LabelledInputs,
    inner_lr: float | Tensor,
) -> dict[str, Tensor]:
    """Return V = dL2/dtheta~ by parameter, with theta~ one step of plain SGD from theta."""
    with torch.no_grad():
        steps = torch._foreach_mul(list(gradients.values()), inner_lr)
        values = torch._foreach_sub([p.detach() for p in parameters.values()], steps)
    ahead = {name: value.requires_grad_() for name, value in zip(parameters, values, strict=True)}
    inputs, labels = meta_batch
    logits = functional_call(model, {**buffer_copies(model), **ahead}, (inputs,))[1]
    loss = F.cross_entropy(full_precision(logits), labels)
    direction = torch.autograd.grad(loss, list(ahead.values()), allow_unused=True)
    return {
        name: torch.zeros_like(p) if v is None else v
        for (name, p), v in zip(parameters.items(), direction, strict=True)
    }


def _check_covariance(covariance: Tensor, weight: Tensor) -> None:
    classes, features = weight.shape
    if covariance.shape not in ((classes, features), (classes, features, features)):
        raise LongTailedError(
            f"the covariance must have the shape [{classes}, {features}] or [{classes}, "
            f"{features}, {features}] for this head; it has {list(covariance.shape)}."
        )


def classifier_meta_gradient(
    batch: LabelledInputs,
    meta_batch: LabelledInputs,
    weight: Tensor,
    bias: Tensor | None,
    covariance: Tensor,
    strength: float | Tensor,
    inner_lr: float | Tensor,
    class_weights: Tensor | None = None,
    margins: Tensor | None = None,
) -> Tensor:
    """Return dL2/dS [C, A] where only a linear classifier is trained and S [C, A] is diagonal.

    `meta_covariance_gradient` in closed form, on features instead of images: batch = (f [N, A],
    y [N]), weight W [C, A], bias b [C]. L1 is the weighted cross-entropy of the augmented logits
    minus `margins` [C] at the true class. Products of matrices only; no gradient is recorded.

    With s_i = S[y_i], v_i = W[y_i], p_i the softmax of the augmented logits, r_i the sample's
    share of the class weights and G_i = r_i (p_i - onehot(y_i)), the gradient of class k is
    -inner_lr * strength/2 * sum of t_i over y_i = k, where t_i is the derivative of
    sum_c G_ic (w_c - v_i)^2 along V = dL2/d(W, b) at the classifier after its virtual step.
    """
    with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
        features, labels = batch[0].to(weight), batch[1]
        s, v = covariance[labels], weight[labels]
        squared = weight * weight
        variance = s @ squared.T - 2 * (s * v) @ weight.T + (s * v * v).sum(1, keepdim=True)
        logits = F.linear(features, weight, bias) + 0.5 * strength * variance
        onehot = _onehot(labels, weight)
        if margins is not None:
            logits = logits - margins.to(weight) * onehot
        share = torch.ones_like(s[:, 0]) if class_weights is None else class_weights[labels]
        share = (share / share.sum()).to(weight)[:, None]
        p = logits.softmax(1)
        g = share * (p - onehot)
        # One virtual step; g sums to 0 over the classes.
        pull = strength * s * (g @ weight)
        dw = g.T @ features + strength * ((g.T @ s) * weight - g.T @ (s * v))
        ahead = weight - inner_lr * dw.index_add(0, labels, pull, alpha=-1)
        ahead_bias = None if bias is None else bias - inner_lr * g.sum(0)
        # V, the gradient on the meta batch.
        meta, meta_labels = meta_batch[0].to(weight), meta_batch[1]
        error = F.linear(meta, ahead, ahead_bias).softmax(1)
        error = (error - _onehot(meta_labels, weight)) / len(meta)
        vw = error.T @ meta
        q = vw[labels]
        # The derivatives of the augmented logits, of g and of t along V.
        ds = 2 * (
            s @ (weight * vw).T
            - (s * v) @ vw.T
            - (s * q) @ weight.T
            + (s * v * q).sum(1, keepdim=True)
        )
        dz = features @ vw.T + 0.5 * strength * ds
        if bias is not None:
            dz = dz + error.sum(0)
        dg = share * p * (dz - (p * dz).sum(1, keepdim=True))
        t = dg @ squared - 2 * v * (dg @ weight)
        t = t + 2 * (g @ (weight * vw) - v * (g @ vw) - q * (g @ weight))
        summed = torch.zeros_like(covariance).index_add(0, labels, t)
        return -0.5 * inner_lr * strength * summed


def _onehot(labels: Tensor, weight: Tensor) -> Tensor:
    """Return [N, C] in the weight's precision; unlike torch's it reads nothing on the host."""
    return (labels[:, None] == torch.arange(len(weight), device=labels.device)).to(weight)
