"""ISDA: implicit semantic data augmentation, alone or under an LDAM or focal criterion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from longtailed.data.positions import Position
from longtailed.data.setting_types import NonNegative, Positive, UsedWith
from longtailed.data.streams import Batch
from longtailed.losses import ClassStatistics, isda_logits, ldam_margins, margin_cross_entropy
from longtailed.losses.inputs import full_precision
from longtailed.methods.base import Progress
from longtailed.methods.erm import CrossEntropy
from longtailed.nn import CosineHead, Network

Criterion = Literal["ce", "ldam", "focal"]
Covariance = Literal["full", "diagonal"]
MaxMargin = Annotated[NonNegative, UsedWith(criterion=("ldam",))]
Gamma = Annotated[NonNegative, UsedWith(criterion=("focal",))]


class ISDA(CrossEntropy):
    """Implicit semantic data augmentation (arXiv 1909.12220): the loss of infinitely many copies.

    Features of class y are imagined as f + N(0, rho * S_y), with S_y the covariance of that
    class's features so far and rho = strength * epoch / epochs. An upper bound of the expected
    cross-entropy is the cross-entropy of z_c + rho/2 * (w_c - w_y)' S_y (w_c - w_y). The
    statistics take in a batch before its logits are formed, and are empty until `start`. They never
    recover from a feature that is not finite (see `ClassStatistics`).

    With a cosine head the features and the rows of the weight are those divided by their norms.
    Departure from the authors' code: the statistics are buffers, so that a resumed run has them.

    Args:
        network: the network to train.
        counts: training images per class [C].
        strength: lambda_0; the authors use 0.5 on CIFAR and 7.5 on ImageNet.
        start: when augmentation begins; before, the criterion alone is trained.
        covariance: "full" [C, A, A], or "diagonal" [C, A] for many features.
        criterion: what is computed on the augmented logits: "ce", "ldam" (margins) or "focal".
        max_margin: the rarest class's margin (ldam).
        scale: factor of logits and margins; 1 as in MetaSAug, 30 for cosines.
        gamma: the focal criterion's exponent.
        shared: the options of `CrossEntropy`, such as deferred class weights.
    """

    term = "isda"
    margins: Tensor

    def __init__(
        self,
        network: Network,
        counts: Sequence[int] | Tensor,
        *,
        strength: NonNegative = 0.5,
        start: Position = 0,
        covariance: Covariance = "full",
        criterion: Criterion = "ce",
        max_margin: MaxMargin = 0.5,
        scale: Positive = 1.0,
        gamma: Gamma = 2.0,
        **shared: Any,
    ) -> None:
        super().__init__(network, counts, **shared)
        self.strength, self.start = strength, start
        self.kind, self.scale, self.gamma = criterion, scale, gamma
        margin = scale * max_margin if criterion == "ldam" else 0.0
        self.register_buffer("margins", ldam_margins(self.class_counts, margin))
        num_features = network.backbone.num_features
        self.statistics = ClassStatistics(len(self.class_counts), num_features, covariance)

    def loss(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Tensor]:
        """Return the criterion on the augmented logits."""
        batch = batches["train"]
        features = self.network.features(batch.images[0])
        logits = self.logits(features)
        if progress.reached(self.start):
            self.statistics.update(self.directions(features.detach()), batch.labels)
            covariance = self.statistics.covariance
            logits = self.augmented(logits, batch.labels, covariance, progress)
        weights = self.current_weights(progress)
        return {self.term: self.criterion(logits, batch.labels, weights)}

    def logits(self, features: Tensor) -> Tensor:
        """Return the head's logits [N, C] times the scale, in float32 or better."""
        return self.scale * full_precision(self.network.head(features))

    def directions(self, features: Tensor) -> Tensor:
        """Return the features [N, A] that the head multiplies with its weight."""
        cosine = isinstance(self.network.head, CosineHead)
        return F.normalize(full_precision(features), dim=1) if cosine else features

    def effective_weight(self, weight: Tensor) -> Tensor:
        """Return the matrix [C, A] by which `directions` become logits, of the head's weight."""
        head, weight = self.network.head, full_precision(weight)
        if isinstance(head, CosineHead):
            return (self.scale * head.scale) * F.normalize(weight, dim=1)
        return self.scale * weight

    def augmented(
        self,
        logits: Tensor,
        labels: Tensor,
        covariance: Tensor,
        progress: Progress,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Return the augmented logits [N, C]; `weight` stands in for the head's, if given."""
        weight = self.effective_weight(self.network.head.weight if weight is None else weight)
        rho = self.strength * progress.fraction_tensor
        return isda_logits(logits, labels, weight, covariance, rho)

    def criterion(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """Return the loss of augmented logits as a scalar; weighted losses are weighted means."""
        if self.kind == "focal":
            return _focal_mean(logits, labels, self.gamma, weights)
        return margin_cross_entropy(logits, labels, self.margins, 1.0, weights)

    def predict(self, images: Tensor) -> Tensor:
        """Return the scaled logits, without augmentation or margins."""
        return self.scale * super().predict(images)


def _focal_mean(logits: Tensor, labels: Tensor, gamma: float, weights: Tensor | None) -> Tensor:
    """Return sum_i w_i (1 - p_i)^gamma (-log p_i) / sum_i w_i, with w_i = weights[labels_i].

    Unlike `focal_loss` the weights leave p_i alone and the mean is the weighted one, as in the
    other two criteria.
    """
    losses = F.cross_entropy(logits, labels, reduction="none")
    doubt = (-torch.expm1(-losses)).clamp_min(torch.finfo(losses.dtype).tiny)
    focal = doubt**gamma * losses
    if weights is None:
        return focal.mean()
    chosen = weights.to(focal)[labels]
    return (chosen * focal).sum() / chosen.sum()
