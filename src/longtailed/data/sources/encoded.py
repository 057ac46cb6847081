"""The image column of parquet files: whatever it holds, as the bytes of image files."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from longtailed.data.decoding import Exif, decode_rgb, has_image_suffix
from longtailed.data.sources.files import map_threads
from longtailed.data.stores import EncodedColumn, encoded_bytes
from longtailed.errors import LongTailedError

MEMORY_SIDE = 64  # images of one size, at most this many pixels a side, are decoded when opened
_BATCH_ROWS = 2048
_THREAD_ROWS = 256
_DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,")
Convert: TypeAlias = Callable[[Any], Any]


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what parquet says of a damaged file into one sentence."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise LongTailedError(
            f"'{path}' cannot be read as a parquet file ({reason}); it may be truncated: fetch it "
            "again."
        ) from error


def read_paths(files: Sequence[Path], column: str) -> list[str] | None:
    """Return the paths of a column that has paths instead of images, or None if it has images.

    The column is text, or the Hugging Face struct of bytes and path of which no row has bytes.
    """
    with readable(files[0]):
        kind = pq.read_schema(files[0]).field(column).type
    if _is_text(kind):
        first = next(chain.from_iterable(_values(path, column) for path in files), None)
        if first is None or not has_image_suffix(first):
            return None
        return [value or "" for path in files for value in _values(path, column)]
    if not pa.types.is_struct(kind) or min(map(kind.get_field_index, ("bytes", "path"))) < 0:
        return None
    if any(any(_has_bytes(path, column)) for path in files):
        return None
    paths = [value or "" for path in files for value in _values(path, f"{column}.path")]
    return paths if any(paths) else None


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _values(path: Path, column: str) -> Iterator[str | None]:
    for array in _arrays(path, column):
        yield from array.to_pylist()


def _has_bytes(path: Path, column: str) -> Iterator[bool]:
    for array in _arrays(path, f"{column}.bytes", rows=16):
        yield bool(array.null_count < len(array))


def _arrays(path: Path, column: str, rows: int = _BATCH_ROWS) -> Iterator[Any]:
    """Yield a column, or the field of a struct ('image.bytes'), a few rows at a time."""
    with readable(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(rows, columns=[column]):
            array = batch.column(0)
            # flatten, unlike field, keeps the nulls of the struct itself.
            yield array.flatten()[0] if pa.types.is_struct(array.type) else array


def iterate_bytes(path: Path, column: str) -> Iterator[Any]:
    """Yield the images of a file as binary Arrow arrays of at most `_BATCH_ROWS` rows.

    Nulls stay nulls. Lists of rows of pixels become uncompressed PPM images.

    Raises `LongTailedError` if the column holds no images.
    """
    with readable(path):
        kind = pq.read_schema(path).field(column).type
    field = column
    if pa.types.is_struct(kind):
        if kind.get_field_index("bytes") < 0:
            raise LongTailedError(f"'{path}': the column '{column}' has no field 'bytes'.")
        field, kind = f"{column}.bytes", kind.field("bytes").type
    convert = _conversion(kind)
    if convert is None or (convert is _from_base64 and not _begins_with_image(path, field)):
        raise LongTailedError(
            f"'{path}': the column '{column}' holds {kind}, not encoded images; name another with "
            "image_column."
        )
    row = 0
    for array in _arrays(path, field):
        yield array if convert is _unchanged else _converted(array, convert, path, column, row)
        row += len(array)


def _begins_with_image(path: Path, column: str) -> bool:
    """Return whether the first text of a column is the base64 of an image."""
    first = next((text for text in _values(path, column) if text), "")
    try:
        decode_rgb(np.frombuffer(bytearray(_base64_bytes(first)), np.uint8))
    except ValueError:
        return False
    return True


def _unchanged(value: Any) -> Any:
    return value


def _converted(array: Any, convert: Convert, path: Path, column: str, row: int) -> Any:
    values = []
    for spot, scalar in enumerate(array, row):
        try:
            values.append(convert(scalar) if scalar.is_valid else None)
        except (ValueError, TypeError, OverflowError) as error:
            raise LongTailedError(
                f"'{path}': row {spot} (counted from 0) of the column '{column}' is no image "
                f"({error}); name another column with image_column, or correct the file."
            ) from None
    return pa.array(values, type=pa.large_binary())


def _conversion(kind: Any) -> Convert | None:
    """Return what makes the bytes of an image of a value of an Arrow type, or None."""
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _unchanged
    if _is_text(kind):
        return _from_base64
    depth = 0
    while (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    ):
        kind, depth = kind.value_type, depth + 1
    if not pa.types.is_integer(kind):
        return None
    return {1: _from_bytes, 2: _from_pixels, 3: _from_pixels}.get(depth)


def _from_base64(scalar: Any) -> bytes:
    return _base64_bytes(scalar.as_py())


def _base64_bytes(text: str) -> bytes:
    try:
        return base64.b64decode(_DATA_URI.sub("", text, count=1), validate=True)
    except binascii.Error as error:
        raise ValueError(f"it is not base64: {error}") from None


def _from_bytes(scalar: Any) -> bytes:
    return _as_uint8(scalar.values).tobytes()


def _as_uint8(values: Any) -> npt.NDArray[np.uint8]:
    numbers = values.to_numpy(zero_copy_only=False)
    if values.null_count or (len(numbers) and not 0 <= numbers.min() <= numbers.max() <= 255):
        raise ValueError("it has numbers outside 0 to 255")
    return np.asarray(numbers, dtype=np.uint8)


def _from_pixels(scalar: Any) -> bytes:
    """Return the PPM or PGM image of lists [H][W], [H][W][1 or 3] or [1 or 3][H][W]."""
    values, shape = scalar.values, [len(scalar.values)]
    while not pa.types.is_integer(values.type):
        inner = values.flatten()
        if len(inner) % max(1, len(values)) or len(set(values.value_lengths().to_pylist())) > 1:
            raise ValueError("its rows have different lengths")
        shape.append(len(inner) // max(1, len(values)))
        values = inner
    pixels = _as_uint8(values).reshape(shape)
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3) and pixels.shape[0] in (1, 3):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.size == 0 or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3)):
        raise ValueError(f"its shape is {'x'.join(map(str, shape))}")
    grey = pixels.ndim == 2 or pixels.shape[2] == 1
    return b"P%d %d %d 255\n" % (5 if grey else 6, *pixels.shape[1::-1]) + pixels.tobytes()


def read_encoded(files: Sequence[Path], column: str) -> EncodedColumn:
    """Return the images of the files, not decoded."""
    alike = len({path.name for path in files}) < len(files)
    columns = {
        f"{path.parent.name}/{path.name}" if alike else path.name: list(iterate_bytes(path, column))
        for path in files
    }
    return EncodedColumn({name: pa.chunked_array(some) for name, some in columns.items() if some})


class _SizesDiffer(Exception):  # noqa: N818  (a signal to keep the bytes, not an error)
    pass


def decode_small(
    files: Sequence[Path], column: str, count: int, exif: Exif
) -> tuple[Tensor, dict[int, tuple[str, str]]] | None:
    """Return all images as one tensor [count, 3, H, W] and the bad rows, or None if not small."""
    shape = _first_shape(files, column, exif)
    if max(shape) > MEMORY_SIDE:
        return None
    pixels = torch.zeros(count, *shape, dtype=torch.uint8)
    bad: dict[int, tuple[str, str]] = {}
    row = 0
    for path in files:
        first = row
        for array in iterate_bytes(path, column):
            try:
                reasons = _decode_into(pixels[row : row + len(array)], array, exif)
            except _SizesDiffer:
                return None
            for spot, reason in reasons.items():
                bad[row + spot] = (f"row {row + spot - first} of {path.name}", reason)
            row += len(array)
    return pixels, bad


def _first_shape(files: Sequence[Path], column: str, exif: Exif) -> tuple[int, ...]:
    """Return the shape of the first image that can be decoded; one pixel if none can."""
    arrays = chain.from_iterable(iterate_bytes(path, column) for path in files)
    images = (_decode(scalar, exif) for array in arrays for scalar in array)
    return next((tuple(image.shape) for image in images if isinstance(image, Tensor)), (3, 1, 1))


def _decode_into(pixels: Tensor, array: Any, exif: Exif) -> dict[int, str]:
    """Write the images of an Arrow array into `pixels`; return the bad rows and why."""

    def decode_block(start: int) -> dict[int, str]:
        images = [_decode(scalar, exif) for scalar in array.slice(start, _THREAD_ROWS)]
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


def _decode(scalar: Any, exif: Exif) -> Tensor | str:
    """Return the decoded image, or why it is bad."""
    try:
        return decode_rgb(encoded_bytes(scalar), exif)
    except ValueError as error:
        return str(error)
