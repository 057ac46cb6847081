"""Diagnosis: which classes fail, and whether with scarcity or with similarity to which class."""

from __future__ import annotations

from longtailed.diagnosis.attribution import (
    Neighbours,
    Parts,
    divide_error,
    equal_decision,
    vote_of_neighbours,
    wrong_neighbours,
)
from longtailed.diagnosis.evidence import Evidence, of_data, of_run
from longtailed.diagnosis.findings import Findings, LookAlike, examine
from longtailed.diagnosis.outcome import Diagnosis, diagnose
from longtailed.diagnosis.similarity import (
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
