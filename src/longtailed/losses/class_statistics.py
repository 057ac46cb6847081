"""Running mean and covariance of the features of each class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from longtailed.errors import LongTailedError
from longtailed.losses.covariance import check_kind
from longtailed.losses.gathering import of_all_processes


class ClassStatistics(nn.Module):
    """Holds mean, covariance and number of all features seen of each class.

    Buffers for C classes and A features: `mean` [C, A], `covariance` full [C, A, A] or diagonal
    [C, A], `count` [C]; float32, or float64 after `.double()`. All start at 0, and a class that
    was never seen stays there. They are the population mean and covariance (divided by n, not
    n - 1) of every feature ever given: nothing is forgotten, and a class with one feature has
    covariance 0. So a feature that is not finite spoils its class's statistics for good; training
    ends there, because `fit` stops at the first loss that is not finite.

    Args:
        num_classes: C.
        num_features: A.
        covariance: "full" or "diagonal".

    Raises `LongTailedError` for another kind of covariance or sizes below 1.
    Paper: ISDA, arXiv 1909.12220. Departures from the authors' code: the statistics are buffers,
    so checkpoints hold them; several processes share them.
    """

    mean: Tensor
    covariance: Tensor
    count: Tensor

    def __init__(self, num_classes: int, num_features: int, covariance: str = "full") -> None:
        super().__init__()
        check_kind(covariance)
        if num_classes < 1 or num_features < 1:
            raise LongTailedError(
                f"class statistics need at least one class and one feature, not {num_classes} and "
                f"{num_features}."
            )
        shape = (num_classes, num_features)
        self.register_buffer("mean", torch.zeros(shape))
        full = covariance == "full"
        self.register_buffer("covariance", torch.zeros((*shape, num_features) if full else shape))
        self.register_buffer("count", torch.zeros(num_classes))

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Take in the features [N, A] (detached) with labels [N], in place.

        With k, u, B the number, mean and covariance of a class in the batch, n, m, S those held:

            a = k / (k + n)
            S <- (1 - a) S + a B + a (1 - a) (m - u)(m - u)^T
            m <- (1 - a) m + a u
            n <- n + k

        Classes that are not in the batch stay as they are. Computed for the N samples, so time
        and memory are of the order N A (diagonal) or N A^2 + C A^2 time, N A^2 memory (full).
        Where `torch.distributed` runs, the batches of all processes count as one; every process
        must call this with equally many features.

        Raises `LongTailedError` for shapes or types that do not fit.
        """
        self._check(features, labels)
        classes, size = self.mean.shape
        features = of_all_processes(features.to(self.mean.dtype))
        labels = of_all_processes(labels)
        places, rows = _places(labels, classes)
        # Deviations from the batch's own means: sums of squares less squares of sums would lose
        # the digits of a mean that is large against the deviations.
        number = features.new_zeros(rows).index_add_(0, places, features.new_ones(len(features)))
        sums = features.new_zeros(rows, size).index_add_(0, places, features)
        batch_mean = (sums / number.clamp_min(1)[:, None]).index_select(0, places)
        deviation = features - batch_mean
        drift = self.mean.index_select(0, labels) - batch_mean
        before = self.count.index_select(0, labels)
        share = 1 / (before + number.index_select(0, places))  # a / k, of each sample
        self._update_covariance(labels, deviation, drift, share, before)
        self.mean.index_add_(0, labels, drift.mul_(-share[:, None]))
        self.count.index_add_(0, labels, torch.ones_like(share))

    def _check(self, features: Tensor, labels: Tensor) -> None:
        size = self.mean.shape[1]
        if features.ndim != 2 or features.shape[1] != size or not features.is_floating_point():
            raise LongTailedError(
                f"features must be floating point [N, {size}]; they are {features.dtype} "
                f"{list(features.shape)}."
            )
        if labels.dtype != torch.int64 or labels.shape != features.shape[:1]:
            raise LongTailedError(
                f"labels must be int64 [{len(features)}], one for each row of features; they are "
                f"{labels.dtype} {list(labels.shape)}."
            )

    def _update_covariance(
        self, labels: Tensor, deviation: Tensor, drift: Tensor, share: Tensor, before: Tensor
    ) -> None:
        # As a sum over samples: S <- (1 - a) S + sum_i (a / k) v_i v_i^T, where v_i is the sample's
        # deviation plus sqrt(1 - a) (m - u): the products of the two add up to 0 in each class.
        vectors = deviation.addcmul_(drift, (share * before).sqrt_()[:, None])  # n (a/k) = 1 - a
        if self.covariance.ndim == 2:
            added = vectors.square_().sub_(self.covariance.index_select(0, labels))
            self.covariance.index_add_(0, labels, added.mul_(share[:, None]))
            return
        leaving = torch.zeros_like(self.count).index_add_(0, labels, share)  # a
        self.covariance.mul_((1 - leaving)[:, None, None])
        vectors *= share.sqrt()[:, None]
        outer = vectors[:, :, None] * vectors[:, None, :]
        self.covariance.view(len(self.count), -1).index_add_(0, labels, outer.flatten(1))


def _places(labels: Tensor, classes: int) -> tuple[Tensor, int]:
    """Return for each sample a place that only its class shares, and the number of places.

    With fewer samples than classes, the place of a class is that of its first sample.
    """
    samples = len(labels)
    if classes <= samples:
        return labels, classes
    positions = torch.arange(samples, device=labels.device)
    first = labels.new_full((classes,), samples)
    first.scatter_reduce_(0, labels, positions, "amin")
    return first.index_select(0, labels), samples
