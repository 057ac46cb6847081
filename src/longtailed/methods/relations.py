"""Relations between classes: which classes the images of each are taken for, and which are rare."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from longtailed.errors import LongTailedError


def class_relation_graph(
    predictions: Tensor, labels: Tensor, num_classes: int, decimals: int | None = 2
) -> Tensor:
    """Return the share of each class's samples predicted as each class, float64 [C, C].

    K[r, c] = |{i: y_i = r, p_i = c}| / |{i: y_i = r}| for predicted classes p [N] and labels y [N],
    rounded to `decimals` (ties to the even digit), or exact if that is None. Rounded rows need not
    sum to 1. Raises `LongTailedError` for shapes or types that do not fit.

    Paper: RISDA (arXiv 2112.07928). Departure: a class without samples is related to itself alone;
    the authors' code divides by zero.
    """
    for name, tensor in (("predictions", predictions), ("labels", labels)):
        if tensor.dtype != torch.int64 or tensor.ndim != 1 or len(tensor) != len(labels):
            raise LongTailedError(
                f"{name} must be classes, int64 [N], as many as labels; they are {tensor.dtype} "
                f"{list(tensor.shape)}."
            )
    counts = torch.zeros(num_classes, num_classes, dtype=torch.float64, device=labels.device)
    count_predictions(counts, predictions, labels)
    return relation_shares(counts, decimals)


def count_predictions(counts: Tensor, predictions: Tensor, labels: Tensor) -> None:
    """Add the samples to the confusion `counts` [C, C] (true by predicted class) in place."""
    places = labels * len(counts) + predictions
    counts.view(-1).index_add_(0, places, torch.ones_like(places, dtype=counts.dtype))


def relation_shares(counts: Tensor, decimals: int | None) -> Tensor:
    """Return the rows of confusion counts [C, C] over their sums, rounded; float64."""
    exact = counts.double()
    total = exact.sum(dim=1, keepdim=True)
    own = torch.eye(len(counts), dtype=torch.float64, device=counts.device)
    shares = torch.where(total > 0, exact / total.clamp_min(1), own)
    if decimals is None:
        return shares
    unit = 10.0**decimals
    return torch.round(shares * unit) / unit


def tail_classes(class_counts: Tensor, head: int | float) -> Tensor:
    """Return the numbers of all but the most frequent classes, int64 [T], ascending.

    `head` is how many classes are head classes, or (a float) their share, rounded up. Of equally
    frequent classes the first are head classes.

    Raises `LongTailedError` if no class is left for one of the groups.
    """
    classes = len(class_counts)
    number = head if isinstance(head, int) else math.ceil(head * classes - 1e-9)
    if not 1 <= number < classes:
        group = "head" if number < 1 else "tail"
        raise LongTailedError(
            f"head_classes={head} leaves no {group} class of {classes}; choose from 1 to "
            f"{classes - 1} classes, or a share."
        )
    order = torch.argsort(class_counts, descending=True, stable=True)
    return order[number:].sort().values
