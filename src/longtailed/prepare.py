"""From a recipe's data section to image sets, views and a manifest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from longtailed.data import (
    ImageSet,
    Splits,
    View,
    available_splits,
    decode_resized,
    load_imageset,
    make_long_tailed,
    parse_view,
    scan_images,
    split_holdout,
    view_preset,
)
from longtailed.errors import LongTailedError
from longtailed.recipes import Recipe
from longtailed.recipes.recipe import Data

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
TEST_SHARE = 0.2  # of each class, where a source has no split to test on
SMALL_SIDE = 64  # crops up to this side are small enough to keep decoded by default
FULL_SCAN = 20_000  # images that are all decoded once before training, to find damaged ones
MEMORY_BUDGET = 2**30  # bytes of decoded pixels kept by default


def load_splits(data: Data) -> tuple[dict[str, ImageSet], dict[str, Any]]:
    """Return the sets "train", "test" and, where wanted, "holdout", and how they came about.

    The held-out part is the source's "val" split if figures are on another one, else a part of
    train set aside before subsampling. A source with one split only gives a fifth of each class
    for testing.

    Raises `LongTailedError` for every kind of bad data in one sentence.
    """
    existing = available_splits(data.source)
    evaluated = data.eval_split or next((s for s in ("test", "val") if s in existing), None)
    train = _load(data, "train")
    notes: dict[str, Any] = {"eval_split": evaluated or "part of train"}
    if evaluated is None:
        train, test = split_holdout(train, TEST_SHARE, seed=data.subset_seed)
    else:
        test = _load(data, evaluated)
    _check_classes(train, test)
    sets = {}
    if data.holdout and "val" in existing and evaluated != "val":
        sets["holdout"] = _load(data, "val")
        notes["holdout"] = "val split"
    elif data.holdout:
        train, sets["holdout"] = split_holdout(train, data.holdout, seed=data.subset_seed)
        notes["holdout"] = f"{data.holdout} of each class, from train"
    if data.imbalance is not None:
        train = make_long_tailed(
            train,
            data.imbalance,
            profile=data.profile,
            seed=data.subset_seed,
            selection=data.selection,
            max_count=data.max_count,
        )
    return {"train": train, **sets, "test": test}, notes


def _load(data: Data, split: str) -> ImageSet:
    imageset = load_imageset(
        data.source,
        split,
        root=data.root,
        download=data.download,
        label_column=data.label_column,
        class_names=data.class_names,
        on_bad_image=data.on_bad_image,
    )
    # Decoding all of a large set takes minutes, so there a damaged file shows up when it is used.
    full = data.on_bad_image == "skip" or len(imageset) <= FULL_SCAN
    return scan_images(imageset, data.on_bad_image, full=full)


def _check_classes(train: ImageSet, test: ImageSet) -> None:
    empty = [name for name, n in zip(train.class_names, train.class_counts, strict=True) if n == 0]
    if empty:
        shown = ", ".join(map(repr, empty[:3])) + (", ..." if len(empty) > 3 else "")
        raise LongTailedError(f"{len(empty)} class(es) have no training image: {shown}.")
    extra = [name for name in test.class_names if name not in set(train.class_names)]
    if extra:
        raise LongTailedError(f"class {extra[0]!r} is in the test split but not in train.")


def crop_size(data: Data) -> int:
    """Return the side of the crops of a source whose images are files."""
    return data.image_size or 224


def cached_side(size: int) -> int:
    """Return the side at which decoded images are kept for crops of `size`: 8/7 of it."""
    return round(size * 256 / 224)


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


def default_views(train: ImageSet, data: Data) -> dict[str, View]:
    """Return the views "standard" and "test" that suit the images, and the recipe's own."""
    if isinstance(train.images, Tensor) and data.image_size is None:
        side = train.images.shape[-1]
        standard = view_preset("digits" if train.name == "digits" else "small", side)
        test = view_preset("none", side)
    else:
        size = crop_size(data)
        standard = view_preset("large-plain" if size <= SMALL_SIDE else "large", size)
        test = view_preset("large-test", size)
        if train.in_memory:  # decoded at the test view's resize already
            test = parse_view(f"center_crop({size})")
    views = {"standard": standard, "test": test}
    return {**views, **{name: parse_view(text) for name, text in data.views.items()}}


def normalization(train: ImageSet, data: Data) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel: the recipe's or the source's."""
    if data.mean is not None and data.std is not None:
        return data.mean, data.std
    if train.name.startswith("cifar"):
        return CIFAR
    if isinstance(train.images, Tensor):
        pixels = train.pixels().float().div_(255)
        std, mean = torch.std_mean(pixels, dim=(0, 2, 3), correction=0)
        return tuple(mean.tolist()), tuple(std.clamp_min(1e-3).tolist())
    return IMAGENET


def prepare(recipe: Recipe, device: torch.device) -> tuple[Splits, dict[str, Any]]:
    """Return a recipe's splits, ready to be streamed to `device`, and their manifest."""
    data = recipe.data
    originals, notes = load_splits(data)
    sets = store(originals, data)
    mean, std = normalization(sets["train"], data)
    splits = Splits(
        sets=sets,
        views=default_views(sets["train"], data),
        mean=mean,
        std=std,
        device=device,
        workers=min(8, os.cpu_count() or 1) if data.workers is None else data.workers,
        channels_last=recipe.channels_last,
    )
    return splits, manifest(splits, originals, data) | notes


def manifest(splits: Splits, originals: dict[str, ImageSet], data: Data) -> dict[str, Any]:
    """Return the record of what a run was trained on; hashes are over rows of the source."""
    train = splits.sets["train"]
    counts = np.asarray(train.class_counts)
    return {
        "source": Path(data.source).name,
        "class_names": list(train.class_names),
        "splits": {
            name: {
                "images": len(imageset),
                "counts": imageset.class_counts,
                "sha256": imageset.fingerprint(),
            }
            for name, imageset in originals.items()
        },
        "imbalance_ratio": float(counts.max() / counts.min()),
        "requested_imbalance": data.imbalance,
        "profile": data.profile if data.imbalance is not None else "natural",
        "seed": data.subset_seed,
        "selection": data.selection,
        "skipped": list(dict.fromkeys(name for s in originals.values() for name in s.skipped)),
        "mean": list(splits.mean),
        "std": list(splits.std),
        "views": {name: str(view) for name, view in splits.views.items()},
        "storage": "memory" if train.in_memory else "disk",
        "image_size": list(train.images.shape[2:]) if isinstance(train.images, Tensor) else None,
    }


__all__ = ["load_splits", "prepare"]
