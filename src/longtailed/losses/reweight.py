"""Weights for classes of different size, to be given to a loss as `class_weights`."""

from __future__ import annotations

import torch
from torch import Tensor

from longtailed.errors import LongTailedError
from longtailed.losses.inputs import ClassCounts, count_tensor


def class_balanced_weights(
    class_counts: ClassCounts, beta: float = 0.9999, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return class weights [C] by the effective number of samples, with mean 1.

    E_c = (1 - beta^n_c) / (1 - beta) is the effective number of n_c samples;
    w_c = (1 / E_c) * C / sum_j (1 / E_j). beta = 0 gives ones, beta -> 1 the inverse frequency.
    A class without samples gets weight 0 and counts neither in C nor in the sum, so that the mean
    over the other classes stays 1.

    Raises `LongTailedError` unless 0 <= beta < 1. Paper: arXiv 1901.05555. Computed in float64,
    where the authors' code divides by zero for a class without samples.

    >>> class_balanced_weights([100, 10], beta=0.0)
    tensor([1., 1.])
    """
    if not 0 <= beta < 1:
        raise LongTailedError(
            f"beta must be at least 0 and below 1, not {beta}; for its limit 1 use "
            "inverse_frequency_weights."
        )
    counts = count_tensor(class_counts)
    return _normalize((1 - beta) / (1 - beta**counts), counts).to(dtype)


def inverse_frequency_weights(
    class_counts: ClassCounts, power: float = 1.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return class weights [C] proportional to n_c^-power, with mean 1.

    power 1 is the inverse frequency, 0.5 its square root, 0 gives ones. A class without samples
    gets weight 0 and is left out of the mean, as in `class_balanced_weights`.

    >>> inverse_frequency_weights([30, 10])
    tensor([0.5000, 1.5000])
    """
    counts = count_tensor(class_counts)
    return _normalize(counts**-power, counts).to(dtype)


def _normalize(weights: Tensor, counts: Tensor) -> Tensor:
    present = counts > 0
    weights = torch.where(present, weights, 0)
    return weights * (present.sum() / weights.sum())
