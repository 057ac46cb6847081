"""AutoAugment on uint8 images, with the policy found for CIFAR-10: every image draws its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, Final

import torch
from torch import Generator, Tensor

from longtailed.data.augment.image_operation import (
    DrawnOperations,
    Interpolation,
    Operation,
    value_of,
)
from longtailed.data.augment.operation import Op, uniform
from longtailed.data.augment.policy import apply_operations

INVERT, AUTO_CONTRAST = Operation.INVERT, Operation.AUTO_CONTRAST
EQUALIZE, POSTERIZE, SOLARIZE = Operation.EQUALIZE, Operation.POSTERIZE, Operation.SOLARIZE
BRIGHTNESS, CONTRAST = Operation.BRIGHTNESS, Operation.CONTRAST
COLOR, SHARPNESS = Operation.COLOR, Operation.SHARPNESS
ROTATE, SHEAR_Y = Operation.ROTATE, Operation.SHEAR_Y
TRANSLATE_X, TRANSLATE_Y = Operation.TRANSLATE_X, Operation.TRANSLATE_Y

CIFAR10_POLICY: Final = (
    ((INVERT, 1, 7), (CONTRAST, 2, 6)),
    ((ROTATE, 7, 2), (TRANSLATE_X, 3, 9)),
    ((SHARPNESS, 8, 1), (SHARPNESS, 9, 3)),
    ((SHEAR_Y, 5, 8), (TRANSLATE_Y, 7, 9)),
    ((AUTO_CONTRAST, 5, 8), (EQUALIZE, 9, 2)),
    ((SHEAR_Y, 2, 7), (POSTERIZE, 3, 7)),
    ((COLOR, 4, 3), (BRIGHTNESS, 6, 7)),
    ((SHARPNESS, 3, 9), (BRIGHTNESS, 7, 9)),
    ((EQUALIZE, 6, 5), (EQUALIZE, 5, 1)),
    ((CONTRAST, 6, 7), (SHARPNESS, 6, 5)),
    ((COLOR, 7, 7), (TRANSLATE_X, 5, 8)),
    ((EQUALIZE, 3, 7), (AUTO_CONTRAST, 4, 8)),
    ((TRANSLATE_Y, 4, 3), (SHARPNESS, 2, 6)),
    ((BRIGHTNESS, 9, 6), (COLOR, 2, 8)),
    ((SOLARIZE, 5, 2), (INVERT, 0, 3)),
    ((EQUALIZE, 2, 0), (AUTO_CONTRAST, 6, 0)),
    ((EQUALIZE, 2, 8), (EQUALIZE, 6, 4)),
    ((COLOR, 9, 9), (EQUALIZE, 6, 6)),
    ((AUTO_CONTRAST, 8, 4), (SOLARIZE, 2, 8)),
    ((BRIGHTNESS, 1, 3), (COLOR, 7, 0)),
    ((SOLARIZE, 4, 5), (AUTO_CONTRAST, 9, 3)),
    ((TRANSLATE_Y, 9, 9), (TRANSLATE_Y, 7, 9)),
    ((AUTO_CONTRAST, 9, 2), (SOLARIZE, 8, 3)),
    ((EQUALIZE, 8, 8), (INVERT, 1, 3)),
    ((TRANSLATE_Y, 7, 9), (AUTO_CONTRAST, 9, 1)),
)
"""The 25 sub-policies: two operations with their probability in tenths and their level 0..9."""


@dataclass(frozen=True)
class AutoAugment(Op[DrawnOperations]):
    """The images, each after one random sub-policy of `CIFAR10_POLICY` (arXiv 1805.09501).

    A sub-policy is two operations, each applied with its own probability. Level k gives, with
    v = k / 9 and a random sign s,

        rotation 30 v degrees counter-clockwise, nearest pixels; shear 0.3 s v, bicubic;
        translation 150/331 s v of the side, nearest pixels;
        brightness, contrast, colour, sharpness: factor 1 + 0.9 s v;
        posterize: round(8 - 4 v) bits kept; solarize from level 256 (1 - v);
        autocontrast, equalize and invert have no strength.

    Pixels from outside the image are grey (128). These are the choices of public long-tail code
    (arXiv 2407.04911). torchvision's differ: rotation has a random sign, shears read nearest
    pixels, translations are cut to whole pixels, the fill is black.
    """

    name: ClassVar[str] = "auto_augment"

    def sample(self, shape: Sequence[int], generator: Generator) -> DrawnOperations:
        """Return the two operations of each image, `Operation.IDENTITY` where one is left out."""
        device, drawn = generator.device, (shape[0], 2)
        policies = len(CIFAR10_POLICY)
        policy = torch.randint(policies, (shape[0], 1), generator=generator, device=device)
        chance = uniform(0, 10, drawn, generator)
        sign = 2 * torch.randint(2, drawn, generator=generator, device=device) - 1
        entry = 2 * policy + torch.arange(2, device=device)
        operation, tenths, level = _entries(tuple(chain(*CIFAR10_POLICY)), entry)
        operation = operation * (chance < tenths)
        values = _values(level / 9, sign)
        sheared = (operation == Operation.SHEAR_X) | (operation == Operation.SHEAR_Y)
        interpolation = torch.where(sheared, Interpolation.BICUBIC, Interpolation.NEAREST)
        return DrawnOperations(operation, value_of(operation, values), interpolation)

    def apply(self, images: Tensor, parameters: DrawnOperations) -> Tensor:
        """Return the images after the given operations."""
        return apply_operations(images, parameters, fill=(128, 128, 128), along_one_axis=True)


def _entries(table: Sequence[tuple[int, int, int]], index: Tensor) -> list[Tensor]:
    """The three columns of table[index], int64; its numbers are 0..15.

    The table travels in the arguments of the kernels, fifteen numbers of four bits in each: a copy
    of it to a GPU would make the host wait.
    """
    columns = [torch.zeros_like(index) for _ in range(3)]
    for start in range(0, len(table), 15):
        in_part = index // 15 == start // 15
        for column, numbers in zip(
            columns, zip(*table[start : start + 15], strict=True), strict=True
        ):
            packed = sum(number << 4 * place for place, number in enumerate(numbers))
            column.add_(in_part * packed)
    shift = index % 15 * 4
    return [column >> shift & 15 for column in columns]


def _values(strength: Tensor, sign: Tensor) -> dict[Operation, Tensor]:
    """The value that each operation would have."""
    signed = sign * strength
    factor = 1 + 0.9 * signed
    return {
        Operation.POSTERIZE: (8 - 4 * strength).round(),
        Operation.SOLARIZE: 256 * (1 - strength),
        Operation.BRIGHTNESS: factor,
        Operation.CONTRAST: factor,
        Operation.COLOR: factor,
        Operation.SHARPNESS: factor,
        Operation.ROTATE: 30 * strength,
        Operation.SHEAR_Y: 0.3 * signed,
        Operation.TRANSLATE_X: 150 / 331 * signed,
        Operation.TRANSLATE_Y: 150 / 331 * signed,
    }
