"""From a recipe's data section to image sets, views and a manifest."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
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
    split_meta,
    view_preset,
)
from longtailed.data.auto_augment import AutoAugment
from longtailed.data.imageset import channel_statistics
from longtailed.data.rand_augment import RandAugment
from longtailed.data.sources.names import canonical_split
from longtailed.errors import LongTailedError
from longtailed.methods import method_class
from longtailed.recipes import Recipe
from longtailed.recipes.recipe import Data
from longtailed.similar import with_similar_samples
from longtailed.unlabelled import load_unlabelled

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
TEST_SHARE = 0.2  # of each class, where a source has no split to test on
HOLDOUT_IMAGES = 10  # of each class, where the source is subsampled and has plenty
HOLDOUT_SHARE = 0.1  # of each class, where it is used as it is
META_IMAGES = 10  # of each class, where a method needs a balanced meta set
META_SOURCES = {"train": "from train", "shared": "shared with train", "val": "from the val split"}
SMALL_SIDE = 64  # crops up to this side are small enough to keep decoded by default
FULL_SCAN = 20_000  # images that are all decoded once before training, to find damaged ones
MEMORY_BUDGET = 2**30  # bytes of decoded pixels kept by default


def load_splits(data: Data) -> tuple[dict[str, ImageSet], dict[str, Any]]:
    """Return the sets "train", "test" and, where wanted, "meta" and "holdout", and how they arose.

    The held-out part is the source's "val" split if figures are on another one, else a part of
    train set aside before subsampling. A source with one split only gives a fifth of each class
    for testing.

    Raises `LongTailedError` for every kind of bad data in one sentence.
    """
    holdout, subsampled = data.holdout, data.imbalance is not None or data.counts is not None
    if holdout is None:
        holdout = HOLDOUT_IMAGES if subsampled else HOLDOUT_SHARE
    meta_from_val = data.meta_per_class is not None and data.meta_source == "val"
    loaded, evaluated = _load_all(data, bool(holdout) or meta_from_val)
    notes: dict[str, Any] = {
        "eval_split": evaluated or "part of train",
        "skipped": [name for imageset in loaded.values() for name in imageset.skipped],
    }
    train, sets = loaded["train"], {}
    if evaluated is not None:
        test = loaded[evaluated]
    else:
        train, test = split_holdout(train, TEST_SHARE, seed=data.subset_seed)
    if data.meta_per_class is not None and data.meta_source != "shared":
        train, sets["meta"] = _set_meta_aside(data, train, loaded, evaluated)
    if holdout and "val" in loaded and evaluated != "val":
        sets["holdout"] = loaded["val"]
        notes["holdout"] = "val split"
    elif holdout:
        train, sets["holdout"] = split_holdout(train, holdout, seed=data.subset_seed)
        notes["holdout"] = f"{_of_each_class(sets['holdout'], holdout)}, from train"
    whole = train
    if subsampled:
        train = make_long_tailed(
            whole, data.imbalance, profile=data.profile, seed=data.subset_seed,
            selection=data.selection, max_count=data.max_count, counts=data.counts,
        )  # fmt: skip
    if data.meta_per_class is not None:
        if data.meta_source == "shared":  # last, from what is really trained on
            _, sets["meta"] = split_meta(train, data.meta_per_class, data.subset_seed, keep=True)
        number = _of_each_class(sets["meta"], data.meta_per_class)
        notes["meta"] = f"{number}, {META_SOURCES[data.meta_source]}"
    if data.unlabelled is not None:
        sets["unlabelled"] = load_unlabelled(data, whole, train, _load)
        notes["unlabelled"] = data.unlabelled
    return {"train": train, **sets, "test": test}, notes


def _of_each_class(imageset: ImageSet, wanted: int | float) -> str:
    exact = set(imageset.class_counts) == {wanted} or isinstance(wanted, float)
    return f"{wanted} of each class" if exact else f"at most {wanted} of each class"


def _set_meta_aside(
    data: Data, train: ImageSet, loaded: dict[str, ImageSet], evaluated: str | None
) -> tuple[ImageSet, ImageSet]:
    """Return what is left of train, and the meta set; take it out of `loaded`'s val split."""
    per_class, seed = data.meta_per_class or META_IMAGES, data.subset_seed
    if data.meta_source == "train":
        return split_meta(train, per_class, seed)
    if "val" not in loaded or evaluated == "val":
        reason = "there is none" if "val" not in loaded else "the figures are on it"
        raise LongTailedError(
            f"the meta set cannot come from the val split, because {reason}; use meta_source=train."
        )
    loaded["val"], meta = split_meta(loaded["val"], per_class, seed)
    return train, meta


def with_meta(recipe: Recipe) -> Data:
    """Return the recipe's data section, with a meta set if a method needs one."""
    streams = [s for stage in recipe.stages for s in method_class(stage.method).streams.values()]
    if recipe.data.meta_per_class is None and any(s.split == "meta" for s in streams):
        return recipe.data.model_copy(update={"meta_per_class": META_IMAGES})
    return recipe.data


def _load_all(data: Data, want_holdout: bool) -> tuple[dict[str, ImageSet], str | None]:
    """Return the source's splits that a run needs, and which one its figures are on, if any."""
    existing = available_splits(data.source, **_given(data, "val_list", "test_list"))
    evaluated = data.eval_split or next((s for s in ("test", "val") if s in existing), None)
    evaluated = evaluated and (canonical_split(evaluated) or evaluated)
    if evaluated == "train":
        raise LongTailedError("eval_split cannot be train: figures on it say nothing.")
    names = dict.fromkeys(["train", *([evaluated] if evaluated else [])])
    if want_holdout and "val" in existing:
        names["val"] = None
    loaded = {name: _load(data, name) for name in names}
    _check_classes(loaded)
    return loaded, evaluated


def load_whole(
    data: Data, source: str | None, split: str | None, options: Mapping[str, Any] | None = None
) -> ImageSet:
    """Return all images of a split of `source`, or of the recipe's own source if None.

    Without a split: "test", else "val", else whatever there is. `options` are settings of the
    recipe's data section for opening another source.
    """
    if source is not None:
        data = Data(source=source, on_bad_image=data.on_bad_image, **(options or {}))
    existing = available_splits(data.source, **_given(data, "val_list", "test_list"))
    return _load(data, split or next((s for s in ("test", "val") if s in existing), "train"))


def _given(data: Data, *names: str) -> dict[str, Any]:
    """Return those of the settings that are not None."""
    values = {name: getattr(data, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _load(data: Data, split: str) -> ImageSet:
    options = _given(data, "root", "label_column", "class_names", "val_list", "test_list")
    imageset = load_imageset(
        data.source,
        split,
        download=data.download,
        on_bad_image=data.on_bad_image,
        **options,
    )
    # Decoding all of a large set takes minutes, so there a damaged file shows up when it is used.
    full = data.on_bad_image == "skip" or len(imageset) <= FULL_SCAN
    return scan_images(imageset, data.on_bad_image, full=full)


def _check_classes(loaded: dict[str, ImageSet]) -> None:
    """Raise `LongTailedError` unless all splits number the same, non-empty classes alike."""
    train = loaded["train"]
    empty = [name for name, n in zip(train.class_names, train.class_counts, strict=True) if n == 0]
    if empty:
        shown = ", ".join(map(repr, empty[:3])) + (", ..." if len(empty) > 3 else "")
        raise LongTailedError(f"{len(empty)} class(es) have no training image: {shown}.")
    for split, imageset in loaded.items():
        extra = [name for name in imageset.class_names if name not in set(train.class_names)]
        if extra:
            raise LongTailedError(f"class {extra[0]!r} is in the {split} split but not in train.")
        if imageset.class_names != train.class_names:
            raise LongTailedError(f"the splits train and {split} number their classes differently.")


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


def default_views(originals: ImageSet, train: ImageSet, data: Data) -> dict[str, View]:
    """Return the views that suit the images, and the recipe's own.

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
    family = "small" if side <= SMALL_SIDE else "large"
    own = {name: parse_view(text) for name, text in data.views.items()}
    standard = own.get("standard", standard)
    strong = View((*standard.ops, AutoAugment() if family == "small" else RandAugment()))
    sim = view_preset("simclr-digits" if data.source == "digits" else f"simclr-{family}", side)
    views = {"standard": standard, "strong": strong, "sim": sim, "test": test}
    return {**views, **own}


def normalization(train: ImageSet, data: Data) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel: the recipe's or the source's."""
    if data.mean is not None and data.std is not None:
        return data.mean, data.std
    if data.source in ("cifar10", "cifar100"):
        return CIFAR
    if isinstance(train.images, Tensor):
        return channel_statistics(train.pixels())
    return IMAGENET


def prepare(recipe: Recipe, device: torch.device) -> tuple[Splits, dict[str, Any]]:
    """Return a recipe's splits, ready to be streamed to `device`, and their manifest."""
    data = with_meta(recipe)
    originals, notes = load_splits(data)
    if "meta" in originals:
        _warn_unless_balanced(originals["meta"])
    if data.similar.fraction:
        originals["train"], notes["similar"] = with_similar_samples(
            originals["train"], data.similar, data.subset_seed
        )
    sets = store(originals, data)
    mean, std = normalization(sets["train"], data)
    splits = Splits(
        sets=sets,
        views=default_views(originals["train"], sets["train"], data),
        mean=mean,
        std=std,
        device=device,
        workers=worker_count(data),
        channels_last=recipe.channels_last,
    )
    return splits, manifest(splits, originals, data) | notes


def _warn_unless_balanced(meta: ImageSet) -> None:
    smallest, largest = min(meta.class_counts), max(meta.class_counts)
    if smallest < largest:
        warnings.warn(
            f"the meta set is not balanced: its classes have {smallest} to {largest} images; "
            f"meta_per_class={smallest} would balance it.",
            stacklevel=3,
        )


def _profile(data: Data) -> str:
    """Return how the class sizes came about."""
    if data.counts is not None:
        return "counts"
    return "natural" if data.imbalance is None else data.profile


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
        "profile": _profile(data),
        "seed": data.subset_seed,
        "selection": data.selection,
        "mean": list(splits.mean),
        "std": list(splits.std),
        "views": {name: str(view) for name, view in splits.views.items()},
        "storage": "memory" if train.in_memory else "disk",
        "image_size": list(train.images.shape[2:]) if isinstance(train.images, Tensor) else None,
    }
