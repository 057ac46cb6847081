from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from longtailed.data.imageset import ImageSet
from longtailed.data.longtail import (
    long_tail_counts,
    make_long_tailed,
    split_holdout,
    split_meta,
)
from longtailed.errors import LongTailedError

GOLDEN = Path(__file__).parents[1] / "golden"


def image_set(labels: list[int] | np.ndarray, num_classes: int) -> ImageSet:
    labels = np.asarray(labels)
    images = torch.zeros(len(labels), 3, 1, 1, dtype=torch.uint8)
    return ImageSet(images, labels, tuple(f"class {c}" for c in range(num_classes)))


def of_sizes(*sizes: int) -> ImageSet:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return image_set(np.random.RandomState(3).permutation(labels), len(sizes))


@pytest.mark.parametrize(
    ("file", "name", "num_classes", "max_count"),
    [
        ("concutmix_cifar_lt.npz", "counts_cifar10_if100", 10, 5000),
        ("concutmix_cifar_lt.npz", "counts_cifar100_if100", 100, 500),
        ("metasaug_class_weights.npz", "counts_meta_cifar10_if100", 10, 4990),
        ("metasaug_class_weights.npz", "counts_meta_cifar100_if100", 100, 490),
    ],
)
def test_counts_equal_the_golden_values(
    file: str, name: str, num_classes: int, max_count: int
) -> None:
    assert long_tail_counts(num_classes, max_count, 100) == np.load(GOLDEN / file)[name].tolist()


@pytest.mark.parametrize(
    ("profile", "num_classes", "totals"),
    [
        ("exp", 10, {10: 20431, 20: 17023, 50: 13996, 100: 12406, 200: 11203}),
        ("exp", 100, {10: 19573, 20: 15907, 50: 12608, 100: 10847, 200: 9502}),
        ("step", 10, {10: 27500, 20: 26250, 50: 25500, 100: 25250, 200: 25125}),
        ("step", 100, {10: 27500, 20: 26250, 50: 25500, 100: 25250, 200: 25100}),
    ],
)
def test_totals_of_long_tailed_cifar(profile, num_classes: int, totals: dict[int, int]) -> None:
    sizes = {
        ratio: long_tail_counts(num_classes, 50000 // num_classes, ratio, profile)
        for ratio in totals
    }
    assert {ratio: sum(counts) for ratio, counts in sizes.items()} == totals


def test_rounding_errors_do_not_lower_a_count() -> None:
    assert int(1280 * (1 / 64) ** (5 / 6)) == 39  # 40 in exact arithmetic
    assert long_tail_counts(7, 1280, 64) == [1280, 640, 320, 160, 80, 40, 20]


def test_a_ratio_of_one_is_balanced_and_one_class_is_allowed() -> None:
    assert long_tail_counts(4, 30, 1) == [30] * 4
    assert long_tail_counts(1, 30, 10) == [30]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((10, 50, 0.01), "imbalance ratio is the largest class size over the smallest"),
        ((10, 50, 10, "linear"), "unknown imbalance profile 'linear'"),
        ((10, 50, 100), "class 8 would get no image .* a ratio of at most 50"),
        ((0, 50, 100), "needs at least one class"),
    ],
)
def test_impossible_counts_are_refused(arguments, words: str) -> None:
    with pytest.raises(LongTailedError, match=words):
        long_tail_counts(*arguments)


def test_selection_equals_the_golden_one() -> None:
    golden = np.load(GOLDEN / "concutmix_cifar_lt.npz")
    source = image_set(golden["sel_all_targets"], 10)
    subset = make_long_tailed(
        source, counts=golden["sel_counts"].tolist(), seed=int(golden["sel_seed"])
    )
    assert subset.indices.tolist() == golden["sel_indices"].tolist()
    assert subset.labels.tolist() == golden["sel_targets"].tolist()


def test_selection_equals_numpys_legacy_stream_and_leaves_the_global_one_alone() -> None:
    source = of_sizes(40, 40, 40)
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    subset = make_long_tailed(source, 10, seed=7)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
    legacy, expected = np.random.RandomState(7), []
    for label, count in enumerate([40, 12, 4]):
        positions = np.flatnonzero(source.labels == label).tolist()
        legacy.shuffle(positions)
        expected += positions[:count]
    assert subset.indices.tolist() == expected


def test_first_keeps_file_order_and_ignores_the_seed() -> None:
    source = of_sizes(30, 30)
    subset = make_long_tailed(source, 3, selection="first", seed=5)
    expected = [np.flatnonzero(source.labels == 0), np.flatnonzero(source.labels == 1)[:10]]
    assert subset.indices.tolist() == np.concatenate(expected).tolist()


def test_seeds_differ_and_repeat() -> None:
    source = of_sizes(50, 50, 50)
    prints = [make_long_tailed(source, 10, seed=seed).fingerprint() for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


def test_step_profile() -> None:
    assert make_long_tailed(of_sizes(*[20] * 5), 4, "step").class_counts == [20, 20, 5, 5, 5]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((50, 50, 50), [50, 15, 5]),
        ((60, 14, 50), [47, 14, 4]),  # class 1 allows 47: int(47 / sqrt(10)) = 14
    ],
)
def test_the_default_size_is_the_largest_that_every_class_can_give(sizes, expected) -> None:
    assert make_long_tailed(of_sizes(*sizes), 10).class_counts == expected


def test_a_default_size_too_small_for_the_ratio_is_refused() -> None:
    with pytest.raises(LongTailedError, match="class 2 would get no image with 9 in the largest"):
        make_long_tailed(of_sizes(9, 50, 50), 10)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"imbalance_ratio": 2, "max_count": 21}, r"class 0 \(class 0\) has 20 images, but 21"),
        ({"counts": [5, 30]}, r"class 1 \(class 1\) has 20 images, but 30 were asked for"),
        ({"counts": [5, -1]}, "but -1 were asked for"),
        ({"counts": [5]}, "1 class counts for 2 classes"),
        ({}, "give an imbalance_ratio or the counts"),
        ({"imbalance_ratio": 2, "selection": "last"}, "unknown selection 'last'"),
        ({"imbalance_ratio": 0.5}, "at least 1; it is 0.5"),
    ],
)
def test_impossible_subsets_are_refused(options, words: str) -> None:
    with pytest.raises(LongTailedError, match=words):
        make_long_tailed(of_sizes(20, 20), **options)


def test_a_source_without_images_of_the_largest_class_is_refused() -> None:
    with pytest.raises(LongTailedError, match="among the largest has no images"):
        make_long_tailed(of_sizes(0, 20), 2)


def test_holdout_is_balanced_disjoint_and_complete() -> None:
    source = of_sizes(40, 25, 20)
    train, holdout = split_holdout(source, 10, seed=4)
    assert holdout.class_counts == [10, 10, 10]
    assert train.class_counts == [30, 15, 10]
    together = sorted(train.indices.tolist() + holdout.indices.tolist())
    assert together == list(range(len(source)))
    assert np.all(np.diff(train.indices) > 0)
    assert np.all(np.diff(holdout.indices) > 0)


def test_small_classes_give_at_most_half() -> None:
    train, holdout = split_holdout(of_sizes(40, 7, 3, 2, 1, 0), 5)
    assert holdout.class_counts == [5, 3, 1, 1, 0, 0]
    assert train.class_counts == [35, 4, 2, 1, 1, 0]


def test_a_fraction_of_each_class_is_held_out() -> None:
    train, holdout = split_holdout(of_sizes(40, 10, 3, 1), 0.2)
    assert holdout.class_counts == [8, 2, 1, 0]
    assert train.class_counts == [32, 8, 2, 1]


def test_holdout_depends_on_the_seed_only() -> None:
    source = of_sizes(40, 25)
    prints = [split_holdout(source, 5, seed=seed)[1].fingerprint() for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("per_class", [0, -3, 0.0, 0.7])
def test_impossible_holdouts_are_refused(per_class: float) -> None:
    with pytest.raises(LongTailedError, match="held"):
        split_holdout(of_sizes(20, 20), per_class)


@pytest.mark.parametrize(("classes", "size", "total"), [(10, 5000, 12380), (100, 500, 10626)])
def test_a_meta_set_taken_first_gives_metasaugs_class_sizes(classes, size, total) -> None:
    source = image_set(np.repeat(np.arange(classes), size), classes)
    train, meta = split_meta(source, 10)
    assert meta.class_counts == [10] * classes
    tailed = make_long_tailed(train, 100)
    golden = np.load(GOLDEN / "metasaug_class_weights.npz")[f"counts_meta_cifar{classes}_if100"]
    assert tailed.class_counts == golden.tolist()
    assert len(tailed) == total
    assert not set(tailed.indices) & set(meta.indices)
