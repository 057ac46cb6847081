"""How much of each class's error goes with scarcity, and how much with look-alikes of which class.

Every wrongly classified image of a class is divided between three parts, which therefore add up to
the class's error:

* *similarity* to the class j it was taken for: among the training images of j that are nearest to
  it in the network's features, how many look like its own class, beyond what chance puts there;
* *scarcity of the decision*: what is left of it, if the same features with equal weights for all
  classes give the right class (and minus what equal weights lose);
* *rest*: what neither reaches, such as features that too few images have shaped.

These are associations in one trained network, not causes; see docs/diagnosis.md for what they can
and cannot show.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from longtailed.analysis.diagnosis.similarity import class_means, look_alike_share, unit_features

NEIGHBOURS, RESAMPLES, LEVEL = 5, 1000, 0.95
BLOCK = 1024  # queries compared with the images of one class at once
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The training images of the predicted class that are nearest to each wrong image.

    `images` [W] are the positions of the wrong images, `nearest` [W, k] positions of training
    images, nearest first, -1 where the predicted class has fewer than k; `alike` [W, k] says which
    of those look like the wrong image's own class; `excess` [W] is their share beyond chance.
    """

    images: Tensor
    nearest: Tensor
    alike: Tensor
    excess: Tensor


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of each class's error, as shares of its test images, float64.

    `images` [C] is the number of test images, `wrong` [C] of wrong ones. `error`, `scarcity`,
    `similarity` and `rest` [C] satisfy error = scarcity + similarity + rest; a class without test
    images has 0 everywhere. `towards` [C, C] divides row i's similarity by the predicted class.
    `intervals` [4, C, 2] are bootstrap intervals of the four, in this order.
    """

    images: npt.NDArray[np.int64]
    wrong: npt.NDArray[np.int64]
    error: FloatArray
    scarcity: FloatArray
    similarity: FloatArray
    rest: FloatArray
    towards: FloatArray
    intervals: FloatArray


def equal_decision(
    features: Tensor, labels: Tensor, queries: Tensor, num_classes: int, shrinkage: float = 0.5
) -> Tensor:
    """Return the class [M] of queries [M, A] if all classes weigh the same in the decision.

    Linear discriminant analysis with equal priors: z_c = x.S^-1 m_c - m_c.S^-1 m_c / 2 with the
    class means m of `features` [N, A] and S the mean over classes of their covariance, shrunk
    halfway to its mean variance. Every class has one mean and one share of S, whatever its number
    of images. A class without images is never returned.
    """
    means = class_means(features, labels, num_classes).double()
    counts = torch.bincount(labels, minlength=num_classes)
    present = counts > 0
    scatter = means.new_zeros(means.shape[1], means.shape[1])
    for rows, own in zip(torch.split(features, BLOCK), torch.split(labels, BLOCK), strict=True):
        centred = (rows.double() - means[own]) / counts[own][:, None].sqrt()
        scatter += centred.T @ centred
    covariance = scatter / present.sum()
    level = covariance.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
    covariance = (1 - shrinkage) * covariance + shrinkage * level * torch.eye(len(covariance))
    weights = torch.linalg.solve(covariance, means.T)
    offsets = ((means * weights.T).sum(dim=1) / 2).masked_fill(~present, torch.inf)
    return torch.cat(
        [
            (block.double() @ weights - offsets).argmax(dim=1)
            for block in torch.split(queries, BLOCK)
        ]
    )


def wrong_neighbours(
    features: Tensor,
    labels: Tensor,
    looks_like: Tensor,
    queries: Tensor,
    truth: Tensor,
    predictions: Tensor,
    num_classes: int,
    k: int = NEIGHBOURS,
    nearest: Tensor | None = None,
) -> Neighbours:
    """Return, for each misclassified query of [M, A], its neighbours in the predicted class.

    `features` [N, A], `labels` [N] and `looks_like` [N] or [N, D] (see
    `similarity.look_alike_share`) are those of the training images.

    Take a query of class i that was classified as j. Let p be the share of its k nearest training
    images of class j that look like i, and q the share of all training images of j that do. Then

        excess = (p - q) / max(q, 1 - q),  from -1 to 1.

    It is 0 on average if look-alikes have nothing to do with the error: k random images of j would
    have p = q. It is 0 if all of j looks like i. It is 1 if all k neighbours are look-alikes and
    look-alikes are at most half of j. The divisor is at least 1/2: with 1 - q alone, a q near 1
    would give a single image a large negative excess.

    `nearest` [N, 2 or more] is given if the queries are the training images themselves: the nearest
    other images of each, nearest first, whose classes `looks_like` [N] holds. A neighbour whose
    nearest image is the query itself is then judged by its second nearest. Otherwise the query
    would turn its own neighbours into look-alikes.
    """
    wrong = torch.nonzero(predictions != truth).flatten()
    looks = looks_like[:, None] if looks_like.ndim == 1 else looks_like
    chance = look_alike_share(looks, labels, num_classes)
    near = torch.full((len(wrong), k), -1, dtype=torch.int64)
    alike = torch.zeros(len(wrong), k, dtype=torch.bool)
    excess = torch.zeros(len(wrong), dtype=torch.float64)
    bank, asked = unit_features(features, features), unit_features(queries[wrong], features)
    for predicted in torch.unique(predictions[wrong]).tolist():
        members = torch.nonzero(labels == predicted).flatten()
        asking = torch.nonzero(predictions[wrong] == predicted).flatten()
        for rows in torch.split(asking, BLOCK):
            if not len(members):
                continue
            found = _nearest(asked[rows], bank[members], k)
            width = found.shape[1]
            near[rows, :width] = members[found]
            own = truth[wrong[rows]]
            hits = (looks[members[found]] == own[:, None, None]).any(dim=2)
            alike[rows, :width] = hits
            base = chance[own, predicted]
            if nearest is not None:
                hits &= _still_alike(labels, nearest[members[found]], wrong[rows, None], own)
                alike[rows, :width] = hits
                base = base - _own_share(labels, nearest[members], wrong[rows], own)
            share = hits.double().mean(dim=1)
            excess[rows] = (share - base) / torch.maximum(1 - base, base)
    return Neighbours(wrong, near, alike, excess)


def _still_alike(labels: Tensor, nearest: Tensor, queries: Tensor, own: Tensor) -> Tensor:
    """Return whether images [R, k] look like class own [R] with the queries [R, 1] left out."""
    seen = torch.where(nearest[..., 0] == queries, nearest[..., -1], nearest[..., 0])
    return labels[seen] == own[:, None]


def _own_share(labels: Tensor, nearest: Tensor, queries: Tensor, own: Tensor) -> Tensor:
    """Return which share [R] of the members look like class own [R] by the query [R] alone."""
    row_of = torch.full((len(labels),), -1, dtype=torch.int64)
    row_of[queries] = torch.arange(len(queries))
    rows = row_of[nearest[:, 0]]
    by_query = rows >= 0
    rows, following = rows[by_query], labels[nearest[by_query, -1]]
    return torch.bincount(rows[following != own[rows]], minlength=len(own)) / len(nearest)


def _nearest(queries: Tensor, bank: Tensor, k: int) -> Tensor:
    return torch.cdist(queries, bank).topk(min(k, len(bank)), dim=1, largest=False).indices


def divide_error(
    truth: Tensor,
    predictions: Tensor,
    equal: Tensor,
    neighbours: Neighbours,
    num_classes: int,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Parts:
    """Return the parts of each class's error.

    For labels, predictions and equal-weight predictions [M]. A wrong image contributes its excess e
    to similarity, and 1 - e to scarcity if equal weights get it right, else to the rest; a right
    image that equal weights get wrong contributes -1 to scarcity and 1 to the rest, so that
    scarcity is a net gain and not the sum of lucky changes. Intervals: the `level` quantiles over
    resampled test images of a class; they speak of other test images, not of other runs.
    """
    similar = torch.zeros(len(truth), dtype=torch.float64)
    similar[neighbours.images] = neighbours.excess
    wrong, lost = predictions != truth, (predictions == truth) & (equal != truth)
    scarce = torch.where(wrong & (equal == truth), 1 - similar, 0.0) - lost.double()
    values = np.stack([wrong.double().numpy(), scarce.numpy(), similar.numpy()])
    labels = truth.numpy()
    images = np.bincount(labels, minlength=num_classes)
    sums = [np.bincount(labels, row, minlength=num_classes) for row in values]
    error, scarcity, similarity = (total / np.maximum(images, 1) for total in sums)
    cells = truth[neighbours.images] * num_classes + predictions[neighbours.images]
    towards = np.bincount(cells.numpy(), neighbours.excess.numpy(), minlength=num_classes**2)
    return Parts(
        images=images,
        wrong=np.bincount(labels, values[0], minlength=num_classes).astype(np.int64),
        error=error,
        scarcity=scarcity,
        similarity=similarity,
        rest=error - scarcity - similarity,
        towards=towards.reshape(num_classes, num_classes) / np.maximum(images, 1)[:, None],
        intervals=_intervals(labels, values, images, resamples, level, seed),
    )


def _intervals(
    labels: npt.NDArray[np.int64],
    values: FloatArray,
    images: npt.NDArray[np.int64],
    resamples: int,
    level: float,
    seed: int,
) -> FloatArray:
    """Return the bootstrap intervals [4, C, 2] of error, scarcity, similarity and rest."""
    random = np.random.RandomState(seed)
    bounds = [(1 - level) / 2, (1 + level) / 2]
    order = np.argsort(labels, kind="stable")
    intervals = np.zeros((4, len(images), 2))
    for label, members in enumerate(np.split(order, np.cumsum(images)[:-1])):
        if not len(members):
            continue
        # Images with the same values are drawn together: few numbers, however large the class.
        distinct, number = np.unique(values[:, members], axis=1, return_counts=True)
        times = random.multinomial(len(members), number / len(members), resamples)
        drawn = distinct @ times.T / len(members)
        rest = drawn[0] - drawn[1] - drawn[2]
        intervals[:, label] = np.quantile(np.stack([*drawn, rest]), bounds, axis=1).T
    return intervals


def vote_of_neighbours(places: Tensor, cosines: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return the class [N] that each image's nearest others vote for, closer ones counting more.

    `places` and `cosines` [N, k] are those of `similarity.nearest_images`. An estimate of what a
    classifier would say of an image that it was not trained on; a vote weighs 1 + cosine. Classes
    with many images have many neighbours to offer, as in ordinary training.
    """
    found = []
    for rows, weights in zip(torch.split(places, BLOCK), torch.split(cosines, BLOCK), strict=True):
        votes = weights.new_zeros(len(rows), num_classes)
        found.append(votes.scatter_add_(1, labels[rows], 1 + weights).argmax(dim=1))
    return torch.cat(found)
