"""Labels as a file writes them, and the classes that they mean.

Classes of different files are the same if their names are. Numbers are names like any other,
unless a list of class names is given, which says what each number stands for.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from longtailed.data.class_names import is_whole, sort_class_names
from longtailed.data.imageset import IntArray
from longtailed.data.sources.columns import CellError
from longtailed.data.sources.names import quoted
from longtailed.errors import LongTailedError

_WHOLE_FLOAT = re.compile(r"([0-9]+)\.0+")
_NUMBER = re.compile(r"[-+]?[\d.,;\s]*\d[\d.,;\s]*(e[-+]?\d+)?", re.IGNORECASE)
_MISSING = ("", "nan", "null", "na", "n/a", "#n/a", "<na>")
_MAX_DIGITS = 9  # of a number that counts classes


@dataclass(frozen=True, eq=False)
class Labels:
    """The different labels of some entries, as text, and which of them each entry has [N]."""

    texts: tuple[str, ...]
    codes: IntArray

    @classmethod
    def of(cls, texts: Sequence[str]) -> Labels:
        """Return the labels of entries with these texts [N]."""
        numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        codes = np.fromiter(map(numbers.__getitem__, texts), np.int64, len(texts))
        return cls(tuple(numbers), codes)

    def __len__(self) -> int:
        return len(self.codes)

    def first(self, text: str) -> int:
        """Return the first entry that has the label `text`."""
        return int(np.flatnonzero(self.codes == self.texts.index(text))[0])

    def only(self, chosen: IntArray) -> Labels:
        """Return the labels of the chosen entries."""
        kept, codes = np.unique(self.codes[chosen], return_inverse=True)
        return Labels(tuple(self.texts[code] for code in kept), codes)


def join_labels(parts: Sequence[Labels]) -> Labels:
    """Return the labels of several files, one after the other."""
    numbers: dict[str, int] = {}
    codes = [np.empty(0, np.int64)]
    for part in parts:
        places = [numbers.setdefault(text, len(numbers)) for text in part.texts]
        codes.append(np.asarray(places, dtype=np.int64)[part.codes])
    return Labels(tuple(numbers), np.concatenate(codes))


def whole_floats(labels: Labels) -> Labels:
    """Return labels that are all written like '3.0' as whole numbers, others as they are."""
    matches = [_WHOLE_FLOAT.fullmatch(text) for text in labels.texts]
    numbers = [str(int(match[1])) for match in matches if match]
    if len(numbers) < len(matches) or len(set(numbers)) < len(numbers):
        return labels
    return Labels(tuple(numbers), labels.codes)


def name_classes(labels: Labels, source: str) -> tuple[str, ...]:
    """Return the classes that the labels of a train split say there are, in order.

    Whole numbers from 0 or 1 count the classes. Other labels are the names of the classes, sorted:
    numbers as numbers ('9' before '10'), then text. Leading zeros stay.

    Raises `CellError` for a missing value, for a number that is not whole and for a name among
    numbers that count, and `LongTailedError` if a number that the labels skip has no image: then
    it is unknown whether the class exists.
    """
    texts = sort_class_names(labels.texts)
    for text in texts:
        if text.lower() in _MISSING:
            raise CellError(text, _missing(text))
    odd = [text for text in texts if not is_whole(text) and _NUMBER.fullmatch(text)]
    numbers = [int(text) for text in texts if is_whole(text)]
    padded = any(is_whole(text) and str(int(text)) != text for text in texts)
    counting = bool(numbers) and numbers[0] in (0, 1) and not padded
    if counting:
        odd += [text for text in texts if not is_whole(text) or len(text) > _MAX_DIGITS]
    if odd:
        others = ", though other labels are numbers" if numbers else ""
        raise CellError(odd[0], f"the label {odd[0]!r} is not a whole number from 0 on{others}")
    if counting:
        _check_gaps(numbers, source)
    return tuple(texts)


def _missing(text: str) -> str:
    return (
        f"the label {text!r} stands for a missing value; if it is a class, name all in class_names"
    )


def _check_gaps(numbers: Sequence[int], source: str) -> None:
    missing = numbers[-1] + 1 - numbers[0] - len(numbers)
    if missing:
        # Those shown are among the first few numbers: a stray huge label costs no memory.
        few = range(numbers[0], numbers[0] + len(numbers) + 5)
        shown = ", ".join(str(n) for n in [n for n in few if n not in set(numbers)][:5])
        raise LongTailedError(
            f"{source} has {missing} empty {'class' if missing == 1 else 'classes'} (labels run up "
            f"to {numbers[-1]}, without {shown}{', ...' if missing > 5 else ''}); correct the "
            "labels, or pass class_names to say that these classes exist."
        )


def number_labels(labels: Labels, names: Sequence[str], origin: str, code_book: bool) -> IntArray:
    """Return the class of each entry [N], its place in `names`: by name.

    If `names` is a code book and holds none of the labels, whole numbers are places in it, from 0.

    Raises `CellError` for a label that is no class.
    """
    place = {name: label for label, name in enumerate(names)}
    if code_book and not any(text in place for text in labels.texts):
        place = _places(labels.texts, len(names))
    unknown = [text for text in labels.texts if text not in place]
    if unknown:
        raise CellError(unknown[0], _no_class(unknown[0], labels, names, origin, code_book))
    return np.array([place[text] for text in labels.texts], dtype=np.int64)[labels.codes]


def _places(texts: Iterable[str], count: int) -> dict[str, int]:
    """Return what the labels that are whole numbers below `count` are as numbers.

    '01' is a number only if no label is '1'.
    """
    numbers: dict[int, list[str]] = defaultdict(list)
    for text in texts:
        if is_whole(text) and int(text) < count:
            numbers[int(text)].append(text)
    return {same[0]: number for number, same in numbers.items() if len(same) == 1}


def _no_class(text: str, labels: Labels, names: Sequence[str], origin: str, code_book: bool) -> str:
    problem = f"the class {text!r} is not among the {len(names)} classes of {origin}"
    if text.lower() in _MISSING:
        return _missing(text)
    numbered = [all(map(is_whole, some)) for some in (labels.texts, names)]
    if code_book and numbered[0]:
        return f"{problem}, which are numbered from 0"
    if numbered[0] != numbered[1] and not code_book:
        return (
            f"{problem} ({quoted(names, 3)}): one has numbers and the other names; pass "
            "class_names in the order of the numbers"
        )
    return problem


def label_notes(names: Sequence[str]) -> list[str]:
    """Return what a user should know about class names: near-equal ones, and numbers from 1 on."""
    notes = []
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        key = str(int(name)) if is_whole(name) else " ".join(name.casefold().split())
        alike[key].append(name)
    for same in alike.values():
        if len(same) > 1:
            notes.append(f"the classes {quoted(same)} are kept apart, though they look alike")
    if names and all(map(is_whole, names)) and int(names[0]) > 0:
        notes.append(f"the numbers {quoted(names, 3)} are taken as names of {len(names)} classes")
    return notes
