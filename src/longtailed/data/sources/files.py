"""Images that are still encoded: files on disk, or compressed bytes in an Arrow column."""

from __future__ import annotations

import hashlib
import logging
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

from longtailed.data.imageset import ImageSet, IntArray
from longtailed.data.sources.decoding import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from longtailed.data.sources.decoding import Exif, decode_rgb, read_size
from longtailed.data.sources.decoding import is_image_file as is_image_file
from longtailed.errors import LongTailedError

if TYPE_CHECKING:
    import pyarrow as pa

OnBadImage = Literal["error", "skip"]
BadImages = Mapping[int, tuple[str, str]]
"""Position of each bad image -> what a message calls it, and what is wrong with it."""
Inspected = tuple[list[tuple[int, int]], BadImages]
_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


def map_threads(
    function: Callable[[Any], _Result], items: Iterable[Any], threads: int | None = None
) -> list[_Result]:
    """Return `[function(item) for item in items]`, computed by a few threads.

    It pays for work that waits for a disk or releases the interpreter lock, as decoding does.
    """
    with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(function, items))


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
    if not isinstance(imageset.images, EncodedStore):
        return imageset
    return drop_bad_images(imageset, inspect_images(imageset, full)[1], on_bad_image)


def inspect_images(imageset: ImageSet, full: bool = False) -> Inspected:
    """Return the (height, width) of the good images of a set, and its bad images.

    It reads the header of every image; if `full` it decodes every image.
    """
    store, rows = imageset.images, imageset.indices
    if isinstance(store, Tensor):
        return [(store.shape[2], store.shape[3])] * len(rows), {}

    def size(row: int) -> tuple[int, int]:
        if isinstance(store, EncodedStore):
            return store.size(row, full)
        height, width = store.decode(row).shape[1:]
        return height, width

    def inspect(block: IntArray) -> tuple[list[tuple[int, int]], dict[int, tuple[str, str]]]:
        sizes, bad = [], {}
        for spot, row in zip(block.tolist(), rows[block].tolist(), strict=True):
            try:
                sizes.append(size(row))
            except ValueError as error:
                bad[spot] = (store.describe(row), str(error))
        return sizes, bad

    blocks = np.array_split(np.arange(len(rows)), max(1, len(rows) // 64))
    found = map_threads(inspect, blocks)
    return [size for sizes, _ in found for size in sizes], {
        spot: problem for _, bad in found for spot, problem in bad.items()
    }


def drop_bad_images(imageset: ImageSet, bad: BadImages, on_bad_image: OnBadImage) -> ImageSet:
    """Return the set without the positions in `bad`, which are logged and counted, or raise."""
    if not bad:
        return imageset
    found = _bad_images_phrase(imageset, bad)
    if on_bad_image == "error":
        raise LongTailedError(
            f"{imageset.name}: {found}; repair or remove them, or pass on_bad_image='skip' to "
            "leave them out."
        )
    keep = np.setdiff1d(np.arange(len(imageset)), np.fromiter(bad, np.int64, len(bad)))
    if not len(keep):
        raise LongTailedError(f"{imageset.name}: none of the {len(bad)} images can be read.")
    _log.info("%s: %s; they are left out.", imageset.name, found)
    names = tuple(name for name, _ in bad.values())
    return replace(imageset.subset(keep), skipped=imageset.skipped + names)


def _bad_images_phrase(imageset: ImageSet, bad: BadImages) -> str:
    """Return how many images are bad, the first with the reason, and classes without a good one."""
    first = "; ".join(f"'{name}' ({reason})" for name, reason in list(bad.values())[:3])
    more = "; ..." if len(bad) > 3 else ""
    counts = np.bincount(imageset.labels[list(bad)], minlength=imageset.num_classes)
    lost = np.flatnonzero((counts > 0) & (counts == imageset.class_counts))
    names = ", ".join(f"'{imageset.class_names[label]}'" for label in lost[:3])
    names += ", ..." if len(lost) > 3 else ""
    whole = f", among them all of {names}" if len(lost) else ""
    return f"{len(bad)} of {len(imageset)} images cannot be read{whole}: {first}{more}"
