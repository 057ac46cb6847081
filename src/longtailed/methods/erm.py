"""Baselines: one loss on one stream, with optional class weights or re-sampling, now or later.

`**shared` in a subclass stands for the options of `CrossEntropy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator
from torch import Tensor
from torch.nn.functional import cross_entropy

from longtailed.data.augment.mixing import mixup
from longtailed.data.positions import Position
from longtailed.data.samplers import SamplerName
from longtailed.data.setting_types import BelowOne, NonNegative, Not, Positive, Real, Size, UsedWith
from longtailed.data.streams import Batch, Stream
from longtailed.losses import (
    class_balanced_weights,
    focal_loss,
    inverse_frequency_weights,
    ldam_margins,
    logit_adjusted_loss,
    margin_cross_entropy,
)
from longtailed.losses.inputs import full_precision
from longtailed.methods.base import Method, Progress
from longtailed.nn import Network


def _none_by_name(value: Any) -> Any:
    return "none" if value is None else value  # `weighting=none` on the command line is None


Weighting = Annotated[Literal["none", "class-balanced", "inverse"], BeforeValidator(_none_by_name)]
WeightingStart = Annotated[Position, UsedWith(weighting=Not("none"))]
Beta = Annotated[BelowOne, UsedWith(weighting=("class-balanced",), sampler=("effective-number",))]
SamplerBeta = Annotated[BelowOne, UsedWith(sampler=("effective-number",))]
SamplerStart = Annotated[Position, UsedWith(sampler=Not("instance"))]
SamplesPerClass = Annotated[Size, UsedWith(sampler=("class-aware",))]


class CrossEntropy(Method):
    """Cross-entropy, optionally with class weights or another sampler from some epoch on.

    Args:
        network: the network to train.
        counts: training images per class [C].
        weighting: class weights: "none", "class-balanced" (effective number, arXiv 1901.05555)
            or "inverse" (1 / count).
        beta: the effective number's beta, of the weights and of the "effective-number" sampler.
        weighting_start: when the weights begin (an epoch or a fraction of the run); before, all
            are 1. 0.8 gives deferred re-weighting, DRW (arXiv 1906.07413).
        sampler: how training images are drawn (see `longtailed.data.SAMPLERS`).
        sampler_start: when that sampler begins; before, plain shuffling. A late start gives
            deferred re-sampling, DRS.
        samples_per_class: how many images in a row the "class-aware" sampler takes of a class.
    """

    term: ClassVar[str] = "cross_entropy"
    weights: Tensor

    def __init__(
        self,
        network: Network,
        counts: Sequence[int] | Tensor,
        *,
        weighting: Weighting = "none",
        beta: Beta = 0.9999,
        weighting_start: WeightingStart = 0,
        sampler: SamplerName = "instance",
        sampler_start: SamplerStart = 0,
        samples_per_class: SamplesPerClass = 4,
    ) -> None:
        super().__init__(network, counts)
        train = Stream(
            sampler=sampler, sampler_start=sampler_start, beta=beta,
            samples_per_class=samples_per_class,
        )  # fmt: skip
        self.streams = {"train": train}
        self.weighting_start = weighting_start
        weights = torch.ones(len(self.class_counts))
        if weighting == "class-balanced":
            weights = class_balanced_weights(self.class_counts, beta)
        elif weighting == "inverse":
            weights = inverse_frequency_weights(self.class_counts)
        self.weighted = weighting != "none"
        self.register_buffer("weights", weights)

    def loss(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Tensor]:
        """Return the criterion on the batch under the name of this method's loss."""
        batch = batches["train"]
        logits = full_precision(self.network(batch.images[0]))
        return {self.term: self.criterion(logits, batch.labels, self.current_weights(progress))}

    def current_weights(self, progress: Progress) -> Tensor | None:
        """Return the class weights [C] in force, or None while all classes weigh the same."""
        return self.weights if self.weighted and progress.reached(self.weighting_start) else None

    def criterion(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """Return the loss of logits [N, C] float32 and labels [N] as a scalar."""
        return cross_entropy(logits, labels, weight=weights)


class Focal(CrossEntropy):
    """Focal loss (arXiv 1708.02002); gamma 1, as in LDAM-DRW's comparison."""

    term = "focal"

    def __init__(
        self,
        network: Network,
        counts: Sequence[int] | Tensor,
        *,
        gamma: NonNegative = 1.0,
        **shared: Any,
    ) -> None:
        super().__init__(network, counts, **shared)
        self.gamma = gamma

    def criterion(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """Return the focal loss as a scalar."""
        return focal_loss(logits, labels, gamma=self.gamma, class_weights=weights)


class LDAM(CrossEntropy):
    """Label-distribution-aware margins on a cosine head (arXiv 1906.07413).

    `max_margin` is the rarest class's margin in cosine units, `scale` multiplies the cosines.
    """

    term = "ldam"
    head = "cosine"
    margins: Tensor

    def __init__(
        self,
        network: Network,
        counts: Sequence[int] | Tensor,
        *,
        max_margin: NonNegative = 0.5,
        scale: Positive = 30.0,
        **shared: Any,
    ) -> None:
        super().__init__(network, counts, **shared)
        self.scale = scale
        self.register_buffer("margins", ldam_margins(self.class_counts, max_margin))

    def criterion(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """Return the LDAM loss of cosines as a scalar."""
        return margin_cross_entropy(logits, labels, self.margins, self.scale, weights)

    def predict(self, images: Tensor) -> Tensor:
        """Return scaled cosines: the logits whose softmax the loss trained, without margins."""
        return self.scale * super().predict(images)


class LogitAdjustment(CrossEntropy):
    """Logit-adjusted cross-entropy (arXiv 2007.07314); tau 1 is balanced softmax (2007.10740).

    tau * log(class prior) is added to the logits in training only.
    """

    term = "logit_adjusted"

    def __init__(
        self,
        network: Network,
        counts: Sequence[int] | Tensor,
        *,
        tau: Real = 1.0,
        sampler: SamplerName = "instance",
        sampler_start: SamplerStart = 0,
        beta: SamplerBeta = 0.9999,
        samples_per_class: SamplesPerClass = 4,
    ) -> None:
        super().__init__(
            network, counts, sampler=sampler, sampler_start=sampler_start, beta=beta,
            samples_per_class=samples_per_class,
        )  # fmt: skip
        self.tau = tau

    def criterion(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """Return the logit-adjusted cross-entropy as a scalar."""
        return logit_adjusted_loss(logits, labels, self.class_counts, self.tau)


class Mixup(CrossEntropy):
    """Cross-entropy on mixed pairs (arXiv 1710.09412); images and labels share the coefficient.

    One coefficient ~ Beta(alpha, alpha) a batch, as in the paper's code.
    """

    term = "mixup"

    def __init__(
        self,
        network: Network,
        counts: Sequence[int] | Tensor,
        *,
        alpha: Positive = 1.0,
        **shared: Any,
    ) -> None:
        super().__init__(network, counts, **shared)
        self.alpha = alpha

    def loss(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Tensor]:
        """Return the soft cross-entropy of the mixed batch."""
        batch = batches["train"]
        images, mixed = mixup(batch.images[0], batch.labels, self.alpha, progress.generator)
        logits = full_precision(self.network(images))
        weights = self.current_weights(progress)
        first = cross_entropy(logits, mixed.labels_a, weight=weights)
        second = cross_entropy(logits, mixed.labels_b, weight=weights)
        return {self.term: mixed.lam * first + (1 - mixed.lam) * second}
