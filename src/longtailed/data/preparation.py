"""From a recipe's data section to splits that can be streamed, and what is known of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from longtailed.data.cache import decode_resized
from longtailed.data.default_views import (
    SMALL_SIDE,
    cached_side,
    crop_size,
    default_views,
    image_size,
    normalization,
    worker_count,
)
from longtailed.data.given import Given
from longtailed.data.imageset import ImageSet
from longtailed.data.loading import BY_US, FULL_SCAN, load_splits
from longtailed.data.near_duplicates import count_near_duplicates
from longtailed.data.settings import Data
from longtailed.data.similar import with_similar_samples
from longtailed.data.splits import Splits

MEMORY_BUDGET = 2**30  # bytes of decoded pixels kept by default


class Opened(NamedTuple):
    """A run's images as its source has them: the sets by split, and how they arose."""

    sets: dict[str, ImageSet]
    notes: dict[str, Any]


def open_data(data: Data, scan: bool = True, given: Given | None = None) -> Opened:
    """Return the image sets of a recipe's data section; see `load_splits`."""
    sets, notes = load_splits(data, scan, given)
    if data.similar.fraction:
        sets["train"], notes["similar"] = with_similar_samples(
            sets["train"], data.similar, data.subset_seed
        )
    return Opened(sets, notes)


def store(sets: dict[str, ImageSet], data: Data) -> dict[str, ImageSet]:
    """Return the sets with their images decoded into memory where the recipe or size says so."""
    size = cached_side(crop_size(data))
    total = sum(len(s) for s in sets.values() if not s.in_memory)
    fits = crop_size(data) <= SMALL_SIDE and total * 3 * size * size <= MEMORY_BUDGET
    if data.storage == "disk" or (data.storage == "auto" and not fits):
        return sets
    return {
        name: imageset if imageset.in_memory else decode_resized(imageset, size)
        for name, imageset in sets.items()
    }


def prepare_data(
    data: Data,
    device: torch.device,
    opened: Opened,
    channels_last: bool = True,
    leaks: bool = False,
) -> tuple[Splits, dict[str, Any]]:
    """Return splits of opened images, ready to be streamed to `device`, and their manifest.

    With `leaks` test images that are like training images are counted, if the split is ours.
    """
    originals, notes = opened
    if "meta" in originals:
        _warn_unless_balanced(originals["meta"])
    sets = store(originals, data)
    if leaks and notes["eval_split"] == BY_US:
        notes["near_duplicates"] = _count_leaks(sets, originals)
    mean, std = normalization(sets["train"], data)
    splits = Splits(
        sets=sets,
        views=default_views(originals["train"], sets["train"], data),
        mean=mean,
        std=std,
        device=device,
        workers=worker_count(data),
        channels_last=channels_last,
        normalized_by="data" if data.mean is None else "recipe",
        image_size=image_size(originals["train"], data),
    )
    return splits, manifest(splits, originals, data) | notes


def _count_leaks(
    sets: Mapping[str, ImageSet], originals: Mapping[str, ImageSet]
) -> dict[str, Any] | None:
    """Return how many test images look almost the same as a training image, with examples.

    None if that would take long: for more files than are all read before training.
    """
    train, test = sets["train"], sets["test"]
    if not test.in_memory and len(train) + len(test) > FULL_SCAN:
        return None
    found = count_near_duplicates({"train": train, "test": test}, named_by=originals)
    leaks = found["across_splits"]["test in train"]
    if leaks:
        warnings.warn(
            f"{leaks} of {len(test)} test images look almost the same as a training image, so "
            "figures on them are too good; if several images come from one thing (a patient, a "
            "track), keep them together with --split-by COLUMN or --split-by-pattern REGEX.",
            stacklevel=5,
        )
    pairs = [pair for pair in found["examples"] if pair[0][0] != pair[1][0]]
    return {"images": leaks, "of": len(test), "examples": pairs}


def _warn_unless_balanced(meta: ImageSet) -> None:
    smallest, largest = min(meta.class_counts), max(meta.class_counts)
    if smallest < largest:
        warnings.warn(
            f"the meta set is not balanced: its classes have {smallest} to {largest} images; "
            f"meta_per_class={smallest} would balance it.",
            stacklevel=4,
        )


def _groups(imageset: ImageSet) -> dict[str, int]:
    return {} if imageset.groups is None else {"groups": len(set(imageset.groups.tolist()))}


def _profile(data: Data) -> str:
    """Return how the class sizes came about."""
    if data.counts is not None:
        return "counts"
    return "natural" if data.imbalance is None else data.profile


def manifest(splits: Splits, originals: dict[str, ImageSet], data: Data) -> dict[str, Any]:
    """Return the part of a run's manifest about its data; its images are listed in its record."""
    train = splits.sets["train"]
    counts = np.asarray(train.class_counts)
    return {
        "source": Path(data.source).name,
        "class_names": list(train.class_names),
        "splits": {
            name: {
                "images": len(imageset),
                "counts": imageset.class_counts,
                **_groups(imageset),
            }
            for name, imageset in originals.items()
        },
        "imbalance_ratio": float(counts.max() / counts.min()),
        "requested_imbalance": data.imbalance,
        "profile": _profile(data),
        "seed": data.subset_seed,
        "selection": data.selection,
        "mean": list(splits.mean),
        "std": list(splits.std),
        "views": {name: str(view) for name, view in splits.views.items()},
        "storage": "memory" if train.in_memory else "disk",
        "image_size": list(train.images.shape[2:]) if isinstance(train.images, Tensor) else None,
    }
