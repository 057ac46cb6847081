"""Figures computed from predictions and labels, which may be tensors (on any device) or arrays.

Everywhere: a class without test samples has no accuracy (NaN) and is left out of means over
classes; a mean over nothing is NaN. These functions read values on the host: call them once an
epoch, not once a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from longtailed.errors import LongTailedError, unknown_name

Values: TypeAlias = Tensor | npt.NDArray[Any] | Sequence[int] | Sequence[bool]
Grouping: TypeAlias = Literal["counts", "terciles", "auto"]
GROUPINGS = ("counts", "terciles", "auto")


@dataclass(frozen=True)
class ClassGroups:
    """Class indices by number of training images, with the rule that made the groups in words."""

    many: tuple[int, ...]
    medium: tuple[int, ...]
    few: tuple[int, ...]
    rule: str


@dataclass(frozen=True, eq=False)
class ShotAccuracy:
    """Accuracies as fractions: mean per-class accuracy of each group, and over all samples.

    `per_class` is float64 [C]; `groups` holds the class indices, `rule` says how they were made.
    """

    many: float
    medium: float
    few: float
    overall: float
    per_class: Tensor
    groups: ClassGroups

    @property
    def rule(self) -> str:
        """How the classes were grouped, in words."""
        return self.groups.rule


def class_groups(
    class_counts: Values, many: int = 100, few: int = 20, groups: Grouping = "counts"
) -> ClassGroups:
    """Return the classes with many, medium and few training images.

    "counts": more than `many`, `few` to `many`, fewer than `few` images (arXiv 1904.05160).
    "terciles": by rank of the class size (of equal sizes the lower index is the larger); the
    largest and the smallest third of the classes, each (C + 1) // 3 of them, and those between.
    "auto": "counts", or "terciles" if a group would then be empty, as with few classes.

    Raises `LongTailedError` for an unknown grouping or thresholds in the wrong order.
    """
    if groups not in GROUPINGS:
        raise unknown_name("grouping", groups, GROUPINGS)
    if few > many:
        raise LongTailedError(f"the threshold few ({few}) must not be above many ({many}).")
    counts: list[int] = _tensor(class_counts).tolist()
    if groups != "terciles":
        by_counts = ClassGroups(
            many=tuple(c for c, count in enumerate(counts) if count > many),
            medium=tuple(c for c, count in enumerate(counts) if few <= count <= many),
            few=tuple(c for c, count in enumerate(counts) if count < few),
            rule=f"training images per class: many > {many}, medium {few} to {many}, few < {few}",
        )
        if groups == "counts" or (by_counts.many and by_counts.medium and by_counts.few):
            return by_counts
    third = (len(counts) + 1) // 3
    ranked = sorted(range(len(counts)), key=lambda c: -counts[c])
    return ClassGroups(
        many=tuple(sorted(ranked[:third])),
        medium=tuple(sorted(ranked[third : len(ranked) - third])),
        few=tuple(sorted(ranked[len(ranked) - third :])),
        rule=f"terciles of the classes by training images: many the {third} largest, "
        f"few the {third} smallest, medium the others",
    )


def shot_accuracy(
    predictions: Values,
    labels: Values,
    class_counts: Values,
    many: int = 100,
    few: int = 20,
    groups: Grouping = "counts",
) -> ShotAccuracy:
    """Return the accuracy of the classes with many, medium and few training images.

    For predicted classes [N], labels [N] and training images per class [C]; the groups are those
    of `class_groups`, and a group's accuracy is the unweighted mean over its classes. `overall` is
    the share of correct samples. A group without (tested) classes is NaN, where the public code of
    the field prints 0.

    Raises `LongTailedError` if predictions and labels do not fit, or as `class_groups` does.
    """
    chosen = class_groups(class_counts, many, few, groups)
    truth, hits = _compare(predictions, labels, len(class_counts))
    per_class = _recall(truth, hits, len(class_counts))
    return ShotAccuracy(
        many=_mean(per_class[list(chosen.many)]),
        medium=_mean(per_class[list(chosen.medium)]),
        few=_mean(per_class[list(chosen.few)]),
        overall=_mean(hits.double()),
        per_class=per_class,
        groups=chosen,
    )


def per_class_accuracy(predictions: Values, labels: Values, num_classes: int) -> Tensor:
    """Return the share of each class's samples that are predicted right, float64 [C] on the CPU.

    This is the recall; NaN for a class without samples. Raises `LongTailedError` if predictions and
    labels differ in length or a label is not in 0..C-1.
    """
    return _recall(*_compare(predictions, labels, num_classes), num_classes)


def balanced_accuracy(predictions: Values, labels: Values, num_classes: int) -> float:
    """Return the mean of the per-class accuracies; scikit-learn's `balanced_accuracy_score`."""
    return _mean(per_class_accuracy(predictions, labels, num_classes))


def harmonic_mean_accuracy(predictions: Values, labels: Values, num_classes: int) -> float:
    """Return the harmonic mean of the per-class accuracies: C / sum_c (1 / a_c).

    It is 0 as soon as one tested class is never right.
    """
    accuracy = per_class_accuracy(predictions, labels, num_classes)
    return 1 / _mean(1 / accuracy)


def worst_class(predictions: Values, labels: Values, num_classes: int) -> tuple[int, float]:
    """Return the class with the lowest accuracy (of equal ones the first), and that accuracy.

    Raises `LongTailedError` if there are no samples, besides what `per_class_accuracy` raises.
    """
    accuracy = per_class_accuracy(predictions, labels, num_classes)
    if bool(accuracy.isnan().all()):
        raise LongTailedError("there is no worst class without samples.")
    worst = int(accuracy.nan_to_num(nan=torch.inf).argmin())
    return worst, float(accuracy[worst])


def macro_f1(predictions: Values, labels: Values, num_classes: int) -> float:
    """Return the mean over classes of F1_c = 2 TP_c / (samples of c + predictions of c).

    Over the classes that occur among labels or predictions, as scikit-learn does: a class that is
    predicted but has no samples counts with 0, because each such prediction is a mistake.
    Raises `LongTailedError` if a label or prediction is not in 0..C-1.
    """
    truth, hits = _compare(predictions, labels, num_classes)
    guesses = _in_range(_tensor(predictions).cpu(), num_classes, "predictions")
    right = torch.bincount(truth[hits], minlength=num_classes)
    samples = torch.bincount(truth, minlength=num_classes)
    predicted = torch.bincount(guesses, minlength=num_classes)
    return _mean(2 * right.double() / (samples + predicted))


def confusion_matrix(labels: Values, predictions: Values, num_classes: int) -> Tensor:
    """Return how many samples of class i (row) were predicted as class j (column), int64 [C, C].

    On the labels' device. Raises `LongTailedError` if a label or prediction is not in 0..C-1.
    """
    truth = _in_range(_tensor(labels), num_classes, "labels")
    guesses = _in_range(_tensor(predictions).to(truth.device), num_classes, "predictions")
    _same_length(guesses, truth)
    cells = torch.bincount(truth * num_classes + guesses, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def _tensor(values: Values) -> Tensor:
    # A copy, because torch warns of arrays that are read-only, as those of a file are.
    return values if isinstance(values, Tensor) else torch.tensor(np.asarray(values))


def _compare(predictions: Values, labels: Values, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return the labels [N] and whether each prediction equals its label [N], on the CPU."""
    truth = _in_range(_tensor(labels).cpu(), num_classes, "labels")
    guesses = _tensor(predictions).cpu()
    _same_length(guesses, truth)
    return truth, guesses == truth


def _recall(truth: Tensor, hits: Tensor, num_classes: int) -> Tensor:
    right = torch.bincount(truth[hits], minlength=num_classes)
    return right.double() / torch.bincount(truth, minlength=num_classes)


def _same_length(guesses: Tensor, truth: Tensor) -> None:
    if guesses.shape != truth.shape:
        raise LongTailedError(
            f"there must be one prediction for each label; the shapes are {list(guesses.shape)} "
            f"and {list(truth.shape)}."
        )


def _in_range(values: Tensor, num_classes: int, name: str) -> Tensor:
    if values.ndim != 1 or values.is_floating_point():
        raise LongTailedError(
            f"{name} must be integers [N]; they are {values.dtype} {list(values.shape)}."
        )
    if len(values) and not 0 <= int(values.min()) <= int(values.max()) < num_classes:
        raise LongTailedError(
            f"{name} run from {int(values.min())} to {int(values.max())}, but there are "
            f"{num_classes} classes, numbered from 0."
        )
    return values.long()


def _mean(values: Tensor) -> float:
    return float(values.nanmean())
