"""Splits: the image sets of a run with their views, opened as streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from longtailed.data.augment.geometry import normalize
from longtailed.data.augment.views import View
from longtailed.data.feed import Feed, Serving
from longtailed.data.imageset import ImageSet
from longtailed.data.streams import Batch, Stream
from longtailed.errors import LongTailedError, unknown_name


@dataclass
class Splits:
    """The image sets of a run with their views and normalisation; opens streams on them.

    Args:
        sets: split name -> image set.
        views: view name -> View; "test" is the view of an ordered pass.
        mean, std: per-channel normalisation in units of the range 0..1.
        normalized_by: what says so: the "data", the "recipe" or the initial "weights".
        workers: decoding processes of splits whose images are files.
        device: where batches are delivered.
        channels_last: memory format of the delivered images.
        image_size: height and width that every view is to give; None: not known.
    """

    sets: Mapping[str, ImageSet]
    views: Mapping[str, View]
    mean: Sequence[float]
    std: Sequence[float]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 0
    channels_last: bool = True
    normalized_by: str = "data"
    image_size: tuple[int, int] | None = None
    _statistics: tuple[tuple[float, ...], Tensor, Tensor] | None = field(
        default=None, init=False, repr=False
    )
    _resident: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def view(self, name: str) -> View:
        """Return the view called `name`."""
        if name not in self.views:
            raise unknown_name("view", name, self.views)
        return self.views[name]

    def check_view(self, name: str, split: str) -> None:
        """Raise `LongTailedError` unless the view gives a split's images the size `image_size`."""
        view, wanted = self.view(name), self.image_size
        if wanted is None:
            return
        try:
            size = view.output_size(self.imageset(split).stored_size)
        except LongTailedError as error:
            raise LongTailedError(f"the view {name!r} cannot be used: {error}") from None
        if size != wanted:
            given = "different sizes" if size is None else f"{size[0]} x {size[1]} pixels"
            raise LongTailedError(
                f"the view {name!r} ({view}) gives {split} images of {given}, but the network sees "
                f"{wanted[0]} x {wanted[1]}; let it end at that size, for example with "
                f"center_crop({min(wanted)}), or set image_size."
            )

    def imageset(self, split: str) -> ImageSet:
        """Return the image set of a split."""
        if split == "unlabelled" and split not in self.sets:
            raise LongTailedError("there are no unlabelled images; set data.unlabelled.")
        if split not in self.sets:
            raise unknown_name("split", split, self.sets)
        return self.sets[split]

    def pixels(self, split: str) -> Tensor:
        """Return a split's uint8 pixels on the device, copied there once."""
        if split not in self._resident:
            self._resident[split] = self.imageset(split).pixels().to(self.device)
        return self._resident[split]

    def open(
        self,
        name: str,
        stream: Stream,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
    ) -> Feed:
        """Return the feed of one stream for this process; `batch_size` is over all processes."""
        split, views = stream.split, [self.view(view) for view in stream.views]
        serve = Serving(self.device, self.workers, lambda: self.pixels(split), self.prepare)
        return Feed(
            self.imageset(split), views, serve, name, stream, batch_size, seed, rank, world_size,
            drop_last,
        )  # fmt: skip

    def scan(
        self,
        split: str,
        batch_size: int = 512,
        view: str = "test",
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
    ) -> Iterator[Batch]:
        """Yield every image of a split once, in order (of several processes: every k-th one)."""
        yield from self.open_scan(split, batch_size, view, rank, world_size, seed).ordered()

    def open_scan(
        self,
        split: str,
        batch_size: int = 512,
        view: str | None = "test",
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
    ) -> Feed:
        """Return a feed for ordered passes over a split; without a view its images are not read."""
        stream = Stream(views=() if view is None else (view,), split=split)
        return self.open("scan", stream, batch_size * world_size, seed, rank, world_size)

    def prepare(
        self, images: Sequence[Tensor], views: Sequence[View], generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Return normalised views, float32 [N, 3, H, W] each, of uint8 images on the device."""
        statistics = (*self.mean, *self.std)
        if self._statistics is None or self._statistics[0] != statistics:
            mean, std = torch.tensor([self.mean, self.std], device=self.device)
            self._statistics = (statistics, mean, std)
        _, mean, std = self._statistics
        memory_format = torch.channels_last if self.channels_last else torch.contiguous_format
        return tuple(
            normalize(view(pixels, generator), mean, std, memory_format=memory_format)
            for view, pixels in zip(views, images, strict=True)
        )
