"""Loading of views from files: what each step uses is decoded in worker processes, and no more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from longtailed.data.augment.views import View
from longtailed.data.imageset import ImageSet, IntArray
from longtailed.data.streams import step_seed
from longtailed.errors import LongTailedError

BoolArray: TypeAlias = npt.NDArray[np.bool_]
Item: TypeAlias = tuple[int, tuple[int, ...]] | None
"""The position of an image and what the seed of its draw is mixed from; None if it is not used."""
Views: TypeAlias = tuple[Tensor, ...] | LongTailedError
"""An image's or a batch's views, or what was wrong: raised in a worker it would be a traceback."""


class ViewLoader:
    """Decodes images once for all views and applies each view's loading part (crop, resize).

    Args:
        imageset: the images.
        views: what is made of each.
        workers: decoding processes; 0 decodes in this one.
        device: where the views are delivered.
    """

    def __init__(
        self, imageset: ImageSet, views: Sequence[View], workers: int, device: torch.device
    ) -> None:
        self.device = device
        self._dataset, self._plan = _DecodingDataset(imageset, views), _Plan()
        self._black: tuple[Tensor, ...] = ()
        self._loader = DataLoader(
            self._dataset,
            batch_sampler=self._plan,
            collate_fn=_stack,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
        )

    def load(
        self, plan: Sequence[IntArray], used: Sequence[BoolArray], seed: int, first_step: int = 0
    ) -> Iterator[tuple[Tensor, ...]]:
        """Yield for each row of positions [N] its views, uint8 [N, 3, H, W] each.

        Where the row's `used` [N] is false nothing is decoded and the views are black. The rows are
        the epoch's from `first_step` on: step and place decide a view's random numbers, so that an
        image that is drawn several times in an epoch gets another crop each time.
        """
        rows: list[list[Item]] = [
            [
                (int(position), (seed, step, place)) if wanted else None
                for place, (position, wanted) in enumerate(zip(row, mask, strict=True))
            ]
            for step, (row, mask) in enumerate(zip(plan, used, strict=True), start=first_step)
        ]
        self._plan.batches = [row for row in rows if any(row)]
        loaded = iter(self._loader)
        for row in rows:
            if any(row):
                views = _unless_wrong(next(loaded))
                yield tuple(view.to(self.device, non_blocking=True) for view in views)
            else:
                yield self._black_views(len(row), seed)

    def _black_views(self, images: int, seed: int) -> tuple[Tensor, ...]:
        """Return black views of `images` images; the first one tells their size."""
        if not self._black or len(self._black[0]) != images:
            views = _unless_wrong(self._dataset[0, (seed,)])
            self._black = tuple(
                view.new_zeros((images, *view.shape), device=self.device) for view in views
            )
        return self._black


class _Plan:
    """A batch sampler whose batches are set anew each epoch, so that workers live on."""

    def __init__(self) -> None:
        self.batches: list[list[Item]] = []

    def __iter__(self) -> Iterator[list[Item]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _DecodingDataset(Dataset[Views | None]):
    def __init__(self, imageset: ImageSet, views: Sequence[View]) -> None:
        self.imageset, self.views = imageset, views

    def __len__(self) -> int:
        return len(self.imageset)

    def __getitem__(self, item: Item) -> Views | None:
        if item is None:
            return None
        position, draw = item
        try:
            image = self.imageset.decode(position)
        except LongTailedError as error:
            return error
        generator = torch.Generator().manual_seed(step_seed(*draw))
        loaded = []
        for view in self.views:
            pixels = image
            for op in view.load_ops:
                pixels = op.load(pixels, generator)
            loaded.append(pixels)
        return tuple(loaded)


def _stack(items: list[Views | None]) -> Views:
    """Return the views of a batch, black for images that are not used."""
    used = []
    for item in items:
        if isinstance(item, LongTailedError):
            return item
        if item is not None:
            used.append(item)
    black = tuple(torch.zeros_like(view) for view in used[0])
    found = iter(used)
    rows = [black if item is None else next(found) for item in items]
    try:
        return tuple(torch.stack(column) for column in zip(*rows, strict=True))
    except RuntimeError:
        return LongTailedError(
            "the images have different sizes; each view must begin with an operation that gives "
            "them one, such as resized_crop(224) or resize(256), center_crop(224)."
        )


def _unless_wrong(views: Views | None) -> tuple[Tensor, ...]:
    if isinstance(views, LongTailedError):
        raise views
    assert views is not None
    return views
