"""Batched rotation, shear and translation with the arithmetic of PIL."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from longtailed.data.augment.image_operation import Interpolation, Operation


def affine_matrices(operation: Tensor, value: Tensor, height: int, width: int) -> Tensor:
    """Return where the pixels of each image are read, float64 [N, 2, 3].

    The pixel in column j and row i is read at x = a j + b i + c and y = d j + e i + f, the rows of
    the matrix, in pixels from the top left corner; the centre of the first pixel is (0.5, 0.5).
    ROTATE turns about the centre of the image, shears move nothing on the edges at x = 0 or y = 0.
    `operation` is int64 [N] and `value` float32 [N]; other operations get the identity.
    """
    value = value.double()

    def only(kind: Operation) -> Tensor:
        return value * (operation == kind)

    angle = only(Operation.ROTATE) * (-math.pi / 180)
    cosine, sine = angle.cos(), angle.sin()
    across, along = sine + only(Operation.SHEAR_X), only(Operation.SHEAR_Y) - sine
    x, y = width / 2, height / 2
    start_x = x - cosine * x - sine * y + width * only(Operation.TRANSLATE_X)
    start_y = y - cosine * y + sine * x + height * only(Operation.TRANSLATE_Y)
    start_x = start_x + 0.5 * (cosine + across)
    start_y = start_y + 0.5 * (cosine + along)
    return torch.stack((cosine, across, start_x, along, cosine, start_y), 1).view(-1, 2, 3)


def resample(
    images: Tensor,
    matrices: Tensor,
    interpolation: Tensor,
    fill: tuple[int, int, int],
    along_one_axis: bool = False,
) -> Tensor:
    """Return the images read at the places that `matrices` [N, 2, 3] give, uint8 [N, 3, H, W].

    `interpolation` is int64 [N] of `Interpolation`. Pixels read from outside the image are `fill`
    (red, green, blue). Bicubic interpolation has the slope -1 at distance 1. Levels are clipped and
    cut to whole numbers. `along_one_axis` says that no image is interpolated in both x and y (that
    is, only sheared or translated, or nearest), which saves three quarters of the reading.
    """
    n, channels, height, width = images.shape
    across, down, start = _as_read_by_pil(matrices, interpolation)[..., None, None].unbind(2)
    rows = torch.arange(height, device=images.device)[:, None]
    columns = torch.arange(width, device=images.device)
    places = across * columns + (down * rows + start)  # float64 [N, 2, H, W]
    x, y = places.unbind(1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    read = _read_along_one_axis if along_one_axis else _read
    pixels = read(images.flatten(2).float(), places, interpolation)
    pixels = pixels.view(n, channels, height, width).clamp_(0, 255)
    filled = (
        torch.where(inside, plane, level)
        for plane, level in zip(pixels.unbind(1), fill, strict=True)
    )
    return torch.stack(tuple(filled), 1).to(torch.uint8)


def _as_read_by_pil(matrices: Tensor, interpolation: Tensor) -> Tensor:
    """The matrices, rounded to 1/65536 where PIL reads nearest pixels of a turned or sheared image.

    A pixel whose place lies that close to the edge of another would else differ by any amount.
    """
    rounded = (65536 * matrices + 0.5).floor() / 65536
    turned = (matrices[:, 0, 1] != 0) | (matrices[:, 1, 0] != 0)
    as_rounded = turned & (interpolation == Interpolation.NEAREST)
    return torch.where(as_rounded[:, None, None], rounded, matrices)


def _read(planes: Tensor, places: Tensor, interpolation: Tensor) -> Tensor:
    """Levels float32 [N, 3, H W] of `planes` [N, 3, H W] at the places (x, y) [N, 2, H, W]."""
    height, width = places.shape[2:]
    first, weights = _taps(places, interpolation)
    weights_x = [weight[:, :1] for weight in weights]
    weights_y = [weight[:, 1:] for weight in weights]
    column, row = first.unbind(1)
    columns = {step: (column + step).clamp_(0, width - 1).long() for step in _STEPS}
    starts = {step: (row + step).clamp_(0, height - 1).mul_(width).long() for step in _STEPS}

    def line(row_step: int) -> Tensor:
        start = starts[row_step]
        return _interpolate(lambda step: _pixels(planes, start + columns[step]), weights_x)

    return _interpolate(line, weights_y)


def _read_along_one_axis(planes: Tensor, places: Tensor, interpolation: Tensor) -> Tensor:
    """As `_read`, for images read only at the centres of rows, or only at those of columns."""
    height, width = places.shape[2:]
    first, weights = _taps(places, interpolation)
    column, row = first.unbind(1)
    moves = (weights[1].amax(2) > 0).int()  # 1 on the axis where the pixel after has a weight
    right, down = moves[:, :1], moves[:, 1:]

    def levels(step: int) -> Tensor:
        start = (row + step * down).clamp_(0, height - 1).mul_(width)
        return _pixels(planes, (column + step * right).clamp_(0, width - 1).add_(start).long())

    return _interpolate(levels, [weight[:, :1] + weight[:, 1:] for weight in weights])


_STEPS = (0, -1, 1, 2)


def _taps(places: Tensor, interpolation: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The pixels that are read between, per axis.

    Returns the pixel whose centre is at or before each place, int32 [N, 2, H W], and the weights
    [N, 2, H W] of the pixels one before, one after and two after it.
    """
    between = (interpolation != Interpolation.NEAREST)[:, None, None]
    bicubic = (interpolation == Interpolation.BICUBIC)[:, None, None]
    places = places.flatten(2) - 0.5 * between
    first = places.floor()
    t = places.sub_(first).float().mul_(between)
    rest = 1 - t
    inner = t * rest * bicubic
    ahead = inner * t
    return first.int(), (rest.mul_(inner).neg_(), t.add_(ahead), -ahead)


def _interpolate(levels: Callable[[int], Tensor], weights: Sequence[Tensor]) -> Tensor:
    """The level at step 0 plus the weighted differences of the others to it."""
    # With differences even areas keep their exact level, which cutting would else lower by one.
    first = levels(0)
    result = first.clone()
    for step, weight in zip(_STEPS[1:], weights, strict=True):
        result.addcmul_(levels(step).sub_(first), weight)
    return result


def _pixels(planes: Tensor, index: Tensor) -> Tensor:
    """Levels [N, 3, H W] of all channels at the pixels `index` int64 [N, H W]."""
    return planes.gather(2, index[:, None].expand(-1, planes.shape[1], -1))
