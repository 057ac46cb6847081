"""What an operation of a view is, and the batched building blocks that operations share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Generator, Tensor

from longtailed.errors import LongTailedError

P = TypeVar("P")


class Op(ABC, Generic[P]):
    """An operation of a view: uint8 [N, 3, H, W] to uint8 [N, 3, H', W'] on any device.

    An operation is a frozen value; every image of a batch gets its own parameters. The number of
    draws never depends on the values drawn, the host reads no value back and all shapes are fixed,
    so that a whole training step can be captured in one CUDA graph.

    `name` is what the text of a view calls it. `on_load` says that it brings images of any size to
    one size, so that it may run on each image where that is decoded.
    """

    name: ClassVar[str]
    on_load: ClassVar[bool] = False

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Return the changed images [N, 3, H', W']; the generator lives on their device."""
        return self.apply(images, self.sample(images.shape, generator))

    def load(self, image: Tensor, generator: Generator) -> Tensor:
        """Return one changed image: uint8 [3, H, W] to uint8 [3, H', W']."""
        return self(image[None], generator)[0]

    @abstractmethod
    def sample(self, shape: Sequence[int], generator: Generator) -> P:
        """Return random parameters for images of `shape` = (N, 3, H, W)."""

    @abstractmethod
    def apply(self, images: Tensor, parameters: P) -> Tensor:
        """Return the images changed with the given parameters; nothing is random."""


class Box(NamedTuple):
    """Half-open boxes of pixels, one per image: int64 tensors [N] (or [] for a single box)."""

    top: Tensor
    left: Tensor
    bottom: Tensor
    right: Tensor

    def mask(self, height: int, width: int) -> Tensor:
        """Return whether each pixel lies inside its box: bool [N, 1, H, W] (or [1, H, W])."""
        rows = torch.arange(height, device=self.top.device)[:, None]
        columns = torch.arange(width, device=self.top.device)
        top, left, bottom, right = (edge[..., None, None, None] for edge in self)
        return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)


def uniform(low: float, high: float, shape: Sequence[int], generator: Generator) -> Tensor:
    """Return float32 draws from U(low, high) on the generator's device."""
    return torch.rand(shape, generator=generator, device=generator.device) * (high - low) + low


def replace_chosen(images: Tensor, changed: Tensor, chosen: Tensor) -> Tensor:
    """Return `images` with those marked in `chosen` (bool [N]) taken from `changed`."""
    rows = torch.arange(len(images), device=images.device) + len(images) * chosen
    # Selecting whole images copies memory; torch.where on uint8 takes five times as long.
    return torch.cat((images, changed)).index_select(0, rows)


def check_number(
    op: str, name: str, value: float, low: float, high: float = math.inf, whole: bool = False
) -> None:
    """Return nothing; raise `LongTailedError` unless `value` is a number from `low` to `high`."""
    kinds = (int,) if whole else (int, float)
    right_kind = isinstance(value, kinds) and not isinstance(value, bool)
    if not right_kind or not math.isfinite(value) or not low <= value <= high:
        kind = "whole number" if whole else "number"
        limits = f">= {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise LongTailedError(f"{op}: {name} must be a {kind} {limits}, not {value!r}.")


def checked_range(
    op: str, name: str, value: Sequence[float], high: float = math.inf
) -> tuple[float, float]:
    """Return `value` as a pair; raise `LongTailedError` unless 0 < first <= second <= high."""
    pair = tuple(value) if isinstance(value, tuple | list) else ()
    numbers = len(pair) == 2 and all(isinstance(bound, int | float) for bound in pair)
    if not numbers or not 0 < pair[0] <= pair[1] <= high or not math.isfinite(pair[1]):
        limit = f" <= {high:g}" if high < math.inf else ""
        raise LongTailedError(f"{op}: {name} must be (a, b) with 0 < a <= b{limit}, not {value!r}.")
    return pair[0], pair[1]
