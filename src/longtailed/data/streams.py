"""Streams: what batches a method asks for, and what it gets.

The same declaration is served from memory (uint8 pixels on the device, augmented there in
batches) or from files (decoded once per image in worker processes, augmented on the device).
Random numbers depend on (seed, stream, epoch, step) alone, so any step can be reached without
replaying earlier ones: a resumed run sees what an undisturbed one would have seen.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Stream:
    """A request for batches.

    Args:
        views: names of the augmentations; each gives one image tensor of the batch. Without any
            a batch has labels and index only, and nothing is decoded.
        sampler: how images are drawn (see `longtailed.data.SAMPLERS`).
        beta, samples_per_class: settings of the samplers that have them.
        split: the split that they come from.
        batch_size: images a batch; None means the run's batch size.
        sampler_start: until this part of the epochs (an int: until this epoch) the "instance"
            sampler is used in place of `sampler`: deferred re-sampling.
        share: probability that a batch is used at all, 0..1 (see `Batch.used`).
        share_of: "images" draws that for each image instead of each batch.
    """

    views: tuple[str, ...] = ("standard",)
    sampler: str = "instance"
    beta: float = 0.9999
    samples_per_class: int = 4
    split: str = "train"
    batch_size: int | None = None
    sampler_start: float = 0.0
    share: float = 1.0
    share_of: Literal["batches", "images"] = "batches"


class Batch:
    """One batch: a normalised float32 image tensor [N, 3, H, W] per view, labels [N], index [N].

    `index` holds positions in the split. In an ordered pass the last batch may be smaller.
    `used`, bool [N], says which images to use, if the stream asks for a share of them (else None,
    all): files are not decoded for the others, whose pixels may be anything finite.
    (A plain class, because wrappers for precision and processes take tuples and dataclasses
    apart at every step.)
    """

    __slots__ = ("images", "index", "labels", "used")

    def __init__(
        self,
        images: tuple[Tensor, ...],
        labels: Tensor,
        index: Tensor,
        used: Tensor | None = None,
    ) -> None:
        self.images, self.labels, self.index, self.used = images, labels, index, used


def step_seed(seed: int, *parts: int | str) -> int:
    """Return a 63-bit seed mixed from the run's seed and what it is for."""
    words = [zlib.crc32(p.encode()) if isinstance(p, str) else int(p) for p in parts]
    state = np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)
    return int(state[0]) >> 1
