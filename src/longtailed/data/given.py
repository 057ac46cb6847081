"""Images that a caller gives in Python, in place of the name or path of a source."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from longtailed.data.imageset import ImageSet
from longtailed.data.settings import Data
from longtailed.data.sources.encoded import MEMORY_SIDE
from longtailed.data.sources.names import canonical_split
from longtailed.errors import LongTailedError

PREFIX = "given://"  # begins the source of a recipe whose images were given
MEMORY_BUDGET = 2**30  # bytes of small images that are decoded at once
OPENING = (
    "root", "val_list", "test_list", "label_column", "image_column", "class_names", "split_by",
    "split_by_pattern",
)  # fmt: skip
"""Settings of a recipe's data section that say how a source is opened."""

Given = Mapping[str, ImageSet]
"""Image sets by split: "train" and, where there are any, "val" and "test"."""


def given_sets(data: Any) -> dict[str, ImageSet]:
    """Return the image sets by split that a caller means.

    `data` is an `ImageSet`, a torch or Hugging Face data set (see `ImageSet.from_dataset`), which
    is train, or a mapping of them by split ("train", "val", "test" in any usual spelling).
    Small images of one size are decoded at once, as those of a source are.

    Raises `LongTailedError` for a split that is missing or unknown, and for unusable data.
    """
    parts: dict[str, Any] = {}
    for key, part in data.items() if isinstance(data, Mapping) else [("train", data)]:
        split = canonical_split(str(key))
        if split is None or split in parts:
            raise LongTailedError(
                f"the given data have the split {key!r}{'' if split is None else ' twice'}; give "
                "train and, if there are any, val and test."
            )
        parts[split] = part
    if "train" not in parts:
        raise LongTailedError(f"the given data have no train split, but {', '.join(parts)}.")
    return {
        split: decode_small_images(ImageSet.from_dataset(part)) for split, part in parts.items()
    }


def source_of(sets: Given) -> str:
    """Return what stands for given sets as the source of a recipe: `PREFIX` and a name."""
    name = sets["train"].name.removesuffix(" (train)")
    return PREFIX + (re.sub(r"[^\w.-]+", "-", name).strip("-") or "images")


def check_given(data: Data, sets: Given | None) -> None:
    """Raise `LongTailedError` if a recipe's source was given in Python and is not given now.

    Also for settings that would open a source, where the images are given.
    """
    if sets is None:
        if data.source.startswith(PREFIX):
            raise LongTailedError(
                "the images of this run were given in Python, and nothing says where they are; "
                "give them again as data."
            )
        return
    unused = next((name for name in OPENING if getattr(data, name) is not None), None)
    if unused is not None:
        raise LongTailedError(
            f"{unused} says how a source is opened, but the images are given; leave it out."
        )


def decode_small_images(imageset: ImageSet) -> ImageSet:
    """Return the set with its images decoded into memory if they are small and all of one size.

    Small means at most `MEMORY_SIDE` pixels a side; other sets are returned as they are.
    """
    if imageset.in_memory or len(imageset) == 0:
        return imageset
    shape = imageset.decode(0).shape
    if max(shape) > MEMORY_SIDE or len(imageset) * shape.numel() > MEMORY_BUDGET:
        return imageset
    pixels = torch.empty((len(imageset), *shape), dtype=torch.uint8)
    for position in range(len(imageset)):
        image = imageset.decode(position)
        if image.shape != shape:
            return imageset
        pixels[position] = image
    return replace(imageset, images=pixels, indices=np.arange(len(imageset), dtype=np.int64))
