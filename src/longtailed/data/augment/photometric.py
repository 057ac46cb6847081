"""Batched changes of pixel levels with the arithmetic of PIL; every image has its own operation."""

from __future__ import annotations

import torch
from torch import Tensor

from longtailed.data.augment.image_operation import Operation


def enhance(images: Tensor, operation: Tensor, value: Tensor) -> Tensor:
    """Return the images with brightness, contrast, colour or sharpness changed, uint8 [N, 3, H, W].

    x becomes r + f (x - r), clipped and cut to a whole number: f is the `value` [N], and r is 0
    (BRIGHTNESS), the mean luma (CONTRAST), the luma (COLOR) or the image smoothed with the 3 x 3
    weights 1/13, 5/13 in the middle, except for its border (SHARPNESS). `operation` is int64 [N];
    images with another operation stay as they are.
    """
    chosen = operation[:, None, None, None]
    grey = _luma(images)
    pixels = images.float()
    # Multiplying by 0 or 1 is several times as fast as torch.where on a CPU.
    reference = _smooth(pixels).mul_(chosen == Operation.SHARPNESS)
    reference.add_(grey * (chosen == Operation.COLOR))
    reference.add_(_rounded_mean(grey) * (chosen == Operation.CONTRAST))
    enhanced = (operation >= Operation.BRIGHTNESS) & (operation <= Operation.SHARPNESS)
    factor = torch.where(enhanced, value, 1.0)[:, None, None, None]
    return pixels.sub_(reference).mul_(factor).add_(reference).clamp_(0, 255).to(torch.uint8)


def _luma(images: Tensor) -> Tensor:
    """Luma of ITU-R 601 in whole levels, int32 [N, 1, H, W]."""
    red, green, blue = images.int()[:, :, None].unbind(1)
    return (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16


def _rounded_mean(grey: Tensor) -> Tensor:
    """Mean of each image in whole levels, halves rounded up, int64 [N, 1, 1, 1]."""
    count = grey.shape[2] * grey.shape[3]
    return (2 * grey.sum((2, 3), keepdim=True) + count) // (2 * count)


def _smooth(pixels: Tensor) -> Tensor:
    """Smoothed levels, float32; images below 3 pixels in height or width are all border."""
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    total.add_(pixels[:, :, 1:-1, 1:-1], alpha=4)
    smoothed = pixels.clone()
    # 13 is odd: no total lies half-way between two levels, and float32 rounds all of them right.
    smoothed[:, :, 1:-1, 1:-1] = total.div_(13).round_()
    return smoothed


def map_levels(images: Tensor, operation: Tensor, value: Tensor) -> Tensor:
    """Return the images with their levels exchanged by a table per image and channel.

    That is INVERT, AUTO_CONTRAST, EQUALIZE, POSTERIZE, SOLARIZE and SOLARIZE_ADD. `images` are
    uint8 [N, 3, H, W], `operation` int64 [N] and `value` float32 [N]; images with another operation
    stay as they are.
    """
    planes = images.flatten(2)
    index = planes.long()
    operation = operation[:, None, None]
    tables = _fixed_tables(operation, value[:, None, None])
    levels = torch.arange(256, dtype=torch.int32, device=images.device)
    lowest, highest = planes.amin(2, keepdim=True).int(), planes.amax(2, keepdim=True).int()
    stretched = _stretched(levels, lowest, highest)
    tables = torch.where(operation == Operation.AUTO_CONTRAST, stretched, tables)
    equalized = _equalized(levels, highest, index)
    tables = torch.where(operation == Operation.EQUALIZE, equalized, tables)
    return tables.clamp_(0, 255).to(torch.uint8).gather(2, index).view(images.shape)


def _fixed_tables(operation: Tensor, value: Tensor) -> Tensor:
    """New levels int32 [N, 1, 256] by the operations that do not depend on the image."""
    levels = torch.arange(256, dtype=torch.int32, device=operation.device)
    whole = value.int()
    lost_bits = 8 - whole
    threshold = torch.where(operation == Operation.INVERT, 0, value)  # solarizing from 0 inverts
    solarized = torch.where(levels < threshold, levels, 255 - levels)
    is_solarized = (operation == Operation.SOLARIZE) | (operation == Operation.INVERT)
    brightened = levels + whole * (levels < 128)
    posterized = levels >> lost_bits << lost_bits
    tables = torch.where(is_solarized, solarized, levels)
    tables = torch.where(operation == Operation.SOLARIZE_ADD, brightened, tables)
    return torch.where(operation == Operation.POSTERIZE, posterized, tables)


def _stretched(levels: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
    """New levels int32 [N, 3, 256] that move the lowest level to 0 and the highest to 255."""
    # The roundings of PIL, where some levels come out one too low; 255 / x would round twice.
    width = (highest - lowest).clamp_(min=1).double()
    scale = torch.full_like(width, 255) / width
    stretched = (levels * scale - lowest * scale).int()
    return torch.where(highest > lowest, stretched, levels)


def _equalized(levels: Tensor, highest: Tensor, index: Tensor) -> Tensor:
    """New levels int32 [N, 3, 256] that spread the pixels, of levels `index`, over 0..255."""
    counts = torch.zeros(*index.shape[:2], 256, dtype=torch.int32, device=index.device)
    counts.scatter_add_(2, index, torch.ones_like(index, dtype=torch.int32))
    step = (index.shape[2] - counts.gather(2, highest.long())) // 255
    below = counts.cumsum(2, dtype=torch.int32) - counts
    return torch.where(step > 0, (below + step // 2) // step.clamp(min=1), levels)
