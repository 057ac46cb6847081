"""Batched random colour and blur on uint8 images: every image draws its own parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from annotated_types import Le
from torch import Generator, Tensor
from torch.nn import functional as F  # noqa: N812

from longtailed.data.augment.operation import Op, replace_chosen, uniform
from longtailed.data.setting_types import Interval, NonNegative, Share

CONTRAST, SATURATION, HUE = 1, 2, 3  # brightness is 0


class Jitter(NamedTuple):
    """Parameters of a colour jitter, one row per image.

    `factors` float32 [N, 3]: brightness, contrast, saturation (1 changes nothing); `hue` float32
    [N]: shift in turns of the colour circle; `order` int64 [N, 4]: the operation at each position,
    0 brightness, 1 contrast, 2 saturation, 3 hue.
    """

    factors: Tensor
    hue: Tensor
    order: Tensor


@dataclass(frozen=True)
class ColorJitter(Op[Jitter]):
    """The images with randomly changed brightness, contrast, saturation and hue.

    With probability `p` an image gets, in random order,

        brightness: f x;  contrast: f x + (1 - f) mean(grey(x));  saturation: f x + (1 - f) grey(x)

    each clipped to 0..255, and a hue shift of h turns. f ~ U(max(0, 1 - b), 1 + b) for each
    strength b, h ~ U(-hue, hue), as torchvision. The order is drawn per image, as when images
    are transformed one by one: an order per batch would make the images of a batch alike, and
    choosing code by a value drawn on the device would make the host wait.

    Departure from torchvision: pixels are rounded once at the end, not cut to whole numbers after
    each operation, which darkens images by up to half a level each time.
    """

    brightness: NonNegative
    contrast: NonNegative
    saturation: NonNegative
    hue: Annotated[NonNegative, Le(0.5)]
    p: Share = 1.0
    name: ClassVar[str] = "color_jitter"

    def sample(self, shape: Sequence[int], generator: Generator) -> Jitter:
        """Return the parameters of each image; they change nothing where it is left alone."""
        draws = uniform(0, 1, (9, shape[0]), generator)
        chosen = draws[8] < self.p
        factors = []
        for draw, strength in zip(
            draws[:3], (self.brightness, self.contrast, self.saturation), strict=True
        ):
            low = max(0.0, 1 - strength)
            factors.append(torch.where(chosen, low + (1 + strength - low) * draw, 1.0))
        hue = torch.where(chosen, self.hue * (2 * draws[3] - 1), 0.0)
        keys = draws[4:8]
        if self.hue == 0:  # last, where it costs nothing
            keys = torch.cat((keys[:3], torch.full_like(keys[3:], 2.0)))
        return Jitter(torch.stack(factors, 1), hue, keys.argsort(0).T)

    def apply(self, images: Tensor, parameters: Jitter) -> Tensor:
        """Return the images changed with the given factors, hue shifts and orders."""
        order = parameters.order
        pixels = images.float()
        # Every image runs through the same operations: three blends, the hue, three blends. A
        # blend whose turn is on the other side of the image's hue gets factor 1: no change.
        factors = F.pad(parameters.factors, [0, 1], value=1.0).gather(1, order)
        hue_passed = (order == HUE).cumsum(1).bool()
        for position in (0, 1, 2):
            factor = torch.where(hue_passed[:, position], 1.0, factors[:, position])
            _blend_(pixels, factor, order[:, position])
        if self.hue > 0:
            pixels = _shift_hue(pixels, parameters.hue)
            for position in (1, 2, 3):
                factor = torch.where(hue_passed[:, position], factors[:, position], 1.0)
                _blend_(pixels, factor, order[:, position])
        return pixels.round_().to(torch.uint8)


def _blend_(pixels: Tensor, factor: Tensor, operation: Tensor) -> None:
    """Change pixels x to clip(f x + (1 - f) r); r is 0, mean grey or grey as `operation` says."""
    # Luma of ITU-R 601, as PIL and torchvision. Working in place halves the time on a CPU.
    grey = (pixels[:, 0:1] * 0.299).add_(pixels[:, 1:2], alpha=0.587)
    grey.add_(pixels[:, 2:3], alpha=0.114)
    factor, operation = factor[:, None, None, None], operation[:, None, None, None]
    mean = grey.mean((2, 3), keepdim=True).mul_((1 - factor) * (operation == CONTRAST))
    reference = grey.mul_((1 - factor) * (operation == SATURATION)).add_(mean)
    pixels.mul_(factor).add_(reference).clamp_(0, 255)


def _shift_hue(pixels: Tensor, shift: Tensor) -> Tensor:
    """Pixels [N, 3, H, W] with their hue moved by `shift` [N] turns, saturation and value kept.

    With m = min, c = max - min over the channels and hue t in turns, the channels are
    m + c * clip(6 |frac(t + k / 3) - 1/2| - 1, 0, 1), k = 0, 2, 1 for red, green, blue.
    """
    red, green, blue = pixels.unbind(1)
    highest, lowest = pixels.amax(1), pixels.amin(1)
    chroma = highest - lowest
    is_red = (red == highest).float()
    is_green = (green == highest).float() * (1 - is_red)
    is_blue = 1 - is_red - is_green
    # Multiplying by 0 or 1 is several times as fast as torch.where on a CPU.
    side = is_red * (green - blue) + is_green * (blue - red) + is_blue * (red - green)
    turns = side / (6 * chroma).clamp_(min=1e-6) + (is_green + 2 * is_blue) / 3
    turns += shift[:, None, None] + 1  # positive, as frac needs
    weight = torch.stack((turns, turns + 2 / 3, turns + 1 / 3), 1)
    weight.frac_().sub_(0.5).abs_().mul_(6).sub_(1).clamp_(0, 1)
    return weight.mul_(chroma[:, None]).add_(lowest[:, None])


@dataclass(frozen=True)
class Grayscale(Op[Tensor]):
    """The images, each replaced by its luma in all three channels with probability `p`.

    luma = 0.299 red + 0.587 green + 0.114 blue, in the whole-number arithmetic of PIL.
    """

    p: Share = 0.2
    name: ClassVar[str] = "grayscale"

    def sample(self, shape: Sequence[int], generator: Generator) -> Tensor:
        """Return which images lose their colours, bool [N]."""
        return uniform(0, 1, shape[:1], generator) < self.p

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Return the images with the marked ones in grey."""
        red, green, blue = images.int().unbind(1)
        luma = (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16
        grey = luma.to(torch.uint8)[:, None].expand(images.shape)
        return replace_chosen(images, grey, parameters)


@dataclass(frozen=True)
class GaussianBlur(Op[Tensor]):
    """The images, each blurred with a Gaussian of random width with probability `p`.

    sigma ~ U(sigma) in pixels (arXiv 2002.05709). The kernel reaches ceil(3 * largest sigma) pixels
    to each side, less in smaller images, and has the same size for every image; the borders are
    mirrored as torchvision does.

    Departure: PIL, which published views use, approximates the Gaussian by three box blurs and
    repeats the edge pixels.
    """

    sigma: Interval = (0.1, 2.0)
    p: Share = 0.5
    name: ClassVar[str] = "blur"

    def sample(self, shape: Sequence[int], generator: Generator) -> Tensor:
        """Return the width in pixels for each image, float32 [N]; 0 where it is not blurred."""
        width = uniform(*self.sigma, shape[:1], generator)
        return width * (uniform(0, 1, shape[:1], generator) < self.p)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Return the images blurred with the given widths."""
        n, channels, height, width = images.shape
        reach = min(math.ceil(3 * self.sigma[1]), height - 1, width - 1)
        distance = torch.arange(-reach, reach + 1, device=images.device)
        # At 0.01 pixels only the central weight counts and the image stays as it is. Below e^-60
        # there are denormal numbers, which make products ten times as slow.
        scaled = distance / parameters.clamp(min=0.01)[:, None]
        taps = (-0.5 * scaled.square()).clamp_(min=-60).softmax(1).repeat_interleave(channels, 0)
        planes = F.pad(images.float(), [reach] * 4, mode="reflect")
        planes = planes.reshape(1, n * channels, height + 2 * reach, width + 2 * reach)
        with torch.autocast(images.device.type, enabled=False):  # 8 bits of bfloat16 are too few
            planes = F.conv2d(planes, taps[:, None, None, :], groups=n * channels)
            planes = F.conv2d(planes, taps[:, None, :, None], groups=n * channels)
        return planes.view(images.shape).round_().to(torch.uint8)
