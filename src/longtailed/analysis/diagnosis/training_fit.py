"""How well a network fits its own training images: whether it has been trained long enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from longtailed.analysis.diagnosis.similarity import QUERIES, unit_features

SAMPLE = 4096  # training images at most whose nearest neighbour is sought
LEARNT_ACCURACY, LEARNT_ERROR = 0.9, 0.1  # on training images, from which a network has learnt them


@dataclass(frozen=True)
class TrainingFit:
    """How a trained network does on its training images, without augmentation; shares in 0..1.

    `accuracy` is that of its predictions, on all `images`. `neighbour_error` is how often the
    nearest other training image in the network's features has another label, on `sampled` images.
    Both are means over classes.
    """

    accuracy: float
    neighbour_error: float
    images: int
    sampled: int

    @property
    def too_short(self) -> bool:
        """Whether the network has not learnt its training images: more epochs come first.

        Neither figure is enough alone. Where the predictions are wrong but neighbours agree, the
        features are learnt and the classifier is to blame; where only neighbours disagree, the
        classifier tells the classes apart all the same.
        """
        return self.accuracy < LEARNT_ACCURACY and self.neighbour_error > LEARNT_ERROR

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready value."""
        return {
            "accuracy": self.accuracy,
            "neighbour_error": self.neighbour_error,
            "images": self.images,
            "sampled_for_neighbours": self.sampled,
        }


def training_fit(
    features: Tensor,
    predictions: Tensor,
    labels: Tensor,
    num_classes: int,
    device: torch.device | str = "cpu",
    sample: int = SAMPLE,
) -> TrainingFit:
    """Return how features [N, A] and predictions [N] fit the labels [N] that were trained on.

    Neighbours are sought for at most `sample` images, as many of each class as it has and no more
    than its share, on `device`. A class of one image has no neighbour and is left out of them.
    """
    rows = _even_sample(labels, num_classes, sample)
    unit = unit_features(features, features).to(device)
    found = []
    for block in torch.split(rows.to(device), QUERIES):
        cosines = unit[block] @ unit.T
        cosines[torch.arange(len(block), device=device), block] = -torch.inf
        found.append(cosines.argmax(dim=1).cpu())
    error = 1.0
    if len(rows):
        error = 1 - balanced_share(labels[torch.cat(found)], labels[rows], num_classes)
    return TrainingFit(
        balanced_share(predictions, labels, num_classes), error, len(labels), len(rows)
    )


def _even_sample(labels: Tensor, num_classes: int, sample: int) -> Tensor:
    """Return positions of images, drawn by lot, equally many of each class where it has them."""
    generator = torch.Generator().manual_seed(0)
    share = max(1, sample // num_classes)
    rows = []
    for label in range(num_classes):
        members = torch.nonzero(labels == label).flatten()
        if len(members) > 1:
            rows.append(members[torch.randperm(len(members), generator=generator)[:share]])
    return torch.cat(rows).sort().values if rows else torch.empty(0, dtype=torch.int64)


def balanced_share(predictions: Tensor, labels: Tensor, num_classes: int) -> float:
    """Return the share of predictions [N] that agree with labels [N], as a mean over classes."""
    images = torch.bincount(labels, minlength=num_classes)
    right = torch.bincount(labels[predictions == labels], minlength=num_classes)
    return float((right[images > 0] / images[images > 0]).mean())
