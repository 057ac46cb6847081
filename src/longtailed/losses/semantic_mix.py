"""Labels for mixed images that also say which classes the mixture looks like (ConCutMix)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from longtailed.errors import LongTailedError, unknown_name
from longtailed.losses.inputs import ClassCounts, count_tensor, full_precision

Normalizer = Literal["sum", "mean", "max"]
NORMALIZERS = ("sum", "mean", "max")
TINY = 1e-12  # the smallest distance whose inverse is taken


def semantic_mix_labels(
    features: Tensor,
    prototypes: Tensor,
    area_labels: Tensor,
    class_counts: ClassCounts,
    omega: float,
    top_k: int,
    *,
    normalizer: Normalizer = "sum",
    normalized: bool = False,
    clamp: bool = False,
) -> Tensor:
    """Return soft labels [N, C] between the area labels and what the mixed images look like.

    For features z [N, d] of mixed images, prototypes P [C, d] and area labels t [N, C]:

        e_ic = 1 / |z_i - P_c|, 0 below the `top_k`-th largest of its row (ties are kept)
        p_i = e_i / sum_c e_ic
        label_i = w_i p_i + (1 - w_i) t_i, with w_i of `semantic_weights`

    Nothing here has a gradient. `top_k` above C means all classes.

    `normalized` takes distances between z/|z| and P/|P|. `clamp` keeps w in 0..1; as published it
    may exceed 1, which makes labels negative.

    Raises `LongTailedError` for shapes that do not fit, a negative or infinite omega and top_k
    below 1.
    Paper: arXiv 2407.04911. Departures from the authors' code: no NaN where an image lies on a
    prototype (it then looks like that class alone), for one-image classes only, or for absent
    classes (they count as one image); distances without an N x C x d table; float32 throughout.
    """
    _check(features, prototypes, area_labels, top_k)
    looks = _looks_like(features.detach(), prototypes.detach(), top_k, normalized)
    weights = semantic_weights(area_labels, class_counts, omega, normalizer)
    if clamp:
        weights = weights.clamp(0, 1)
    return torch.lerp(area_labels.detach(), looks.to(area_labels), weights[:, None])


def _looks_like(features: Tensor, prototypes: Tensor, top_k: int, normalized: bool) -> Tensor:
    """The share of each class in what the images look like, p [N, C]."""
    features, prototypes = full_precision(features), full_precision(prototypes)
    if normalized:
        features, prototypes = F.normalize(features, dim=1), F.normalize(prototypes, dim=1)
    # From differences: |z|^2 + |P|^2 - 2 zP would round equal distances to different ones.
    with torch.autocast(features.device.type, enabled=False):
        distances = torch.cdist(
            features, prototypes.to(features), compute_mode="donot_use_mm_for_euclid_dist"
        )
    closeness = 1 / distances.clamp_min(TINY)
    threshold = closeness.topk(min(top_k, closeness.shape[1]), dim=1).values[:, -1:]
    closeness = torch.where(closeness >= threshold, closeness, 0)
    return closeness / closeness.sum(dim=1, keepdim=True)


def semantic_weights(
    area_labels: Tensor, class_counts: ClassCounts, omega: float, normalizer: Normalizer = "sum"
) -> Tensor:
    """Return how much of each label comes from what the image looks like, w [N].

    w_i = omega * log(sum_c n_c t_ic) / normaliser, for area labels t [N, C] and class counts n [C].
    The normaliser is the sum over the classes of log n_c (as published), their mean, or their
    maximum. With the sum, and the published omega of 0.2 C / 255, w is about 0.001 and the labels
    are practically the area labels. With the maximum, w runs up to omega: omega 0.2 moves a fifth
    of the label of an image from the largest class, less where smaller classes take part.

    Raises `LongTailedError` for a negative or infinite omega or an unknown normaliser.
    Paper: arXiv 2407.04911.
    """
    if not 0 <= omega < math.inf:
        raise LongTailedError(f"omega must be finite and not negative; it is {omega}.")
    if normalizer not in NORMALIZERS:
        raise unknown_name("normalizer of the semantic weight", normalizer, NORMALIZERS)
    labels = full_precision(area_labels.detach())
    counts = count_tensor(class_counts, labels.shape[1], labels.device).clamp_min(1).to(labels)
    logs = counts.log()
    # log 2 is the smallest value above 0: if no class has two images, every weight is 0.
    reduced = (logs.amax() if normalizer == "max" else logs.sum()).clamp_min(math.log(2))
    if normalizer == "mean":
        reduced = reduced / len(logs)
    images = (labels * counts).sum(1).clamp_min(1)  # rounding must not give a negative logarithm
    return (omega * images.log() / reduced).to(area_labels)


def _check(features: Tensor, prototypes: Tensor, area_labels: Tensor, top_k: int) -> None:
    if features.ndim != 2 or prototypes.ndim != 2 or features.shape[1] != prototypes.shape[1]:
        raise LongTailedError(
            f"features and prototypes must have the shapes [N, d] and [C, d]; they are "
            f"{list(features.shape)} and {list(prototypes.shape)}."
        )
    if area_labels.shape != (len(features), len(prototypes)):
        raise LongTailedError(
            f"area_labels must have the shape [{len(features)}, {len(prototypes)}]; they are "
            f"{list(area_labels.shape)}."
        )
    if top_k < 1:
        raise LongTailedError(f"top_k must be at least 1; it is {top_k}.")
