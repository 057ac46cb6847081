"""Nearest class mean: the classifier that needs no training on top of the features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from longtailed.errors import LongTailedError, unknown_name
from longtailed.methods.base import Method, Run
from longtailed.nn import Network

Transform = Literal["un", "l2n", "cl2n"]
Distance = Literal["l2", "cos", "cosine"]
TRANSFORMS, DISTANCES = ("un", "l2n", "cl2n"), ("l2", "cos", "cosine")


class NearestClassMean(nn.Module):
    """Classifier by the distance of a feature vector to each class's mean (arXiv 1910.09217).

    Args:
        transform: what is done to features first: "un" nothing, "l2n" divides each by its norm,
            "cl2n" subtracts the mean of all training samples before.
        distance: how a transformed feature a scores the class mean c: "l2" is -|a - c|^2, "cos" is
            a.c / A, as in the authors' code, which divides by the number of features and not by
            the norms, and "cosine" is a.c / (|a| |c|). Means are not normalised again.
        num_classes, num_features: sizes of the state before `fit`, for loading one.
    """

    mean: Tensor
    centroids: Tensor
    present: Tensor

    def __init__(
        self,
        transform: Transform = "cl2n",
        distance: Distance = "l2",
        *,
        num_classes: int = 0,
        num_features: int = 0,
    ) -> None:
        super().__init__()
        if transform not in TRANSFORMS:
            raise unknown_name("transform", transform, TRANSFORMS)
        if distance not in DISTANCES:
            raise unknown_name("distance", distance, DISTANCES)
        self.transform, self.distance = transform, distance
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("centroids", torch.zeros(num_classes, num_features))
        self.register_buffer("present", torch.zeros(num_classes, dtype=torch.bool))

    @torch.no_grad()
    def fit(self, features: Tensor, labels: Tensor, num_classes: int) -> NearestClassMean:
        """Take the class means of features [N, A] with labels [N]; return itself.

        A class without samples keeps its number and is never predicted.
        Raises `LongTailedError` if there are no samples or a label is out of range.
        """
        if len(features) == 0:
            raise LongTailedError("class means need at least one sample.")
        if not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
            raise LongTailedError(f"labels must be in 0..{num_classes - 1}.")
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        self.mean = features.mean(dim=0)
        images = torch.bincount(labels, minlength=num_classes)
        sums = features.new_zeros(num_classes, features.shape[1])
        sums.index_add_(0, labels, self._transformed(features))
        self.centroids = sums / images.clamp_min(1)[:, None]
        self.present = images > 0
        return self

    def logits(self, features: Tensor) -> Tensor:
        """Return the scores [N, C] of features [N, A]; -inf for a class that had no samples."""
        features = self._transformed(features.to(self.centroids.dtype))
        if self.distance == "l2":
            scores = self._squared_distances(features).neg()
        elif self.distance == "cos":
            scores = features @ self.centroids.T / features.shape[1]
        else:
            scores = F.normalize(features, dim=1) @ F.normalize(self.centroids, dim=1).T
        return scores.masked_fill(~self.present, -torch.inf)

    def _squared_distances(self, features: Tensor) -> Tensor:
        """Return |a - c|^2 as |a|^2 - 2 a.c + |c|^2, which needs no [N, C, A] differences."""
        squares = features.square().sum(dim=1, keepdim=True) + self.centroids.square().sum(dim=1)
        return squares - 2 * features @ self.centroids.T

    def _transformed(self, features: Tensor) -> Tensor:
        if self.transform == "un":
            return features
        centred = features - self.mean if self.transform == "cl2n" else features
        return F.normalize(centred, dim=1)


class NearestMean(Method):
    """Nearest class mean, NCM (arXiv 1910.09217), on the features of any network; no training.

    The means are those of the training images without augmentation; see `NearestClassMean`. The
    scores are no calibrated logits: their softmax says which class is nearest, not how probable.

    Args:
        network: the network whose features are used.
        counts: training images per class [C].
        transform, distance: see `NearestClassMean`.
    """

    trains = False
    frozen_backbone = True
    saved_prefixes = ("network.", "nearest.")

    def __init__(
        self,
        network: Network,
        counts: Sequence[int] | Tensor,
        *,
        transform: Transform = "cl2n",
        distance: Distance = "l2",
    ) -> None:
        super().__init__(network, counts)
        self.nearest = NearestClassMean(
            transform,
            distance,
            num_classes=len(self.class_counts),
            num_features=network.backbone.num_features,
        )

    def begin(self, run: Run) -> None:
        """Compute the class means of the training images."""
        with torch.autocast(run.device.type, enabled=False):
            self.nearest.fit(*run.features("train"), run.num_classes)

    def predict(self, images: Tensor) -> Tensor:
        """Return the scores [N, C] of images."""
        return self.classify(self.network.features(images))

    def classify(self, features: Tensor) -> Tensor:
        """Return the scores [N, C] of features [N, A]."""
        with torch.autocast(features.device.type, enabled=False):
            return self.nearest.logits(features)
