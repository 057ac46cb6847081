"""Mixing of two images and their labels: mixup and CutMix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from longtailed.data.augment.operation import Box, uniform
from longtailed.errors import LongTailedError


class MixedLabels(NamedTuple):
    """Two labels per image and the weight of the first: class a with lam, class b with 1 - lam.

    `labels_a`, `labels_b` int64 [N]; `lam` float32 [] (one for the batch) or [N].
    """

    labels_a: Tensor
    labels_b: Tensor
    lam: Tensor


def soft_targets(labels_a: Tensor, labels_b: Tensor, lam: Tensor, num_classes: int) -> Tensor:
    """Return lam * onehot(labels_a) + (1 - lam) * onehot(labels_b): [N, C], rows sum to 1."""
    classes = torch.arange(num_classes, device=labels_a.device)
    weight = lam[..., None]
    return weight * (labels_a[:, None] == classes) + (1 - weight) * (labels_b[:, None] == classes)


def sample_beta(alpha: float, shape: Sequence[int], generator: Generator) -> Tensor:
    """Return draws from Beta(alpha, alpha), float32 of `shape`, on the generator's device.

    Raises `LongTailedError` unless alpha > 0.
    """
    if not alpha > 0:
        raise LongTailedError(f"alpha must be above 0, not {alpha!r}.")
    # The first of two gammas over their sum; float64, because gammas of a small alpha are tiny.
    concentration = torch.full((*shape, 2), alpha, dtype=torch.float64, device=generator.device)
    gammas = torch._standard_gamma(concentration, generator=generator)
    return (gammas[..., 0] / gammas.sum(-1)).float()


def mixup(
    images: Tensor,
    labels: Tensor,
    alpha: float,
    generator: Generator,
    *,
    partners: tuple[Tensor, Tensor] | None = None,
    per_sample: bool = False,
    p: float = 1.0,
    used: Tensor | None = None,
) -> tuple[Tensor, MixedLabels]:
    """Return lam * images + (1 - lam) * partner images [N, ...] (float), and both labels with lam.

    lam ~ Beta(alpha, alpha); the partners are the batch in random order (arXiv 1710.09412). As in
    the authors' code one lam serves the batch; `per_sample` draws one per image instead.

    Args:
        images: float [N, 3, H, W].
        labels: int64 [N].
        alpha: both parameters of the Beta distribution.
        generator: on the images' device.
        partners: (images, labels) of another batch to mix with, used in random order too.
        per_sample: one lam per image.
        p: probability that the batch (or image) is mixed at all; else its lam is 1.
        used: bool [N], a decision made beforehand (`Batch.used`): an image whose partner is not
            used is not mixed, nor without `per_sample` any image of the batch.

    Raises `LongTailedError` unless alpha > 0 and the images are float.
    """
    if not images.is_floating_point():
        raise LongTailedError(
            f"mixup needs float images, not {images.dtype}; normalise them first."
        )
    lam, others, other_labels = _draw(
        images, labels, alpha, generator, partners, per_sample, p, used
    )
    weight = (1 - lam).reshape(-1, 1, 1, 1).to(images.dtype)
    return torch.lerp(images, others, weight), MixedLabels(labels, other_labels, lam)


def cutmix(
    images: Tensor,
    labels: Tensor,
    alpha: float,
    generator: Generator,
    *,
    partners: tuple[Tensor, Tensor] | None = None,
    per_sample: bool = False,
    p: float = 1.0,
    used: Tensor | None = None,
) -> tuple[Tensor, MixedLabels]:
    """Return the images with a box pasted from partner images, and both labels with lam.

    lam ~ Beta(alpha, alpha), the box is `cutmix_box` at a uniform centre, and lam becomes the
    part of the image outside the box (arXiv 1905.04899). As in the authors' code one box serves
    the batch; `per_sample` draws one per image instead.

    The arguments are those of `mixup`, but images may have any type. Raises `LongTailedError`
    unless alpha > 0.
    """
    lam, others, other_labels = _draw(
        images, labels, alpha, generator, partners, per_sample, p, used
    )
    height, width = images.shape[2:]
    rows = torch.randint(height, lam.shape, generator=generator, device=lam.device)
    columns = torch.randint(width, lam.shape, generator=generator, device=lam.device)
    box = cutmix_box(height, width, lam, rows, columns)
    mixed = torch.where(~box.mask(height, width), images, others)
    return mixed, MixedLabels(labels, other_labels, box_complement(box, height, width))


def cutmix_box(height: int, width: int, lam: Tensor, rows: Tensor, columns: Tensor) -> Box:
    """Return the boxes of about (1 - lam) * H * W pixels around (row, column), cut at the border.

    Each half side is half of int(side * sqrt(1 - lam)), rounded down, so that odd sides lose a
    pixel and a box may be empty, as in the authors' code (arXiv 1905.04899), whose W and x are
    tensor axis 2, our height. `lam`, `rows` and `columns` have one shape, [] or [N].
    """
    ratio = (1 - lam).sqrt()
    half_height = (height * ratio).long() // 2
    half_width = (width * ratio).long() // 2
    return Box(
        (rows - half_height).clamp(0, height),
        (columns - half_width).clamp(0, width),
        (rows + half_height).clamp(0, height),
        (columns + half_width).clamp(0, width),
    )


def box_complement(box: Box, height: int, width: int) -> Tensor:
    """Return the part of the image outside the box, 1 - area / (H * W): float32, [] or [N]."""
    area = (box.bottom - box.top) * (box.right - box.left)
    return 1 - area.float() / (height * width)


def _draw(
    images: Tensor,
    labels: Tensor,
    alpha: float,
    generator: Generator,
    partners: tuple[Tensor, Tensor] | None,
    per_sample: bool,
    p: float,
    used: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The weight lam ([] or [N]) and the partners' images and labels in random order."""
    n = len(images)
    shape = (n,) if per_sample else ()
    lam = sample_beta(alpha, shape, generator)
    mixed = uniform(0, 1, shape, generator) < p
    order = uniform(0, 1, (n,), generator).argsort()
    if used is not None:
        mixed = mixed & (used[order] if per_sample else used.all())
    # Where nothing is mixed lam is 1, not another path in the code: shapes and draws stay fixed.
    lam = torch.where(mixed, lam, 1.0)
    other_images, other_labels = partners if partners is not None else (images, labels)
    # Indexing keeps channels_last, which index_select does not.
    return lam, other_images[order], other_labels[order]
