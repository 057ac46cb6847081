"""Lists of images: `relative/path label` lines (ImageNet-LT, Places-LT, iNaturalist) or CSV."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from longtailed.data.files import ImageFiles
from longtailed.data.imageset import ImageSet, IntArray
from longtailed.data.sources.listing import Listing, read_listing
from longtailed.data.sources.names import (
    SPLIT_SPELLINGS,
    ClassNames,
    canonical_split,
    choose_split,
    find_split_word,
    number_classes,
    read_class_names,
)
from longtailed.errors import LongTailedError


def list_splits(
    source: Path, val_list: str | Path | None = None, test_list: str | Path | None = None
) -> dict[str, Path]:
    """Return the list file of each split.

    `source` has the split that its name says (`Places_LT_train.txt`), or is 'train'. The others
    are `val_list` and `test_list`, or those beside it with the word of another split in its place.
    """
    word = find_split_word(source.stem)
    own = canonical_split(word[0]) if word else None
    splits = {own or "train": source}
    if word is not None:
        before, after = source.stem[: word.start()], source.stem[word.end() :] + source.suffix
        for split, spellings in SPLIT_SPELLINGS.items():
            for spelling in spellings:
                sibling = source.with_name(f"{before}{_same_case(spelling, word[0])}{after}")
                if split not in splits and sibling.is_file():
                    splits[split] = sibling
    for split, path in (("val", val_list), ("test", test_list)):
        if path is not None:
            splits[split] = Path(path).expanduser()
            if not splits[split].is_file():
                raise LongTailedError(f"{split}_list: there is no file '{path}'.")
    return splits


def _same_case(word: str, model: str) -> str:
    if model.isupper():
        return word.upper()
    return word.capitalize() if model[0].isupper() else word


def load_list(
    source: Path,
    split: str,
    *,
    label_column: str | None = None,
    class_names: ClassNames = None,
    root: str | Path | None = None,
    val_list: str | Path | None = None,
    test_list: str | Path | None = None,
    split_by: str | None = None,
) -> ImageSet:
    """Return the images that a list names; the files are not looked at.

    A line is `path label`, split at its last blank; a table has a header with a path and a label
    column, or two columns without one. Labels are whole numbers from 0, or names in a table
    (classes are then the sorted names). Blank lines and lines that start with `#` are left out.
    Paths are relative to `root`, by default the folder of the list. Unless `class_names` says
    which classes there are, the train list does. `split_by` is the column of the images' groups.

    Raises `LongTailedError` with the line's number for a line that does not parse or a class that
    train lacks, and if a class has no image in train and no `class_names` are given.
    """
    splits = list_splits(source, val_list, test_list)
    path = choose_split(f"'{source}'", splits, split)
    listing = read_listing(path, label_column, split_by)
    names = read_class_names(class_names)
    if names is None:
        train = splits.get("train", path)
        reference = listing if train == path else read_listing(train, label_column)
        names = reference.names or number_classes(reference.codes, f"'{train}'")
        origin = f"'{train}'"
    else:
        origin = "class_names"
    labels = _number_labels(listing, names, origin)
    folder = Path(root).expanduser() if root is not None else path.parent
    return ImageSet(
        images=ImageFiles(folder, listing.paths),
        labels=labels,
        class_names=names,
        name=f"{path.stem} ({split})",
        groups=listing.groups,
    )


def _number_labels(listing: Listing, names: tuple[str, ...], origin: str) -> IntArray:
    if listing.names is None:
        labels = listing.codes
        outside = np.flatnonzero(labels >= len(names))
    else:
        place = {name: label for label, name in enumerate(names)}
        numbers = np.array([place.get(name, -1) for name in listing.names], dtype=np.int64)
        labels = numbers[listing.codes]
        outside = np.flatnonzero(labels < 0)
    if len(outside):
        row = int(outside[0])
        code = int(listing.codes[row])
        shown = code if listing.names is None else listing.names[code]
        problem = f"the class '{shown}' is not among the {len(names)} classes of {origin}"
        raise listing.error(row, problem)
    return labels
