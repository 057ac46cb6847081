"""The class-aware sequence of published code, draw for draw; training uses `ClassAwareSampler`."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from longtailed.data.imageset import IntArray


def class_aware_sequence(
    labels: Sequence[int] | IntArray,
    num_classes: int,
    length: int,
    samples_per_class: int,
    generator: random.Random,
) -> IntArray:
    """Return `length` positions in the very order of the public class-aware sampler, int64.

    The same rule as `ClassAwareSampler`, one draw after another from Python's generator, which it
    shuffles with at the start of each cycle (arXiv 1910.09217). For comparisons with published
    code: it is slow, and later epochs are the continuation of the sequence.
    """
    by_class: list[list[int]] = [[] for _ in range(num_classes)]
    for position, label in enumerate(np.asarray(labels).tolist()):
        by_class[label].append(position)
    images = [_shuffled_cycle(positions, generator) for positions in by_class]
    classes = _shuffled_cycle([c for c in range(num_classes) if by_class[c]], generator)
    draws = (next(images[c]) for c in classes for _ in range(samples_per_class))
    return np.fromiter(islice(draws, length), dtype=np.int64, count=length)


def _shuffled_cycle(items: list[int], generator: random.Random) -> Iterator[int]:
    while True:
        generator.shuffle(items)
        yield from items
