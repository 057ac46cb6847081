"""The diagnosis: similarity statistics and the parts of the error, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from longtailed.analysis.diagnosis.attribution import (
    FloatArray,
    Neighbours,
    Parts,
    divide_error,
    equal_decision,
    wrong_neighbours,
)
from longtailed.analysis.diagnosis.evidence import Evidence
from longtailed.analysis.diagnosis.passes import image_name
from longtailed.analysis.diagnosis.similarity import (
    QUERIES,
    confusion_similarity,
    gaussian_overlap,
    head_leakage,
    look_alike_share,
    mean_cosine,
    nearest_mean_of,
    nearest_means,
    unit_features,
)
from longtailed.analysis.diagnosis.training_fit import balanced_share
from longtailed.metrics.shots import class_groups, confusion_matrix

FEW_ERRORS = 5  # wrong images of a class below which its error is not divided
NOTICEABLE = 0.2  # share of a class's error from which a part is worth naming
PARTS = ("error", "scarcity", "similarity", "rest")  # in the order of `Parts.intervals`
MOST_LOOK_ALIKES = 200
DUPLICATE = 0.999  # cosine of neutral features from which two images are likely the same


@dataclass(frozen=True, eq=False)
class LookAlike:
    """A training image that looks like another class: position, labels, its nearest image there."""

    position: int
    label: int
    looks_like: int
    nearest: int
    cosine: float
    name: str

    @property
    def duplicate(self) -> bool:
        """Whether it is so near an image of the other class that they are likely the same."""
        return self.cosine >= DUPLICATE


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything a diagnosis found; matrices are [C, C], row i is about class i.

    `cosine`, `overlap` and `alike` are those of `similarity.mean_cosine` (centred),
    `gaussian_overlap` (test images) and `look_alike_share`; `confused` of `confusion_similarity`
    and `leakage` of `head_leakage`. `memorised` are the shares of training and of test images that
    are nearest to the mean of their own class, a class counting once. `neutral_right` is the share
    of training images that look like their own class in the neutral features alone.
    """

    evidence: Evidence
    counts: np.ndarray[Any, np.dtype[np.int64]]
    parts: Parts
    neighbours: Neighbours
    cosine: FloatArray
    overlap: FloatArray
    alike: FloatArray
    confused: FloatArray
    leakage: FloatArray
    confusion: np.ndarray[Any, np.dtype[np.int64]]
    look_alikes: Sequence[LookAlike]
    look_alike_images: int
    memorised: tuple[float, float]
    neutral_right: float

    @property
    def names(self) -> tuple[str, ...]:
        """The class names."""
        return self.evidence.train.class_names

    def by_error(self) -> list[int]:
        """Return the tested classes, most error first; of equal ones the rarer first."""
        tested = np.flatnonzero(self.parts.images)
        return sorted(tested.tolist(), key=lambda c: (-self.parts.error[c], self.counts[c]))

    def rare(self) -> list[int]:
        """Return the tested classes with few training images (see `class_groups`).

        None of the largest size: where all classes are equally large, none is rare.
        """
        few = class_groups(self.counts.tolist(), groups="auto").few
        return [c for c in few if self.parts.images[c] and self.counts[c] < self.counts.max()]

    def similar_class(self, label: int) -> int | None:
        """Return the class through which most of the similarity part goes, else the most alike.

        The most alike by the mean cosine; None if no other class has training images.
        """
        towards = self.parts.towards[label]
        worth = towards.max() >= 0.02 or "similarity" in self.large_parts(label)
        if self.divided(label) and worth and towards.max() > 0:
            return int(towards.argmax())
        others = np.where(self.counts > 0, self.cosine[label], -np.inf)
        others[label] = -np.inf
        return int(others.argmax()) if np.isfinite(others).any() else None

    def divided(self, label: int) -> bool:
        """Return whether the class has enough wrong images to divide its error."""
        return bool(self.parts.wrong[label] >= FEW_ERRORS)

    def verdict(self, label: int) -> str:
        """Return in words what the class's error goes with, as far as the images allow."""
        parts = self.parts
        if parts.images[label] == 0:
            return "no test images"
        if not self.divided(label):
            return "too few errors to divide" if parts.wrong[label] else "no errors"
        words = self.large_parts(label)
        similar = self.similar_class(label)
        if "similarity" in words and similar is not None:
            most = parts.towards[label, similar] >= parts.similarity[label] / 2
            others = "" if most else " and others"
            words[words.index("similarity")] = f"similarity to {self.names[similar]}{others}"
        if "rest" in words:
            words[words.index("rest")] = "the rest"
        return ", then ".join(words) or "unclear: the largest part could be chance"

    @property
    def look_alikes_unsure(self) -> bool:
        """Whether the features in which look-alikes are sought hardly tell the classes apart."""
        return self.neutral_right < 0.5

    def large_parts(self, label: int) -> list[str]:
        """Return which of scarcity, similarity and rest matter, the largest first.

        A part matters if its interval is above 0 and it is a fifth of the class's error or more.
        None is named if the interval of the largest is not above 0: a smaller one alone would
        mislead.
        """
        parts, low = self.parts, self.parts.intervals[:, label, 0]
        values = (parts.error, parts.scarcity, parts.similarity, parts.rest)
        sizes = [float(row[label]) for row in values]
        order = sorted((1, 2, 3), key=lambda row: -sizes[row])
        if low[order[0]] <= 0:
            return []
        return [PARTS[r] for r in order if sizes[r] >= NOTICEABLE * sizes[0] and low[r] > 0]


def examine(evidence: Evidence) -> Findings:
    """Return what the evidence says."""
    train, test = evidence.train, evidence.test
    classes = train.num_classes
    labels, truth = torch.from_numpy(train.labels), torch.from_numpy(test.labels)
    learnt = nearest_means(evidence.features, labels, classes)
    looks = [learnt, labels[evidence.nearest[0][:, 0]]]
    equal = met = learnt
    if not evidence.estimated:
        looks.append(nearest_means(evidence.neutral, labels, classes))
        queries = evidence.test_features
        equal = equal_decision(evidence.features, labels, queries, classes)
        met = nearest_mean_of(queries, evidence.features, labels, classes)
    looks_like = torch.stack(looks, dim=1)
    neutral = looks_like if evidence.estimated else looks_like[:, 1:]
    neighbours = _neighbours(evidence, looks_like)
    confusion = confusion_matrix(truth, evidence.predictions, classes)
    counts = torch.tensor(train.class_counts)
    found, total = list_look_alikes(evidence, looks_like)
    return Findings(
        evidence=evidence,
        counts=counts.numpy(),
        parts=divide_error(truth, evidence.predictions, equal, neighbours, classes),
        neighbours=neighbours,
        cosine=_array(mean_cosine(evidence.features, labels, classes, centred=True)),
        overlap=_array(gaussian_overlap(evidence.test_features, truth, classes)),
        alike=_array(look_alike_share(looks_like, labels, classes)),
        confused=_array(confusion_similarity(confusion)),
        leakage=_array(head_leakage(confusion, counts)),
        confusion=confusion.numpy(),
        look_alikes=found,
        look_alike_images=total,
        memorised=(
            balanced_share(learnt, labels, classes),
            balanced_share(met, truth, classes),
        ),
        neutral_right=float((neutral == labels[:, None]).all(dim=1).double().mean()),
    )


def _neighbours(evidence: Evidence, looks_like: Tensor) -> Neighbours:
    """Return the neighbours of the wrong images.

    In an estimate, which has no test images, the wrong images are training images. Each must be
    left out before its neighbours are judged. With a list of nearest images that is easy: take the
    next one. A class mean would have to be computed again for every image. So in an estimate a
    neighbour looks like the class of the image nearest to it.
    """
    labels, truth = torch.from_numpy(evidence.train.labels), torch.from_numpy(evidence.test.labels)
    nearest = None
    if evidence.estimated:
        nearest = evidence.nearest[0][:, :2]
        looks_like = labels[nearest[:, 0]]
    return wrong_neighbours(
        evidence.features, labels, looks_like, evidence.test_features, truth, evidence.predictions,
        evidence.train.num_classes, nearest=nearest,
    )  # fmt: skip


def list_look_alikes(evidence: Evidence, looks_like: Tensor) -> tuple[list[LookAlike], int]:
    """Return the look-alikes that are nearest to an image of the other class, and how many are.

    Those whose own label is the rarer class come last: the effect is of the others.
    """
    labels = torch.from_numpy(evidence.train.labels)
    unit = unit_features(evidence.neutral, evidence.neutral)
    chosen = torch.nonzero((looks_like != labels[:, None]).any(dim=1)).flatten()
    others = looks_like[chosen].masked_fill(looks_like[chosen] == labels[chosen, None], -1)
    found: dict[int, tuple[float, int, int]] = {}
    for other in torch.unique(others[others >= 0]).tolist():
        members = torch.nonzero(labels == other).flatten()
        for rows in torch.split(chosen[(others == other).any(dim=1)], QUERIES):
            best = (unit[rows] @ unit[members].T).max(dim=1)
            near = members[best.indices]
            for cosine, row, place in zip(
                best.values.tolist(), rows.tolist(), near.tolist(), strict=True
            ):
                found[row] = max(found.get(row, (-2.0, 0, 0)), (cosine, row, place))
    counts = evidence.train.class_counts

    def order(entry: tuple[float, int, int]) -> tuple[bool, float]:
        label, other = int(labels[entry[1]]), int(labels[entry[2]])
        return counts[label] < counts[other] and entry[0] < DUPLICATE, -entry[0]

    listed = [
        LookAlike(
            position, int(labels[position]), int(labels[near]), near, cosine,
            image_name(evidence.train, position),
        )
        for cosine, position, near in sorted(found.values(), key=order)[:MOST_LOOK_ALIKES]
    ]  # fmt: skip
    return listed, len(found)


def _array(values: Tensor) -> FloatArray:
    return values.double().numpy()
