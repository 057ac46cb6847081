"""What an operation of a view is, and the batched building blocks that operations share."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar, Generic, NamedTuple, TypeAlias, TypeVar, get_type_hints

import torch
from torch import Generator, Tensor

from longtailed.data.setting_types import checked

P = TypeVar("P")
SideLengths: TypeAlias = tuple[int, int]
"""Height and width of an image in pixels."""


class Op(ABC, Generic[P]):
    """An operation of a view: uint8 [N, 3, H, W] to uint8 [N, 3, H', W'] on any device.

    An operation is a frozen value; every image of a batch gets its own parameters. The number of
    draws never depends on the values drawn, the host reads no value back and all shapes are fixed,
    so that a whole training step can be captured in one CUDA graph.

    `name` is what the text of a view calls it. `on_load` says that it brings images of any size to
    one size, so that it may run on each image where that is decoded. The fields are the arguments,
    each annotated with its range (see `setting_types`); a value that does not fit is refused.
    """

    name: ClassVar[str]
    on_load: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Convert the arguments; raise `LongTailedError` for one that does not fit."""
        for name, annotation in argument_types(type(self)).items():
            value = checked(f"{self.name}: {name}", annotation, getattr(self, name))
            object.__setattr__(self, name, value)

    def output_size(self, size: SideLengths | None) -> SideLengths | None:
        """Return the size of the changed images for images of `size`; None if it is not known.

        Raises `LongTailedError` if the operation makes no sense for images of that size.
        """
        return size

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


@functools.cache
def argument_types(op: type[Op[Any]]) -> dict[str, Any]:
    """Return the type of each argument of an operation, with its range."""
    hints = get_type_hints(op, include_extras=True)
    return {field.name: hints[field.name] for field in fields(op)}  # type: ignore[arg-type]
