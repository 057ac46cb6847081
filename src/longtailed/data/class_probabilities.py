"""How often a sampler draws each class, as a function of the class sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from longtailed.data.imageset import IntArray
from longtailed.errors import LongTailedError, unknown_name

FloatArray: TypeAlias = npt.NDArray[np.float64]

KINDS = {
    "instance": "each class by its size",
    "class-balanced": "all classes alike",
    "class-aware": "all classes alike, in turn",
    "square-root": "each class by the square root of its size",
    "progressive": "each class by its size at first, all alike at last",
    "reversed": "each class by one over its size: the rarest most",
    "effective-number": "nearly all classes alike (effective number of samples)",
}
"""What each sampler draws, in words; `class_probabilities` has the formulas."""


def effective_number_weights(class_counts: Sequence[int] | IntArray, beta: float) -> FloatArray:
    """Return the sampling weight of one image of each class [C], (1 - beta) / (1 - beta^n_c).

    Not normalised; 0 for a class without images. Raises `LongTailedError` unless 0 <= beta < 1.
    Paper: arXiv 1901.05555; deferred re-sampling draws images with these weights.
    """
    if not 0 <= beta < 1:
        raise LongTailedError(f"beta must be at least 0 and below 1; it is {beta}.")
    counts = np.asarray(class_counts, dtype=np.float64)
    present = counts > 0
    return np.where(present, (1 - beta) / (1 - beta ** np.where(present, counts, 1)), 0.0)


def class_probabilities(
    kind: str,
    class_counts: Sequence[int] | IntArray,
    epoch: int = 0,
    epochs: int = 1,
    beta: float = 0.9999,
) -> FloatArray:
    """Return the probability of each class in one draw of a sampler, float64 [C], sum 1.

    For class sizes n_c and C classes that have images (a class without has probability 0):

    * "instance": n_c / sum n.
    * "class-balanced", "class-aware": 1 / C.
    * "square-root": sqrt(n_c) / sum sqrt(n).
    * "progressive": (1 - a) n_c / sum n + a / C with a = epoch / (epochs - 1), from 0 in the first
      to 1 in the last epoch (arXiv 1910.09217 prints epoch / epochs; its code does this).
    * "reversed": proportional to max n / n_c.
    * "effective-number": proportional to n_c (1 - beta) / (1 - beta^n_c).

    Raises `LongTailedError` for an unknown kind or if no class has images.
    """
    if kind not in KINDS:
        raise unknown_name("sampler", kind, KINDS, listing="samplers")
    counts = np.asarray(class_counts, dtype=np.float64)
    present = counts > 0
    if not present.any():
        raise LongTailedError("there are no images to sample from.")
    weights: FloatArray = present.astype(np.float64)
    if kind in ("instance", "square-root"):
        weights = counts if kind == "instance" else np.sqrt(counts)
    elif kind == "progressive":
        balance = min(epoch / max(epochs - 1, 1), 1.0)
        weights = (1 - balance) * counts / counts.sum() + balance * present / present.sum()
    elif kind == "reversed":
        weights = np.where(present, counts.max() / np.where(present, counts, 1), 0.0)
    elif kind == "effective-number":
        weights = counts * effective_number_weights(class_counts, beta)
    probabilities: FloatArray = weights / weights.sum()
    return probabilities
