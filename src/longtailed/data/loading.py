"""From a recipe's data section to the image sets of a run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from longtailed.data import (
    ImageSet,
    available_splits,
    load_imageset,
    make_long_tailed,
    scan_images,
    split_holdout,
    split_meta,
)
from longtailed.data.given import Given, check_given
from longtailed.data.groups import describe_groups, single_group_classes
from longtailed.data.settings import REST, Data
from longtailed.data.sources.names import canonical_split, choose_split, match_classes, quoted
from longtailed.data.unlabelled import load_unlabelled
from longtailed.errors import LongTailedError

TEST_SHARE = 0.2  # of each class, where a source has no split to test on
BY_US = "held out from train by us"
HOLDOUT_IMAGES = 10  # of each class, where the source is subsampled and has plenty
HOLDOUT_SHARE = 0.1  # of each class, where it is used as it is
META_IMAGES = 10  # of each class, where a method needs a balanced meta set
META_SOURCES = {"train": "from train", "shared": "shared with train", "val": "from the val split"}
_COLUMNS = ("label_column", "image_column")
FULL_SCAN = 20_000  # images that are all decoded once before training, to find damaged ones
_log = logging.getLogger(__name__)


def load_splits(
    data: Data, scan: bool = True, given: Given | None = None
) -> tuple[dict[str, ImageSet], dict[str, Any]]:
    """Return the sets "train", "test" and, where wanted, "meta" and "holdout", and how they arose.

    The held-out part is the source's "val" split if figures are on another one, else a part of
    train set aside before subsampling. A source with one split only gives a fifth of each class
    for testing. Whatever is cut from a source with groups keeps them whole. Without `scan`, damaged
    images are not looked for (unless they are to be skipped). `given` are the source's splits, if
    they were given in Python.

    Raises `LongTailedError` for every kind of bad data in one sentence.
    """
    holdout, subsampled = data.holdout, data.imbalance is not None or data.counts is not None
    if holdout is None:
        holdout = HOLDOUT_IMAGES if subsampled else HOLDOUT_SHARE
    meta_from_val = data.meta_per_class is not None and data.meta_source == "val"
    loaded, evaluated, matched = _load_all(data, bool(holdout) or meta_from_val, scan, given)
    train, sets = loaded["train"], {}
    notes: dict[str, Any] = {
        "eval_split": evaluated or BY_US,
        "tested_on": _tested_on(evaluated, train),
        "skipped": [name for imageset in loaded.values() for name in imageset.skipped],
        "read_as": [*dict.fromkeys(note for s in loaded.values() for note in s.notes), *matched],
        "left_out": {name: dict(imageset.left_out) for name, imageset in loaded.items()},
        **_group_notes(data, train),
    }
    for name, images in (("holdout", data.holdout), ("meta_per_class", data.meta_per_class)):
        _check_number(name, images, train)
    if evaluated is not None:
        test = loaded[evaluated]
    else:
        train, test = _hold_out(train, TEST_SHARE, data, "so they stay untested")
    if data.meta_per_class is not None and data.meta_source != "shared":
        train, sets["meta"] = _set_meta_aside(data, train, loaded, evaluated)
    if holdout and "val" in loaded and evaluated != "val":
        sets["holdout"] = loaded["val"]
        notes["holdout"] = "val split"
    elif holdout:
        loss = None if evaluated is None else "so none helps to choose the epoch"
        train, sets["holdout"] = _hold_out(train, holdout, data, loss)
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
        whole_groups = data.meta_source != "shared"
        number = _of_each_class(sets["meta"], data.meta_per_class, whole_groups)
        notes["meta"] = f"{number}, {META_SOURCES[data.meta_source]}"
    if data.unlabelled is not None:
        sets["unlabelled"] = load_unlabelled(data, whole, train, _load)
        notes["unlabelled"] = data.unlabelled
        if data.unlabelled != REST:
            _add_source(notes, "unlabelled", sets["unlabelled"])
    return {"train": train, **sets, "test": test}, notes


def _add_source(notes: dict[str, Any], name: str, imageset: ImageSet) -> None:
    """Note what another source was read as."""
    notes["read_as"] += imageset.notes
    notes["skipped"] += imageset.skipped
    notes["left_out"][name] = dict(imageset.left_out)


def _check_number(name: str, images: int | float | None, train: ImageSet) -> None:
    """Raise `LongTailedError` if no class has as many images as are wanted of each."""
    largest = max(train.class_counts)
    if isinstance(images, int) and images > max(largest, META_IMAGES, HOLDOUT_IMAGES):
        raise LongTailedError(
            f"{name}={images} images of each class were asked for, but the largest class of the "
            f"training images has {largest}; ask for fewer."
        )


def _tested_on(evaluated: str | None, train: ImageSet) -> str:
    """Return what the figures are on, in words that can stand beside them."""
    if evaluated is not None:
        return f"the {evaluated} split"
    share = f"{100 * TEST_SHARE:.0f} % of each class"
    return f"images {BY_US} ({share if train.groups is None else f'about {share}, whole groups'})"


def _group_notes(data: Data, train: ImageSet) -> dict[str, Any]:
    if train.groups is None:
        return {}
    by = data.split_by or data.split_by_pattern or "the groups of the given images"
    return {"groups": {"by": by, **describe_groups(train)}}


def _hold_out(
    whole: ImageSet, share: int | float, data: Data, loss: str | None
) -> tuple[ImageSet, ImageSet]:
    """Return `split_holdout` of `whole`; warn of classes that their groups keep together.

    `loss` says what such a class misses; None: it is known already.
    """
    rest, held = split_holdout(whole, share, seed=data.subset_seed)
    pairs = zip(whole.class_names, whole.class_counts, held.class_counts, strict=True)
    names = [name for name, images, given in pairs if images > 1 and given == 0]
    if names and loss is not None:
        alone = set(names) <= set(single_group_classes(whole))
        where = "in one group each" if alone else "in one group, or in groups tied to such a class"
        warnings.warn(
            f"{len(names)} class(es) have all their images {where}: {quoted(names, 3)}. None "
            f"of these images is held out, {loss}.",
            stacklevel=4,
        )
    return rest, held


def _of_each_class(imageset: ImageSet, wanted: int | float, whole_groups: bool = True) -> str:
    number = f"{100 * wanted:g} %" if isinstance(wanted, float) else f"{wanted}"
    if imageset.groups is not None and whole_groups:
        return f"about {number} of each class in whole groups"
    exact = set(imageset.class_counts) == {wanted} or isinstance(wanted, float)
    return f"{number} of each class" if exact else f"at most {number} of each class"


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


def _load_all(
    data: Data, want_holdout: bool, scan: bool, given: Given | None
) -> tuple[dict[str, ImageSet], str | None, list[str]]:
    """Return the splits that a run needs, which one its figures are on, and what was matched."""
    check_given(data, given)
    existing = existing_splits(data) if given is None else tuple(given)
    evaluated = data.eval_split or next((s for s in ("test", "val") if s in existing), None)
    evaluated = evaluated and (canonical_split(evaluated) or evaluated)
    if evaluated == "train":
        raise LongTailedError("eval_split cannot be train: figures on it say nothing.")
    names = dict.fromkeys(["train", *([evaluated] if evaluated else [])])
    if want_holdout and "val" in existing:
        names["val"] = None
    loaded = {name: _load(data, name, scan, given) for name in names}
    return loaded, evaluated, _match_splits(loaded)


def load_whole(
    data: Data, source: str | None, split: str | None, options: Mapping[str, Any] | None = None
) -> ImageSet:
    """Return all images of a split of `source`, or of the recipe's own source if None.

    Without a split: "test", else "val", else whatever there is. `options` are settings of the
    recipe's data section: all that there are for opening another source, changes for its own.
    """
    data = opened_with(data, source, options or {})
    check_given(data, None)
    existing = existing_splits(data)
    chosen = split or next((s for s in ("test", "val") if s in existing), None)
    if chosen is not None:
        return _load(data, chosen)
    whole = _load(data, "train")
    return replace(whole, name=whole.name.removesuffix(" (train)"))


def existing_splits(data: Data) -> tuple[str, ...]:
    """Return the splits that the recipe's source has."""
    return available_splits(data.source, **_given(data, *_COLUMNS, "val_list", "test_list"))


def opened_with(data: Data, source: str | None, options: Mapping[str, Any]) -> Data:
    """Return the settings that open `source` with them, or the run's own data with changes."""
    given = {name: value for name, value in options.items() if value is not None}
    kept = data.model_dump()
    if source is not None:
        kept = {"source": source, "on_bad_image": data.on_bad_image, "exif": data.exif}
    return Data.model_validate({**kept, **given})


def _given(data: Data, *names: str) -> dict[str, Any]:
    """Return those of the settings that are not None."""
    values = {name: getattr(data, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _load(data: Data, split: str, scan: bool = True, given: Given | None = None) -> ImageSet:
    """Return a split of the recipe's source, or of what was given, without damaged images."""
    imageset = _open(data, split) if given is None else choose_split("the data", given, split)
    if not scan and data.on_bad_image == "error":
        return imageset
    # Decoding all of a large set takes minutes, so there a damaged file shows up when it is used.
    full = data.on_bad_image == "skip" or len(imageset) <= FULL_SCAN
    return scan_images(imageset, data.on_bad_image, full=full)


def _open(data: Data, split: str) -> ImageSet:
    options = _given(data, *_COLUMNS, "root", "class_names", "val_list", "test_list")
    if split == "train" or (split == "val" and data.meta_source == "val"):  # these are divided
        options |= _given(data, "split_by", "split_by_pattern")
    return load_imageset(
        data.source,
        split,
        download=data.download,
        on_bad_image=data.on_bad_image,
        exif=data.exif,
        **options,
    )


def check_train_classes(train: ImageSet) -> None:
    """Raise `LongTailedError` unless a train set has several classes, and images of each."""
    if train.num_classes < 2:
        raise LongTailedError(
            f"{train.name} has only one class ({train.class_names[0]!r}), and there is nothing to "
            "tell apart; give a folder in which each class has a folder, or more labels."
        )
    empty = [name for name, n in zip(train.class_names, train.class_counts, strict=True) if n == 0]
    if empty:
        bad = f" ({len(train.skipped)} unreadable images were skipped)" if train.skipped else ""
        raise LongTailedError(
            f"{len(empty)} class(es) have no training image: {quoted(empty, 3)}{bad}."
        )


def _match_splits(loaded: dict[str, ImageSet]) -> list[str]:
    """Number the classes of all splits as train does, by name; return what that took.

    Raises `LongTailedError` for a class without training images.
    """
    train = loaded["train"]
    check_train_classes(train)
    notes = []
    for split, imageset in loaded.items():
        loaded[split], note = match_classes(
            imageset, train.class_names, "train", f"name the classes of {split} as those of train"
        )
        if note is not None:
            _log.info("%s", note)
            notes.append(note)
    return notes
