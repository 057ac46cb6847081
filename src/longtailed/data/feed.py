"""Feeds: what delivers a stream's batches to one process, from memory or from files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from longtailed.data.imageset import ImageSet, IntArray
from longtailed.data.samplers import Sampler, make_sampler
from longtailed.data.streams import Batch, Stream, step_seed
from longtailed.data.views import View
from longtailed.errors import LongTailedError
from longtailed.schedules import epoch_at

if TYPE_CHECKING:
    from longtailed.data.splits import Splits


class Draw(NamedTuple):
    """What one batch is prepared from: `tensors` on the device, and the seed of its augmentation.

    The tensors are positions [N] and, of images that are files, the decoded views, uint8.
    """

    tensors: tuple[Tensor, ...]
    seed: int


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
        wanted = stream.batch_size or batch_size  # over all processes
        if wanted % world_size:
            raise LongTailedError(
                f"a batch of {wanted} cannot be shared equally by {world_size} processes."
            )
        share = max(1, len(self.imageset) // world_size)
        self.batch_size = min(wanted // world_size, share)
        self.steps = share // self.batch_size
        self.generator = torch.Generator(splits.device)
        self._labels = torch.from_numpy(self.imageset.labels).to(splits.device)
        self._loader: DataLoader[tuple[Tensor, ...] | LongTailedError] | None = None
        self._plan = _Plan()
        self._samplers: dict[str, Sampler] = {}

    @property
    def resident(self) -> bool:
        """Whether nothing is decoded: the pixels are on the device, or no view is wanted."""
        return self.imageset.in_memory or not self.views

    @property
    def tensors_per_draw(self) -> int:
        """The number of tensors of a draw: positions, and views if images are files."""
        return 1 if self.resident else 1 + len(self.views)

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
        order = np.arange(self.rank, len(self.imageset), self.world_size, dtype=np.int64)
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]

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
        source = self._resident(plan) if self.resident else self._decoded(plan, epoch)
        for step, tensors in enumerate(source, start=first_step):
            yield Draw(tensors, step_seed(self.seed, self.name, "augment", epoch, step, self.rank))

    def prepare(self, tensors: tuple[Tensor, ...]) -> Batch:
        """Return the batch of a draw's tensors, augmented with `self.generator` as it stands.

        Everything here happens on the device and reads nothing back.
        """
        index, *images = tensors
        if not self.views:
            return Batch((), self._labels[index], index)
        if self.imageset.in_memory:
            pixels, views = self.splits.pixels(self.stream.split), self.views
            images = [pixels[index]] * len(views)
        else:
            views = [View(view.batch_ops) for view in self.views]
        prepared = self.splits.prepare(images, views, self.generator)
        return Batch(prepared, self._labels[index], index)

    def _rows(self, epoch: int, epochs: int, first_step: int) -> list[IntArray]:
        return list(self.order(epoch, epochs))[first_step:]

    def _resident(self, plan: list[IntArray]) -> Iterator[tuple[Tensor, ...]]:
        device, positions = self.splits.device, torch.from_numpy(np.concatenate(plan))
        if device.type == "cuda":
            positions = positions.pin_memory()  # else the copy would wait for the device
        whole = positions.to(device, non_blocking=True)  # one copy an epoch
        for index in torch.split(whole, [len(row) for row in plan]):
            yield (index,)

    def _decoded(self, plan: list[IntArray], epoch: int) -> Iterator[tuple[Tensor, ...]]:
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
            yield tuple(tensor.to(device, non_blocking=True) for tensor in loaded)


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
