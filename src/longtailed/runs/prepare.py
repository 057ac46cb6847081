"""From a recipe to its splits, ready for training, and a manifest."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from longtailed.data import (
    ImageSet,
    Splits,
    View,
    count_near_duplicates,
    decode_resized,
    parse_view,
    view_preset,
)
from longtailed.data.augment.auto_augment import AutoAugment
from longtailed.data.augment.rand_augment import RandAugment
from longtailed.data.imageset import channel_statistics
from longtailed.data.loading import BY_US, FULL_SCAN, META_IMAGES, load_splits
from longtailed.data.settings import Data
from longtailed.data.similar import with_similar_samples
from longtailed.errors import LongTailedError
from longtailed.methods import method_class
from longtailed.recipes import Recipe

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
SMALL_SIDE = 64  # crops up to this side are small enough to keep decoded by default
MEMORY_BUDGET = 2**30  # bytes of decoded pixels kept by default


def worker_count(data: Data) -> int:
    """Return the number of decoding processes: the recipe's, or one per core up to 8."""
    return min(8, os.cpu_count() or 1) if data.workers is None else data.workers


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


def image_size(originals: ImageSet, data: Data) -> tuple[int, int]:
    """Return the height and width at which the network sees the images of a train set."""
    side = crop_size(data)
    stored = originals.stored_size if data.image_size is None else None
    return stored or (side, side)


def default_views(originals: ImageSet, train: ImageSet, data: Data) -> dict[str, View]:
    """Return the views that suit the images, and the recipe's own.

    A view of the recipe that would give another size is shown the images as the test view cuts
    them out, at the size that the network sees, if it ends at that size then.

    "standard" and "test" are what every method needs. Contrastive methods classify "strong", the
    standard view (the recipe's own, if it has one) with a policy of operations, and contrast "sim"
    (arXiv 2207.09052, 2407.04911).

    `originals` is the train set as the source has it, `train` as it is kept (see `store`).
    """
    if isinstance(originals.images, Tensor) and data.image_size is None:
        side = originals.images.shape[-1]
        standard = view_preset("digits" if data.source == "digits" else "small", side)
        test = view_preset("none", side)
    else:
        side = crop_size(data)
        standard = view_preset("large-plain" if side <= SMALL_SIDE else "large", side)
        if data.source == "digits":  # a mirrored digit is no digit
            standard = parse_view(f"resize({side}), pad_crop({max(1, side // 8)})")
        test = view_preset("large-test", side)
        if train.in_memory and not originals.in_memory:  # resized when it was decoded
            test = parse_view(f"center_crop({side})")
    wanted, kept = image_size(originals, data), train.stored_size
    family = "small" if side <= SMALL_SIDE else "large"
    own = {
        name: _sized(name, parse_view(text), test, kept, wanted)
        for name, text in data.views.items()
    }
    standard = own.get("standard", standard)
    strong = View((*standard.ops, AutoAugment() if family == "small" else RandAugment()))
    sim = view_preset("simclr-digits" if data.source == "digits" else f"simclr-{family}", side)
    views = {"standard": standard, "strong": strong, "sim": sim, "test": test}
    return {**views, **own}


def _sized(
    name: str, view: View, test: View, kept: tuple[int, int] | None, wanted: tuple[int, int]
) -> View:
    """Return the view, after the operations of the test view if only then its size is right."""
    whole = View((*test.ops, *view.ops))
    try:
        if view.output_size(kept) != wanted and whole.output_size(kept) == wanted:
            return whole
    except LongTailedError as error:
        raise LongTailedError(f"the view {name!r} cannot be used: {error}") from None
    return view


def normalization(train: ImageSet, data: Data) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel: the recipe's or the source's."""
    if data.mean is not None and data.std is not None:
        return data.mean, data.std
    if data.source in ("cifar10", "cifar100"):
        return CIFAR
    if isinstance(train.images, Tensor):
        return channel_statistics(train.pixels())
    return IMAGENET


def with_meta(recipe: Recipe) -> Data:
    """Return the recipe's data section, with a meta set if a method needs one."""
    streams = [s for stage in recipe.stages for s in method_class(stage.method).streams.values()]
    if recipe.data.meta_per_class is None and any(s.split == "meta" for s in streams):
        return recipe.data.model_copy(update={"meta_per_class": META_IMAGES})
    return recipe.data


class Opened(NamedTuple):
    """A run's images as its source has them: the sets by split, and how they arose."""

    sets: dict[str, ImageSet]
    notes: dict[str, Any]


def open_images(recipe: Recipe, scan: bool = True) -> Opened:
    """Return the image sets of a recipe; see `load_splits`."""
    data = with_meta(recipe)
    sets, notes = load_splits(data, scan)
    if data.similar.fraction:
        sets["train"], notes["similar"] = with_similar_samples(
            sets["train"], data.similar, data.subset_seed
        )
    return Opened(sets, notes)


def prepare(
    recipe: Recipe, device: torch.device, opened: Opened | None = None, leaks: bool = False
) -> tuple[Splits, dict[str, Any]]:
    """Return a recipe's splits, ready to be streamed to `device`, and their manifest.

    `opened` are the recipe's images, if they are open already. With `leaks` test images that are
    like training images are counted, if the split is ours.
    """
    data, opened = with_meta(recipe), opened or open_images(recipe)
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
        channels_last=recipe.channels_last,
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
            stacklevel=4,
        )
    pairs = [pair for pair in found["examples"] if pair[0][0] != pair[1][0]]
    return {"images": leaks, "of": len(test), "examples": pairs}


def _warn_unless_balanced(meta: ImageSet) -> None:
    smallest, largest = min(meta.class_counts), max(meta.class_counts)
    if smallest < largest:
        warnings.warn(
            f"the meta set is not balanced: its classes have {smallest} to {largest} images; "
            f"meta_per_class={smallest} would balance it.",
            stacklevel=3,
        )


def _groups(imageset: ImageSet) -> dict[str, int]:
    return {} if imageset.groups is None else {"groups": len(set(imageset.groups.tolist()))}


def _profile(data: Data) -> str:
    """Return how the class sizes came about."""
    if data.counts is not None:
        return "counts"
    return "natural" if data.imbalance is None else data.profile


def manifest(splits: Splits, originals: dict[str, ImageSet], data: Data) -> dict[str, Any]:
    """Return what is known of a run's data; what it was made of is in its record of images."""
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
