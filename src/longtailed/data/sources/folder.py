"""A folder of images with one directory for each class, with or without split folders."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from longtailed.data.class_names import sort_class_names
from longtailed.data.imageset import ImageSet
from longtailed.data.sources.finding import LINK, ImageFinder, left_out_reasons
from longtailed.data.sources.layout import read_folder_layout
from longtailed.data.sources.names import ClassNames, choose_split, quoted, read_class_names
from longtailed.data.stores import ImageFiles
from longtailed.errors import LongTailedError


def load_folder(source: Path, split: str, class_names: ClassNames = None) -> ImageSet:
    """Return the images below the class directories of `source`; sorted names give the classes.

    `read_folder_layout` says which folders are splits and which classes, `ImageFinder` which files
    are images; names that are numbers sort as numbers. Files in deeper folders belong to the class
    above them. `class_names` either holds the directory names in another order, or new names for
    the directories in sorted order. The set's `notes` and `left_out` say what was taken for what.

    Raises `LongTailedError` if the split is missing, a class has no image in train, or a class is
    missing from train.
    """
    layout = read_folder_layout(source)
    folder = choose_split(f"'{source}'", layout.splits, split)
    finder = ImageFinder()
    found = {path.name: finder.images(path) for path in finder.directories(folder)}
    train = layout.splits.get("train", folder)
    if train == folder:
        classes = sort_class_names(found)
        _refuse_empty(folder, [name for name in classes if not found[name]])
    else:
        classes = sort_class_names(path.name for path in ImageFinder().directories(train))
        _refuse_unknown(folder, [name for name in found if found[name]], classes, train)
    order, names = _name_classes(classes, read_class_names(class_names), folder)
    paths = [f"{name}{os.sep}{path}" for name in order for path in found.get(name, ())]
    links = [f"'{link}' is a {LINK}, and left out." for link in finder.links[:3]]
    counts = [len(found.get(name, ())) for name in order]
    return ImageSet(
        ImageFiles(folder, paths),
        np.repeat(np.arange(len(order)), counts),
        names,
        name=f"{source.resolve().name} ({split})",
        notes=(*layout.notes, *_notes(folder, order, names, found), *links),
        left_out=dict(finder.left_out),
    )


def _refuse_empty(folder: Path, empty: list[str]) -> None:
    if not empty:
        return
    shown = quoted([folder / name for name in empty], 3)
    finder = ImageFinder()
    finder.images(folder / empty[0])
    reasons = left_out_reasons(finder.left_out)
    raise LongTailedError(
        f"{len(empty)} class folder(s) without an image: {shown}"
        f"{f' (in the first one: {reasons})' if reasons else ''}; add images or remove the folder."
    )


def _refuse_unknown(folder: Path, filled: list[str], classes: list[str], train: Path) -> None:
    unknown = sorted(set(filled) - set(classes))
    if not unknown:
        return
    near = [name for name in classes if name.casefold().strip() == unknown[0].casefold().strip()]
    hint = f" (it has '{near[0]}': rename one of them)" if near else ""
    raise LongTailedError(
        f"'{folder}' has the class '{unknown[0]}', which '{train}' lacks{hint}; the classes of "
        "all splits must be among those of train."
    )


def _name_classes(
    classes: list[str], given: tuple[str, ...] | None, folder: Path
) -> tuple[list[str], tuple[str, ...]]:
    """Return the class directories in order of their label, and the class names."""
    if given is None:
        return classes, tuple(classes)
    shared = set(given) & set(classes)
    if len(given) == len(classes) == len(shared):
        return list(given), given
    if shared or len(given) != len(classes):
        # A partial match cannot say which name belongs to which directory.
        raise LongTailedError(
            f"class_names has {len(given)} names, {len(shared)} of them directories of "
            f"'{folder}', which has {len(classes)}; give all directory names in the order wanted, "
            "or a new name for each in sorted order."
        )
    return classes, given


def _notes(
    folder: Path, order: list[str], names: tuple[str, ...], found: Mapping[str, list[str]]
) -> list[str]:
    """Return which classes have no image, and which are not called like their folder."""
    notes = []
    strange = [name for name in found if name not in order]
    if strange:
        notes.append(f"'{folder}': no classes, as they are empty: {quoted(strange)}.")
    absent = [name for name in order if not found.get(name)]
    if absent:
        shown = quoted(absent)
        notes.append(f"'{folder}' has no image of {len(absent)} of {len(order)} classes: {shown}.")
    renamed = [f"'{old}' is '{new}'" for old, new in zip(order, names, strict=True) if old != new]
    if renamed:
        shown = ", ".join(renamed[:12]) + (", ..." if len(renamed) > 12 else "")
        notes.append(f"'{folder}': class names belong to the folders in order: {shown}.")
    return notes
