"""Names of splits and of classes, as users spell them in folders, file names and options."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from longtailed.data.class_names import is_whole
from longtailed.data.imageset import ImageSet
from longtailed.errors import LongTailedError

ClassNames = Sequence[str] | Path | str | None
SPLIT_SPELLINGS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst"),
}
_SPELLINGS = "|".join(word for words in SPLIT_SPELLINGS.values() for word in words)
_SPLIT_WORD = re.compile(  # alone, or in 'trainset' and 'TestImages'
    rf"(?<![a-z])({_SPELLINGS})(?=(?:set|data|imgs|images)?(?![a-z]))", re.IGNORECASE
)
_Value = TypeVar("_Value")


def canonical_split(name: str) -> str | None:
    """Return 'train', 'val' or 'test' for any spelling of it, None for another word."""
    word = name.lower()
    return next((split for split, words in SPLIT_SPELLINGS.items() if word in words), None)


def find_split_word(text: str) -> re.Match[str] | None:
    """Return the last word of `text` that names a split ('test' in 'Places_LT_test'), if any."""
    matches = list(_SPLIT_WORD.finditer(text))
    return matches[-1] if matches else None


def order_splits(splits: Iterable[str]) -> tuple[str, ...]:
    """Return the splits in the order train, val, test."""
    present = set(splits)
    return tuple(split for split in SPLIT_SPELLINGS if split in present)


def choose_split(source: str, splits: Mapping[str, _Value], split: str) -> _Value:
    """Return the entry for `split` (any spelling); raise `LongTailedError` listing those there."""
    name = canonical_split(split)
    if name is None or name not in splits:
        known = " and ".join(f"'{known}'" for known in order_splits(splits))
        raise LongTailedError(f"{source} has no split '{split}'; it has {known}.")
    return splits[name]


def read_class_names(class_names: ClassNames) -> tuple[str, ...] | None:
    """Return the names from a list, from comma-separated text, or from a file (one name a line).

    Raises `LongTailedError` if the file is missing or a name is empty or appears twice.
    """
    if class_names is None:
        return None
    if isinstance(class_names, str | Path):
        names = _names_from_text(class_names)
    else:
        names = tuple(str(name) for name in class_names)
    if not names or "" in names:
        raise LongTailedError("class_names has an empty name; give one name for each class.")
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise LongTailedError(f"class_names has '{name}' {times} times; class names must differ.")
    return names


def _names_from_text(text: str | Path) -> tuple[str, ...]:
    path = Path(text).expanduser()
    if isinstance(text, str) and "," in text:
        return tuple(name.strip() for name in text.split(","))
    if not path.is_file():
        raise LongTailedError(
            f"class_names: there is no file '{text}'; give a file with one name a line, or the "
            "names with commas between them."
        )
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def match_classes(
    imageset: ImageSet, names: Sequence[str], owner: str, advice: str
) -> tuple[ImageSet, str | None]:
    """Return the set with labels numbered as in `names`, by name, and a sentence on what it took.

    The set may have its classes in another order or lack some; the sentence is None if they are
    `names`. `owner` says whose the names are, `advice` what to do if they do not match.

    Raises `LongTailedError` if a class with images is not among `names`, showing what differs.
    """
    own, known = imageset.class_names, {name: label for label, name in enumerate(names)}
    if own == tuple(names):
        return imageset, None
    counts = zip(own, imageset.class_counts, strict=True)
    unknown = [name for name, count in counts if count and name not in known]
    if unknown:
        raise LongTailedError(_difference(imageset, unknown, names, owner, advice))
    numbers = np.array([known.get(name, -1) for name in own], dtype=np.int64)
    matched = replace(imageset, labels=numbers[imageset.labels], class_names=tuple(names))
    absent = [name for name in names if name not in own]
    has = f"has {len(names) - len(absent)} of the {len(names)} classes of {owner}"
    if not absent:
        has = f"numbers its classes otherwise than {owner}"
    lacks = f" (it lacks {quoted(absent)})" if absent else ""
    return matched, f"{imageset.name} {has}{lacks}; they were matched by name."


def _difference(
    imageset: ImageSet, unknown: list[str], names: Sequence[str], owner: str, advice: str
) -> str:
    own = imageset.class_names
    if bare_numbers(own) != bare_numbers(names):
        pair = (imageset.name, owner) if bare_numbers(own) else (owner, imageset.name)
        return (
            f"the classes of {pair[0]} are numbers and those of {pair[1]} are names "
            f"({quoted(own, 3)} for {quoted(names, 3)}), and nothing says which is which; "
            f"{advice}."
        )
    absent = [name for name in names if name not in own]
    lacks = f" and lacks {quoted(absent)}" if absent else ""
    return (
        f"{imageset.name} has {quoted(unknown)}, which {'is' if len(unknown) == 1 else 'are'} "
        f"not among the {len(names)} classes of {owner}{lacks}; {advice}."
    )


def bare_numbers(names: Sequence[str]) -> bool:
    """Return whether all class names are numbers, as classes that nothing names are called."""
    return all(map(is_whole, names))


def quoted(names: Iterable[object], most: int = 5) -> str:
    """Return the first names in quotes, with commas between them."""
    shown = [repr(str(name)) for name in names]
    return ", ".join(shown[:most]) + (", ..." if len(shown) > most else "")
