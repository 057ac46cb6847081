"""What stages on a frozen backbone share: features of all images, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from longtailed.data.samplers import SamplerName
from longtailed.data.streams import Batch
from longtailed.errors import LongTailedError
from longtailed.losses.inputs import full_precision
from longtailed.methods.base import Progress, Run
from longtailed.methods.erm import CrossEntropy
from longtailed.nn import Network

Features = Literal["cached", "fresh"]
BatchNorm = Literal["eval", "train"]


class FrozenBackbone(CrossEntropy):
    """Cross-entropy of a classifier on a backbone that does not change; base of cRT and LWS.

    The features of all training images are computed once, before the first step, and a step looks
    up those of its batch: a stage then takes seconds. They are not part of a checkpoint, since
    the frozen weights give them again. Each process keeps all of them.

    Departures from the authors' code (arXiv 1910.09217), which sends freshly augmented images
    through the backbone, whose batch-norm goes on in training mode although its weights are
    frozen: here images are not augmented and statistics are frozen. `features="fresh"` augments,
    `batch_norm="train"` lets the statistics drift as theirs do.

    Args:
        network: the network whose backbone is frozen.
        counts: training images per class [C].
        features: "cached" or "fresh".
        batch_norm: "eval", or "train" (with fresh features).
        sampler: how training images are drawn; "class-aware" is the authors'.
        shared: the other options of `CrossEntropy`.
    """

    head = "linear"
    frozen_backbone = True
    cached: Tensor | None = None

    def __init__(
        self,
        network: Network,
        counts: Sequence[int] | Tensor,
        *,
        features: Features = "cached",
        batch_norm: BatchNorm = "eval",
        sampler: SamplerName = "class-aware",
        **shared: Any,
    ) -> None:
        super().__init__(network, counts, sampler=sampler, **shared)
        if batch_norm == "train" and features == "cached":
            raise LongTailedError(
                "batch_norm=train changes the features from step to step, so they cannot be "
                "cached; set features=fresh."
            )
        self.caches, self.frozen_backbone = features == "cached", batch_norm == "eval"
        if self.caches:
            self.streams = {"train": replace(self.streams["train"], views=())}
        self.network.backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> FrozenBackbone:
        """Return itself in training mode, but for the backbone's statistics."""
        super().train(mode)
        if self.frozen_backbone:
            self.network.backbone.eval()
        return self

    def begin(self, run: Run) -> None:
        """Compute the features of the training images."""
        if self.caches:
            self.cached, _ = run.features("train")

    def loss(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Tensor]:
        """Return the criterion on the batch's features."""
        batch = batches["train"]
        logits = full_precision(self.classify(self._features(batch)))
        return {self.term: self.criterion(logits, batch.labels, self.current_weights(progress))}

    def _features(self, batch: Batch) -> Tensor:
        if self.cached is not None:
            return self.cached[batch.index]
        with torch.no_grad():
            return self.network.features(batch.images[0])

    def predict(self, images: Tensor) -> Tensor:
        """Return the logits [N, C] of images."""
        return self.classify(self.network.features(images))
