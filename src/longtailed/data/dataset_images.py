"""Images of other data sets: torch's map-style ones, Hugging Face's, and sequences of images."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, IterableDataset, Subset, TensorDataset

from longtailed.data.decoding import to_rgb
from longtailed.errors import LongTailedError

_log = logging.getLogger(__name__)
IMAGE_COLUMNS = ("image", "img", "pixels", "pixel_values", "jpg", "png")
LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "class", "cls", "y")
CHECKED = 8  # label values that are compared with the items
_LABEL_ATTRIBUTES = ("targets", "labels", "samples")


class DatasetImages:
    """The images of a data set, converted to uint8 RGB when they are asked for (`EncodedImages`).

    Args:
        dataset: gives an item for a row, `dataset[row]`, and has a length.
        key: where the image is in an item: a place or the name of a column; None: it is the item.
        name: what a message calls the data set.

    Items are read by one thread at a time, as data sets expect; workers are processes.
    """

    def __init__(self, dataset: Any, key: int | str | None, name: str) -> None:
        self.dataset, self.key, self.name = dataset, key, name
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    def __len__(self) -> int:
        return len(self.dataset)

    def decode(self, row: int) -> Tensor:
        """Return image `row` as uint8 RGB [3, H, W]; see `to_rgb`.

        Raises `LongTailedError` naming the row if the data set fails or gives no such image.
        """
        try:
            with self._lock:
                item = self.dataset[row]
            return to_rgb(item if self.key is None else item[self.key])
        except Exception as error:  # of the user's data set: any type
            kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
            reason = f"{kind}{error}".rstrip(".")
            raise LongTailedError(f"{self.describe(row)} cannot be used: {reason}.") from error

    def identity(self, row: int) -> bytes:
        """Return the SHA-256 of the size and pixels of image `row`."""
        image = self.decode(row)
        return hashlib.sha256(repr(tuple(image.shape)).encode() + image.numpy().tobytes()).digest()

    def describe(self, row: int) -> str:
        """Return what a message may call image `row`."""
        return f"image {row} of {self.name}"


class FoundDataset(NamedTuple):
    """What was found out about a data set: images, labels as it has them, class names, a name."""

    images: DatasetImages
    labels: Any
    class_names: Sequence[str] | None
    name: str


def read_dataset(
    dataset: Any, image_column: str | None, label_column: str | None, name: str | None
) -> FoundDataset:
    """Return where the images, labels and class names of a data set are; see `from_dataset`."""
    name = name or type(dataset).__name__
    indexed = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    if isinstance(dataset, IterableDataset) or not indexed:
        raise LongTailedError(
            f"{name} cannot be indexed; a data set with __len__ and __getitem__ is needed, "
            "because samplers draw single images."
        )
    if len(dataset) == 0:
        raise LongTailedError(f"{name} has no images.")
    first = dataset[0]
    columns = isinstance(first, Mapping)
    image_key = _key(first, image_column, IMAGE_COLUMNS, 0, "image", name)
    label_key = _key(first, label_column, LABEL_COLUMNS, 1, "label", name)
    images = DatasetImages(dataset, image_key, name)
    probes = sorted({0, len(dataset) // 2, len(dataset) - 1})
    _check_repeats(images, probes)
    labels = _known_labels(dataset, str(label_key) if columns else None)
    if labels is not None and np.ndim(labels) == 1:
        known = len(labels) == len(dataset) and _agree(dataset, label_key, labels)
        labels = labels if known else None
    if labels is None:
        _log.info("%s: every item is read once for its label.", name)
        labels = [_plain(dataset[row][label_key]) for row in range(len(dataset))]
    return FoundDataset(images, labels, _class_names(dataset, label_key), name)


def stack_images(images: Tensor | npt.NDArray[np.uint8], name: str) -> Tensor:
    """Return images of one size, an array or tensor [N, ...], as uint8 RGB [N, 3, H, W]."""
    if images.ndim < 3 or len(images) == 0:
        raise LongTailedError(
            f"{name}: images must have the shape [N, H, W] or [N, H, W, channels], or channels "
            f"before H; they have {list(images.shape)}."
        )
    try:
        return torch.stack([to_rgb(image) for image in images])
    except ValueError as error:
        raise LongTailedError(f"image 0 of {name} cannot be used: {error}.") from None


def _key(
    item: Any, chosen: str | None, usual: Sequence[str], place: int, what: str, name: str
) -> int | str:
    """Return where the image or label of an item is."""
    if not isinstance(item, Mapping):
        if chosen is not None or not isinstance(item, Sequence) or len(item) < 2:
            raise LongTailedError(
                f"{name} gives items of the type {type(item).__name__}; "
                + ("only dictionaries have columns." if chosen else "(image, label) is needed.")
            )
        return place
    names = [chosen] if chosen is not None else usual
    found = next((key for key in names if key in item), None)
    if found is None:
        raise LongTailedError(
            f"{name} has no {what} column {chosen or ''}".rstrip()
            + f"; its columns are {', '.join(map(str, item))}: name one as {what}_column."
        )
    return found


def _check_repeats(images: DatasetImages, rows: Sequence[int]) -> None:
    """Raise `LongTailedError` if an image is another one when it is asked for again."""
    for row in rows:
        if not torch.equal(images.decode(row), images.decode(row)):
            raise LongTailedError(
                f"{images.describe(row)} is another one each time; leave out random transforms, "
                "which views do later (views.standard)."
            )


def _known_labels(dataset: Any, column: str | None) -> Any:
    """Return the labels that a data set tells without reading images, or None."""
    if isinstance(dataset, Subset):
        whole = _known_labels(dataset.dataset, column)
        return None if whole is None else np.asarray(whole)[np.asarray(dataset.indices)]
    if isinstance(dataset, ConcatDataset):
        parts = [_known_labels(part, column) for part in dataset.datasets]
        return None if any(p is None for p in parts) else np.concatenate([*map(np.asarray, parts)])
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[1].cpu()
    if column is not None:
        known = column in (getattr(dataset, "column_names", None) or ())
        return dataset[column][:] if known else None
    for attribute in _LABEL_ATTRIBUTES:
        labels = getattr(dataset, attribute, None)
        if attribute == "samples" and labels is not None:
            labels = [sample[1] for sample in labels]
        if isinstance(labels, Sequence | np.ndarray | Tensor) and np.ndim(labels) == 1:
            return labels
    return None


def _agree(dataset: Any, label_key: int | str, labels: Any) -> bool:
    """Return whether the labels are those of the items: a target transform may change them.

    The first item of each label value is read, of `CHECKED` values at most.
    """
    first: dict[Any, int] = {}
    for row, label in enumerate(_plain(np.asarray(labels))):
        first.setdefault(label, row)
    return all(
        _plain(dataset[row][label_key]) == label for label, row in list(first.items())[:CHECKED]
    )


def _plain(label: Any) -> Any:
    """Return a label, or an array of them, as Python values."""
    return label.tolist() if isinstance(label, Tensor | np.generic | np.ndarray) else label


def _class_names(dataset: Any, label_key: int | str) -> Sequence[str] | None:
    """Return the names of the classes, if the data set or what it is a part of has them."""
    feature = (getattr(dataset, "features", None) or {}) if isinstance(label_key, str) else {}
    names = getattr(feature.get(label_key), "names", None) or getattr(dataset, "classes", None)
    if names is None and isinstance(dataset, Subset):
        return _class_names(dataset.dataset, label_key)
    if names is None and isinstance(dataset, ConcatDataset):
        parts = [_class_names(part, label_key) for part in dataset.datasets]
        return parts[0] if all(part == parts[0] for part in parts) else None
    return [str(n) for n in names] if isinstance(names, Sequence) else None
