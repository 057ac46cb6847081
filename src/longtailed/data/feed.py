"""Feeds: what delivers a stream's batches to one process, from memory or from files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from longtailed.data.augment.views import View
from longtailed.data.imageset import ImageSet, IntArray
from longtailed.data.loader import BoolArray, ViewLoader
from longtailed.data.positions import epoch_at
from longtailed.data.samplers import EpochSampler, make_sampler, sampler_options
from longtailed.data.streams import Batch, Stream, step_seed
from longtailed.errors import LongTailedError


class Draw(NamedTuple):
    """What one batch is prepared from: `tensors` on the device, and the seed of its augmentation.

    The tensors are positions [N]; which of them are used, bool [N], if the stream asks for a share;
    and, of images that are files, the decoded views, uint8.
    """

    tensors: tuple[Tensor, ...]
    seed: int


class Serving(NamedTuple):
    """How a feed's batches reach the device.

    `pixels` returns the set's images there, uint8 (of a set in memory); `prepare` makes normalised
    views of uint8 images, with a generator; `workers` decode files.
    """

    device: torch.device
    workers: int
    pixels: Callable[[], Tensor]
    prepare: Callable[[Sequence[Tensor], Sequence[View], torch.Generator], tuple[Tensor, ...]]


class Feed:
    """The batches of one stream for one process.

    With `drop_last` an epoch holds only full batches: the images that do not fill the last one are
    left out of that epoch (another draw each epoch). Without it the last batch is smaller, but
    never a single image, which has no batch statistics.
    """

    def __init__(
        self,
        imageset: ImageSet,
        views: Sequence[View],
        serve: Serving,
        name: str,
        stream: Stream,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
    ) -> None:
        self.imageset, self.views, self.serve = imageset, views, serve
        self.name, self.stream, self.seed = name, stream, seed
        self.rank, self.world_size = rank, world_size
        if len(self.imageset) == 0:
            raise LongTailedError(f"the split '{stream.split}' has no images.")
        wanted = stream.batch_size or batch_size  # over all processes
        if wanted % world_size:
            raise LongTailedError(
                f"a batch of {wanted} cannot be shared equally by {world_size} processes."
            )
        share = max(1, len(self.imageset) // world_size)
        self.batch_size = min(wanted // world_size, share)
        self.steps, rest = divmod(share, self.batch_size)
        self.images = self.steps * self.batch_size  # of an epoch
        if rest > 1 and not drop_last:
            self.steps, self.images = self.steps + 1, share
        self.generator = torch.Generator(serve.device)
        self._labels = torch.from_numpy(self.imageset.labels).to(serve.device)
        self._loader: ViewLoader | None = None
        self._samplers: dict[str, EpochSampler] = {}

    @property
    def resident(self) -> bool:
        """Whether nothing is decoded: the pixels are on the device, or no view is wanted."""
        return self.imageset.in_memory or not self.views

    @property
    def tensors_per_draw(self) -> int:
        """The number of tensors of a draw (see `Draw`)."""
        return 1 + self.shared + (0 if self.resident else len(self.views))

    @property
    def shared(self) -> bool:
        """Whether only a share of the images is used."""
        return self.stream.share < 1

    def order(self, epoch: int, epochs: int) -> IntArray:
        """Return this process's positions of an epoch, int64 [images], batch after batch."""
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
                **{name: getattr(stream, name) for name in sampler_options(kind)},
            )
        return self._samplers[kind].indices(epoch, epochs)[: self.images]

    def epoch(self, epoch: int, epochs: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch from `first_step` on."""
        yield from self.deliver(self._rows(epoch, epochs, first_step), epoch, first_step)

    def deliver(self, plan: list[IntArray], epoch: int, first_step: int) -> Iterator[Batch]:
        """Yield one batch per row of positions in `plan`."""
        for draw in self.draws(plan, epoch, first_step):
            self.generator.manual_seed(draw.seed)
            yield self.prepare(draw.tensors)

    def ordered(self) -> Iterator[Batch]:
        """Yield every image once, in order; the last batch may be smaller."""
        yield from self.deliver(self._ordered_plan(), epoch=0, first_step=0)

    def ordered_draws(self) -> Iterator[Draw]:
        """Yield what the batches of `ordered` are prepared from."""
        yield from self.draws(self._ordered_plan(), epoch=0, first_step=0)

    def _ordered_plan(self) -> list[IntArray]:
        return self._batches(
            np.arange(self.rank, len(self.imageset), self.world_size, dtype=np.int64)
        )

    def draws_of(self, epoch: int, epochs: int, first_step: int = 0) -> Iterator[Draw]:
        """Yield what the batches of one epoch are prepared from, from `first_step` on."""
        yield from self.draws(self._rows(epoch, epochs, first_step), epoch, first_step)

    def endless_draws(self, epochs: int, first_step: int = 0) -> Iterator[Draw]:
        """Yield what batches are prepared from for ever, from the step `first_step` on."""
        epoch, step = divmod(first_step, self.steps)
        while True:
            yield from self.draws_of(epoch, epochs, step)
            epoch, step = epoch + 1, 0

    def draws(self, plan: list[IntArray], epoch: int, first_step: int) -> Iterator[Draw]:
        """Yield one draw per row of positions in `plan`."""
        if not plan:
            return
        used = [self._used(len(row), epoch, step) for step, row in enumerate(plan, first_step)]
        nothing: Iterable[tuple[Tensor, ...]] = repeat(())
        views = nothing if self.resident else self._decoded(plan, used, epoch, first_step)
        masks = self._copied(used) if self.shared else nothing
        parts = zip(views, masks, self._copied(plan), strict=False)
        for step, (images, mask, index) in enumerate(parts, start=first_step):
            seed = step_seed(self.seed, self.name, "augment", epoch, step, self.rank)
            yield Draw((*index, *mask, *images), seed)

    def prepare(self, tensors: tuple[Tensor, ...]) -> Batch:
        """Return the batch of a draw's tensors, augmented with `self.generator` as it stands.

        Everything here happens on the device and reads nothing back.
        """
        index, *images = tensors
        used = images.pop(0) if self.shared else None
        if not self.views:
            return Batch((), self._labels[index], index, used)
        if self.imageset.in_memory:
            pixels, views = self.serve.pixels(), self.views
            images = [pixels[index]] * len(views)
        else:
            views = [View(view.batch_ops) for view in self.views]
        prepared = self.serve.prepare(images, views, self.generator)
        return Batch(prepared, self._labels[index], index, used)

    def _rows(self, epoch: int, epochs: int, first_step: int) -> list[IntArray]:
        return self._batches(self.order(epoch, epochs))[first_step:]

    def _batches(self, order: IntArray) -> list[IntArray]:
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]

    def _used(self, images: int, epoch: int, step: int) -> BoolArray:
        """Draw which images of a step are used, bool [N]; on the host, before any is decoded."""
        if not self.shared:
            return np.ones(images, dtype=np.bool_)
        bits = np.random.MT19937(step_seed(self.seed, self.name, "use", epoch, step, self.rank))
        draws = images if self.stream.share_of == "images" else 1
        drawn = np.random.RandomState(bits).random_sample(draws) < self.stream.share
        return np.broadcast_to(drawn, images)

    def _copied(self, rows: Sequence[npt.NDArray[Any]]) -> Iterator[tuple[Tensor, ...]]:
        device, values = self.serve.device, torch.from_numpy(np.concatenate(rows))
        if device.type == "cuda":
            values = values.pin_memory()  # else the copy would wait for the device
        whole = values.to(device, non_blocking=True)  # one copy an epoch
        for row in torch.split(whole, [len(row) for row in rows]):
            yield (row,)

    def _decoded(
        self, plan: list[IntArray], used: list[BoolArray], epoch: int, first_step: int
    ) -> Iterator[tuple[Tensor, ...]]:
        if self._loader is None:
            self._loader = ViewLoader(
                self.imageset, self.views, self.serve.workers, self.serve.device
            )
        seed = step_seed(self.seed, self.name, "decode", epoch, self.rank)
        yield from self._loader.load(plan, used, seed, first_step)
