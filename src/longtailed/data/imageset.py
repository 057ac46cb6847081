"""ImageSet: images, integer labels and class names; immutable and cheap to subset."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from longtailed.errors import LongTailedError

IntArray: TypeAlias = npt.NDArray[np.int64]


@runtime_checkable
class EncodedImages(Protocol):
    """Images that are still files or compressed bytes, decoded one at a time when asked."""

    def __len__(self) -> int:
        """Return the number of images."""

    def decode(self, row: int) -> Tensor:
        """Return image `row` as uint8 RGB [3, H, W]; raise `LongTailedError` naming it if bad."""

    def identity(self, row: int) -> bytes:
        """Return what changes if image `row` is replaced by another."""

    def describe(self, row: int) -> str:
        """Return what a message may call image `row`: its path, or its place in a file."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with integer labels and class names.

    `images` is either one uint8 tensor [M, 3, H, W] (small images, decoded) or `EncodedImages`
    (files). `indices` [N] says which rows of `images` belong to this set, so that subsets share
    one store; `labels` [N] are int64 in 0..C-1. `groups` [N], if known, names what each image comes
    from (a patient, a track): images of one group stay together when the set is divided. `notes`
    and `left_out` say what a source of files was taken for and what in it was not used. A set never
    changes: every method returns another.

    Raises `LongTailedError` if labels, indices or groups differ in length or a label is out of
    range.
    """

    images: Tensor | EncodedImages
    labels: IntArray
    class_names: tuple[str, ...]
    indices: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    name: str = "images"
    skipped: tuple[str, ...] = ()  # bad images that were left out, by name
    notes: tuple[str, ...] = ()  # what was taken for what, in sentences
    left_out: Mapping[str, int] = field(default_factory=dict)  # reason -> number of files
    groups: npt.NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        labels = np.ascontiguousarray(self.labels, dtype=np.int64)
        indices = self.indices
        if len(indices) == 0 and len(labels) == len(self.images):
            indices = np.arange(len(labels), dtype=np.int64)
        if len(labels) != len(indices):
            raise LongTailedError(f"{self.name}: {len(labels)} labels for {len(indices)} images.")
        if self.groups is not None and len(self.groups) != len(indices):
            raise LongTailedError(
                f"{self.name}: {len(self.groups)} groups for {len(indices)} images."
            )
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.class_names):
            raise LongTailedError(
                f"{self.name}: labels run from {labels.min()} to {labels.max()}, but there are "
                f"{len(self.class_names)} classes, numbered from 0."
            )
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "indices", np.ascontiguousarray(indices, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """The number of classes C, counting classes without images."""
        return len(self.class_names)

    @property
    def class_counts(self) -> list[int]:
        """Images per class [C]."""
        return np.bincount(self.labels, minlength=self.num_classes).tolist()  # type: ignore[no-any-return]

    @property
    def in_memory(self) -> bool:
        """Whether the images are decoded pixels rather than files."""
        return isinstance(self.images, Tensor)

    @property
    def stored_size(self) -> tuple[int, int] | None:
        """Height and width of images in memory; None for files, which may have any."""
        if not isinstance(self.images, Tensor):
            return None
        height, width = self.images.shape[2:]
        return height, width

    def subset(self, positions: Sequence[int] | npt.NDArray[np.integer]) -> ImageSet:
        """Return the set of the images at `positions` (of this set), in that order."""
        chosen = np.asarray(positions, dtype=np.int64)
        groups = None if self.groups is None else self.groups[chosen]
        return replace(
            self, labels=self.labels[chosen], indices=self.indices[chosen], groups=groups
        )

    def pixels(self) -> Tensor:
        """Return the decoded images of this set, uint8 [N, 3, H, W]; a copy."""
        if not isinstance(self.images, Tensor):
            raise LongTailedError(f"{self.name}: the images are files and not decoded in memory.")
        return self.images[torch.from_numpy(self.indices)]

    def decode(self, position: int) -> Tensor:
        """Return one image of this set as uint8 RGB [3, H, W]."""
        row = int(self.indices[position])
        return self.images[row] if isinstance(self.images, Tensor) else self.images.decode(row)

    def fingerprint(self) -> str:
        """Return the SHA-256 over the chosen rows, their labels and what tells the images apart.

        That is their pixels if they are in memory, else `EncodedImages.identity`.
        """
        digest = hashlib.sha256(self.indices.astype("<i8").tobytes())
        digest.update(self.labels.astype("<i8").tobytes())
        for start in range(0, len(self), 4096):  # a part at a time: no second copy of the pixels
            rows = self.indices[start : start + 4096]
            if isinstance(self.images, Tensor):
                digest.update(self.images[torch.from_numpy(rows)].numpy().tobytes())
            else:
                digest.update(b"".join(self.images.identity(int(row)) for row in rows))
        return digest.hexdigest()


def channel_statistics(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation in 0..1 of each channel of uint8 pixels [N, 3, H, W]."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in pixels.unbind(dim=1):  # by counting grey levels: no float copy of the pixels
        share = torch.bincount(channel.flatten(), minlength=256) / channel.numel()
        mean = (share * levels).sum()
        means.append(mean.item())
        deviations.append(max((share * (levels - mean) ** 2).sum().sqrt().item(), 1e-3))
    return tuple(means), tuple(deviations)
