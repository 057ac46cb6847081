"""Streams: what batches a method asks for, and the feeds that deliver them.

The same declaration is served from memory (uint8 pixels on the device, augmented there in
batches) or from files (decoded once per image in worker processes, augmented on the device).
Random numbers depend on (seed, stream, epoch, step) alone, so any step can be reached without
replaying earlier ones: a resumed run sees what an undisturbed one would have seen.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from longtailed.data.augment import normalize
from longtailed.data.imageset import ImageSet, IntArray
from longtailed.data.samplers import Sampler, make_sampler
from longtailed.data.views import View
from longtailed.errors import LongTailedError, unknown_name
from longtailed.schedules import epoch_at


@dataclass(frozen=True)
class Stream:
    """A request for batches.

    Args:
        views: names of the augmentations; each gives one image tensor of the batch.
        sampler: how images are drawn (see `longtailed.data.SAMPLERS`).
        split: the split that they come from.
        batch_size: images a batch; None means the run's batch size.
        sampler_start: until this part of the epochs (an int: until this epoch) the "instance"
            sampler is used in place of `sampler`: deferred re-sampling.
    """

    views: tuple[str, ...] = ("standard",)
    sampler: str = "instance"
    split: str = "train"
    batch_size: int | None = None
    sampler_start: float = 0.0


class Batch:
    """One batch: a normalised float32 image tensor [N, 3, H, W] per view, labels [N], index [N].

    `index` holds positions in the split. In an ordered pass the last batch may be smaller.
    (A plain class, because wrappers for precision and processes take tuples and dataclasses
    apart at every step.)
    """

    __slots__ = ("images", "index", "labels")

    def __init__(self, images: tuple[Tensor, ...], labels: Tensor, index: Tensor) -> None:
        self.images, self.labels, self.index = images, labels, index


def step_seed(seed: int, *parts: int | str) -> int:
    """Return a 63-bit seed mixed from the run's seed and what it is for."""
    words = [zlib.crc32(p.encode()) if isinstance(p, str) else int(p) for p in parts]
    state = np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)
    return int(state[0]) >> 1


@dataclass
class Splits:
    """The image sets of a run with their views and normalisation; opens streams on them.

    Args:
        sets: split name -> image set.
        views: view name -> View; "test" is the view of an ordered pass.
        mean, std: per-channel normalisation in units of the range 0..1.
        workers: decoding processes of splits whose images are files.
        device: where batches are delivered.
        channels_last: memory format of the delivered images.
    """

    sets: Mapping[str, ImageSet]
    views: Mapping[str, View]
    mean: Sequence[float]
    std: Sequence[float]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 0
    channels_last: bool = True
    _resident: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def view(self, name: str) -> View:
        """Return the view called `name`."""
        if name not in self.views:
            raise unknown_name("view", name, self.views)
        return self.views[name]

    def imageset(self, split: str) -> ImageSet:
        """Return the image set of a split."""
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
    ) -> Feed:
        """Return the feed of one stream for this process."""
        return Feed(self, name, stream, batch_size, seed, rank, world_size)

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
        stream = Stream(views=(view,), split=split)
        feed = Feed(self, "scan", stream, batch_size, seed, rank, world_size)
        order = np.arange(rank, len(self.imageset(split)), world_size, dtype=np.int64)
        plan = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        yield from feed.deliver(plan, epoch=0, first_step=0)

    def prepare(self, images: tuple[Tensor, ...], views: Sequence[View], seed: int) -> Batch:
        """Return the batch made from uint8 images by the batch part of `views`; no labels yet."""
        generator = torch.Generator(self.device).manual_seed(seed)
        mean = torch.tensor(self.mean, device=self.device)
        std = torch.tensor(self.std, device=self.device)
        memory_format = torch.channels_last if self.channels_last else torch.contiguous_format
        done = []
        for view, pixels in zip(views, images, strict=True):
            done.append(normalize(view(pixels, generator), mean, std, memory_format=memory_format))
        empty = torch.empty(0, dtype=torch.int64)
        return Batch(tuple(done), empty, empty)


class Feed:
    """The batches of one stream for one process.

    Training epochs hold only full batches: the images that do not fill the last one are left out
    of that epoch (another draw each epoch), because batch statistics and a fixed batch shape are
    worth more than a fraction of a percent of an epoch.
    """

    def __init__(
        self,
        splits: Splits,
        name: str,
        stream: Stream,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.splits, self.name, self.stream, self.seed = splits, name, stream, seed
        self.rank, self.world_size = rank, world_size
        self.imageset = splits.imageset(stream.split)
        if len(self.imageset) == 0:
            raise LongTailedError(f"the split '{stream.split}' has no images.")
        self.views = [splits.view(view) for view in stream.views]
        share = max(1, len(self.imageset) // world_size)
        self.batch_size = min(stream.batch_size or batch_size, share)
        self.steps = share // self.batch_size
        self._labels = torch.from_numpy(self.imageset.labels).to(splits.device)
        self._loader: DataLoader[tuple[Tensor, ...] | LongTailedError] | None = None
        self._plan = _Plan()
        self._samplers: dict[str, Sampler] = {}

    def order(self, epoch: int, epochs: int) -> IntArray:
        """Return this process's positions of an epoch, int64 [steps, batch_size]."""
        stream = self.stream
        kind = stream.sampler if epoch >= epoch_at(stream.sampler_start, epochs) else "instance"
        if kind not in self._samplers:
            self._samplers[kind] = make_sampler(
                kind,
                self.imageset.labels,
                self.imageset.num_classes,
                seed=step_seed(self.seed, self.name),
                rank=self.rank,
                world_size=self.world_size,
            )
        indices = self._samplers[kind].indices(epoch, epochs)
        return indices[: self.steps * self.batch_size].reshape(self.steps, self.batch_size)

    def epoch(self, epoch: int, epochs: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch from `first_step` on."""
        yield from self.deliver(list(self.order(epoch, epochs))[first_step:], epoch, first_step)

    def endless(self, epochs: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield batches for ever, epoch after epoch, from the step `first_step` on."""
        epoch, step = divmod(first_step, self.steps)
        while True:
            yield from self.epoch(epoch, epochs, step)
            epoch, step = epoch + 1, 0

    def deliver(self, plan: list[IntArray], epoch: int, first_step: int) -> Iterator[Batch]:
        """Yield one batch per row of positions in `plan`."""
        source = self._resident(plan) if self.imageset.in_memory else self._decoded(plan, epoch)
        for step, (index, images) in enumerate(source, start=first_step):
            seed = step_seed(self.seed, self.name, "augment", epoch, step, self.rank)
            batch = self.splits.prepare(images, self._batch_views(), seed)
            yield Batch(batch.images, self._labels[index], index)

    def _batch_views(self) -> list[View]:
        if self.imageset.in_memory:
            return self.views
        return [View(view.batch_ops) for view in self.views]

    def _resident(self, plan: list[IntArray]) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        pixels = self.splits.pixels(self.stream.split)
        for positions in plan:
            index = torch.from_numpy(positions).to(pixels.device)
            yield index, (pixels[index],) * len(self.views)

    def _decoded(
        self, plan: list[IntArray], epoch: int
    ) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        if self._loader is None:
            dataset = _DecodingDataset(self.imageset, self.views)
            self._loader = DataLoader(
                dataset,
                batch_sampler=self._plan,
                collate_fn=_stack,
                num_workers=self.splits.workers,
                persistent_workers=self.splits.workers > 0,
                pin_memory=self.splits.device.type == "cuda",
            )
        seed = step_seed(self.seed, self.name, "decode", epoch, self.rank)
        self._plan.batches = [[(int(p), seed) for p in positions] for positions in plan]
        device = self.splits.device
        for loaded in self._loader:
            if isinstance(loaded, LongTailedError):
                raise loaded
            index, *images = loaded
            yield (
                index.to(device, non_blocking=True),
                tuple(image.to(device, non_blocking=True) for image in images),
            )


class _Plan:
    """A batch sampler whose batches are set anew each epoch, so that workers live on."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, int]]] = []

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def _stack(
    items: list[tuple[Tensor, ...] | LongTailedError],
) -> tuple[Tensor, ...] | LongTailedError:
    """Return the batch of the items' tensors, or what was wrong with one."""
    columns: list[tuple[Tensor, ...]] = []
    for item in items:
        if isinstance(item, LongTailedError):
            return item
        columns.append(item)
    try:
        return tuple(torch.stack(column) for column in zip(*columns, strict=True))
    except RuntimeError:
        return LongTailedError(
            "the images have different sizes; each view must begin with an operation that gives "
            "them one, such as resized_crop(224) or resize(256), center_crop(224)."
        )


class _DecodingDataset(Dataset[tuple[Tensor, ...] | LongTailedError]):
    """Decodes an image once and applies each view's loading part (crop, resize)."""

    def __init__(self, imageset: ImageSet, views: Sequence[View]) -> None:
        self.imageset, self.views = imageset, views

    def __len__(self) -> int:
        return len(self.imageset)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, ...] | LongTailedError:
        position, seed = item
        try:
            image = self.imageset.decode(position)
        except LongTailedError as error:
            return error  # raised in a worker, it would arrive as a traceback in text
        generator = torch.Generator().manual_seed(step_seed(seed, position))
        loaded = []
        for view in self.views:
            pixels = image
            for op in view.load_ops:
                pixels = op.load(pixels, generator)
            loaded.append(pixels)
        return (torch.tensor(position), *loaded)
