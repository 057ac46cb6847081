"""Batched random geometry on uint8 images: every image draws its own parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import AfterValidator
from torch import Generator, Tensor
from torch.nn import functional as F  # noqa: N812

from longtailed.data.augment.operation import Box, Op, SideLengths, replace_chosen, uniform
from longtailed.data.setting_types import Index, Interval, Share, Size
from longtailed.errors import LongTailedError


@dataclass(frozen=True)
class PadCrop(Op[Tensor]):
    """Each image padded on all sides and cropped back to its size at a random offset.

    Both offsets are uniform over 0..2*padding. `mode` is "zero" (black border) or "reflect"
    (mirrored without repeating the edge pixel; needs padding < H and padding < W).
    """

    padding: Index = 4
    mode: Literal["zero", "reflect"] = "zero"
    name: ClassVar[str] = "pad_crop"

    def output_size(self, size: SideLengths | None) -> SideLengths | None:
        """Return the size as it is; padding as wide as the image is refused."""
        if size is not None and self.padding >= min(size):
            raise LongTailedError(
                f"pad_crop({self.padding}) pads images of {size[0]} x {size[1]} by as many pixels "
                f"as they have; the padding must be below {min(size)}."
            )
        return size

    def sample(self, shape: Sequence[int], generator: Generator) -> Tensor:
        """Return the row and column offsets of the crops in the padded images, int64 [2, N]."""
        choices = 2 * self.padding + 1
        return torch.randint(choices, (2, shape[0]), generator=generator, device=generator.device)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Return the crops at the given offsets [2, N]."""
        n, channels, height, width = images.shape
        padded = self._pad(images).contiguous()
        # Every output row is a run of `width` neighbours in memory. Selecting runs copies memory,
        # which is five times as fast as indexing pixels.
        runs = padded.view(-1).unfold(0, width, 1)
        planes = torch.arange(n * channels, device=images.device).view(n, channels, 1)
        top, left = parameters[:, :, None, None]
        rows = planes * padded.shape[2] + top + torch.arange(height, device=images.device)
        starts = rows * padded.shape[3] + left
        return runs.index_select(0, starts.view(-1)).view(images.shape)

    def _pad(self, images: Tensor) -> Tensor:
        if self.mode == "zero":
            return F.pad(images, [self.padding] * 4)
        if self.padding >= min(images.shape[2:]):
            size = f"{images.shape[2]} x {images.shape[3]}"
            raise LongTailedError(f"pad_crop: cannot reflect {self.padding} pixels of {size} ones.")
        for dim in (2, 3):  # F.pad cannot reflect uint8 images
            last = images.shape[dim] - 1
            before = images.narrow(dim, 1, self.padding).flip(dim)
            after = images.narrow(dim, last - self.padding, self.padding).flip(dim)
            images = torch.cat((before, images, after), dim)
        return images


@dataclass(frozen=True)
class Flip(Op[Tensor]):
    """The images, each mirrored left to right with probability `p`."""

    p: Share = 0.5
    name: ClassVar[str] = "flip"

    def sample(self, shape: Sequence[int], generator: Generator) -> Tensor:
        """Return which images are mirrored, bool [N]."""
        return uniform(0, 1, shape[:1], generator) < self.p

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Return the images with the marked ones mirrored."""
        return replace_chosen(images, images.flip(3), parameters)


def _within_image(scale: tuple[float, float]) -> tuple[float, float]:
    if scale[1] > 1:
        raise ValueError("a crop has at most the whole area, 1")
    return scale


@dataclass(frozen=True)
class ResizedCrop(Op[Box]):
    """Random crops of random area and shape, resized to [size, size].

    As torchvision: area = U(scale) * H * W and log(width / height) = U(log ratio), tried ten
    times; if no try fits in the image, the largest central crop whose shape is allowed.
    Resampling is bilinear with antialiasing and sees nothing outside the crop.
    """

    size: Size
    scale: Annotated[Interval, AfterValidator(_within_image)] = (0.08, 1.0)
    ratio: Interval = (3 / 4, 4 / 3)
    name: ClassVar[str] = "resized_crop"
    on_load: ClassVar[bool] = True

    def output_size(self, size: SideLengths | None) -> SideLengths | None:
        """Return the square that is asked for."""
        return self.size, self.size

    def load(self, image: Tensor, generator: Generator) -> Tensor:
        """Return one random crop [3, size, size] of one image [3, H, W], antialiased."""
        top, left, bottom, right = (int(e) for e in self.sample((1, *image.shape), generator))
        return resize(image[None, :, top:bottom, left:right], self.size, self.size)[0]

    def sample(self, shape: Sequence[int], generator: Generator) -> Box:
        """Return the crop of each image."""
        n, _, height, width = shape
        area = height * width * uniform(*self.scale, (n, 10), generator)
        low, high = (math.log(bound) for bound in self.ratio)
        aspect = uniform(low, high, (n, 10), generator).exp()
        place = uniform(0, 1, (2, n), generator)
        heights = (area / aspect).sqrt().round().long()
        widths = (area * aspect).sqrt().round().long()
        fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
        first, found = fits.long().argmax(1, keepdim=True), fits.any(1)
        # If no try fits: the largest central crop of the allowed shape nearest to the image's.
        nearest = min(max(width / height, self.ratio[0]), self.ratio[1])
        central_height = min(height, round(width / nearest))
        central_width = min(width, round(height * nearest))
        crop_height = torch.where(found, heights.gather(1, first)[:, 0], central_height)
        crop_width = torch.where(found, widths.gather(1, first)[:, 0], central_width)
        spare_height, spare_width = height - crop_height, width - crop_width
        top = torch.where(found, (place[0] * (spare_height + 1)).long(), spare_height // 2)
        left = torch.where(found, (place[1] * (spare_width + 1)).long(), spare_width // 2)
        return Box(top, left, top + crop_height, left + crop_width)

    def apply(self, images: Tensor, parameters: Box) -> Tensor:
        """Return the content of each box, resized to [size, size]."""
        # Two matrix products per image: unlike sampling on a grid they allow every image its own
        # antialiasing filter, at about the same cost.
        height, width = images.shape[2:]
        rows = _bilinear_weights(parameters.top, parameters.bottom, height, self.size)
        columns = _bilinear_weights(parameters.left, parameters.right, width, self.size)
        n, channels = images.shape[:2]
        with torch.autocast(images.device.type, enabled=False):  # 8 bits of bfloat16 are too few
            wide = torch.bmm(images.float().reshape(n, channels * height, width), columns.mT)
            wide = wide.view(n, channels, height, self.size)
            resized = torch.einsum("nij,ncjw->nciw", rows, wide)
        return resized.round_().to(torch.uint8).contiguous()


def _bilinear_weights(start: Tensor, stop: Tensor, length: int, size: int) -> Tensor:
    """Weights [N, size, length] of the pixels of an axis when start..stop becomes `size` pixels.

    A triangle around each output pixel's centre: two output pixels wide where the axis shrinks
    (antialiasing), two input pixels wide where it grows (linear interpolation).
    """
    start, stop = start[:, None, None].float(), stop[:, None, None].float()
    scale = (stop - start) / size
    centers = start + scale * (torch.arange(size, device=start.device) + 0.5)[:, None]
    pixels = torch.arange(length, device=start.device) + 0.5
    weights = (pixels - centers).abs_().div_(-scale.clamp(min=1)).add_(1).clamp_(min=0)
    weights.mul_(pixels > start).mul_(pixels < stop)
    return weights.div_(weights.sum(2, keepdim=True))


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """Return uint8 images [N, 3, height, width], resampled bilinearly with antialiasing."""
    # Only the CPU resamples uint8 images directly.
    source = images if images.device.type == "cpu" else images.float()
    resized = F.interpolate(source, (height, width), mode="bilinear", antialias=True)
    return resized if resized.dtype == torch.uint8 else resized.round_().to(torch.uint8)


@dataclass(frozen=True)
class Resize(Op[None]):
    """The images resized so that the shorter side is `size` (bilinear, antialiased)."""

    size: Size
    name: ClassVar[str] = "resize"
    on_load: ClassVar[bool] = True

    def output_size(self, size: SideLengths | None) -> SideLengths | None:
        """Return the size with the shorter side as asked for; the longer one is rounded down."""
        if size is None:
            return None
        height, width = size
        return self.size * height // min(size), self.size * width // min(size)

    def sample(self, shape: Sequence[int], generator: Generator) -> None:
        """Return nothing: resizing is not random."""

    def apply(self, images: Tensor, parameters: None) -> Tensor:
        """Return the resized images; the longer side is rounded down."""
        height, width = images.shape[2:]
        shorter = min(height, width)
        return resize(images, self.size * height // shorter, self.size * width // shorter)


@dataclass(frozen=True)
class CenterCrop(Op[None]):
    """The central [size, size] of the images, with a black border where they are smaller."""

    size: Size
    name: ClassVar[str] = "center_crop"
    on_load: ClassVar[bool] = True

    def output_size(self, size: SideLengths | None) -> SideLengths | None:
        """Return the square that is asked for; a crop larger than the image is refused."""
        if size is not None and self.size > min(size):
            raise LongTailedError(
                f"center_crop({self.size}) is larger than the images, which have {size[0]} x "
                f"{size[1]} pixels there; put resize({self.size}) before it, or crop less."
            )
        return self.size, self.size

    def sample(self, shape: Sequence[int], generator: Generator) -> None:
        """Return nothing: the centre is not random."""

    def apply(self, images: Tensor, parameters: None) -> Tensor:
        """Return the central crops."""
        spare = [side - self.size for side in images.shape[2:]]
        # Odd remainders are split as torchvision splits them.
        top, left = (round(rest / 2) if rest > 0 else -(-rest // 2) for rest in spare)
        bottom, right = spare[0] - top, spare[1] - left
        return F.pad(images, [-left, -right, -top, -bottom])  # a negative padding crops


@dataclass(frozen=True)
class Cutout(Op[Box]):
    """The images, each with a black square of side `size` with probability `p`.

    The square's centre is uniform over the pixels, so a part of it may lie outside the image
    (arXiv 1708.04552). An odd side is kept as asked; the authors' code loses one pixel of it. Black
    is pixel value 0, before the images are normalised; the authors blank normalised images.
    """

    size: Size
    p: Share = 1.0
    name: ClassVar[str] = "cutout"

    def output_size(self, size: SideLengths | None) -> SideLengths | None:
        """Return the size as it is; a square as large as the image is refused."""
        if size is not None and self.size >= min(size):
            raise LongTailedError(
                f"cutout({self.size}) cuts out as much as the images have, which are {size[0]} x "
                f"{size[1]} there; the square must be smaller."
            )
        return size

    def sample(self, shape: Sequence[int], generator: Generator) -> Box:
        """Return the square of each image, of side 0 where none is cut out."""
        n, _, height, width = shape
        row = torch.randint(height, (n,), generator=generator, device=generator.device)
        column = torch.randint(width, (n,), generator=generator, device=generator.device)
        side = self.size * (uniform(0, 1, (n,), generator) < self.p)
        top, left = row - self.size // 2, column - self.size // 2
        return Box(top, left, top + side, left + side)

    def apply(self, images: Tensor, parameters: Box) -> Tensor:
        """Return the images with the boxes set to 0."""
        return images * ~parameters.mask(*images.shape[2:])


def normalize(
    images: Tensor,
    mean: Tensor,
    std: Tensor,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Return (images / 255 - mean) / std as float32 [N, 3, H, W].

    `images` are uint8; `mean` and `std` [3] are in units of the range 0..1 and on their device.
    """
    scale, shift = 1 / (255 * std), mean / std
    normalized = images.float().mul_(scale[:, None, None]).sub_(shift[:, None, None])
    return normalized.contiguous(memory_format=memory_format)
