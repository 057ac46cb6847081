"""What every loss does with its arguments first: check them once, in words, and set the precision.

Nothing here reads a tensor's values on the host, so a loss can be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from longtailed.errors import LongTailedError

ClassCounts: TypeAlias = Sequence[int] | npt.NDArray[np.integer] | Tensor


def full_precision(logits: Tensor) -> Tensor:
    """Return the logits in float32, or unchanged if they are float32 or float64 already.

    Half precision has too few digits for the difference of a logit and a log-sum-exp.
    """
    if not logits.is_floating_point():
        raise LongTailedError(f"logits must be floating point; they are {logits.dtype}.")
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()


def check_labels(logits: Tensor, labels: Tensor) -> None:
    """Return nothing; raise `LongTailedError` unless logits are [N, C] and labels int64 [N]."""
    if logits.ndim != 2:
        raise LongTailedError(f"logits must have the shape [N, C]; they are {list(logits.shape)}.")
    if labels.dtype != torch.int64 or labels.shape != logits.shape[:1]:
        raise LongTailedError(
            f"labels must be int64 [{logits.shape[0]}], one for each row of logits; they are "
            f"{labels.dtype} {list(labels.shape)}."
        )


def count_tensor(
    class_counts: ClassCounts, num_classes: int | None = None, device: torch.device | None = None
) -> Tensor:
    """Return the class counts as float64 [C] on `device` (default: where they are).

    float64 because `1 - beta ** n` loses all float32 digits at the usual beta and small n.
    A tensor that is on `device` already causes no copy and no synchronisation; its values are
    trusted. Raises `LongTailedError` if the counts are not one number a class, and (unless they
    are a tensor, whose values may be on a GPU) if one is negative or all are zero.
    """
    counts = torch.as_tensor(class_counts)
    if counts.ndim != 1 or (num_classes is not None and len(counts) != num_classes):
        wanted = "one number for each class" if num_classes is None else f"{num_classes} numbers"
        raise LongTailedError(
            f"class_counts must be {wanted}; they have the shape {list(counts.shape)}."
        )
    if not isinstance(class_counts, Tensor) and not (counts.min() >= 0 and counts.max() > 0):
        raise LongTailedError(
            "class_counts must not be negative, and at least one class must have samples."
        )
    return counts.to(device=device, dtype=torch.float64)


def weight_tensor(class_weights: Tensor | None, logits: Tensor) -> Tensor | None:
    """Return the class weights [C] with the logits' device and precision; None stays None.

    Raises `LongTailedError` if there is not one weight for each column of the logits [N, C].
    """
    if class_weights is None:
        return None
    if class_weights.shape != logits.shape[1:]:
        raise LongTailedError(
            f"class_weights must have the shape [{logits.shape[1]}], one for each column of "
            f"logits; they are {list(class_weights.shape)}."
        )
    return class_weights.to(logits)
