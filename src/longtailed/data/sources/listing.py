"""Reading of image lists: `path label` lines, and tables with a column of each."""

from __future__ import annotations

import codecs
import csv
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np

from longtailed.data.files import IMAGE_SUFFIXES
from longtailed.data.imageset import IntArray
from longtailed.data.sources.columns import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    SPLIT_COLUMNS,
    CellError,
    ChosenColumns,
    find_column,
    plain_name,
    quoted,
    read_splits,
)
from longtailed.data.sources.labels import Labels, is_whole, whole_floats
from longtailed.data.sources.paths import has_image_suffix
from longtailed.errors import LongTailedError, unknown_name

_SEPARATORS = {".csv": ",;\t", ".tsv": "\t,;"}  # the first under which the first row has a meaning
_ONE_HOT = {"0": False, "0.0": False, "1": True, "1.0": True}
_SUFFIX = "(?:" + "|".join(map(re.escape, IMAGE_SUFFIXES)) + ")"
_PATH_AND_SEPARATOR = re.compile(rf'{_SUFFIX}"?\s*[,;]', re.IGNORECASE)
_PATH_AND_LABEL = re.compile(rf'(.*{_SUFFIX}"?)\s+(.+)', re.IGNORECASE | re.DOTALL)


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


@dataclass(frozen=True)
class Layout:
    """How a file is to be read: what separates its cells, and the place of each column.

    Without a separator each line is a path and a label with blanks between. `labelled` is False
    for a list of images alone.
    """

    separator: str | None = None
    columns: tuple[str, ...] = ()
    header: bool = False
    image: int = 0
    label: int | None = None
    split: int | None = None
    one_hot: Mapping[int, str] = field(default_factory=dict)  # column -> the class it stands for
    labelled: bool = True


def line_error(source: Path, line: int, problem: str) -> LongTailedError:
    """Return the error for a line (counted from 1) of a list file."""
    return LongTailedError(f"'{source}', line {line}: {problem}; correct the line.")


def is_list_file(path: Path) -> bool:
    """Return whether the file's ending is that of a list or a table."""
    return path.suffix.lower() in (".txt", ".lst", *_SEPARATORS)


def read_listing(source: Path, chosen: ChosenColumns = ChosenColumns()) -> Listing:
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


def read_layout(source: Path, chosen: ChosenColumns) -> Layout | None:
    """Return how the file is to be read, from its first two rows; None if it is empty.

    Raises `LongTailedError` if it has no image column, or not those chosen.
    """
    with _open(source) as file:
        first = next((line for line in file if _says_something(line)), None)
    if first is None:
        return None
    separators = _separators(source, first)
    if not separators:
        if chosen.label or chosen.image:
            option = "label_column" if chosen.label else "image_column"
            raise LongTailedError(f"'{source}' is a list without columns; leave out {option}.")
        alone = has_image_suffix(first.strip()) and not is_whole(first.split()[0])
        return Layout(labelled=not alone)
    found = []
    for separator in separators:
        rows = [cells for _, cells in islice(_rows(source, separator), 2)]
        layout = _understand(rows, separator, chosen, source)
        if layout is not None and layout.labelled:
            return layout
        found.append(layout)
    unlabelled = next(filter(None, found), None)
    if unlabelled is None:
        raise _not_understood(source, separators, chosen)
    return unlabelled


def _says_something(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _separators(source: Path, first: str) -> str:
    """Return the separators that may divide the cells of a file; none if blanks do."""
    own = _SEPARATORS.get(source.suffix.lower())
    if own is not None:
        return own
    if "\t" in first.strip():
        return "\t"
    # One word is no path and label; a comma after the path belongs to no file name.
    table = _PATH_AND_SEPARATOR.search(first) or len(first.split()) == 1
    return ",;" if table and re.search("[,;]", first) else ""


def _understand(
    rows: Sequence[Sequence[str]], separator: str, chosen: ChosenColumns, source: Path
) -> Layout | None:
    """Return the layout that the first rows have under a separator, or None."""
    columns = tuple(cell.strip() for cell in rows[0])
    if any(name is not None and name not in columns for name in (chosen.image, chosen.label)):
        return None
    place = f"'{source}'"
    image = find_column("image", columns, IMAGE_COLUMNS, chosen.image, place)
    if image is None:
        return None if chosen.label else _without_header(columns, separator)
    label = find_column("label", columns, LABEL_COLUMNS, chosen.label, place)
    split = find_column("split", columns, SPLIT_COLUMNS, None, place)
    others = [i for i, column in enumerate(columns) if column not in (image, split) and column]
    values = [cell.strip() for cell in rows[-1]]
    flags = [i for i in others if i < len(values) and values[i] in _ONE_HOT]
    one_hot = label is None and len(rows) > 1 and len(flags) == len(others) > 1
    return Layout(
        separator,
        columns,
        True,
        columns.index(image),
        None if label is None else columns.index(label),
        None if split is None else columns.index(split),
        {i: columns[i] for i in flags} if one_hot else {},
        label is not None or one_hot,
    )


def _without_header(cells: tuple[str, ...], separator: str) -> Layout | None:
    """Return the layout of a table whose first row is an image and a label, or an image alone."""
    images = [i for i, cell in enumerate(cells) if has_image_suffix(cell)]
    if len(images) != 1 or len(cells) > 2:
        return None
    label = 1 - images[0] if len(cells) == 2 else None
    return Layout(separator, cells, False, images[0], label, labelled=label is not None)


def _not_understood(source: Path, separators: str, chosen: ChosenColumns) -> LongTailedError:
    firsts = [next(_rows(source, separator)) for separator in separators]
    line, cells = max(firsts, key=lambda row: len(row[1]))  # the first of those with most cells
    cells = [cell.strip() for cell in cells]
    for kind, name in (("image", chosen.image), ("label", chosen.label)):
        if name is not None and name not in cells:
            return unknown_name(f"{kind} column of '{source}'", name, filter(None, cells))
    if any("\0" in cell for cell in cells):
        return line_error(source, line, "it holds NUL bytes (is it UTF-16?), save it as UTF-8")
    return line_error(
        source,
        line,
        f"it is neither 'path{separators[0]}label' nor a header with a column of images (path, "
        f"image, filename, ...) and one of labels (label, class, target, ...), but {quoted(cells)}"
        "; name the columns in a header, or with image_column and label_column",
    )


def _without_labels(source: Path, layout: Layout) -> str:
    columns = [name for i, name in enumerate(layout.columns) if i != layout.image]
    if not layout.header or not columns:
        return f"'{source}' names images without labels; add their labels."
    return (
        f"'{source}' has no column with a usual name for labels (label, class, target, ...); name "
        f"one of {quoted(columns)} with label_column. If each of several columns is a class, "
        "all of them must be 0 but one, and there must be no others."
    )


@contextmanager
def _open(source: Path, newline: str | None = None) -> Iterator[TextIO]:
    """Open a list as text; bytes that are not UTF-8 stay as they are, as in names of files."""
    try:
        with source.open("rb") as raw:
            marked = raw.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        encoding = "utf-16" if marked else "utf-8-sig"
        errors = "strict" if marked else "surrogateescape"
        with source.open(encoding=encoding, errors=errors, newline=newline) as file:
            yield file
    except OSError as error:
        raise LongTailedError(f"'{source}' cannot be read: {error.strerror}.") from error
    except UnicodeError:
        raise LongTailedError(f"'{source}' is damaged UTF-16 text; save it as UTF-8.") from None


def _rows(source: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the cells of each row that is neither empty nor a comment."""
    with _open(source, newline="") as file:
        reader = csv.reader(file, delimiter=separator)
        try:
            for row in reader:
                if row and (row[0] or any(row)) and not row[0].lstrip().startswith("#"):
                    yield reader.line_num, row
        except csv.Error as error:
            raise line_error(source, reader.line_num, str(error)) from error


@dataclass
class _Entries:
    """Entries as they are read."""

    paths: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    lines: array[int] = field(default_factory=lambda: array("q"))

    def listing(self, source: Path, notes: Sequence[str] = ()) -> Listing:
        labels = whole_floats(Labels.of(self.labels))
        lines = np.array(self.lines, dtype=np.int64)
        return Listing(source, self.paths, labels, lines, notes=tuple(notes))


def _read_lines(source: Path) -> Listing:
    """Return the entries of a list: a line is a path and, after its last blank, a label.

    A label that is a name may hold blanks if the path has the ending of an image.
    """
    entries = _Entries()
    with _open(source) as file:
        for number, line in enumerate(file, 1):
            text = line.strip()
            if not text or text[0] == "#":
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
    if not has_image_suffix(path) and (match := _PATH_AND_LABEL.fullmatch(text)):
        path, label = match[1], match[2]
    return [path[1:-1] if len(path) > 1 and path[0] == path[-1] == '"' else path, label]


def _is_header(path: str, label: str) -> bool:
    return plain_name(path) in IMAGE_COLUMNS and plain_name(label) in LABEL_COLUMNS


def _read_table(source: Path, layout: Layout) -> Listing:
    entries = _Entries()
    width = len(layout.columns)
    assert layout.separator is not None
    rows = _rows(source, layout.separator)
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
    hot = [i for i, cell in cells.items() if _ONE_HOT.get(cell)]
    if len(hot) != 1 or any(cell not in _ONE_HOT for cell in cells.values()):
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
        if "\0" in text or not text.isprintable() and re.search("[\ud800-\udfff]", text):
            problem = "holds a NUL byte" if "\0" in text else "is not UTF-8: save the file as UTF-8"
            raise listing.error(listing.labels.first(text), f"the label {text!r} {problem}")
    for row, path in enumerate(listing.paths):
        if "\0" in path:
            raise listing.error(row, f"the path {path!r} holds a NUL byte")
