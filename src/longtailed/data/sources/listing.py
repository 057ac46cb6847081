"""Parsing of image lists: `path label` lines and CSV tables, into arrays without line objects."""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from longtailed.data.files import IMAGE_SUFFIXES, PathTable
from longtailed.data.imageset import IntArray
from longtailed.errors import LongTailedError, unknown_name

_IMAGE_COLUMNS = ("path", "image", "filename", "file_name", "file")
_LABEL_COLUMNS = ("label", "class", "target")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_MAX_DIGITS = 9  # more would be no class number, and sums below stay far from 2**63


@dataclass(frozen=True, eq=False)
class Listing:
    """What a list file says: paths, label codes, the line of each, and names for the codes if any.

    Without `names` the codes are the labels themselves. `groups` are the texts of the column that
    was asked for.
    """

    source: Path
    paths: PathTable
    codes: IntArray
    lines: IntArray
    names: tuple[str, ...] | None = None
    groups: npt.NDArray[np.str_] | None = None

    def error(self, row: int, problem: str) -> LongTailedError:
        """Return the error for the line of entry `row`."""
        return line_error(self.source, int(self.lines[row]), problem)


def line_error(source: Path, line: int, problem: str) -> LongTailedError:
    """Return the error for a line (counted from 1) of a list file."""
    return LongTailedError(f"'{source}', line {line}: {problem}; correct the line.")


def is_list_file(path: Path) -> bool:
    """Return whether the file's ending is that of a list or a table."""
    return path.suffix.lower() in (".txt", ".lst", *_DELIMITERS)


def read_listing(
    source: Path, label_column: str | None = None, split_by: str | None = None
) -> Listing:
    """Return the entries of a .txt or .lst list or of a .csv or .tsv table.

    Raises `LongTailedError` with the number of the first line that does not parse.
    """
    try:
        delimiter = _DELIMITERS.get(source.suffix.lower())
        if delimiter is not None:
            listing = _read_table(source, delimiter, label_column, split_by)
        elif label_column is not None or split_by is not None:
            option = "split_by" if label_column is None else "label_column"
            raise LongTailedError(f"'{source}' is a list without columns; leave out {option}.")
        else:
            listing = _read_lines(source)
    except OSError as error:
        raise LongTailedError(f"'{source}' cannot be read: {error.strerror}.") from error
    if not len(listing.codes):
        raise LongTailedError(f"'{source}' lists no images.")
    return listing


def _read_lines(source: Path) -> Listing:
    """Return the entries of a list, found with array operations over the bytes of the file.

    A line's label is its last word, its path everything before from the first word on.
    """
    text = source.read_bytes()
    data = np.frombuffer(text, dtype=np.uint8)
    if text.startswith(b"\xef\xbb\xbf"):  # a byte-order mark
        data = data.copy()
        data[:3] = ord(" ")
    starts, ends = _find_words(data)
    newlines = np.flatnonzero(data == ord("\n"))
    word_lines = np.searchsorted(newlines, starts)
    first = np.flatnonzero(np.diff(word_lines, prepend=-1))  # the first word of each line with any
    first = first[data[starts[first]] != ord("#")] if len(first) else first
    lines = word_lines[first] + 1
    last = np.searchsorted(word_lines, lines - 1, side="right") - 1
    alone = np.flatnonzero(first == last)
    if len(alone):
        word = text[starts[first[alone[0]]] : ends[first[alone[0]]]].decode(errors="replace")
        raise line_error(source, int(lines[alone[0]]), f"'{word}' is not 'relative/path label'")
    codes, broken = _parse_numbers(data, starts[last], ends[last])
    if len(broken):
        word = text[starts[last[broken[0]]] : ends[last[broken[0]]]].decode(errors="replace")
        raise line_error(source, int(lines[broken[0]]), _not_a_label(word))
    return Listing(source, PathTable(text, starts[first], ends[last - 1]), codes, lines)


def _find_words(data: npt.NDArray[np.uint8]) -> tuple[IntArray, IntArray]:
    blank = np.zeros(256, dtype=bool)
    blank[list(b" \t\r\n")] = True
    inside = np.zeros(len(data) + 2, dtype=bool)
    inside[1:-1] = ~blank[data]
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    return edges[0::2], edges[1::2]


def _parse_numbers(
    data: npt.NDArray[np.uint8], starts: IntArray, ends: IntArray
) -> tuple[IntArray, IntArray]:
    """Return the whole numbers written in `data[starts:ends]`, and which of them are none."""
    lengths = ends - starts
    broken = lengths > _MAX_DIGITS
    numbers = np.zeros(len(starts), dtype=np.int64)
    for place in range(min(int(lengths.max(initial=0)), _MAX_DIGITS)):
        rows = np.flatnonzero(lengths > place)
        digits = data[starts[rows] + place].astype(np.int64) - ord("0")
        broken[rows] |= (digits < 0) | (digits > 9)
        numbers[rows] = numbers[rows] * 10 + digits
    return numbers, np.flatnonzero(broken)


def _not_a_label(word: str) -> str:
    return f"the label '{word}' is not a whole number from 0 on"


def _read_table(
    source: Path, delimiter: str, label_column: str | None, split_by: str | None
) -> Listing:
    """Return the entries of a table; its codes number the different label texts."""
    text, ends = bytearray(), array("q")
    codes, lines = array("q"), array("q")
    numbers: dict[str, int] = {}
    groups: list[str] = []
    for line, path, label, group in _table_entries(source, delimiter, label_column, split_by):
        text += path.encode(errors="surrogateescape")
        ends.append(len(text))
        codes.append(numbers.setdefault(label, len(numbers)))
        lines.append(line)
        groups.append(group)
    stops = np.array(ends, dtype=np.int64)
    paths = PathTable(bytes(text), np.concatenate(([0], stops))[:-1].astype(np.int64), stops)
    listing = Listing(source, paths, np.array(codes, np.int64), np.array(lines, np.int64))
    listing = _interpret_labels(listing, list(numbers))
    return replace(listing, groups=None if split_by is None else np.array(groups))


def _table_entries(
    source: Path, delimiter: str, label_column: str | None, split_by: str | None
) -> Iterator[tuple[int, str, str, str]]:
    """Yield (line, path, label, group) of each entry; without `split_by` the group is empty."""
    columns: tuple[int, int] | None = None
    group_at = -1
    with source.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        try:
            for row in reader:
                if not any(cell.strip() for cell in row) or row[0].lstrip().startswith("#"):
                    continue
                if columns is None:
                    columns, is_header = _find_columns(source, row, label_column, reader.line_num)
                    group_at = _find_group(source, row, split_by, is_header)
                    if is_header:
                        continue
                path, label = (row[i].strip() if i < len(row) else "" for i in columns)
                if not path or not label:
                    raise line_error(
                        source, reader.line_num, f"no {'label' if path else 'path'} in {row}"
                    )
                group = row[group_at].strip() if 0 <= group_at < len(row) else ""
                if split_by is not None and not group:
                    raise line_error(source, reader.line_num, f"no {split_by} in {row}")
                yield reader.line_num, path, label, group
        except csv.Error as error:
            raise line_error(source, reader.line_num, str(error)) from error


def _find_group(source: Path, row: Sequence[str], split_by: str | None, is_header: bool) -> int:
    """Return the column called `split_by` in the header, -1 if none is wanted."""
    if split_by is None:
        return -1
    if not is_header:
        raise LongTailedError(f"'{source}' has no header, so no column '{split_by}' to split by.")
    cells = [cell.strip() for cell in row]
    if split_by not in cells:
        raise unknown_name(f"split_by column of '{source}'", split_by, cells)
    return cells.index(split_by)


def _find_columns(
    source: Path, row: Sequence[str], label_column: str | None, line: int
) -> tuple[tuple[int, int], bool]:
    """Return the path and label columns from the first row, and whether it is a header."""
    cells = [cell.strip() for cell in row]
    lowered = [cell.lower() for cell in cells]
    path = next((lowered.index(name) for name in _IMAGE_COLUMNS if name in lowered), None)
    label = next((lowered.index(name) for name in _LABEL_COLUMNS if name in lowered), None)
    if label_column is not None:
        if label_column not in cells:
            raise unknown_name(f"label column of '{source}'", label_column, cells)
        label = cells.index(label_column)
    if path is not None and label is not None:
        return (path, label), True
    if len(cells) == 2 and label_column is None and lowered[0].endswith(IMAGE_SUFFIXES):
        return (0, 1), False
    raise line_error(
        source,
        line,
        f"it is neither 'path{_DELIMITERS[source.suffix.lower()]}label' nor a header with one of "
        f"{', '.join(_IMAGE_COLUMNS)} and one of {', '.join(_LABEL_COLUMNS)}",
    )


def _interpret_labels(listing: Listing, texts: Sequence[str]) -> Listing:
    """Return the listing with whole numbers as labels if all are, else with sorted class names."""
    whole = [re.fullmatch(r"[0-9]{1,9}", text) is not None for text in texts]
    if texts and all(whole):
        values = np.array([int(text) for text in texts], dtype=np.int64)
        return Listing(listing.source, listing.paths, values[listing.codes], listing.lines)
    if any(re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?", text) for text in texts):
        bad = whole.index(False)
        row = int(np.flatnonzero(listing.codes == bad)[0])
        raise listing.error(row, f"{_not_a_label(texts[bad])}, though other labels are numbers")
    order = sorted(range(len(texts)), key=texts.__getitem__)
    ranks = np.empty(len(texts), dtype=np.int64)
    ranks[order] = np.arange(len(texts))
    return Listing(
        listing.source,
        listing.paths,
        ranks[listing.codes],
        listing.lines,
        tuple(texts[i] for i in order),
    )
