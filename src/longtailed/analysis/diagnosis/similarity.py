"""Category similarity: how alike the classes of a set are, from features or from predictions.

All functions take tensors on any device, work class by class or in blocks (nothing of size
N x C x A or N x N is built), and give 0 rather than NaN where there is nothing to compare.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from longtailed.errors import LongTailedError

BLOCK = 4096  # rows that are compared with all classes at once
QUERIES = 1024  # rows that are compared with all images at once


def class_means(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return the class means [C, A] of features [N, A] with labels [N]; 0 for an absent class.

    Raises `LongTailedError` for features and labels that do not fit, or features that are not
    finite.
    """
    _check(features, labels, num_classes)
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    images = torch.bincount(labels, minlength=num_classes)
    sums = features.new_zeros(num_classes, features.shape[1]).index_add_(0, labels, features)
    return sums / images.clamp_min(1)[:, None]


def mean_cosine(
    features: Tensor, labels: Tensor, num_classes: int, centred: bool = False
) -> Tensor:
    """Return the cosine [C, C] of the angle between class-mean features.

    S_ij = m_i.m_j / (|m_i| |m_j|) with the means m of features [N, A]. Features after a ReLU all
    point the same way, which makes every cosine large: `centred` subtracts the mean of the class
    means first. Classes that are all equally alike then have -1 / (C - 1), which is near 0 for many
    classes and always -1 for two. 0 for an absent class and for a mean of length 0; else the
    diagonal is 1. Raises as `class_means`.
    """
    means = class_means(features, labels, num_classes)
    present = torch.bincount(labels, minlength=num_classes) > 0
    if centred and present.any():
        means = torch.where(present[:, None], means - means[present].mean(dim=0), means)
    unit = F.normalize(means, dim=1)
    return (unit @ unit.T).clamp(-1, 1)


def confusion_similarity(confusion: Tensor) -> Tensor:
    """Return the symmetric confusion similarity [C, C]: S_ij = (R_ij + R_ji) / 2.

    R is the confusion matrix [C, C] of images (rows true, columns predicted) divided by its row
    sums; the row of a class without test images is 0. The diagonal is the accuracy. Symmetric by
    construction, so it cannot say which of two classes suffers: see `head_leakage`.
    """
    rates = row_rates(confusion)
    return (rates + rates.T) / 2


def row_rates(confusion: Tensor) -> Tensor:
    """Return the confusion matrix [C, C] divided by its row sums; an empty row stays 0."""
    return confusion.double() / confusion.sum(dim=1, keepdim=True).clamp_min(1)


def head_leakage(confusion: Tensor, class_counts: Tensor) -> Tensor:
    """Return the share [C, C] of class i's test images that are predicted as the larger class j.

    `confusion` [C, C] holds images, rows true; j is larger than i if it has more training images
    (`class_counts` [C]). 0 towards classes that are not larger.
    """
    counts = class_counts.to(confusion.device)
    return row_rates(confusion) * (counts[None, :] > counts[:, None])


def gaussian_overlap(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return how far each two classes overlap [C, C] along the line that joins their means.

    O_ij = 2 Phi(-|m_i - m_j| / (s_i + s_j)) in 0..1, where s_i is the standard deviation of class i
    along that line (with n - 1; a class with fewer than 2 images takes the other's) and Phi the
    normal distribution function: for s_i = s_j the common area of two normal densities. Equal means
    give 1, different means without any spread 0, an absent class 0. Raises as `class_means`.
    """
    means = class_means(features, labels, num_classes)
    counts = torch.bincount(labels, minlength=num_classes)
    lengths = torch.cdist(means, means, compute_mode="donot_use_mm_for_euclid_dist")
    squares = _projected_squares(features.to(means.dtype), labels, means)
    degrees = (counts - 1).clamp_min(0)
    variances = squares / degrees.clamp_min(1)[:, None]
    variances = torch.where(degrees[:, None] > 0, variances, variances.T)
    # Rows hold squares of x.(m_i - m_j), which is |m_i - m_j| times the coordinate on the line.
    deviations = variances.sqrt() / lengths.clamp_min(torch.finfo(means.dtype).tiny)
    spread = deviations + deviations.T
    ratio = torch.where(spread > 0, lengths / spread, torch.where(lengths > 0, math.inf, 0.0))
    overlap = torch.erfc(ratio / math.sqrt(2))
    present = counts > 0
    return overlap * (present[:, None] & present[None, :])


def _projected_squares(features: Tensor, labels: Tensor, means: Tensor) -> Tensor:
    """Return sum over the images x of class i of ((x - m_i).(m_i - m_j))^2, [C, C]."""
    squares = means.new_zeros(len(means), len(means))
    for rows, block_labels in _blocks(features, labels):
        own = means[block_labels]
        centred = rows - own
        along = (centred * own).sum(dim=1, keepdim=True) - centred @ means.T
        squares.index_add_(0, block_labels, along.square())
    return squares


def nearest_means(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return for each image the class [N] whose mean it is nearest to, left out of its own mean.

    Features [N, A] are centred and divided by their norm first. Leaving the image itself out
    lengthens the distance to its own mean by n / (n - 1); the only image of a class keeps its
    label, since there is nothing left to compare it with. Raises as `class_means`.
    """
    _check(features, labels, num_classes)
    unit = unit_features(features, features)
    means = class_means(unit, labels, num_classes)
    counts = torch.bincount(labels, minlength=num_classes)
    nearest = []
    for rows, own in _blocks(unit, labels):
        distances = torch.cdist(rows, means).masked_fill(counts == 0, math.inf)
        left = counts[own].to(rows.dtype)
        stretched = distances.gather(1, own[:, None])[:, 0] * left / (left - 1).clamp_min(1)
        distances.scatter_(1, own[:, None], stretched[:, None])
        nearest.append(torch.where(left > 1, distances.argmin(dim=1), own))
    return torch.cat(nearest)


def nearest_mean_of(queries: Tensor, features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return for each of other images [M, A] the class [M] whose mean it is nearest to.

    Means of `features` [N, A] with `labels` [N], both centred and divided by their norms as in
    `nearest_means`; an absent class is never returned. Raises as `class_means`.
    """
    _check(features, labels, num_classes)
    means = class_means(unit_features(features, features), labels, num_classes)
    absent = torch.bincount(labels, minlength=num_classes) == 0
    blocks = torch.split(unit_features(queries, features), BLOCK)
    return torch.cat(
        [torch.cdist(rows, means).masked_fill(absent, math.inf).argmin(dim=1) for rows in blocks]
    )


def nearest_images(features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k nearest other images of each image and their cosines, both [N, k].

    Features [N, A] are centred first. With fewer than k others, all of them. Images are compared
    in blocks: N^2 A multiplications, but memory for N x 1024 cosines only.
    """
    unit = unit_features(features, features)
    k = min(k, len(unit) - 1)
    places, cosines = [], []
    for start in range(0, len(unit), QUERIES):
        block = unit[start : start + QUERIES] @ unit.T
        here = torch.arange(len(block), device=unit.device)
        block[here, start + here] = -math.inf
        top = block.topk(k, dim=1)
        places.append(top.indices)
        cosines.append(top.values)
    return torch.cat(places), torch.cat(cosines)


def look_alike_share(looks: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return the share L [C, C] of class j's images that look like class i, in row i, column j.

    `looks` [N] or [N, D] holds for each image the class it looks like in each of D descriptions,
    such as `nearest_means` or the labels of `nearest_images`: an image looks like class i if one
    of them says so. The diagonal is the share that looks like its own class everywhere; an absent
    class has 0.
    """
    looks = looks[:, None] if looks.ndim == 1 else looks
    cells = looks * num_classes + labels[:, None]
    ordered = cells.sort(dim=1).values  # an image counts once for a class, however often it is said
    once = torch.ones_like(ordered, dtype=torch.bool)
    once[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    images = torch.bincount(ordered[once], minlength=num_classes**2)
    images = images.reshape(num_classes, num_classes)
    own = torch.bincount(labels[(looks == labels[:, None]).all(dim=1)], minlength=num_classes)
    images = images.diagonal_scatter(own)
    return images.double() / torch.bincount(labels, minlength=num_classes).clamp_min(1)


def unit_features(features: Tensor, reference: Tensor) -> Tensor:
    """Return features [N, A] minus the mean of `reference` [M, A], each divided by its norm."""
    wide = torch.promote_types(features.dtype, torch.float32)
    return F.normalize(features.to(wide) - reference.to(wide).mean(dim=0), dim=1)


def _blocks(features: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(torch.split(features, BLOCK), torch.split(labels, BLOCK), strict=True))


def _check(features: Tensor, labels: Tensor, num_classes: int) -> None:
    if features.ndim != 2 or labels.shape != features.shape[:1] or not len(features):
        raise LongTailedError(
            f"similarity needs features [N, A] and labels [N]; the shapes are "
            f"{list(features.shape)} and {list(labels.shape)}."
        )
    if not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise LongTailedError(f"labels must be in 0..{num_classes - 1}.")
    if not bool(torch.isfinite(features).all()):
        raise LongTailedError(
            "some features are not finite numbers; the network's weights are damaged or diverged."
        )
