"""Passes over images: their features, thumbnails, predictions and nearest neighbours."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import suppress

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from longtailed.analysis.diagnosis.attribution import NEIGHBOURS
from longtailed.analysis.diagnosis.similarity import nearest_images
from longtailed.data import ImageSet, Splits
from longtailed.errors import LongTailedError
from longtailed.methods import Method

THUMBNAIL, BATCH = 16, 256
SIZES = 32  # images whose size is looked at


@torch.no_grad()
def collect(
    function: Callable[[Tensor], Tensor] | None, splits: Splits, split: str, fabric: Fabric
) -> tuple[Tensor, Tensor]:
    """Return features [N, A] (empty without a network) and thumbnails [N, 768] of a split."""
    features, thumbnails = [], []
    for batch in splits.scan(split, batch_size=BATCH):
        images = batch.images[0]
        thumbnails.append(_thumbnails(images))
        if function is not None:
            with fabric.autocast():
                features.append(function(images).float().cpu())
    return torch.cat(features) if features else torch.empty(0), torch.cat(thumbnails)


@torch.no_grad()
def predict(
    method: Method, splits: Splits, split: str, fabric: Fabric
) -> tuple[Tensor, Tensor, Tensor]:
    """Return features [M, A], predicted classes [M] and thumbnails [M, 768] of a split's images."""
    features, predictions, thumbnails = [], [], []
    plain = type(method).predict is Method.predict  # the head on the features: no second pass
    for batch in splits.scan(split, batch_size=BATCH):
        images = batch.images[0]
        with fabric.autocast():
            seen = method.network.features(images)
            logits = method.network.head(seen) if plain else method.predict(images)
        features.append(seen.float().cpu())
        predictions.append(logits.argmax(dim=1).cpu())
        thumbnails.append(_thumbnails(images))
    return torch.cat(features), torch.cat(predictions), torch.cat(thumbnails)


def _thumbnails(images: Tensor) -> Tensor:
    side = min(THUMBNAIL, *images.shape[2:])
    return F.adaptive_avg_pool2d(images, side).flatten(1).cpu()


def nearest(features: Tensor, fabric: Fabric) -> tuple[Tensor, Tensor]:
    """Return the nearest images, found on the device."""
    places, cosines = nearest_images(features.to(fabric.device), NEIGHBOURS)
    return places.cpu(), cosines.cpu()


def image_side(imageset: ImageSet, seen: int) -> int:
    """Return the side in pixels up to which images show anything: as stored, at most `seen`.

    Small images that are enlarged for a network, to a side of `seen`, stay as coarse as they were.
    The median shorter side of a few images spread over the set; unreadable ones are left out.
    """
    sides = []
    for position in range(0, len(imageset), max(1, len(imageset) // SIZES)):
        with suppress(LongTailedError):
            sides.append(min(imageset.decode(position).shape[1:]))
    return min(seen, int(statistics.median(sides))) if sides else seen


def image_name(imageset: ImageSet, position: int) -> str:
    """Return what to call an image of a set: its path, or its place."""
    if imageset.in_memory:
        return f"image {position} of {imageset.name}"
    return imageset.images.describe(int(imageset.indices[position]))  # type: ignore[union-attr]
