"""Class covariances as tensors: sums over pairs of classes, and reasoning from class to class.

A covariance is full, S [C, A, A] (symmetric), or diagonal, S [C, A] (variances), for C classes and
A features. Everything here is made of plain differentiable operations, so forward-mode and double
differentiation go through it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from longtailed.errors import LongTailedError, unknown_name

KINDS = ("full", "diagonal")


def check_kind(kind: str) -> None:
    """Return nothing; raise `LongTailedError` unless the kind is "full" or "diagonal"."""
    if kind not in KINDS:
        raise unknown_name("kind of covariance", kind, KINDS)


def check_covariance(weight: Tensor, covariance: Tensor) -> None:
    """Return nothing; raise `LongTailedError` unless W is [C, A] and S [C, A] or [C, A, A]."""
    if weight.ndim != 2 or not weight.is_floating_point():
        raise LongTailedError(
            f"weight must be floating point [C, A], one row for each class; it is {weight.dtype} "
            f"{list(weight.shape)}."
        )
    classes, features = weight.shape
    if not covariance.is_floating_point() or covariance.shape not in (
        (classes, features),
        (classes, features, features),
    ):
        raise LongTailedError(
            f"covariance must be floating point, diagonal [{classes}, {features}] or full "
            f"[{classes}, {features}, {features}], to fit the weight; it is {covariance.dtype} "
            f"{list(covariance.shape)}."
        )


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Return a context in which products of float32 tensors stay float32."""
    kind = tensor.device.type
    if not torch.amp.is_autocast_available(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def centred(weight: Tensor, *others: Tensor) -> Tensor:
    """Return W less the mean of its rows, in the widest precision given, float32 at least.

    Only differences of rows matter where this is used; smaller rows cancel less. The mean needs
    no gradient, because moving all rows alike changes nothing.
    """
    dtype = torch.float32
    for tensor in (weight, *others):
        dtype = torch.promote_types(dtype, tensor.dtype)
    weight = weight.to(dtype)
    return weight - weight.detach().mean(dim=0)


def outer_sums(weight: Tensor, rows: Tensor, factors: Tensor) -> Tensor:
    """Return sum_c G_rc (w_c - v_r)(w_c - v_r)^T as [R, A, A], exactly symmetric."""
    size = weight.shape[1]
    outer = weight[:, :, None] * weight[:, None, :]
    sums = (factors @ outer.flatten(1)).view(-1, size, size)
    linear = 0.5 * factors.sum(dim=1, keepdim=True) * rows - factors @ weight
    cross = rows[:, :, None] * linear[:, None, :]
    sums = sums + (cross + cross.mT)
    return 0.5 * (sums + sums.mT)


def reason_covariance(covariance: Tensor, graph: Tensor, tail: Tensor) -> Tensor:
    """Return the covariances with those of the tail classes reasoned from all classes.

    S'_t = sum_c K_tc S_c for each class t in `tail` (int64 [T], without repetition), S'_c = S_c
    for the others, with the class-relation graph K [C, C] and covariances S [C, A] or [C, A, A].
    All right-hand sides are the values given. One product of [T, C] with S.

    Raises `LongTailedError` for shapes or types that do not fit. Paper: RISDA
    (arXiv 2112.07928); its code stores the result as the new statistics at every step, which the
    caller may do.
    """
    classes = len(covariance)
    if covariance.ndim not in (2, 3) or graph.shape != (classes, classes):
        raise LongTailedError(
            f"graph must have the shape [C, C] and covariance [C, A] or [C, A, A]; they are "
            f"{list(graph.shape)} and {list(covariance.shape)}."
        )
    if tail.dtype != torch.int64 or tail.ndim != 1:
        raise LongTailedError(
            f"tail must hold the numbers of the tail classes, int64 [T]; it is {tail.dtype} "
            f"{list(tail.shape)}."
        )
    with without_autocast(covariance):
        flat = covariance.flatten(1)
        reasoned = graph.to(flat).index_select(0, tail) @ flat
        return flat.index_copy(0, tail, reasoned).view_as(covariance)
