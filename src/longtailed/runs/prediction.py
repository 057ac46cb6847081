"""Predictions of a finished run for image files."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from longtailed.data import ImageFiles, ImageSet, OnBadImage, scan_images
from longtailed.data.sources.finding import ImageFinder, left_out_reasons
from longtailed.errors import LongTailedError
from longtailed.report.run_directory import LAST
from longtailed.runs.trained import restore, serve
from longtailed.training.engine import make_fabric

_log = logging.getLogger(__name__)


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
    network: nn.Module | None = None,
) -> Iterator[Prediction]:
    """Yield a finished run's predictions for image files and folders of them, in order.

    Images are resized and cropped as the run's test images were. `network` is the module, where
    the run's network was given as one.
    Raises `LongTailedError` if there is no image, or one cannot be read.
    """
    if top < 1:
        raise LongTailedError(f"top must be at least 1, not {top}.")
    recipe, method, manifest = restore(directory, weights, network)
    paths = find_images([images] if isinstance(images, Path | str) else images)
    names = tuple(manifest["class_names"])
    store = ImageFiles(Path(), [str(path) for path in paths])
    store.exif = recipe.data.exif
    files = ImageSet(
        images=store,
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
            yield Prediction(store.describe(int(files.indices[position])), ranked)


def find_images(images: Sequence[Path | str]) -> list[Path]:
    """Return the image files named or found below the named folders, sorted within a folder.

    What is an image, and what is left out, is as for training (see `ImageFinder`); it is logged.
    """
    found: list[Path] = []
    for entry in map(Path, images):
        if entry.is_dir():
            finder = ImageFinder()
            found += [entry / path for path in finder.images(entry)]
            if finder.left_out:
                _log.info("'%s': left out: %s.", entry, left_out_reasons(finder.left_out))
        elif entry.exists():
            found.append(entry)
        else:
            raise LongTailedError(f"{entry} does not exist.")
    if not found:
        raise LongTailedError(f"no images in {', '.join(map(str, images))}.")
    return found
