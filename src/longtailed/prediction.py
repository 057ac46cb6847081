"""Predictions of a finished run for image files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from longtailed.data import (
    IMAGE_SUFFIXES,
    ImageFiles,
    ImageSet,
    OnBadImage,
    scan_images,
)
from longtailed.engine import make_fabric
from longtailed.errors import LongTailedError
from longtailed.trained import LAST, restore, serve


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image: (name, probability), best first."""

    path: str
    classes: tuple[tuple[str, float], ...]


def predict(
    directory: Path | str,
    images: Sequence[Path | str] | Path | str,
    *,
    top: int = 5,
    weights: str = LAST,
    device: str = "auto",
    on_bad_image: OnBadImage = "error",
) -> Iterator[Prediction]:
    """Yield a finished run's predictions for image files and folders of them, in order.

    Images are resized and cropped as the run's test images were.
    Raises `LongTailedError` if there is no image, or one cannot be read.
    """
    if top < 1:
        raise LongTailedError(f"top must be at least 1, not {top}.")
    recipe, method, manifest = restore(directory, weights)
    paths = find_images([images] if isinstance(images, Path | str) else images)
    names = tuple(manifest["class_names"])
    files = ImageSet(
        images=ImageFiles(Path(), [str(path) for path in paths]),
        labels=np.zeros(len(paths), np.int64),
        class_names=names,
        name="images",
    )
    files = scan_images(files, on_bad_image, full=True)
    fabric = make_fabric(device, precision=recipe.precision)
    splits = serve(files, recipe, manifest, fabric.device)
    method.to(fabric.device)
    top = min(top, len(names))
    for batch in splits.scan("test", batch_size=64):
        with torch.inference_mode(), fabric.autocast():
            probabilities = method.predict(batch.images[0]).float().softmax(dim=1)
        if not bool(probabilities.isfinite().all()):
            raise LongTailedError(
                f"the network of {directory} answers NaN to some of the images: its output "
                "overflows; take other weights, or a run with precision=32."
            )
        values, classes = probabilities.topk(top, dim=1)
        for position, p, c in zip(
            batch.index.tolist(), values.tolist(), classes.tolist(), strict=True
        ):
            ranked = tuple((names[k], value) for k, value in zip(c, p, strict=True))
            yield Prediction(files.images.describe(int(files.indices[position])), ranked)  # type: ignore[union-attr]


def find_images(images: Sequence[Path | str]) -> list[Path]:
    """Return the image files named or found below the named folders, sorted within a folder."""
    found: list[Path] = []
    for entry in map(Path, images):
        if entry.is_dir():
            found += sorted(p for p in entry.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        elif entry.exists():
            found.append(entry)
        else:
            raise LongTailedError(f"{entry} does not exist.")
    if not found:
        raise LongTailedError(f"no images in {', '.join(map(str, images))}.")
    return found
