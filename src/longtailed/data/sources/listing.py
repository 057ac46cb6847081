"""Reading of image lists: `path label` lines, and tables with a column of each."""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from longtailed.data.class_names import is_whole
from longtailed.data.decoding import has_image_suffix
from longtailed.data.imageset import IntArray
from longtailed.data.sources.columns import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    CellError,
    ChosenColumns,
    plain_name,
    read_splits,
)
from longtailed.data.sources.labels import Labels, whole_floats
from longtailed.data.sources.names import quoted
from longtailed.data.sources.table_layout import (
    ONE_HOT,
    PATH_AND_LABEL,
    Layout,
    line_error,
    open_list,
    read_layout,
    table_rows,
)
from longtailed.errors import LongTailedError, unknown_name


@dataclass(frozen=True, eq=False)
class Listing:
    """What a list file says of each entry: path, label, split (if it has a column), and line."""

    source: Path
    paths: Sequence[str]
    labels: Labels
    lines: IntArray
    splits: Labels | None = None  # texts are 'train', 'val' and 'test'
    notes: tuple[str, ...] = ()

    def error(self, row: int, problem: str) -> LongTailedError:
        """Return the error for the line of entry `row`."""
        return line_error(self.source, int(self.lines[row]), problem)

    def only(self, rows: IntArray) -> Listing:
        """Return the listing of some entries."""
        return Listing(
            self.source,
            [self.paths[row] for row in rows],
            self.labels.only(rows),
            self.lines[rows],
            self.splits.only(rows) if self.splits else None,
            self.notes,
        )


def read_listing(source: Path, chosen: ChosenColumns) -> Listing:
    """Return the entries of a .txt or .lst list or of a .csv or .tsv table.

    Raises `LongTailedError` with the number of the first line that does not parse.
    """
    layout = read_layout(source, chosen)
    if layout is None:
        raise LongTailedError(f"'{source}' lists no images.")
    if not layout.labelled:
        raise LongTailedError(_without_labels(source, layout))
    listing = _read_table(source, layout) if layout.separator else _read_lines(source)
    if not len(listing.labels):
        raise LongTailedError(f"'{source}' lists no images.")
    _check_text(listing)
    return listing


def read_column(listing: Listing, chosen: ChosenColumns, column: str) -> npt.NDArray[np.str_]:
    """Return the cells of the column that the images of a listing are grouped by.

    Raises `LongTailedError` if there is no such column, or for an empty cell with its line.
    """
    source, layout = listing.source, read_layout(listing.source, chosen)
    if layout is None or not layout.separator:
        raise LongTailedError(f"'{source}' is a list without columns; leave out split_by.")
    if not layout.header:
        raise LongTailedError(f"'{source}' has no header, so no column '{column}' to split by.")
    if column not in layout.columns:
        raise unknown_name(f"split_by column of '{source}'", column, layout.columns)
    place = layout.columns.index(column)
    rows = table_rows(source, layout.separator)
    cells = {line: row[place].strip() if place < len(row) else "" for line, row in rows}
    values = [cells[line] for line in listing.lines.tolist()]
    if not all(values):
        raise listing.error(values.index(""), f"no {column}")
    return np.array(values)


def _without_labels(source: Path, layout: Layout) -> str:
    columns = [name for i, name in enumerate(layout.columns) if i != layout.image]
    if not layout.header or not columns:
        return f"'{source}' names images without labels; add their labels."
    return (
        f"'{source}' has no column with a usual name for labels (label, class, target, ...); name "
        f"one of {quoted(columns)} with label_column. If each of several columns is a class, "
        "all of them must be 0 but one, and there must be no others."
    )


@dataclass
class _Entries:
    """Entries as they are read."""

    paths: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    lines: array[int] = field(default_factory=lambda: array("q"))
    left_out: list[int] = field(default_factory=list)  # lines of comments that name an image

    def listing(self, source: Path, notes: Sequence[str] = ()) -> Listing:
        labels = whole_floats(Labels.of(self.labels))
        lines = np.array(self.lines, dtype=np.int64)
        if self.left_out:
            first, number = self.left_out[0], len(self.left_out)
            notes = [*notes, f"{number} lines with # before an image are left out (line {first})"]
        return Listing(source, self.paths, labels, lines, notes=tuple(notes))


def _read_lines(source: Path) -> Listing:
    """Return the entries of a list: a line is a path and, after its last blank, a label.

    A label that is a name may hold blanks if the path has the ending of an image.
    """
    entries = _Entries()
    with open_list(source) as file:
        for number, line in enumerate(file, 1):
            text = line.strip()
            if not text or text[0] == "#":
                if PATH_AND_LABEL.fullmatch(text):
                    entries.left_out.append(number)
                continue
            words = text.rsplit(None, 1)
            # Most lines are plain; to look closer at all would take three times as long.
            plain = len(words) == 2 and words[1].isdecimal() and text[0] != '"'
            if not plain or words[0][-1].isdecimal():
                words = _split_line(source, number, text)
                if not entries.paths and _is_header(*words):
                    continue
            entries.paths.append(words[0])
            entries.labels.append(words[1])
            entries.lines.append(number)
    return entries.listing(source)


def _split_line(source: Path, number: int, text: str) -> list[str]:
    words = text.rsplit(None, 1)
    if len(words) < 2 or has_image_suffix(words[1]):
        if is_whole(text.split(None, 1)[0]):
            raise line_error(source, number, "the label stands before the path, not after it")
        raise line_error(source, number, f"'{text}' is not 'relative/path label'")
    path, label = words
    if not has_image_suffix(path) and (match := PATH_AND_LABEL.fullmatch(text)):
        path, label = match[1], match[2]
    return [path[1:-1] if len(path) > 1 and path[0] == path[-1] == '"' else path, label]


def _is_header(path: str, label: str) -> bool:
    return plain_name(path) in IMAGE_COLUMNS and plain_name(label) in LABEL_COLUMNS


def _read_table(source: Path, layout: Layout) -> Listing:
    entries = _Entries()
    width = len(layout.columns)
    assert layout.separator is not None
    rows = table_rows(source, layout.separator, entries.left_out)
    if layout.header:
        next(rows)
    for line, row in rows:
        if len(row) > width and any(cell.strip() for cell in row[width:]):
            raise line_error(
                source, line, f"it has {len(row)} cells, and the first row {width} (a cell with "
                f"{layout.separator!r} in it needs quotes)"
            )  # fmt: skip
        path = row[layout.image].strip() if layout.image < len(row) else ""
        if layout.label is None:
            label = _hot_class(source, line, row, layout.one_hot)
        else:
            label = row[layout.label].strip() if layout.label < len(row) else ""
        if not path or not label:
            raise line_error(source, line, f"no {'label' if path else 'path'} in {row}")
        entries.paths.append(path)
        entries.labels.append(label)
        entries.lines.append(line)
        if layout.split is not None:
            entries.splits.append(row[layout.split].strip() if layout.split < len(row) else "")
    listing = entries.listing(source, _layout_notes(layout))
    if layout.split is None:
        return listing
    return _with_splits(listing, layout.columns[layout.split], Labels.of(entries.splits))


def _hot_class(source: Path, line: int, row: Sequence[str], columns: Mapping[int, str]) -> str:
    cells = {i: row[i].strip() if i < len(row) else "" for i in columns}
    hot = [i for i, cell in cells.items() if ONE_HOT.get(cell)]
    if len(hot) != 1 or any(cell not in ONE_HOT for cell in cells.values()):
        raise line_error(
            source,
            line,
            f"the columns {quoted(columns.values())} are one for each class: one must be 1 and the "
            f"others 0, but they are {', '.join(cells.values())}",
        )
    return columns[hot[0]]


def _layout_notes(layout: Layout) -> list[str]:
    """Return which columns were taken, if others could have been."""
    columns = layout.columns
    if layout.one_hot:
        return [f"each of the columns {quoted(layout.one_hot.values())} is a class"]
    if not layout.header or layout.label is None or len(columns) == 2:
        return []
    return [f"images are in column {columns[layout.image]!r}, labels in {columns[layout.label]!r}"]


def _with_splits(listing: Listing, column: str, texts: Labels) -> Listing:
    try:
        splits = read_splits(texts.texts, column)
    except CellError as error:
        raise listing.error(texts.first(error.text), str(error)) from None
    if splits is None:
        note = f"the column {column!r} names no splits and is not used"
        return replace(listing, notes=(*listing.notes, note))
    kept = tuple(dict.fromkeys(splits))
    codes = np.array([kept.index(split) for split in splits])[texts.codes]
    note = f"splits are those of column {column!r}"
    return replace(listing, splits=Labels(kept, codes), notes=(*listing.notes, note))


def _check_text(listing: Listing) -> None:
    """Raise `LongTailedError` for text that is none: NUL bytes, and labels that are not UTF-8."""
    for text in listing.labels.texts:
        if "\0" in text or re.search("[\ud800-\udfff]", text):
            problem = "holds a NUL byte" if "\0" in text else "is not UTF-8: save the file as UTF-8"
            raise listing.error(listing.labels.first(text), f"the label {text!r} {problem}")
    for row, path in enumerate(listing.paths):
        if "\0" in path:
            raise listing.error(row, f"the path {path!r} holds a NUL byte")
