"""Diagnosis: which classes fail, and whether with scarcity or with similarity to which class."""

from __future__ import annotations

from longtailed.analysis.diagnosis.attribution import (
    Neighbours,
    Parts,
    divide_error,
    equal_decision,
    vote_of_neighbours,
    wrong_neighbours,
)
from longtailed.analysis.diagnosis.evidence import Evidence, of_data, of_run
from longtailed.analysis.diagnosis.findings import Findings, LookAlike, examine
from longtailed.analysis.diagnosis.outcome import Diagnosis, diagnose
from longtailed.analysis.diagnosis.similarity import (
    class_means,
    confusion_similarity,
    gaussian_overlap,
    head_leakage,
    look_alike_share,
    mean_cosine,
    nearest_images,
    nearest_means,
)

__all__ = [
    "Diagnosis",
    "Evidence",
    "Findings",
    "LookAlike",
    "Neighbours",
    "Parts",
    "class_means",
    "confusion_similarity",
    "diagnose",
    "divide_error",
    "equal_decision",
    "examine",
    "gaussian_overlap",
    "head_leakage",
    "look_alike_share",
    "mean_cosine",
    "nearest_images",
    "nearest_means",
    "of_data",
    "of_run",
    "vote_of_neighbours",
    "wrong_neighbours",
]
