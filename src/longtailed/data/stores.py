"""Images that are still encoded: files on disk, or compressed bytes in an Arrow column."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import UnidentifiedImageError
from torch import Tensor

from longtailed.data.decoding import Exif, decode_rgb, read_size
from longtailed.errors import LongTailedError

if TYPE_CHECKING:
    import pyarrow as pa


class EncodedStore(ABC):
    """Base of the lazily decoded stores: knows the bytes of each row and decodes them.

    `exif` says whether images are turned as their EXIF orientation says; see `decode_rgb`.
    """

    exif: Exif = "apply"

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def encoded(self, row: int) -> npt.NDArray[np.uint8]:
        """Return the bytes of image `row`, writable; raise `ValueError` with a reason if none."""

    @abstractmethod
    def describe(self, row: int) -> str:
        """Return what a message may call image `row`."""

    def identity(self, row: int) -> bytes:
        """Return the SHA-256 of the bytes of image `row`; nothing for one that cannot be read."""
        try:
            return hashlib.sha256(self.encoded(row).tobytes()).digest()
        except ValueError:
            return b""

    def decode(self, row: int) -> Tensor:
        """Return image `row` as uint8 RGB [3, H, W]; see `decode_rgb`.

        Raises `LongTailedError` naming the image if it is missing or damaged.
        """
        try:
            return decode_rgb(self.encoded(row), self.exif)
        except ValueError as error:
            raise LongTailedError(
                f"image '{self.describe(row)}' cannot be decoded: {error}; repair or remove it, or "
                "open the data with on_bad_image='skip'."
            ) from None

    def size(self, row: int, full: bool = False) -> tuple[int, int]:
        """Return (height, width) of image `row`, from its header or, if `full`, by decoding it.

        Raises `ValueError` with a reason if the image is bad.
        """
        if not full:
            try:
                return read_size(BytesIO(self.encoded(row).tobytes()), self.exif)
            except OSError:
                pass  # a format that PIL does not know
        height, width = decode_rgb(self.encoded(row), self.exif).shape[1:]
        return height, width


class ImageFiles(EncodedStore):
    """Image files below a root folder; a file is opened when its image is decoded, not before."""

    def __init__(self, root: str | Path, paths: Sequence[str]) -> None:
        self.root = Path(root)
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, row: int) -> Path:
        """Return the path of image `row`."""
        return self.root / self.paths[row]

    def describe(self, row: int) -> str:
        """Return the path of image `row` as text."""
        return str(self.path(row))

    def identity(self, row: int) -> bytes:
        """Return the path below the root and the size of the file (reading it would take long)."""
        path = self.path(row)
        size = path.stat().st_size if path.exists() else -1
        return os.fsencode(self.paths[row]) + size.to_bytes(8, "little", signed=True)

    def encoded(self, row: int) -> npt.NDArray[np.uint8]:
        """Return the bytes of the file; raise `ValueError` if it cannot be read."""
        try:
            return np.fromfile(self.path(row), dtype=np.uint8)
        except OSError as error:
            raise ValueError(_file_reason(error)) from None

    def size(self, row: int, full: bool = False) -> tuple[int, int]:
        """Return (height, width) of image `row`, reading only the head of its file unless `full`.

        Raises `ValueError` with a reason if the image is bad.
        """
        if full:
            return super().size(row, full)
        path = self.path(row)
        try:
            if path.stat().st_size == 0:
                raise ValueError("it is empty")
            return read_size(path, self.exif)
        except UnidentifiedImageError:
            return super().size(row)
        except OSError as error:
            raise ValueError(_file_reason(error)) from None


def _file_reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return error.strerror or str(error)


class EncodedColumn(EncodedStore):
    """Image bytes in Arrow columns, one after the other; `columns` maps file names to them.

    The compressed bytes stay in memory (about 0.1 MB an image at ImageNet's size).
    """

    def __init__(self, columns: Mapping[str, pa.ChunkedArray]) -> None:
        self.names = tuple(columns)
        self.columns = tuple(columns.values())
        self.ends = np.cumsum([len(column) for column in self.columns], dtype=np.int64)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def _locate(self, row: int) -> tuple[int, int]:
        place = int(np.searchsorted(self.ends, row, side="right"))
        return place, row - (int(self.ends[place - 1]) if place else 0)

    def describe(self, row: int) -> str:
        """Return the file and the row in it, counted from 0."""
        place, row = self._locate(row)
        return f"row {row} of {self.names[place]}"

    def encoded(self, row: int) -> npt.NDArray[np.uint8]:
        """Return a copy of the bytes; raise `ValueError` if the row is null."""
        place, row = self._locate(row)
        return encoded_bytes(self.columns[place][row])


def encoded_bytes(scalar: Any) -> npt.NDArray[np.uint8]:
    """Return the bytes of a binary Arrow scalar as a writable array; raise `ValueError` if null."""
    if not scalar.is_valid:
        raise ValueError("it has no bytes (null)")
    return np.frombuffer(bytearray(scalar.as_buffer()), dtype=np.uint8)
