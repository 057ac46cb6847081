"""The steps of a stage: what they need, drawn and seeded; run eagerly or as one CUDA graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from longtailed.data.feed import Draw, Feed
from longtailed.data.streams import Batch, Stream, step_seed
from longtailed.methods.base import Method, Progress
from longtailed.training.capture import Replayed, decide_capture
from longtailed.training.job import Job
from longtailed.training.optim import set_learning_rate
from longtailed.training.terms import TermSums


class Window(NamedTuple):
    """How many steps share an update, and whether a step is the first or the last of them."""

    steps: int
    first: bool
    last: bool


StepFunction: TypeAlias = "Callable[[Steps, tuple[Tensor, ...]], None]"
"""What a step does with the tensors that the feeds drew; it reads nothing from the device."""


def seed_generators(generator: torch.Generator, job: Job, *purpose: int | str) -> None:
    """Seed the stage's generator, and the global ones for dropout inside third-party networks."""
    seed = step_seed(job.seed, "step", job.stage, *purpose)
    generator.manual_seed(seed)
    # torch.manual_seed would do the same and take half a millisecond.
    torch.default_generator.manual_seed(seed)
    if generator.device.type == "cuda":
        torch.cuda.manual_seed(seed)


class Steps:
    """What training a method takes: its feeds, optimiser, progress and sums of loss terms."""

    def __init__(self, method: Method, job: Job, generator: torch.Generator) -> None:
        self.method, self.job = method, job
        options = job.options
        self.captured = decide_capture(job.capture, method, job.fabric, options)
        optimizer = options.optimizer.build(method, method.parameter_groups(), self.captured)
        self.module, self.optimizer = job.fabric.setup(method, optimizer)
        self.feeds = {name: self._open(name, stream) for name, stream in method.streams.items()}
        self.progress = Progress(options.epochs, self.feeds["train"].steps, generator)
        self.sums = TermSums(job.fabric.device)
        generators = [generator, *(feed.generator for feed in self.feeds.values())]
        self.replayed = Replayed(generators, self.progress, job.capture == "always")
        self.addresses: list[int] = []
        self.epoch, self.step = 0, 0

    def _open(self, name: str, stream: Stream) -> Feed:
        fabric, options = self.job.fabric, self.job.options
        feed = self.job.splits.open(
            f"{self.job.stage}/{name}", stream, options.batch_size, self.job.seed,
            fabric.global_rank, fabric.world_size,
            # Streams beside the training images always have full batches, of which a method takes
            # as many images as it needs.
            drop_last=options.drop_last or name != "train",
        )  # fmt: skip
        wanted = stream.batch_size or options.batch_size
        if feed.batch_size * fabric.world_size < wanted and fabric.is_global_zero:
            images = len(feed.imageset)
            warnings.warn(
                f"a batch of {wanted} is larger than the split '{stream.split}' of {images} "
                f"images; batches have {feed.batch_size * fabric.world_size}.",
                stacklevel=2,
            )
        return feed

    @property
    def images_per_step(self) -> int:
        """Training images of one full step, over all processes."""
        return self.feeds["train"].batch_size * self.job.fabric.world_size

    def images_until(self, step: int) -> int:
        """Training images of the epoch's steps before `step`, over all processes."""
        feed = self.feeds["train"]
        return min(step * feed.batch_size, feed.images) * self.job.fabric.world_size

    def enter(self, epoch: int) -> None:
        """Begin an epoch: set what its schedules say."""
        options = self.job.options
        lr = options.optimizer.lr * options.schedule.factor(epoch, options.epochs)
        self.epoch = epoch
        self.progress.enter(epoch, lr)
        set_learning_rate(self.optimizer, lr, epoch, options.epochs)
        tensors = (*self.method.parameters(), *self.method.buffers())
        addresses = [tensor.data_ptr() for tensor in tensors]
        if addresses != self.addresses:  # a hook has put another tensor in a buffer's place
            self.addresses = addresses
            self.replayed.forget()

    def run(self, step_function: StepFunction, first: int = 0) -> Iterator[int]:
        """Take the steps of the epoch from `first` on; yield the number of each one taken.

        `step_function` is called with this object and what the feeds drew, or is recorded as a CUDA
        graph and replayed.
        """
        epochs, done = self.job.options.epochs, self.epoch * self.progress.steps + first
        draws = {
            name: feed.draws_of(self.epoch, epochs, first)
            if name == "train"
            else feed.endless_draws(epochs, done)
            for name, feed in self.feeds.items()
        }
        take = partial(step_function, self)
        for step in range(first, self.progress.steps):
            inputs = self._begin_step(step, {name: next(draw) for name, draw in draws.items()})
            if self.captured:
                self.replayed(take, inputs)
            else:
                take(inputs)
            yield step

    def _begin_step(self, step: int, draws: dict[str, Draw]) -> tuple[Tensor, ...]:
        """Seed all that is drawn in a step; return the tensors that the feeds drew."""
        progress, fabric = self.progress, self.job.fabric
        self.step = step
        progress.begin_step(step)
        seed_generators(progress.generator, self.job, self.epoch, step, fabric.global_rank)
        for name, draw in draws.items():
            self.feeds[name].generator.manual_seed(draw.seed)
        return tuple(tensor for draw in draws.values() for tensor in draw.tensors)

    def window(self) -> Window:
        """Return which steps share this one's update."""
        accumulate, steps = self.job.options.accumulate, self.progress.steps
        first = self.step - self.step % accumulate
        shared = min(accumulate, steps - first)
        return Window(shared, self.step == first, self.step + 1 == first + shared)

    def prepare(self, inputs: tuple[Tensor, ...]) -> dict[str, Batch]:
        """Return the augmented batch of each stream, made of what the feeds drew."""
        tensors = iter(inputs)
        return {
            name: feed.prepare(tuple(islice(tensors, feed.tensors_per_draw)))
            for name, feed in self.feeds.items()
        }
