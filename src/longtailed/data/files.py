"""Images that are still encoded: files on disk, or compressed bytes in an Arrow column."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import UnidentifiedImageError
from torch import Tensor

from longtailed.data.decoding import decode_rgb, read_size
from longtailed.data.imageset import ImageSet, IntArray
from longtailed.errors import LongTailedError

if TYPE_CHECKING:
    import pyarrow as pa

OnBadImage = Literal["error", "skip"]
IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".bmp",
    ".webp",
    ".tif",
    ".tiff",
    ".gif",
    ".ppm",
)
_Result = TypeVar("_Result")


def map_threads(
    function: Callable[[Any], _Result], items: Iterable[Any], threads: int | None = None
) -> list[_Result]:
    """Return `[function(item) for item in items]`, computed by a few threads.

    It pays for work that waits for a disk or releases the interpreter lock, as decoding does.
    """
    with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(function, items))


class EncodedStore(ABC):
    """Base of the lazily decoded stores: knows the bytes of each row and decodes them."""

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
            return decode_rgb(self.encoded(row))
        except ValueError as error:
            raise LongTailedError(
                f"image '{self.describe(row)}' cannot be decoded: {error}; repair or remove it, or "
                "open the data with on_bad_image='skip'."
            ) from None

    def size(self, row: int) -> tuple[int, int]:
        """Return (height, width) of image `row` from its header; raise `ValueError` if bad."""
        try:
            return read_size(BytesIO(self.encoded(row).tobytes()))
        except OSError:
            height, width = decode_rgb(self.encoded(row)).shape[1:]
            return height, width

    def problem(self, row: int, full: bool = False) -> str | None:
        """Return why image `row` is bad, or None.

        It reads the header, or the whole image if `full`.
        """
        try:
            if full:
                decode_rgb(self.encoded(row))
            else:
                self.size(row)
        except ValueError as error:
            return str(error)
        return None


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

    def size(self, row: int) -> tuple[int, int]:
        """Return (height, width) of image `row`, reading only the head of its file."""
        path = self.path(row)
        try:
            if path.stat().st_size == 0:
                raise ValueError("it is empty")
            return read_size(path)
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


def check_on_bad_image(on_bad_image: str) -> None:
    """Raise `LongTailedError` unless `on_bad_image` is 'error' or 'skip'."""
    if on_bad_image not in ("error", "skip"):
        raise LongTailedError(f"on_bad_image must be 'error' or 'skip', not {on_bad_image!r}.")


def scan_images(
    imageset: ImageSet, on_bad_image: OnBadImage = "error", *, full: bool = False
) -> ImageSet:
    """Return the set without its bad images, their names in `skipped`, or raise for them.

    Every image must exist, be non-empty and have a readable header; with `full` it is decoded,
    which also finds truncated files and takes as long as one epoch of reading. Decoded sets pass.

    Raises `LongTailedError` naming the first bad images ("error"), or if none is left ("skip").
    """
    check_on_bad_image(on_bad_image)
    images = imageset.images
    if not isinstance(images, EncodedStore):
        return imageset
    store, rows = images, imageset.indices
    blocks = np.array_split(np.arange(len(rows)), max(1, len(rows) // 64))

    def scan(block: IntArray) -> list[tuple[int, str]]:
        found = ((int(spot), store.problem(int(rows[spot]), full)) for spot in block)
        return [(spot, reason) for spot, reason in found if reason is not None]

    bad = [entry for block in map_threads(scan, blocks) for entry in block]
    reasons = {spot: (store.describe(int(rows[spot])), reason) for spot, reason in bad}
    return drop_bad_images(imageset, reasons, on_bad_image)


def drop_bad_images(
    imageset: ImageSet, bad: Mapping[int, tuple[str, str]], on_bad_image: OnBadImage
) -> ImageSet:
    """Return the set without the positions in `bad` (position -> name, reason), or raise."""
    if not bad:
        return imageset
    if on_bad_image == "error":
        first = "; ".join(f"'{name}' ({reason})" for name, reason in list(bad.values())[:3])
        raise LongTailedError(
            f"{imageset.name}: {len(bad)} of {len(imageset)} images cannot be read: {first}"
            f"{'; ...' if len(bad) > 3 else ''}; repair or remove them, or pass "
            "on_bad_image='skip' to leave them out."
        )
    keep = np.setdiff1d(np.arange(len(imageset)), np.fromiter(bad, np.int64, len(bad)))
    if not len(keep):
        raise LongTailedError(f"{imageset.name}: none of the {len(bad)} images can be read.")
    names = tuple(name for name, _ in bad.values())
    return replace(imageset.subset(keep), skipped=imageset.skipped + names)
