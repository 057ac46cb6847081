"""Lists of images: `relative/path label` lines (ImageNet-LT, Places-LT, iNaturalist) or CSV."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from longtailed.data.imageset import ImageSet, IntArray
from longtailed.data.sources.columns import CellError, ChosenColumns
from longtailed.data.sources.labels import label_notes, name_classes, number_labels
from longtailed.data.sources.listing import Listing, read_column, read_listing
from longtailed.data.sources.names import (
    SPLIT_SPELLINGS,
    ClassNames,
    canonical_split,
    choose_split,
    find_split_word,
    read_class_names,
)
from longtailed.data.sources.paths import locate_images
from longtailed.data.sources.table_layout import read_layout
from longtailed.data.stores import ImageFiles
from longtailed.errors import LongTailedError


def list_splits(
    source: Path,
    val_list: str | Path | None = None,
    test_list: str | Path | None = None,
    chosen: ChosenColumns | None = None,
) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Return the list file of each split, and notes on lists that were left out.

    `source` has the splits that its split column names, or the one that its name says
    (`Places_LT_train.txt`), or is 'train'. The others are `val_list` and `test_list`, or those
    beside it with the word of another split in its place, if they have labels.
    """
    chosen = chosen or ChosenColumns()
    word = find_split_word(source.stem)
    own = canonical_split(word[0]) if word else None
    splits = dict.fromkeys(_column_splits(source, chosen) or (own or "train",), source)
    notes = []
    given = {"val": val_list, "test": test_list}
    for split, path in given.items():
        if path is None:
            continue
        if splits.get(split) == source:
            raise LongTailedError(f"'{source}' has the split '{split}': leave out {split}_list.")
        splits[split] = Path(path).expanduser()
        if not splits[split].is_file():
            raise LongTailedError(f"{split}_list: there is no file '{path}'.")
    for split, sibling in _siblings(source).items():
        if split in splits:
            continue
        layout = read_layout(sibling, chosen)
        if layout is not None and layout.labelled:
            splits[split] = sibling
        else:
            notes.append(f"'{sibling.name}' has no labels and is not used")
    return splits, tuple(notes)


def _column_splits(source: Path, chosen: ChosenColumns) -> tuple[str, ...]:
    layout = read_layout(source, chosen)
    if layout is None or layout.split is None or not layout.labelled:
        return ()
    splits = read_listing(source, chosen).splits
    return splits.texts if splits else ()


def _siblings(source: Path) -> dict[str, Path]:
    """Return the files beside `source` with the word of another split in its name."""
    found: dict[str, Path] = {}
    word = find_split_word(source.stem)
    if word is None:
        return found
    before, after = source.stem[: word.start()], source.stem[word.end() :] + source.suffix
    for split, spellings in SPLIT_SPELLINGS.items():
        for spelling in spellings:
            sibling = source.with_name(f"{before}{_same_case(spelling, word[0])}{after}")
            if split not in found and sibling.is_file():
                found[split] = sibling
    return found


def _same_case(word: str, model: str) -> str:
    if model.isupper():
        return word.upper()
    return word.capitalize() if model[0].isupper() else word


def load_list(
    source: Path,
    split: str,
    *,
    label_column: str | None = None,
    image_column: str | None = None,
    class_names: ClassNames = None,
    root: str | Path | None = None,
    val_list: str | Path | None = None,
    test_list: str | Path | None = None,
    split_by: str | None = None,
) -> ImageSet:
    """Return the images that a list names; few of the files are looked at.

    A line is `path label`, split at its last blank; a table has a header with a path and a label
    column, or two columns without one, and may have a split column. Paths are relative to `root`,
    by default the folder of the list (see `locate_images` for what is done if they are not there).
    Blank lines and lines that start with `#` are left out, and entries that are repeated.

    Classes are named by the labels of train, which are numbers from 0 or names (see
    `name_classes`), and those of all splits are matched by name. `class_names` says instead which
    classes there are, and is the code book of labels that are numbers. `split_by` is the column of
    the images' groups.

    Raises `LongTailedError` with the line's number for a line that does not parse, a class that
    train lacks, and an image with two labels.
    """
    chosen = ChosenColumns(image_column, label_column)
    splits, notes = list_splits(source, val_list, test_list, chosen)
    path = choose_split(f"'{source}'", splits, split)
    whole = read_listing(path, chosen)
    listing = _of_split(whole, canonical_split(split) or split)
    names = read_class_names(class_names)
    origin, code_book = "class_names", True
    if names is None:
        train = splits.get("train", path)
        reference = _of_split(whole if train == path else read_listing(train, chosen), "train")
        names, origin, code_book = _names_of(reference), f"'{train}'", False
    try:
        labels = number_labels(listing.labels, names, origin, code_book)
    except CellError as error:
        raise listing.error(listing.labels.first(error.text), str(error)) from None
    folder = Path(root).expanduser() if root is not None else path.parent
    paths, path_notes = locate_images(folder, listing.paths)
    kept, repeat_notes = _without_repeats(replace(listing, paths=paths))
    groups = None if split_by is None else read_column(listing, chosen, split_by)
    notes = (*notes, *listing.notes, *label_notes(names), *path_notes, *repeat_notes)
    return ImageSet(
        ImageFiles(folder, [paths[row] for row in kept]),
        labels[kept],
        names,
        name=f"{path.stem} ({split})",
        notes=tuple(f"{path.name}: {note}" for note in notes),
        groups=None if groups is None else groups[kept],
    )


def _of_split(listing: Listing, split: str) -> Listing:
    """Return the entries of a split; all if the list has no split column."""
    if listing.splits is None:
        return listing
    if split not in listing.splits.texts:
        raise LongTailedError(f"'{listing.source}' has no entries of the split '{split}'.")
    return listing.only(np.flatnonzero(listing.splits.codes == listing.splits.texts.index(split)))


def _names_of(train: Listing) -> tuple[str, ...]:
    try:
        return name_classes(train.labels, f"'{train.source}'")
    except CellError as error:
        raise train.error(train.labels.first(error.text), str(error)) from None


def _without_repeats(listing: Listing) -> tuple[IntArray, list[str]]:
    """Return the first entry of each path, and a note on how many others there are.

    Raises `LongTailedError` if an image has two labels.
    """
    # './a.png' is 'a.png'; most paths are plain, and to look closer at all would take a second.
    paths = [os.path.normpath(path) if "./" in path or "//" in path else path
             for path in listing.paths]  # fmt: skip
    if len(set(paths)) == len(paths):
        return np.arange(len(paths)), []
    first: dict[str, int] = {}
    codes = listing.labels.codes.tolist()
    for row, path in enumerate(paths):
        before = first.setdefault(path, row)
        if codes[before] != codes[row]:
            one, other = (listing.labels.texts[codes[at]] for at in (before, row))
            raise listing.error(
                row,
                f"'{listing.paths[row]}' has the label {other!r}, but {one!r} in line "
                f"{listing.lines[before]}",
            )
    kept = np.fromiter(first.values(), np.int64, len(first))
    repeats = len(codes) - len(first)
    return kept, [f"{repeats} lines repeat an image and are left out"] if repeats else []
