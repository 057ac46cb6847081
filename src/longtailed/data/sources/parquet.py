"""Parquet files in the layout of Hugging Face data sets: encoded images and integer labels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from longtailed.data.decoding import decode_rgb
from longtailed.data.files import (
    EncodedColumn,
    OnBadImage,
    drop_bad_images,
    encoded_bytes,
    map_threads,
)
from longtailed.data.imageset import ImageSet, IntArray
from longtailed.data.sources.names import (
    ClassNames,
    canonical_split,
    choose_split,
    find_split_word,
    number_classes,
    read_class_names,
)
from longtailed.errors import LongTailedError, unknown_name

MEMORY_SIDE = 64  # images of one size, at most this many pixels a side, are decoded when opened
_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("label", "fine_label")
_SHARD = re.compile(r"[-_.]?(\d+)(?:-of-(\d+))?")
_BATCH_ROWS = 2048
_THREAD_ROWS = 256


def parquet_splits(source: Path) -> dict[str, list[Path]]:
    """Return the files of each split, in shard order, of a folder or of the set one file is in.

    The split is the last word of a file's name that names one, or else its folder's name. Files
    without one are left out, or are 'train' if no file has one.

    Raises `LongTailedError` if shards are missing or the folder holds several data sets.
    """
    if source.is_file():
        split, family = _place(source)
        if split is None:
            return {"train": [source]}
        pattern = "*.parquet" if family[0] == source.parent else "*/*.parquet"
        files = [path for path in sorted(family[0].glob(pattern)) if _place(path)[1] == family]
    else:
        everything = sorted(source.glob("*.parquet")) or sorted(source.glob("*/*.parquet"))
        files = [path for path in everything if _place(path)[0]]
        if not files:
            return {"train": everything}
        families = {_place(path)[1]: path for path in files}
        if len(families) > 1:
            first, second = list(families.values())[:2]
            raise LongTailedError(
                f"'{source}' holds more than one data set ('{first.name}', '{second.name}'); "
                "name one of the files instead of the folder."
            )
    splits: dict[str, list[Path]] = {}
    for path in files:
        splits.setdefault(str(_place(path)[0]), []).append(path)
    for shards in splits.values():
        _check_shards(shards)
    return splits


def _place(path: Path) -> tuple[str | None, tuple[Path, str, str]]:
    """Return a file's split and what the files of its data set share: folder and rest of name."""
    word = find_split_word(path.stem)
    if word is not None:
        after = path.stem[word.end() :]
        rest = "" if _SHARD.fullmatch(after) else after
        return canonical_split(word[0]), (path.parent, path.stem[: word.start()], rest)
    return canonical_split(path.parent.name), (path.parent.parent, "", "")


def _check_shards(shards: Sequence[Path]) -> None:
    found = [match for path in shards if (match := re.search(r"(\d+)-of-(\d+)$", path.stem))]
    missing = sorted({*range(int(found[0][2]))} - {int(m[1]) for m in found}) if found else []
    if missing:
        raise LongTailedError(
            f"'{shards[0].parent}' lacks shard {missing[0]:05d} of {found[0][2]} beside "
            f"'{shards[0].name}'; fetch the missing files."
        )


def load_parquet(
    source: Path,
    split: str,
    *,
    label_column: str | None = None,
    class_names: ClassNames = None,
    on_bad_image: OnBadImage = "error",
    split_by: str | None = None,
) -> ImageSet:
    """Return the images of a split: decoded if small and of one size, else as encoded bytes.

    The image column is `img` or `image`, binary or struct(bytes, path); the label column is
    `label`, `fine_label` or the one named. Class names come from `class_names`, from the
    `huggingface` metadata of the schema, or are the numbers up to the largest label of train.
    `split_by` is the column of the images' groups.

    Raises `LongTailedError` if a file is damaged, a column is missing, a label is null, not a
    whole number or out of range (naming its row), or an image is bad.
    """
    splits = parquet_splits(source)
    files = choose_split(f"'{source}'", splits, split)
    with _readable(files[0]):
        schema = pq.read_schema(files[0])
    image_column = _choose_column("image", schema.names, _IMAGE_COLUMNS)
    known_labels = (label_column,) if label_column else _LABEL_COLUMNS
    column = _choose_column("label", schema.names, known_labels)
    labels = [_read_labels(path, column) for path in files]
    names = read_class_names(class_names) or _metadata_names(schema, column)
    if names is None:
        train = [_read_labels(path, column) for path in splits.get("train", files)]
        names = number_classes(np.concatenate(train), f"column '{column}' of '{source}'")
    for path, values in zip(files, labels, strict=True):
        _check_range(values, names, path)
    joined = np.concatenate(labels)
    if not len(joined):
        raise LongTailedError(f"'{files[0]}' has no rows.")
    name = f"{source.stem} ({split})"
    groups = None if split_by is None else _read_groups(files, split_by)
    decoded = _decode_small(files, image_column, len(joined))
    if decoded is None:
        encoded = _read_encoded(files, image_column)
        return ImageSet(encoded, joined, names, name=name, groups=groups)
    pixels, bad = decoded
    imageset = ImageSet(pixels, joined, names, name=name, groups=groups)
    return drop_bad_images(imageset, bad, on_bad_image)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise LongTailedError(
            f"'{path}' cannot be read as a parquet file ({reason}); it may be truncated: fetch it "
            "again."
        ) from error


def _choose_column(kind: str, columns: Sequence[str], wanted: Sequence[str]) -> str:
    found = [column for column in wanted if column in columns]
    if not found:
        raise unknown_name(f"{kind} column", " or ".join(wanted), columns)
    return found[0]


def _metadata_names(schema: pa.Schema, column: str) -> tuple[str, ...] | None:
    """Return the class names that the `huggingface` metadata gives for a column, if any."""
    try:
        text = (schema.metadata or {}).get(b"huggingface", b"{}")
        feature = json.loads(text)["info"]["features"][column]
        return tuple(str(name) for name in feature["names"]) or None
    except (ValueError, KeyError, TypeError):  # other programs write other metadata
        return None


def _read_labels(path: Path, column: str) -> IntArray:
    with _readable(path):
        values = pq.read_table(path, columns=[column]).column(0)
    if values.null_count:
        row = int(np.flatnonzero(values.is_null().to_numpy())[0])
        raise _bad_row(path, row, "has no label (null)")
    if pa.types.is_integer(values.type):
        return np.asarray(values.cast(pa.int64()).to_numpy())
    if not pa.types.is_floating(values.type):
        if not len(values):
            return np.empty(0, np.int64)
        raise _bad_row(path, 0, f"has the label {values[0].as_py()!r}, not a whole number")
    numbers = values.to_numpy()
    broken = np.flatnonzero(~(numbers == np.rint(numbers)))
    if len(broken):
        raise _bad_row(
            path, int(broken[0]), f"has the label {numbers[broken[0]]}, not a whole number"
        )
    return np.asarray(numbers.astype(np.int64))


def _read_groups(files: Sequence[Path], column: str) -> npt.NDArray[np.str_]:
    """Return the values of the column that images are grouped by, as text."""
    groups: list[str] = []
    for path in files:
        with _readable(path):
            schema = pq.read_schema(path)
            _choose_column("split_by", schema.names, (column,))
            values = pq.read_table(path, columns=[column]).column(0)
        if values.null_count:
            row = int(np.flatnonzero(values.is_null().to_numpy())[0])
            raise _bad_row(path, row, f"has no {column} (null)")
        groups += [str(value) for value in values.to_pylist()]
    return np.array(groups)


def _check_range(labels: IntArray, names: Sequence[str], path: Path) -> None:
    outside = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if len(outside):
        row = int(outside[0])
        raise _bad_row(
            path, row, f"has the label {labels[row]}, outside the {len(names)} classes from 0"
        )


def _bad_row(path: Path, row: int, problem: str) -> LongTailedError:
    return LongTailedError(f"'{path}': row {row} (counted from 0) {problem}; correct the file.")


def _iterate_bytes(path: Path, column: str) -> Iterator[Any]:
    """Yield the image bytes of a file as binary Arrow arrays of at most `_BATCH_ROWS` rows."""
    with _readable(path), pq.ParquetFile(path) as file:
        kind = file.schema_arrow.field(column).type
        nested = pa.types.is_struct(kind)
        if nested and kind.get_field_index("bytes") < 0:
            raise LongTailedError(f"'{path}': the column '{column}' has no field 'bytes'.")
        chosen = [f"{column}.bytes"] if nested else [column]
        for batch in file.iter_batches(_BATCH_ROWS, columns=chosen):
            # flatten, unlike field, keeps the nulls of the struct itself.
            array = batch.column(0).flatten()[0] if nested else batch.column(0)
            if not (pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type)):
                raise LongTailedError(
                    f"'{path}': the column '{column}' holds {array.type}, not encoded images."
                )
            yield array


def _read_encoded(files: Sequence[Path], column: str) -> EncodedColumn:
    return EncodedColumn(
        {path.name: pa.chunked_array(list(_iterate_bytes(path, column))) for path in files}
    )


class _SizesDiffer(Exception):  # noqa: N818  (a signal to keep the bytes, not an error)
    pass


def _decode_small(
    files: Sequence[Path], column: str, count: int
) -> tuple[Tensor, dict[int, tuple[str, str]]] | None:
    """Return all images as one tensor [count, 3, H, W] and the bad rows, or None if not small."""
    shape = _first_shape(files, column)
    if max(shape) > MEMORY_SIDE:
        return None
    pixels = torch.zeros(count, *shape, dtype=torch.uint8)
    bad: dict[int, tuple[str, str]] = {}
    row = 0
    for path in files:
        first = row
        for array in _iterate_bytes(path, column):
            try:
                reasons = _decode_into(pixels[row : row + len(array)], array)
            except _SizesDiffer:
                return None
            for spot, reason in reasons.items():
                bad[row + spot] = (f"row {row + spot - first} of {path.name}", reason)
            row += len(array)
    return pixels, bad


def _first_shape(files: Sequence[Path], column: str) -> tuple[int, ...]:
    """Return the shape of the first image that can be decoded; one pixel if none can."""
    arrays = chain.from_iterable(_iterate_bytes(path, column) for path in files)
    images = (_decode(scalar) for array in arrays for scalar in array)
    return next((tuple(image.shape) for image in images if isinstance(image, Tensor)), (3, 1, 1))


def _decode_into(pixels: Tensor, array: Any) -> dict[int, str]:
    """Write the images of an Arrow array into `pixels`; return the bad rows and why."""

    def decode_block(start: int) -> dict[int, str]:
        images = [_decode(scalar) for scalar in array.slice(start, _THREAD_ROWS)]
        good = [image for image in images if isinstance(image, Tensor)]
        if any(image.shape != pixels.shape[1:] for image in good):
            raise _SizesDiffer
        if len(good) == len(images):
            torch.stack(good, out=pixels[start : start + len(images)])
            return {}
        for spot, image in enumerate(images, start):
            if isinstance(image, Tensor):
                pixels[spot] = image
        return {spot: image for spot, image in enumerate(images, start) if isinstance(image, str)}

    reasons: dict[int, str] = {}
    for found in map_threads(decode_block, range(0, len(array), _THREAD_ROWS)):
        reasons.update(found)
    return reasons


def _decode(scalar: Any) -> Tensor | str:
    """Return the decoded image, or why it is bad."""
    try:
        return decode_rgb(encoded_bytes(scalar))
    except ValueError as error:
        return str(error)
