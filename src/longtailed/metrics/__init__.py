"""Figures of predictions: accuracy by group of classes, calibration."""

from __future__ import annotations

from longtailed.metrics.calibration import (
    CalibrationBins,
)
from longtailed.metrics.shots import (
    ClassGroups,
    ShotAccuracy,
    balanced_accuracy,
    class_groups,
    confusion_matrix,
    harmonic_mean_accuracy,
    macro_f1,
    per_class_accuracy,
    shot_accuracy,
    worst_class,
)

__all__ = [
    "CalibrationBins",
    "ClassGroups",
    "ShotAccuracy",
    "balanced_accuracy",
    "class_groups",
    "confusion_matrix",
    "harmonic_mean_accuracy",
    "macro_f1",
    "per_class_accuracy",
    "shot_accuracy",
    "worst_class",
]
