"""The image operations that augmentation policies draw from, and their batched application."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor


class Operation(IntEnum):
    """Operations on one image, each with one number, its value; all as PIL defines them.

    INVERT, AUTO_CONTRAST and EQUALIZE have no value. POSTERIZE: bits kept, 0..8. SOLARIZE: levels
    from the value on are inverted. SOLARIZE_ADD: what levels below 128 gain. BRIGHTNESS, CONTRAST,
    COLOR and SHARPNESS: factor, 1 changes nothing. ROTATE: degrees counter-clockwise. SHEAR_X and
    SHEAR_Y: pixels per pixel, and TRANSLATE_X and TRANSLATE_Y: parts of the width or height, by
    which the place a pixel is read from moves right or down.
    """

    IDENTITY = 0
    INVERT = 1
    AUTO_CONTRAST = 2
    EQUALIZE = 3
    POSTERIZE = 4
    SOLARIZE = 5
    SOLARIZE_ADD = 6
    BRIGHTNESS = 7
    CONTRAST = 8
    COLOR = 9
    SHARPNESS = 10
    ROTATE = 11
    SHEAR_X = 12
    SHEAR_Y = 13
    TRANSLATE_X = 14
    TRANSLATE_Y = 15


class Interpolation(IntEnum):
    """How pixels are read between the pixels of an image."""

    NEAREST = 0
    BILINEAR = 1
    BICUBIC = 2


class DrawnOperations(NamedTuple):
    """The operations that images go through one after the other, one row [n] per image.

    `operation` int64 [N, n] of `Operation`; `value` float32 [N, n]; `interpolation` int64 [N, n]
    of `Interpolation`, which only rotation, shear and translation heed.
    """

    operation: Tensor
    value: Tensor
    interpolation: Tensor


def value_of(operation: Tensor, values: Mapping[Operation, Tensor]) -> Tensor:
    """Return the value of each drawn operation: that of `values`, or 0 where it has none.

    `operation` is int64 and every tensor of `values` float32 of the same shape.
    """
    none = torch.zeros(operation.shape, device=operation.device)
    table = torch.stack([values.get(known, none) for known in Operation])
    return table.gather(0, operation[None])[0]
