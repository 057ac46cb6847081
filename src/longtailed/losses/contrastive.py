"""Contrastive losses on labelled embeddings: supervised, and balanced over the classes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from longtailed.errors import LongTailedError
from longtailed.losses.inputs import full_precision

MIN_TEMPERATURE = 1e-6  # similarities beyond 1e6 have no digits left in float32
EXCLUDED = -1e30
"""A similarity that adds nothing to a log-sum-exp, yet times 0 is 0 (minus infinity is not)."""


def balanced_contrastive_loss(
    features: Tensor, labels: Tensor, prototypes: Tensor, temperature: float = 0.1
) -> Tensor:
    """Return the balanced contrastive loss, a scalar: every class weighs the same in it.

    The features of V views [N, V, d] and the prototypes [C, d] are one set of vectors v_j with
    classes y_j (prototype c has class c); n_c of them have class c. With s_ij = <v_i, v_j> / T

        D_i = sum_{j != i} exp(s_ij) / (n_{y_j} - [y_j = y_i])
        l_i = mean_{j != i, y_j = y_i} (log D_i - s_ij)

    and the loss is the mean of l_i over the N V features. The prototypes keep every class in every
    denominator and give every feature a positive. `labels` are int64 [N]; features and prototypes
    must be normalised to length 1 (the gradient is that of the values as given).

    Raises `LongTailedError` for shapes or types that do not fit, an empty batch, a temperature that
    is infinite or below 1e-6 and, on a CPU, a label that is not in 0..C-1.
    Paper: arXiv 2207.09052. Departures from the authors' code: a log-sum-exp with the class sizes
    as offsets, in place of dense masks and one-hot matrices; any number of views.
    """
    _check(features, labels, temperature)
    if prototypes.ndim != 2 or prototypes.shape[1] != features.shape[2]:
        raise LongTailedError(
            f"prototypes must have the shape [C, {features.shape[2]}], one row for each class; "
            f"they are {list(prototypes.shape)}."
        )
    anchors, classes = _anchors(features, labels)
    with torch.autocast(features.device.type, enabled=False):  # 16 bits are too few for exp(s)
        loss: Tensor = _BalancedContrast.apply(
            anchors, full_precision(prototypes).to(anchors.dtype), classes, temperature
        )
    return loss


class _BalancedContrast(torch.autograd.Function):
    """The loss above for anchors [M, d], prototypes [C, d] and classes [M].

    The gradient is written out because the similarities turn into it in place: beside the products
    of matrices and one M x (M + C) table nothing is computed or kept.
    """

    @staticmethod
    def forward(
        ctx: Any, anchors: Tensor, prototypes: Tensor, classes: Tensor, temperature: float
    ) -> Tensor:
        sizes = _class_sizes(classes, prototypes)
        own = sizes[classes]
        others = own - 1  # of the anchor's own class, without the anchor
        column = classes[:, None]
        same = _same_class(classes).to(anchors.dtype)
        # Similarities minus the log of their weight: n_{y_j}, but n_{y_j} - 1 in the own class.
        correction = own.log().sub_(others.log())[:, None]
        among = torch.addmm(-own.log(), anchors, anchors.T, alpha=1 / temperature)
        among.addcmul_(same, correction).fill_diagonal_(EXCLUDED)
        to_prototypes = torch.addmm(-sizes.log(), anchors, prototypes.T, alpha=1 / temperature)
        to_prototypes.scatter_add_(1, column, correction)
        positives = (among * same).sum(1) + to_prototypes.gather(1, column)[:, 0]
        highest = torch.maximum(among.amax(1), to_prototypes.amax(1))[:, None]
        among.sub_(highest).exp_()
        to_prototypes.sub_(highest).exp_()
        denominator = among.sum(1) + to_prototypes.sum(1)
        losses = denominator.log() + highest[:, 0] - positives / others - others.log()
        # From here on both tables are the gradient: (softmax - [positive] / others) / (M T).
        share = 1 / (len(anchors) * temperature)
        scale, pull = (share / denominator)[:, None], (-share / others)[:, None]
        among.mul_(scale).addcmul_(same, pull)
        to_prototypes.mul_(scale).scatter_add_(1, column, pull)
        ctx.save_for_backward(anchors, prototypes, among, to_prototypes)
        return losses.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        anchors, prototypes, among, to_prototypes = ctx.saved_tensors
        to_anchors = torch.mm(to_prototypes, prototypes).addmm_(among + among.T, anchors)
        return to_anchors.mul_(gradient), (to_prototypes.T @ anchors).mul_(gradient), None, None


def supervised_contrastive_loss(
    features: Tensor, labels: Tensor, temperature: float = 0.1
) -> Tensor:
    """Return the supervised contrastive loss, a scalar: as above without prototypes or balance.

    l_i = mean_{j != i, y_j = y_i} (log sum_{k != i} exp(s_ik) - s_ij) over the N V features of
    [N, V, d], normalised to length 1; a feature without another of its class gives 0. The loss is
    the mean of l_i.

    Raises `LongTailedError` for shapes or types that do not fit, an empty batch and a temperature
    that is infinite or below 1e-6. Paper: arXiv 2004.11362, with the mean outside the logarithm and
    without the factor T / 0.07 of the authors' code.
    """
    _check(features, labels, temperature)
    with torch.autocast(features.device.type, enabled=False):
        anchors, classes = _anchors(features, labels)
        among = torch.mm(anchors / temperature, anchors.T)
        among.fill_diagonal_(EXCLUDED)
        same = _same_class(classes)
        others = same.sum(1)
        losses = among.logsumexp(1) - (among * same).sum(1) / others.clamp_min(1)
        return torch.where(others > 0, losses, 0.0).mean()


def _class_sizes(classes: Tensor, prototypes: Tensor) -> Tensor:
    """How many vectors each class has, its prototype included: [C]."""
    sizes = prototypes.new_ones(len(prototypes))
    try:
        return sizes.index_add_(0, classes, sizes.new_ones(len(classes)))
    except IndexError:  # a CPU says so; nothing reads a GPU's labels here
        raise LongTailedError(
            f"a label is not in 0..{len(prototypes) - 1}, the classes of the prototypes."
        ) from None


def _check(features: Tensor, labels: Tensor, temperature: float) -> None:
    if features.ndim != 3:
        raise LongTailedError(
            f"features must have the shape [N, views, d]; they are {list(features.shape)}."
        )
    if labels.dtype != torch.int64 or labels.shape != features.shape[:1]:
        raise LongTailedError(
            f"labels must be int64 [{len(features)}], one for each row of features; they are "
            f"{labels.dtype} {list(labels.shape)}."
        )
    if features.numel() == 0:
        raise LongTailedError(
            f"features need an image, a view and a dimension; they are {list(features.shape)}."
        )
    if not MIN_TEMPERATURE <= temperature < math.inf:
        raise LongTailedError(
            f"the temperature must be finite and at least {MIN_TEMPERATURE}; it is {temperature}."
        )


def _anchors(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The vectors of all views [N V, d] in at least float32, and their classes [N V]."""
    classes = labels[:, None].expand(features.shape[:2]).flatten()
    return full_precision(features).flatten(0, 1), classes


def _same_class(classes: Tensor) -> Tensor:
    """Whether j is another vector of i's class: bool [M, M]."""
    return (classes[:, None] == classes).fill_diagonal_(False)
