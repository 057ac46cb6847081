"""A folder of images with one directory for each class, with or without split folders."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from longtailed.data.files import IMAGE_SUFFIXES, ImageFiles
from longtailed.data.imageset import ImageSet
from longtailed.data.sources.names import (
    ClassNames,
    canonical_split,
    choose_split,
    read_class_names,
)
from longtailed.errors import LongTailedError


def folder_splits(source: Path) -> dict[str, Path]:
    """Return the folder of each split; a folder without split folders is all 'train'.

    A directory counts as a split folder if its name is a split's and it holds directories; one
    that holds images is a class of that name.
    """
    splits: dict[str, Path] = {}
    for directory in _directories(source):
        split = canonical_split(directory.name)
        if split is None or _holds_images(directory) or not _directories(directory):
            continue
        if split in splits:
            raise LongTailedError(
                f"'{source}' has two folders for the split '{split}' ('{splits[split].name}' and "
                f"'{directory.name}'); remove or rename one."
            )
        splits[split] = directory
    return splits or {"train": source}


def load_folder(source: Path, split: str, class_names: ClassNames = None) -> ImageSet:
    """Return the images below the class directories of `source`; sorted names give the classes.

    Files in deeper folders belong to the class above them; hidden files and other types of file
    are left out. `class_names` either holds the directory names in another order, or new names
    for the directories in sorted order.

    Raises `LongTailedError` if the split is missing, a class directory has no image, or a class
    is missing from train.
    """
    splits = folder_splits(source)
    folder = choose_split(f"'{source}'", splits, split)
    directories = {directory.name: directory for directory in _directories(folder)}
    if not directories:
        raise LongTailedError(
            f"'{folder}' has no class directories; put the images of each class into a directory "
            "with the name of the class."
        )
    classes = sorted(directories)
    if "train" in splits and splits["train"] != folder:
        classes = sorted(directory.name for directory in _directories(splits["train"]))
    unknown = sorted(set(directories) - set(classes))
    if unknown:
        raise LongTailedError(
            f"'{folder}' has the class '{unknown[0]}', which '{splits['train']}' lacks; the "
            "classes of all splits must be among those of train."
        )
    order, names = _name_classes(classes, read_class_names(class_names), folder)
    paths, labels = _list_images(directories, order)
    images = ImageFiles(folder, paths)
    return ImageSet(images, np.asarray(labels), names, name=f"{source.name} ({split})")


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


def _list_images(directories: Mapping[str, Path], order: list[str]) -> tuple[list[str], list[int]]:
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(order):
        if name not in directories:
            continue
        found = _images_below(directories[name])
        if not found:
            raise LongTailedError(
                f"the class directory '{directories[name]}' has no image "
                f"({', '.join(IMAGE_SUFFIXES)}); add images or remove the directory."
            )
        paths.extend(found)
        labels.extend([label] * len(found))
    return paths, labels


def _images_below(directory: Path) -> list[str]:
    """Return the images in and below `directory`, relative to the folder that holds it."""
    found: list[str] = []
    for base, folders, files in os.walk(directory, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = directory.name + base[len(str(directory)) :]
        found.extend(f"{below}{os.sep}{name}" for name in files if _is_image(name))
    return sorted(found)


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


def _directories(folder: Path) -> list[Path]:
    return sorted(
        entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def _holds_images(folder: Path) -> bool:
    return any(_is_image(entry.name) and entry.is_file() for entry in folder.iterdir())
