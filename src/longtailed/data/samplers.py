"""Samplers: which images an epoch draws, and in which order; one share for each process.

A sampler is a function of (seed, epoch): any epoch can be asked for without replaying the earlier
ones. All processes make the same sequence for the whole epoch and take every `world_size`-th
entry, so together they draw what one process would draw, and each has equally many. Streams that
must draw independently need different seeds.

A sampler of `make_sampler` also goes into any `DataLoader`:

>>> from torch.utils.data import DataLoader
>>> from longtailed.data import load_imageset
>>> digits = load_imageset("digits")
>>> sampler = make_sampler("class-balanced", digits.labels, digits.num_classes)
>>> loader = DataLoader(digits, batch_size=32, sampler=sampler)
>>> for epoch in range(2):
...     sampler.set_epoch(epoch)
...     images, labels = next(iter(loader))
>>> images.shape
torch.Size([32, 3, 8, 8])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator
from torch import distributed
from torch.utils.data import DistributedSampler

from longtailed.data.class_probabilities import class_probabilities
from longtailed.data.imageset import IntArray
from longtailed.errors import LongTailedError, unknown_name

__all__ = [
    "SAMPLERS",
    "ClassAwareSampler",
    "ClassProbabilitySampler",
    "EpochSampler",
    "InstanceSampler",
    "SamplerName",
    "class_probabilities",
    "make_sampler",
]


def _process_rank() -> int:
    return distributed.get_rank() if _several_processes() else 0


def _process_count() -> int:
    return distributed.get_world_size() if _several_processes() else 1


def _several_processes() -> bool:
    return distributed.is_available() and distributed.is_initialized()


@dataclass(eq=False, repr=False)
class EpochSampler(DistributedSampler[int]):
    """What all samplers share: the images by class, the length of an epoch, and the ranks.

    Iterating yields this process's positions in the epoch that `set_epoch` named last (first: 0).
    It is a `DistributedSampler`, which shares an epoch among the processes by itself, so that
    Lightning and Fabric do not divide its share a second time.

    Args:
        labels: class of each image, int [N].
        num_classes: C.
        seed: not negative; with the epoch it decides every draw.
        rank, world_size: which of how many processes this is; default: what `torch.distributed`
            says if it is initialised, else 0 of 1. Each process gets `length // world_size`
            positions, but at least one; a remainder is left out of the epoch.
        length: draws per epoch over all processes; default N.
        epochs: how many epochs the training has. Only the "progressive" sampler depends on it, and
            only when it is iterated over: `indices` is told.

    Raises `LongTailedError` if there are no images, a label is not in 0..C-1, or another number is
    out of range.
    """

    labels: IntArray
    num_classes: int
    seed: int = 0
    rank: int = field(default_factory=_process_rank)
    world_size: int = field(default_factory=_process_count)
    length: int | None = None
    epochs: int | None = field(default=None, kw_only=True)
    epoch: int = field(default=0, init=False)
    class_counts: IntArray = field(init=False)

    def __post_init__(self) -> None:
        self.labels = np.asarray(self.labels, dtype=np.int64)
        if self.labels.ndim != 1 or len(self.labels) == 0:
            raise LongTailedError("a sampler needs at least one image, with one label each.")
        if not 0 <= self.labels.min() <= self.labels.max() < self.num_classes:
            raise LongTailedError(
                f"labels run from {self.labels.min()} to {self.labels.max()}, but there are "
                f"{self.num_classes} classes, numbered from 0."
            )
        if not 0 <= self.rank < self.world_size:
            raise LongTailedError(f"rank {self.rank} is not in 0..{self.world_size - 1}.")
        if self.seed < 0 or (self.length is not None and self.length < 1):
            raise LongTailedError(
                "a sampler's seed must not be negative and its length must be positive; they are "
                f"{self.seed} and {self.length}."
            )
        self.class_counts = np.bincount(self.labels, minlength=self.num_classes).astype(np.int64)

    def __len__(self) -> int:
        """Return how many positions `indices` returns."""
        return self._draws // self.world_size

    def __iter__(self) -> Iterator[int]:
        """Yield this process's positions in the current epoch; see `set_epoch`."""
        return iter(self.indices(self.epoch, self.epochs or 1).tolist())

    @property
    def _draws(self) -> int:
        length = len(self.labels) if self.length is None else self.length
        return max(length, self.world_size)

    def indices(self, epoch: int, epochs: int) -> IntArray:
        """Return this process's positions in `epoch` (of `epochs`, from 0), int64."""
        # RandomState, because its numbers stay the same in every version of NumPy.
        bits = np.random.MT19937(np.random.SeedSequence((self.seed, epoch)))
        sequence = self.draw(self._draws, np.random.RandomState(bits), epoch, epochs)
        return sequence[self.rank :: self.world_size][: len(self)]

    def draw(
        self, draws: int, generator: np.random.RandomState, epoch: int, epochs: int
    ) -> IntArray:
        """Return the positions that all processes together use in one epoch, int64 [draws]."""
        raise NotImplementedError

    @cached_property
    def by_class(self) -> IntArray:
        """All positions, class after class, ascending within a class, int64 [N]."""
        return np.argsort(self.labels, kind="stable").astype(np.int64)

    @cached_property
    def class_start(self) -> IntArray:
        """Where each class begins in `by_class`, int64 [C]."""
        return np.cumsum(self.class_counts) - self.class_counts


class InstanceSampler(EpochSampler):
    """Every image once per epoch, in random order; the shares of the ranks are disjoint.

    A `length` above the number of images goes on with another permutation.
    """

    def draw(
        self, draws: int, generator: np.random.RandomState, epoch: int, epochs: int
    ) -> IntArray:
        """Return the first `draws` positions of a row of permutations."""
        rounds = -(-draws // len(self.labels))
        permutations = [generator.permutation(len(self.labels)) for _ in range(rounds)]
        return np.concatenate(permutations)[:draws].astype(np.int64)


@dataclass(eq=False, repr=False)
class ClassProbabilitySampler(EpochSampler):
    """Independent draws with replacement: a class by its probability, then any of its images.

    Args:
        kind: which of `class_probabilities`.
        beta: for "effective-number".

    The other arguments and errors are those of `EpochSampler`.
    """

    kind: str = field(default="class-balanced", kw_only=True)
    beta: float = field(default=0.9999, kw_only=True)

    def __iter__(self) -> Iterator[int]:
        """Yield this process's positions in the current epoch; see `set_epoch`."""
        if self.kind == "progressive" and self.epochs is None:
            raise LongTailedError(
                "the progressive sampler goes from instance to class-balanced over the whole "
                "training; give it epochs, the number of epochs."
            )
        return super().__iter__()

    def draw(
        self, draws: int, generator: np.random.RandomState, epoch: int, epochs: int
    ) -> IntArray:
        """Return `draws` independent positions."""
        edges = np.cumsum(
            class_probabilities(self.kind, self.class_counts, epoch, epochs, self.beta)
        )
        # Dividing makes the last edge exactly 1, above every number drawn from [0, 1).
        classes = np.searchsorted(edges / edges[-1], generator.random_sample(draws), side="right")
        within = generator.random_sample(draws) * self.class_counts[classes]
        return self.by_class[self.class_start[classes] + within.astype(np.int64)]


@dataclass(eq=False, repr=False)
class ClassAwareSampler(EpochSampler):
    """All classes in turn with a few images each, so that every stretch of draws is balanced.

    The classes come in a random order, then all of them in another, and so on. Each class gives its
    images in random order, all of them before any of them again. Both cycles begin anew with each
    epoch, so that an epoch does not depend on earlier ones; in the public code of arXiv 1910.09217,
    whose cRT and LWS stages use this sampler with 4 images, they run on (`class_aware_sequence`).

    Args:
        samples_per_class: how many consecutive images a class gives.

    The other arguments and errors are those of `EpochSampler`.
    """

    samples_per_class: int = field(default=4, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples_per_class < 1:
            raise LongTailedError(
                f"samples_per_class must be at least 1; it is {self.samples_per_class}."
            )

    def draw(
        self, draws: int, generator: np.random.RandomState, epoch: int, epochs: int
    ) -> IntArray:
        """Return `draws` positions, `samples_per_class` of one class after another."""
        present = np.flatnonzero(self.class_counts)
        turns = -(-draws // self.samples_per_class)
        rounds = [generator.permutation(present) for _ in range(-(-turns // len(present)))]
        classes = np.repeat(np.concatenate(rounds), self.samples_per_class)[:draws]
        sequence = np.empty(draws, dtype=np.int64)
        # The stable sort lists the draws of each class in their order, as the cycles do.
        sequence[np.argsort(classes, kind="stable")] = self._cycles(classes, generator)
        return sequence

    def _cycles(self, classes: IntArray, generator: np.random.RandomState) -> IntArray:
        """Return shuffled cycles through each class, class after class, as long as it is drawn."""
        counts = self.class_counts
        wanted = np.bincount(classes, minlength=self.num_classes)
        cycles = -(-wanted // np.maximum(counts, 1))
        cycle_class = np.repeat(np.arange(self.num_classes), cycles)
        sizes = counts[cycle_class]
        cycle = np.repeat(np.arange(len(sizes)), sizes)
        within = np.arange(len(cycle)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        positions = self.by_class[self.class_start[cycle_class[cycle]] + within]
        # Sorting by cycle + a random fraction shuffles inside each cycle, all of them at once.
        positions = positions[np.argsort(cycle + generator.random_sample(len(cycle)))]
        lengths = cycles * counts
        place = np.arange(len(cycle)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        drawn: IntArray = positions[place < np.repeat(wanted, lengths)]
        return drawn


SAMPLERS: dict[str, Callable[..., EpochSampler]] = {
    "instance": InstanceSampler,
    "class-aware": ClassAwareSampler,
    **{
        kind: partial(ClassProbabilitySampler, kind=kind)
        for kind in ("class-balanced", "square-root", "progressive", "reversed", "effective-number")
    },
}


def _known(name: str) -> str:
    if name not in SAMPLERS:
        raise unknown_name("sampler", name, SAMPLERS, listing="samplers")
    return name


SamplerName = Annotated[str, AfterValidator(_known)]


def sampler_options(kind: str) -> tuple[str, ...]:
    """Return the names of a sampler's own options: "beta", "samples_per_class" or none."""
    return {"class-aware": ("samples_per_class",), "effective-number": ("beta",)}.get(kind, ())


def make_sampler(
    kind: str,
    labels: npt.ArrayLike,
    num_classes: int,
    seed: int = 0,
    rank: int | None = None,
    world_size: int | None = None,
    length: int | None = None,
    **options: Any,
) -> EpochSampler:
    """Return the sampler of the given kind, a key of `SAMPLERS`; for a `DataLoader`, or by epoch.

    The arguments are those of `EpochSampler`; `options` are `epochs` and the kind's own (`beta`,
    `samples_per_class`). Raises `LongTailedError` for an unknown kind or bad arguments.

    >>> len(make_sampler("class-balanced", [0, 0, 0, 1], num_classes=2, seed=0))
    4
    """
    given = {"rank": rank, "world_size": world_size}
    options |= {name: value for name, value in given.items() if value is not None}
    return SAMPLERS[_known(kind)](labels, num_classes, seed, length=length, **options)
