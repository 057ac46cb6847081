"""Parquet files in the layout of Hugging Face data sets: images, and labels by number or name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from longtailed.data.decoding import Exif
from longtailed.data.imageset import ImageSet, IntArray
from longtailed.data.sources.columns import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    SPLIT_COLUMNS,
    CellError,
    find_column,
    plain_name,
    read_splits,
)
from longtailed.data.sources.encoded import decode_small, read_encoded, read_paths, readable
from longtailed.data.sources.files import OnBadImage, drop_bad_images
from longtailed.data.sources.names import (
    ClassNames,
    choose_split,
    quoted,
)
from longtailed.data.sources.parquet_labels import (
    Part,
    class_numbers,
    read_names,
    read_part,
    row_error,
)
from longtailed.data.sources.paths import locate_images
from longtailed.data.sources.shards import parquet_splits
from longtailed.data.stores import ImageFiles
from longtailed.errors import LongTailedError, unknown_name

SplitRows = dict[str, dict[Path, IntArray]]


def parquet_rows(
    source: Path, label_column: str | None = None
) -> tuple[SplitRows, tuple[str, ...]]:
    """Return the rows of each split, file by file, and notes on how the files were chosen.

    A split column says where a row belongs, unless it is the label column, or else the name of its
    file (see `parquet_splits`). Files for validation or testing without labels are left out.
    """
    shards, found = parquet_splits(source)
    splits: SplitRows = {}
    notes = dict.fromkeys(found)
    for split, path in [(split, path) for split, files in shards.items() for path in files]:
        with readable(path):
            columns, count = pq.read_schema(path).names, pq.read_metadata(path).num_rows
        if split != "train" and "train" in shards and not _has_labels(columns, label_column):
            notes[f"'{path.name}' has no labels and is not used"] = None
            continue
        column = find_column("split", columns, SPLIT_COLUMNS, None, f"'{path}'")
        usable = column is not None and column != label_column and count
        named = _column_splits(path, str(column)) if usable else None
        if named is None:
            splits.setdefault(split, {})[path] = np.arange(count)
            continue
        notes[f"splits are those of column {column!r}"] = None
        for name in dict.fromkeys(named):
            splits.setdefault(name, {})[path] = np.flatnonzero(np.array(named) == name)
    return splits, tuple(notes)


def _has_labels(columns: Sequence[str], label_column: str | None) -> bool:
    if label_column is not None:
        return label_column in columns
    return any(plain_name(column) in LABEL_COLUMNS for column in columns)


def _column_splits(path: Path, column: str) -> list[str] | None:
    """Return the split of each row; None if the column names no splits."""
    with readable(path):
        values = pq.read_table(path, columns=[column]).column(0)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return None
    texts = [text or "" for text in values.to_pylist()]
    different = list(dict.fromkeys(texts))
    try:
        splits = read_splits(different, column)
    except CellError as error:
        raise row_error(path, texts.index(error.text), f"is in no split: {error}") from None
    place = dict(zip(different, splits or (), strict=False))
    return [place[text] for text in texts] if splits else None


def load_parquet(
    source: Path,
    split: str,
    *,
    label_column: str | None = None,
    image_column: str | None = None,
    class_names: ClassNames = None,
    root: str | Path | None = None,
    on_bad_image: OnBadImage = "error",
    exif: Exif = "apply",
    split_by: str | None = None,
) -> ImageSet:
    """Return the images of a split: decoded if small and of one size, else as encoded bytes.

    The image and label columns are those named, or have usual names (`img`, `image`, ...; `label`,
    `fine_label`, ...). Images are bytes of files, alone or in a struct(bytes, path), base64, lists
    of bytes or of rows of pixels, or paths below `root` (by default the folder of the file).

    Labels are names, or numbers that the `huggingface` metadata names: that of the file or, without
    it, of the other files. Without any names, the labels of train say which classes there are (see
    `name_classes`). `class_names` has the same names in another order, or new ones for the numbers.
    `split_by` is the column of the images' groups.

    Raises `LongTailedError` if a file is damaged, a column is missing, a label is null, not a
    whole number or no class (naming its row), or an image is bad.
    """
    splits, notes = parquet_rows(source, label_column)
    rows = choose_split(f"'{source}'", splits, split)
    files = list(rows)
    with readable(files[0]):
        schema = pq.read_schema(files[0])
    image = _find("image", files[0], schema, IMAGE_COLUMNS, image_column)
    label = _find("label", files[0], schema, LABEL_COLUMNS, label_column)
    parts = [read_part(path, label, some) for path, some in rows.items()]
    train_rows = splits.get("train", rows)
    every_file = [path for some in (train_rows, *splits.values()) for path in some]
    known = {path: read_names(path, label) for path in dict.fromkeys(every_file)}
    books = list(dict.fromkeys(names for names in known.values() if names is not None))
    train = parts
    if train_rows is not rows and not books:
        train = [read_part(path, label, some) for path, some in train_rows.items()]
    names, labels, label_notes = class_numbers(parts, train, books, class_names)
    if not len(labels):
        raise LongTailedError(f"'{files[0]}' has no rows.")
    without_images = ImageSet(
        torch.empty(0),
        labels,
        names,
        _rows_of_all(parts),
        name=f"{source.stem} ({split})",
        notes=tuple(f"{source.name}: {note}" for note in (*notes, *label_notes)),
        groups=None if split_by is None else _read_column(rows, split_by),
    )
    return _with_images(without_images, files, image, root, on_bad_image, exif)


def _find(
    kind: str, path: Path, schema: pa.Schema, usual: Sequence[str], chosen: str | None
) -> str:
    found = find_column(kind, schema.names, usual, chosen, f"'{path}'")
    if found is not None:
        return found
    flags = [
        field.name
        for field in schema
        if pa.types.is_integer(field.type) or pa.types.is_boolean(field.type)
    ]
    one_hot = kind == "label" and len(flags) > 1
    hint = f" Columns that are one for each class ({quoted(flags)}) are not read: make one of them."
    raise LongTailedError(
        f"unknown {kind} column in '{path}': none has a usual name ({', '.join(usual[:4])}, ...); "
        f"name it with {kind}_column. Known: {', '.join(sorted(schema.names))}."
        f"{hint if one_hot else ''}"
    )


def _read_column(rows: Mapping[Path, IntArray], column: str) -> npt.NDArray[np.str_]:
    """Return the values of the column that images are grouped by, as text."""
    groups: list[str] = []
    for path, some in rows.items():
        with readable(path):
            names = pq.read_schema(path).names
            if column not in names:
                raise unknown_name("split_by column", column, names)
            values = pq.read_table(path, columns=[column]).column(0).take(pa.array(some))
        if values.null_count:
            row = int(some[np.flatnonzero(values.is_null().to_numpy())[0]])
            raise row_error(path, row, f"has no {column} (null)")
        groups += [str(value) for value in values.to_pylist()]
    return np.array(groups)


def _rows_of_all(parts: Sequence[Part]) -> IntArray:
    """Return the rows of the parts, counted on from file to file."""
    counts = [pq.read_metadata(part.path).num_rows for part in parts]
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    return np.concatenate([start + part.rows for start, part in zip(starts, parts, strict=True)])


def _with_images(
    imageset: ImageSet,
    files: Sequence[Path],
    column: str,
    root: str | Path | None,
    on_bad: OnBadImage,
    exif: Exif,
) -> ImageSet:
    """Return the set with the images of the files, of which its indices are the rows."""
    paths = read_paths(files, column)
    if paths is not None:
        folder = Path(root).expanduser() if root is not None else files[0].parent
        found, notes = locate_images(folder, [paths[row] for row in imageset.indices])
        return replace(
            imageset,
            images=ImageFiles(folder, found),
            indices=np.arange(len(found)),
            notes=(*imageset.notes, *(f"{files[0].name}: {note}" for note in notes)),
        )
    if root is not None:
        raise LongTailedError(
            f"the images are in column '{column}' of '{files[0]}', not below a root; leave it out."
        )
    count = sum(pq.read_metadata(path).num_rows for path in files)
    decoded = decode_small(files, column, count, exif)
    if decoded is None:
        return replace(imageset, images=read_encoded(files, column))
    pixels, bad = decoded
    positions = {int(row): position for position, row in enumerate(imageset.indices)} if bad else {}
    mine = {positions[row]: reason for row, reason in bad.items() if row in positions}
    return drop_bad_images(replace(imageset, images=pixels), mine, on_bad)
