"""The label column of parquet files: numbers, numbers that the file names, or names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from longtailed.data.imageset import IntArray
from longtailed.data.sources.columns import CellError
from longtailed.data.sources.encoded import readable
from longtailed.data.sources.labels import (
    Labels,
    join_labels,
    label_notes,
    name_classes,
    number_labels,
)
from longtailed.data.sources.names import ClassNames, read_class_names
from longtailed.errors import LongTailedError


@dataclass(frozen=True, eq=False)
class Part:
    """The rows of one file that belong to a split, and their labels.

    `numbered` says that the labels are numbers whose meaning the file does not say.
    """

    path: Path
    rows: IntArray
    labels: Labels
    numbered: bool

    def error(self, error: CellError) -> LongTailedError:
        """Return the error for the first row with a label that cannot be used."""
        row = int(self.rows[self.labels.first(error.text)])
        return row_error(self.path, row, f"has a bad label: {error}")


def row_error(path: Path, row: int, problem: str) -> LongTailedError:
    """Return the error for a row of a file."""
    return LongTailedError(f"'{path}': row {row} (counted from 0) {problem}; correct the file.")


def read_part(path: Path, column: str, rows: IntArray) -> Part:
    """Return the labels of some rows; numbers are replaced by the names that the file gives.

    Raises `LongTailedError` naming the row if a label is null, not whole or has no name.
    """
    names = read_names(path, column)
    with readable(path):
        values = pq.read_table(path, columns=[column]).column(0)
    if len(rows) < len(values):
        values = values.take(pa.array(rows))
    if values.null_count:
        row = int(rows[np.flatnonzero(values.is_null().to_numpy())[0]])
        raise row_error(path, row, "has no label (null)")
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind):
        return Part(path, rows, Labels.of(values.cast(pa.string()).to_pylist()), numbered=False)
    numbers = _whole_numbers(path, rows, values.cast(kind))
    found, codes = np.unique(numbers, return_inverse=True)
    if names is None:
        return Part(path, rows, Labels(tuple(map(str, found.tolist())), codes), numbered=True)
    outside = np.flatnonzero((numbers < 0) | (numbers >= len(names)))
    if len(outside):
        number = numbers[outside[0]]
        hidden = (
            " (-1 stands for a secret label: evaluate on another split)" if number == -1 else ""
        )
        problem = f"has the label {number}, outside the {len(names)} classes from 0{hidden}"
        raise row_error(path, int(rows[outside[0]]), problem)
    return Part(path, rows, Labels(tuple(names[number] for number in found), codes), numbered=False)


def _whole_numbers(path: Path, rows: IntArray, values: Any) -> IntArray:
    if pa.types.is_integer(values.type):
        return np.asarray(values.cast(pa.int64()).to_numpy())
    if not len(values):
        return np.empty(0, np.int64)
    if not pa.types.is_floating(values.type):
        raise row_error(path, int(rows[0]), f"has a label of the type {values.type}, not one class")
    numbers = values.to_numpy()
    broken = np.flatnonzero(~(numbers == np.rint(numbers)))
    if len(broken):
        problem = f"has the label {numbers[broken[0]]}, not a whole number"
        raise row_error(path, int(rows[broken[0]]), problem)
    return np.asarray(numbers.astype(np.int64))


def read_names(path: Path, column: str) -> tuple[str, ...] | None:
    """Return the class names that the `huggingface` metadata gives for a column, if any.

    A name that is there twice gets its number, so that the two classes stay apart.
    """
    with readable(path):
        metadata = pq.read_schema(path).metadata or {}
    try:
        names = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"][column]["names"]
        if isinstance(names, dict):  # number -> name
            names = [names[str(number)] for number in range(len(names))]
        names = [str(name) for name in names]
    except (ValueError, KeyError, TypeError):  # other programs write other metadata
        return None
    times = Counter(names)
    return tuple(f"{n} ({i})" if times[n] > 1 else n for i, n in enumerate(names)) or None


def class_numbers(
    parts: Sequence[Part],
    train: Sequence[Part],
    books: Sequence[tuple[str, ...]],
    class_names: ClassNames,
) -> tuple[tuple[str, ...], IntArray, list[str]]:
    """Return the class names, the classes of the rows of all `parts`, and notes.

    `books` are the different class names that files of the set give, those of train first. Without
    any, the labels of `train` say which classes there are.

    Raises `LongTailedError` naming the row whose label is no class.
    """
    notes = []
    if len(books) > 1:
        notes.append("files number the classes in different orders; labels are matched by name")
    if books and any(part.numbered for part in parts):
        notes.append("files without class names are read with those of the other files")
        parts = _with_names(parts, books)
    given = read_class_names(class_names)
    if given is not None and not books:
        return given, _match(parts, given, "class_names", code_book=True), notes
    names = books[0] if books else _names_of(train)
    labels = _match(parts, names, "train")
    notes += label_notes(names)
    if given is None:
        return names, labels, notes
    if set(names) <= set(given):
        return given, np.array([given.index(name) for name in names])[labels], notes
    if set(names) & set(given) or len(given) < len(names):
        raise LongTailedError(
            f"class_names has {len(given)} names and the files have {len(names)} others "
            f"({', '.join(names[:3])}, ...); give the same names in the order wanted, or a new "
            "name for each."
        )
    notes.append(f"classes are renamed ({names[0]!r} is {given[0]!r}, ...)")
    return given, labels, notes


def _with_names(parts: Sequence[Part], books: Sequence[tuple[str, ...]]) -> list[Part]:
    """Return the parts with the names that other files give for the numbers."""
    named = []
    for part in parts:
        if part.numbered and len(books) > 1:
            raise LongTailedError(
                f"'{part.path}' does not name its classes, and the other files number them in "
                "different orders; pass class_names."
            )
        if part.numbered:
            numbers = _match(
                [part], [str(number) for number in range(len(books[0]))], "other files"
            )
            part = replace(part, labels=Labels(books[0], numbers), numbered=False)
        named.append(part)
    return named


def _names_of(train: Sequence[Part]) -> tuple[str, ...]:
    try:
        return name_classes(join_labels([part.labels for part in train]), f"'{train[0].path}'")
    except CellError as error:
        part = next(part for part in train if error.text in part.labels.texts)
        raise part.error(error) from None


def _match(
    parts: Sequence[Part], names: Sequence[str], origin: str, code_book: bool = False
) -> IntArray:
    classes = [np.empty(0, np.int64)]
    for part in parts:
        try:
            classes.append(number_labels(part.labels, names, origin, code_book))
        except CellError as error:
            raise part.error(error) from None
    return np.concatenate(classes)
