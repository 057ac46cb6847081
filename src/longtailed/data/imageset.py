"""ImageSet: images, integer labels and class names; immutable and cheap to subset."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, SupportsIndex, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from longtailed.data.class_names import labels_as_numbers
from longtailed.data.dataset_images import DatasetImages, read_dataset, stack_images
from longtailed.data.stores import ImageFiles
from longtailed.errors import LongTailedError, unknown_name

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
class ImageSet(Dataset[tuple[Tensor, int]]):
    """Images with integer labels and class names: a map-style torch data set.

    `imageset[i]` is the image, uint8 RGB [3, H, W], and the label, an int; a `DataLoader` takes it
    if all images have one size. `from_dataset`, `from_arrays` and `from_frame` make a set of what
    is at hand, `load_imageset` opens files.

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
            images = len(indices) or len(self.images)
            raise LongTailedError(f"{self.name}: {len(labels)} labels for {images} images.")
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

    def __getitem__(self, position: SupportsIndex) -> tuple[Tensor, int]:
        """Return the image at a position, uint8 RGB [3, H, W], and its label."""
        return self.decode(position.__index__()), int(self.labels[position])

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        class_names: Sequence[str] | None = None,
        *,
        image_column: str | None = None,
        label_column: str | None = None,
        name: str | None = None,
    ) -> ImageSet:
        """Return the images of a map-style torch data set or a Hugging Face one, read when needed.

        An item is a pair of image and label, or a dictionary (`image_column`, `label_column`;
        default: the usual names). Images are PIL images or uint8 arrays or tensors (see `to_rgb`),
        and the same at each call: leave out random transforms, views do that later. Labels come
        from a column or from `targets`, `labels`, `samples` or `tensors`, also of the parts of a
        `Subset` or `ConcatDataset`. If there is none of these, or it does not agree with the items,
        every item is read once. Class names are those of `class_names`, of the data set (`classes`,
        `features`) or else the numbers.

        The set's identity is that of the pixels, so `fingerprint` decodes every image.

        >>> pixels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
        >>> pairs = torch.utils.data.TensorDataset(pixels, torch.tensor([0, 0, 1, 0]))
        >>> ImageSet.from_dataset(pairs, ["cat", "lynx"]).class_counts
        [3, 1]

        Raises `LongTailedError` for other images (pixels that are floating point among them), for
        labels that are no classes, and for a data set that cannot be indexed or is random.
        """
        if isinstance(dataset, cls):
            return dataset
        found = read_dataset(dataset, image_column, label_column, name)
        numbers, names = labels_as_numbers(
            found.labels, class_names if class_names is not None else found.class_names, found.name
        )
        return cls(found.images, numbers, names, name=found.name)

    @classmethod
    def from_arrays(
        cls,
        images: Tensor | npt.NDArray[np.uint8] | Sequence[Any],
        labels: Any,
        class_names: Sequence[str] | None = None,
        *,
        name: str = "arrays",
    ) -> ImageSet:
        """Return the set of images in memory with one label each.

        `images` is a uint8 array or tensor [N, H, W] or with 1, 3 or 4 channels (first in a tensor,
        last in an array, if both could be), or a sequence of PIL images, arrays or tensors, which
        may differ in size. `labels` [N] are whole numbers from 0 or names of classes.

        >>> ImageSet.from_arrays(np.zeros((3, 8, 8), np.uint8), ["cat", "cat", "lynx"]).class_names
        ('cat', 'lynx')

        Raises `LongTailedError` for other images, missing labels or another number of them.
        """
        numbers, names = labels_as_numbers(labels, class_names, name)
        if isinstance(images, Tensor | np.ndarray):
            return cls(stack_images(images, name), numbers, names, name=name)
        return cls(DatasetImages(images, None, name), numbers, names, name=name)

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        path_column: str,
        label_column: str,
        *,
        root: str | Path = "",
        class_names: Sequence[str] | None = None,
        name: str = "frame",
    ) -> ImageSet:
        """Return the set of the image files in a data frame: one path and one label a row.

        `frame` is a pandas or polars data frame, an Arrow table or a mapping of columns. Paths are
        relative to `root` (default: the working directory). Labels are whole numbers from 0 or
        names of classes. Files are opened when their image is asked for (`scan_images` finds bad
        ones earlier).

        Raises `LongTailedError` for a column that does not exist and for missing values.
        """
        paths = _column(frame, path_column, name)
        for row, path in enumerate(paths):
            if not isinstance(path, str | os.PathLike) or not os.fspath(path):
                raise LongTailedError(f"{name}: row {row} has no path, but {path!r}.")
        numbers, names = labels_as_numbers(_column(frame, label_column, name), class_names, name)
        return cls(ImageFiles(root, [os.fspath(path) for path in paths]), numbers, names, name=name)

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


def _column(frame: Any, column: str, name: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(frame[column])
    except (KeyError, IndexError, ValueError) as error:
        columns = getattr(frame, "column_names", None) or getattr(frame, "columns", None)
        known = [str(key) for key in (frame if columns is None else columns)]
        raise unknown_name(f"column of {name}", column, known) from error


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
