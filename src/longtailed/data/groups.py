"""Groups of images that come from one thing (a patient, a track), and how to keep them whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from longtailed.data.imageset import ImageSet

Groups = npt.NDArray[np.str_]


def draw_whole_groups(
    imageset: ImageSet, groups: Groups, wanted: Sequence[int], random: np.random.RandomState
) -> npt.NDArray[np.bool_]:
    """Return which images [N] are drawn: whole groups, about `wanted` [C] images of each class.

    Groups are taken in random order, each if it brings the classes closer to what is wanted,
    relative to it. A class that got none then gets its smallest group. No class gives more than
    half of its images, so a class whose images are all in one group gives none.

    scikit-learn's `StratifiedGroupKFold` does not fit a long tail: it cuts equal folds, which
    cannot have k images of each class; most folds lack some class of few groups, and one holds all
    images of a class that is one group.
    """
    keys, member_of = np.unique(groups, return_inverse=True)
    held = np.zeros(len(keys), dtype=bool)
    contents = _contents(member_of, imageset)
    start = np.array(wanted, dtype=np.float64)
    lacking, scale = start.copy(), np.maximum(start, 1)
    spare = np.array(imageset.class_counts) // 2

    def take(group: int) -> None:
        labels, counts = contents[group]
        held[group] = True
        lacking[labels] -= counts
        spare[labels] -= counts

    order = random.permutation(len(keys))
    for group in order:
        labels, counts = contents[group]
        change = np.abs(lacking[labels] - counts) - np.abs(lacking[labels])
        if (counts <= spare[labels]).all() and (change / scale[labels]).sum() < 0:
            take(group)
    by_size = sorted(order, key=lambda group: int(contents[group][1].sum()))
    for group in by_size:
        labels, counts = contents[group]
        if (lacking[labels] == start[labels]).any() and (counts <= spare[labels]).all():
            take(group)
    return held[member_of]


def _contents(
    member_of: npt.NDArray[np.intp], imageset: ImageSet
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Return the labels in each group and how many images of each."""
    pairs, counts = np.unique(
        member_of * imageset.num_classes + imageset.labels, return_counts=True
    )
    owners, labels = np.divmod(pairs, imageset.num_classes)
    starts = np.flatnonzero(np.diff(owners)) + 1
    return list(zip(np.split(labels, starts), np.split(counts, starts), strict=True))


def single_group_classes(imageset: ImageSet) -> list[str]:
    """Return the classes with several images, all of which are in one group."""
    _, member_of = np.unique(np.asarray(imageset.groups), return_inverse=True)
    labels = [labels for labels, _ in _contents(member_of, imageset)]
    groups_of = np.bincount(np.concatenate(labels), minlength=imageset.num_classes)
    alone = (groups_of == 1) & (np.array(imageset.class_counts) > 1)
    return [imageset.class_names[label] for label in np.flatnonzero(alone)]


def describe_groups(imageset: ImageSet) -> dict[str, Any]:
    """Return the `number` of groups, images in the `largest`, and groups `in_several_classes`.

    Also `single_group_classes`, whose images cannot be divided.
    """
    _, member_of, sizes = np.unique(
        np.asarray(imageset.groups), return_inverse=True, return_counts=True
    )
    several = sum(len(labels) > 1 for labels, _ in _contents(member_of, imageset))
    return {
        "number": len(sizes),
        "largest": int(sizes.max()),
        "in_several_classes": several,
        "single_group_classes": single_group_classes(imageset),
    }
