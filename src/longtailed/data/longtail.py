"""Long-tailed subsets of a labelled set, and balanced held-out parts of one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal

import numpy as np

from longtailed.data.groups import draw_whole_groups
from longtailed.data.imageset import ImageSet, IntArray
from longtailed.errors import LongTailedError, unknown_name

PROFILES = ("exp", "step")
SELECTIONS = ("shuffle", "first")


def long_tail_counts(
    num_classes: int,
    max_count: int,
    imbalance_ratio: float,
    profile: Literal["exp", "step"] = "exp",
) -> list[int]:
    """Return the class sizes of a long-tailed set, C numbers, largest first.

    With M = `max_count`, R = `imbalance_ratio` (largest over smallest class) and c = 0..C-1:
    "exp": n_c = int(M * (1/R)^(c / (C-1))); "step": M for the first C // 2 classes, int(M / R) for
    the others. `int` truncates, after adding 1e-9 so that rounding in the power does not turn
    an exact 100 into 99.

    Raises `LongTailedError` for an unknown profile, a ratio below 1, no class, or if a class would
    get no image. Convention of arXiv 1901.05555 and 1906.07413.

    >>> long_tail_counts(10, 5000, 100)
    [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    """
    counts = _profile_counts(num_classes, max_count, imbalance_ratio, profile)
    if min(counts) < 1:
        raise LongTailedError(
            f"class {counts.index(0)} would get no image with {max_count} in the largest class at "
            f"the imbalance ratio {imbalance_ratio:g}: use a ratio of at most {max_count}, "
            "or more images."
        )
    return counts


def make_long_tailed(
    imageset: ImageSet,
    imbalance_ratio: float | None = None,
    profile: Literal["exp", "step"] = "exp",
    seed: int = 0,
    selection: Literal["shuffle", "first"] = "shuffle",
    max_count: int | None = None,
    counts: Sequence[int] | None = None,
) -> ImageSet:
    """Return a long-tailed subset of `imageset`, ordered class by class; class 0 is the largest.

    The class sizes are those of `long_tail_counts`, or `counts` [C] if given (which then replaces
    ratio, profile and `max_count`, and may hold zeros). `max_count` defaults to the largest size
    of class 0 for which every class has enough images; for a balanced source that is its class
    size. "shuffle": for classes in ascending order, shuffle the class's ascending positions with
    one `RandomState(seed)` and keep the first n_c, which selects the images that the public
    LDAM-DRW code selects (seed 0; ConCutMix: 10). "first" keeps the first n_c as RSG's code does.

    Raises `LongTailedError` for unknown names, if neither ratio nor counts are given, and if a
    class has fewer images than it should get: the result never has fewer than asked for.
    """
    if selection not in SELECTIONS:
        raise unknown_name("selection", selection, SELECTIONS)
    if counts is None:
        if imbalance_ratio is None:
            raise LongTailedError("give an imbalance_ratio or the counts of the classes.")
        if max_count is None:
            max_count = _largest_max_count(imageset, imbalance_ratio, profile)
        counts = long_tail_counts(imageset.num_classes, max_count, imbalance_ratio, profile)
    _check_available(imageset, counts)
    random = np.random.RandomState(seed) if selection == "shuffle" else None
    chosen = [
        positions[:count]
        for positions, count in zip(_class_positions(imageset, random), counts, strict=True)
    ]
    return imageset.subset(np.concatenate(chosen))


def split_holdout(
    imageset: ImageSet, per_class: int | float, seed: int = 0
) -> tuple[ImageSet, ImageSet]:
    """Return (train, holdout): two disjoint sets that together are `imageset`, in its order.

    The held-out part has k = `per_class` random images of every class if that is an integer, or
    the rounded fraction `per_class` of each class, at least one, if it is a float. A class never
    gives more than half of its images, so a class with fewer than 2k gives fewer, one with a single
    image gives none, and the class counts of the result tell. The images come from
    `RandomState(seed)`. If the set has groups, whole groups are held out (`draw_whole_groups`), and
    the numbers are met as closely as these allow.

    Raises `LongTailedError` unless the integer is positive or the fraction is in (0, 0.5].
    """
    if isinstance(per_class, float):
        if not 0 < per_class <= 0.5:
            raise LongTailedError(
                f"the held-out fraction must be above 0 and at most 0.5; it is {per_class}."
            )
        wanted = [max(1, round(per_class * count)) for count in imageset.class_counts]
    else:
        if per_class < 1:
            raise LongTailedError(
                f"at least 1 image per class must be held out; {per_class} were asked for."
            )
        wanted = [per_class] * imageset.num_classes
    random = np.random.RandomState(seed)
    if imageset.groups is not None:
        held = draw_whole_groups(imageset, imageset.groups, wanted, random)
    else:
        held = np.zeros(len(imageset), dtype=bool)
        for positions, count in zip(_class_positions(imageset, random), wanted, strict=True):
            held[positions[: min(count, len(positions) // 2)]] = True
    return imageset.subset(np.flatnonzero(~held)), imageset.subset(np.flatnonzero(held))


def split_meta(
    imageset: ImageSet, per_class: int, seed: int = 0, keep: bool = False
) -> tuple[ImageSet, ImageSet]:
    """Return (train, meta): `split_holdout` where every class must be in the meta set.

    With `keep` train is `imageset` itself: the meta images are trained on, too, and a class with
    fewer than `per_class` images gives all of them. Raises `LongTailedError` if a class has too
    few images to be in the meta set: none, or without `keep` a single one.
    """
    if keep and per_class >= 1:
        counts = [min(per_class, count) for count in imageset.class_counts]
        train, meta = imageset, make_long_tailed(imageset, counts=counts, seed=seed)
    else:
        train, meta = split_holdout(imageset, per_class, seed)
    if 0 in meta.class_counts:
        missing = meta.class_counts.index(0)
        tied = "" if keep or imageset.groups is None else ", for its groups stay whole,"
        advice = "" if keep else ", leave the meta images in train (meta_source=shared)"
        raise LongTailedError(
            f"class {imageset.class_names[missing]!r} with {imageset.class_counts[missing]} "
            f"image(s) has none to spare{tied} for the meta set, which needs every class; "
            f"add images{advice} or choose a method without a meta set."
        )
    return train, meta


def _profile_counts(
    num_classes: int, max_count: int, imbalance_ratio: float, profile: str
) -> list[int]:
    if profile not in PROFILES:
        raise unknown_name("imbalance profile", profile, PROFILES)
    if not imbalance_ratio >= 1:  # nor is it "not a number"
        raise LongTailedError(
            f"the imbalance ratio is the largest class size over the smallest and so at least 1; "
            f"it is {imbalance_ratio:g}."
        )
    if num_classes < 1 or max_count < 0:
        raise LongTailedError(
            f"a long-tailed set needs at least one class and one image; {num_classes} classes and "
            f"max_count {max_count} were given."
        )
    smallest_share = 1 / imbalance_ratio
    if profile == "exp":
        shares = [smallest_share ** (c / max(num_classes - 1, 1)) for c in range(num_classes)]
    else:
        heads = num_classes // 2
        shares = [1.0] * heads + [smallest_share] * (num_classes - heads)
    return [int(max_count * share + 1e-9) for share in shares]


def _largest_max_count(imageset: ImageSet, imbalance_ratio: float, profile: str) -> int:
    available = imageset.class_counts

    def lacks_images(max_count: int) -> bool:
        counts = _profile_counts(len(available), max_count, imbalance_ratio, profile)
        return any(count > limit for count, limit in zip(counts, available, strict=True))

    # Class sizes grow with max_count, so "lacks images" changes only once, from False to True.
    largest = bisect_right(range(1, max(available, default=0) + 1), False, key=lacks_images)
    if largest == 0:
        raise LongTailedError(
            f"{imageset.name}: a class that should be among the largest has no images, so no "
            "long-tailed subset can be made; give the counts of the classes."
        )
    return largest


def _check_available(imageset: ImageSet, counts: Sequence[int]) -> None:
    if len(counts) != imageset.num_classes:
        raise LongTailedError(
            f"{imageset.name}: {len(counts)} class counts for {imageset.num_classes} classes."
        )
    for index, (count, available) in enumerate(zip(counts, imageset.class_counts, strict=True)):
        if not 0 <= count <= available:
            raise LongTailedError(
                f"{imageset.name}: class {index} ({imageset.class_names[index]}) has {available} "
                f"images, but {count} were asked for; lower max_count or the counts."
            )


def _class_positions(imageset: ImageSet, random: np.random.RandomState | None) -> list[IntArray]:
    """Return each class's positions, ascending or shuffled class after class by one generator."""
    order = np.argsort(imageset.labels, kind="stable").astype(np.int64)
    groups = np.split(order, np.cumsum(imageset.class_counts)[:-1])
    if random is not None:
        for positions in groups:
            random.shuffle(positions)
    return groups
