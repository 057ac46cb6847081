"""RandAugment on uint8 images: every image draws its own operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Le
from torch import Generator, Tensor

from longtailed.data.augment.image_operation import (
    DrawnOperations,
    Interpolation,
    Operation,
    value_of,
)
from longtailed.data.augment.operation import Op, uniform
from longtailed.data.augment.policy import apply_operations
from longtailed.data.setting_types import NonNegative, Size


@dataclass(frozen=True)
class RandAugment(Op[DrawnOperations]):
    """The images after `n` random operations each (arXiv 1909.13719).

    Every operation is one of fifteen with equal chance, left out with probability 1/2. Its strength
    is v = clip(m + mstd * normal, 0, 10) / 10 and gives, s being a random sign,

        rotation 30 s v degrees; shear 0.3 s v; translation 0.45 s v of the side;
        brightness, contrast, colour, sharpness: factor 0.1 + 1.8 v;
        posterize: floor(4 v) bits kept; solarize from level floor(256 v);
        solarize-add floor(110 v); autocontrast, equalize and invert have no strength.

    Pixels are interpolated bilinearly or bicubically with equal chance; those from outside the
    image are (124, 116, 104). These are the choices of public long-tail code (arXiv 2407.04911),
    which differ from the paper's: it leaves no operation out, has no solarize-add and no invert
    but an identity, and a fixed strength.
    """

    n: Size = 2
    m: Annotated[NonNegative, Le(10)] = 10
    mstd: NonNegative = 0.5
    name: ClassVar[str] = "rand_augment"

    def sample(self, shape: Sequence[int], generator: Generator) -> DrawnOperations:
        """Return the operations of each image, `Operation.IDENTITY` where one is left out."""
        device, drawn = generator.device, (shape[0], self.n)
        operation = torch.randint(1, len(Operation), drawn, generator=generator, device=device)
        kept = uniform(0, 1, drawn, generator) < 0.5
        noise = torch.randn(drawn, generator=generator, device=device)
        sign = 2 * torch.randint(2, drawn, generator=generator, device=device) - 1
        between = torch.randint(
            Interpolation.BILINEAR, len(Interpolation), drawn, generator=generator, device=device
        )
        operation = operation * kept
        strength = (self.m + self.mstd * noise).clamp(0, 10) / 10
        return DrawnOperations(operation, value_of(operation, _values(strength, sign)), between)

    def apply(self, images: Tensor, parameters: DrawnOperations) -> Tensor:
        """Return the images after the given operations."""
        return apply_operations(images, parameters, fill=(124, 116, 104))


def _values(strength: Tensor, sign: Tensor) -> dict[Operation, Tensor]:
    """The value that each operation would have."""
    signed, factor = sign * strength, 0.1 + 1.8 * strength
    return {
        Operation.POSTERIZE: (4 * strength).floor(),
        Operation.SOLARIZE: (256 * strength).floor(),
        Operation.SOLARIZE_ADD: (110 * strength).floor(),
        Operation.BRIGHTNESS: factor,
        Operation.CONTRAST: factor,
        Operation.COLOR: factor,
        Operation.SHARPNESS: factor,
        Operation.ROTATE: 30 * signed,
        Operation.SHEAR_X: 0.3 * signed,
        Operation.SHEAR_Y: 0.3 * signed,
        Operation.TRANSLATE_X: 0.45 * signed,
        Operation.TRANSLATE_Y: 0.45 * signed,
    }
