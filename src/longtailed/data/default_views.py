"""What suits a run's images by default: their size, views and normalisation."""

from __future__ import annotations

import os

from torch import Tensor

from longtailed.data.augment.auto_augment import AutoAugment
from longtailed.data.augment.rand_augment import RandAugment
from longtailed.data.augment.views import View, parse_view, view_preset
from longtailed.data.imageset import ImageSet, channel_statistics
from longtailed.data.settings import Data
from longtailed.errors import LongTailedError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
SMALL_SIDE = 64  # crops up to this side are small enough to keep decoded by default


def worker_count(data: Data) -> int:
    """Return the number of decoding processes: the recipe's, or one per core up to 8."""
    return min(8, os.cpu_count() or 1) if data.workers is None else data.workers


def crop_size(data: Data) -> int:
    """Return the side of the crops of a source whose images are files."""
    return data.image_size or 224


def cached_side(size: int) -> int:
    """Return the side at which decoded images are kept for crops of `size`: 8/7 of it."""
    return round(size * 256 / 224)


def image_size(originals: ImageSet, data: Data) -> tuple[int, int]:
    """Return the height and width at which the network sees the images of a train set."""
    side = crop_size(data)
    stored = originals.stored_size if data.image_size is None else None
    return stored or (side, side)


def default_views(originals: ImageSet, train: ImageSet, data: Data) -> dict[str, View]:
    """Return the views that suit the images, and the recipe's own.

    All views must give images of the size that the network takes. A view of the recipe that gives
    another size is applied after the operations of the test view, if that gives the right size.

    "standard" and "test" are what every method needs. Contrastive methods classify "strong", the
    standard view (the recipe's own, if it has one) with a policy of operations, and contrast "sim"
    (arXiv 2207.09052, 2407.04911).

    `originals` is the train set as the source has it, `train` as it is kept (see `store`).
    """
    if isinstance(originals.images, Tensor) and data.image_size is None:
        side = originals.images.shape[-1]
        standard = view_preset("digits" if data.source == "digits" else "small", side)
        test = view_preset("none", side)
    else:
        side = crop_size(data)
        standard = view_preset("large-plain" if side <= SMALL_SIDE else "large", side)
        if data.source == "digits":  # a mirrored digit is no digit
            standard = parse_view(f"resize({side}), pad_crop({max(1, side // 8)})")
        test = view_preset("large-test", side)
        if train.in_memory and not originals.in_memory:  # resized when it was decoded
            test = parse_view(f"center_crop({side})")
    wanted, kept = image_size(originals, data), train.stored_size
    family = "small" if side <= SMALL_SIDE else "large"
    own = {
        name: _sized(name, parse_view(text), test, kept, wanted)
        for name, text in data.views.items()
    }
    standard = own.get("standard", standard)
    strong = View((*standard.ops, AutoAugment() if family == "small" else RandAugment()))
    sim = view_preset("simclr-digits" if data.source == "digits" else f"simclr-{family}", side)
    views = {"standard": standard, "strong": strong, "sim": sim, "test": test}
    return {**views, **own}


def _sized(
    name: str, view: View, test: View, kept: tuple[int, int] | None, wanted: tuple[int, int]
) -> View:
    """Return the view, or the test view followed by it if only that gives the right size."""
    whole = View((*test.ops, *view.ops))
    try:
        if view.output_size(kept) != wanted and whole.output_size(kept) == wanted:
            return whole
    except LongTailedError as error:
        raise LongTailedError(f"the view {name!r} cannot be used: {error}") from None
    return view


def normalization(train: ImageSet, data: Data) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel: the recipe's or the source's."""
    if data.mean is not None and data.std is not None:
        return data.mean, data.std
    if data.source in ("cifar10", "cifar100"):
        return CIFAR
    if isinstance(train.images, Tensor):
        return channel_statistics(train.pixels())
    return IMAGENET
