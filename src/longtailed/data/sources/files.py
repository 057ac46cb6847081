"""Looking at the images of a set before they are used: sizes, damaged files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal, TypeVar

import numpy as np
from torch import Tensor

from longtailed.data.imageset import ImageSet, IntArray
from longtailed.data.stores import EncodedStore
from longtailed.errors import LongTailedError

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
