"""How a list of images is written: what separates its cells, and which column holds what."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TextIO

from longtailed.data.class_names import is_whole
from longtailed.data.decoding import IMAGE_SUFFIXES, has_image_suffix
from longtailed.data.sources.columns import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    SPLIT_COLUMNS,
    ChosenColumns,
    find_column,
)
from longtailed.data.sources.names import quoted
from longtailed.errors import LongTailedError, unknown_name

_SEPARATORS = {".csv": ",;\t", ".tsv": "\t,;"}  # the first under which the first row has a meaning
ONE_HOT = {"0": False, "0.0": False, "1": True, "1.0": True}
_SUFFIX = "(?:" + "|".join(map(re.escape, IMAGE_SUFFIXES)) + ")"
_PATH_AND_SEPARATOR = re.compile(rf'{_SUFFIX}"?\s*[,;]', re.IGNORECASE)
PATH_AND_LABEL = re.compile(rf'(.*{_SUFFIX}"?)\s+(.+)', re.IGNORECASE | re.DOTALL)


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


def read_layout(source: Path, chosen: ChosenColumns) -> Layout | None:
    """Return how the file is to be read, from its first two rows; None if it is empty.

    Raises `LongTailedError` if it has no image column, or not those chosen.
    """
    with open_list(source) as file:
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
        rows = [cells for _, cells in islice(table_rows(source, separator), 2)]
        if not rows:
            return None
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
    if any("\0" in cell for cell in columns):
        return None
    if any(name is not None and name not in columns for name in (chosen.image, chosen.label)):
        return None
    place = f"'{source}'"
    image = find_column("image", columns, IMAGE_COLUMNS, chosen.image, place)
    if image is None:
        return None if chosen.label else _without_header(columns, separator)
    label = find_column("label", columns, LABEL_COLUMNS, chosen.label, place)
    split = find_column("split", columns, SPLIT_COLUMNS, None, place)
    if split in (image, label):
        split = None
    others = [i for i, column in enumerate(columns) if column not in (image, split) and column]
    values = [cell.strip() for cell in rows[-1]]
    flags = [i for i in others if i < len(values) and values[i] in ONE_HOT]
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
    firsts = [next(table_rows(source, separator)) for separator in separators]
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


@contextmanager
def open_list(source: Path, newline: str | None = None) -> Iterator[TextIO]:
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


def table_rows(
    source: Path, separator: str, left_out: list[int] | None = None
) -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the cells of each row that is neither empty nor a comment.

    The lines of comments that name an image are added to `left_out`.
    """
    with open_list(source, newline="") as file:
        reader = csv.reader(file, delimiter=separator)
        try:
            for row in reader:
                filled = row and (row[0].strip() or any(map(str.strip, row)))
                if not filled:
                    continue
                if not row[0].lstrip().startswith("#"):
                    yield reader.line_num, row
                elif left_out is not None and any(map(has_image_suffix, row)):
                    left_out.append(reader.line_num)
        except csv.Error as error:
            raise line_error(source, reader.line_num, str(error)) from error
