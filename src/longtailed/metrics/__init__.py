"""Figures of predictions: accuracy by group of classes, calibration."""

from __future__ import annotations

from longtailed.metrics.calibration import (
    CalibrationBins,
    classwise_calibration_error,
    expected_calibration_error,
)
from longtailed.metrics.shots import (
    ClassGroups,
    ShotAccuracy,
    balanced_accuracy,
    bootstrap_interval,
    class_groups,
    confusion_matrix,
    harmonic_mean_accuracy,
    macro_f1,
    per_class_accuracy,
    shot_accuracy,
    top_k_accuracy,
    worst_class,
)

__all__ = [
    "CalibrationBins",
    "ClassGroups",
    "ShotAccuracy",
    "balanced_accuracy",
    "bootstrap_interval",
    "class_groups",
    "classwise_calibration_error",
    "confusion_matrix",
    "expected_calibration_error",
    "harmonic_mean_accuracy",
    "macro_f1",
    "per_class_accuracy",
    "shot_accuracy",
    "top_k_accuracy",
    "worst_class",
]
