from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import torch

from longtailed.errors import LongTailedError
from longtailed.metrics.shots import (
    balanced_accuracy,
    class_groups,
    confusion_matrix,
    harmonic_mean_accuracy,
    macro_f1,
    per_class_accuracy,
    shot_accuracy,
    worst_class,
)

GOLDEN = Path(__file__).parents[1] / "golden"
LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 3, 3, 3])  # class 2 has no samples
PREDICTIONS = torch.tensor([0, 0, 1, 0, 1, 0, 3, 2, 3])
ACCURACY = [3 / 4, 1 / 2, math.nan, 2 / 3]


def random_predictions(num_classes: int = 6) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.RandomState(0)
    labels = np.concatenate([np.arange(num_classes), generator.randint(0, num_classes, 200)])
    wrong = generator.randint(0, num_classes, len(labels))
    return np.where(generator.random_sample(len(labels)) < 0.6, labels, wrong), labels


def test_shot_accuracy_equals_the_golden_values() -> None:
    golden = np.load(GOLDEN / "shot_accuracy.npz")
    predictions, labels = golden["preds_0"], golden["labels_0"]
    result = shot_accuracy(predictions, labels, golden["train_counts_0"])
    for group in ("many", "medium", "few"):
        assert getattr(result, group) == pytest.approx(float(golden[f"{group}_0"]), rel=1e-12)
    np.testing.assert_allclose(result.per_class, golden["per_class_0"], rtol=1e-12)
    assert result.overall == pytest.approx(float(golden["overall_micro_0"]))
    assert macro_f1(predictions, labels, 10) == pytest.approx(float(golden["macro_f1_0"]))


def test_shot_accuracy_of_a_small_example() -> None:
    result = shot_accuracy(PREDICTIONS, LABELS, [101, 100, 20, 19])
    assert result.groups.many == (0,)
    assert result.groups.medium == (1, 2)
    assert result.groups.few == (3,)
    assert (result.many, result.medium) == (0.75, 0.5)
    assert result.few == pytest.approx(2 / 3)
    assert result.overall == pytest.approx(6 / 9)
    np.testing.assert_allclose(result.per_class, ACCURACY)
    assert result.rule == "training images per class: many > 100, medium 20 to 100, few < 20"


def test_an_empty_group_and_a_group_without_test_samples_are_nan() -> None:
    empty = shot_accuracy(PREDICTIONS, LABELS, [500, 400, 300, 200])
    assert math.isnan(empty.medium)
    assert math.isnan(empty.few)
    untested = shot_accuracy(PREDICTIONS, LABELS, [500, 400, 30, 2])
    assert math.isnan(untested.medium)
    assert untested.few == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("counts", "sizes"),
    [
        ([5], (0, 1, 0)),
        ([5, 3], (1, 0, 1)),
        ([5, 4, 3], (1, 1, 1)),
        ([9, 8, 7, 6], (1, 2, 1)),
        ([9, 8, 7, 6, 5], (2, 1, 2)),
        (list(range(10, 0, -1)), (3, 4, 3)),
    ],
)
def test_terciles_cover_all_classes(counts: list[int], sizes: tuple[int, int, int]) -> None:
    groups = class_groups(counts, groups="terciles")
    assert (len(groups.many), len(groups.medium), len(groups.few)) == sizes
    assert groups.many + groups.medium + groups.few == tuple(range(len(counts)))
    assert groups.rule.startswith("terciles")


def test_terciles_rank_by_count_and_then_by_index() -> None:
    groups = class_groups([3, 9, 3, 1, 9, 3], groups="terciles")
    assert (groups.many, groups.medium, groups.few) == ((1, 4), (0, 2), (3, 5))


def test_auto_takes_terciles_only_if_a_group_would_be_empty() -> None:
    assert class_groups([500, 50, 5], groups="auto") == class_groups([500, 50, 5])
    counts = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    auto = class_groups(counts, groups="auto")
    assert auto == class_groups(counts, groups="terciles")
    assert auto.few == (7, 8, 9)


def test_published_group_sizes_of_long_tailed_cifar() -> None:
    for ratio, sizes in ((100, (35, 35, 30)), (50, (41, 41, 18)), (10, (69, 31, 0))):
        counts = [int(500 * (1 / ratio) ** (c / 99)) for c in range(100)]
        groups = class_groups(counts)
        assert (len(groups.many), len(groups.medium), len(groups.few)) == sizes


def test_means_over_classes_of_a_small_example() -> None:
    np.testing.assert_allclose(per_class_accuracy(PREDICTIONS, LABELS, 4), ACCURACY)
    tested = [a for a in ACCURACY if not math.isnan(a)]
    assert balanced_accuracy(PREDICTIONS, LABELS, 4) == pytest.approx(sum(tested) / 3)
    harmonic = harmonic_mean_accuracy(PREDICTIONS, LABELS, 4)
    assert harmonic == pytest.approx(3 / sum(1 / a for a in tested))
    assert worst_class(PREDICTIONS, LABELS, 4) == (1, 0.5)
    f1 = [2 * 3 / (4 + 4), 2 * 1 / (2 + 2), 0 / (0 + 1), 2 * 2 / (3 + 2)]
    assert macro_f1(PREDICTIONS, LABELS, 4) == pytest.approx(sum(f1) / 4)


def test_a_class_that_is_never_right_makes_the_harmonic_mean_zero() -> None:
    assert harmonic_mean_accuracy([0, 0, 0], [0, 0, 1], 2) == 0
    assert worst_class([0, 0, 0], [0, 0, 1], 2) == (1, 0)


def test_agreement_with_scikit_learn() -> None:
    predictions, labels = random_predictions()
    assert balanced_accuracy(predictions, labels, 6) == pytest.approx(
        sklearn.metrics.balanced_accuracy_score(labels, predictions)
    )
    assert macro_f1(predictions, labels, 6) == pytest.approx(
        sklearn.metrics.f1_score(labels, predictions, average="macro")
    )
    recall = sklearn.metrics.recall_score(labels, predictions, average=None)
    np.testing.assert_allclose(per_class_accuracy(predictions, labels, 6), recall)
    confusion = confusion_matrix(torch.tensor(labels), torch.tensor(predictions), 6)
    assert confusion.dtype == torch.int64
    expected = sklearn.metrics.confusion_matrix(labels, predictions)
    assert confusion.tolist() == expected.tolist()


def test_macro_f1_agrees_with_scikit_learn_if_a_predicted_class_has_no_samples() -> None:
    expected = sklearn.metrics.f1_score(LABELS, PREDICTIONS, average="macro", zero_division=0)
    assert macro_f1(PREDICTIONS, LABELS, 9) == pytest.approx(expected)


def test_confusion_matrix_keeps_absent_classes() -> None:
    confusion = confusion_matrix(LABELS, PREDICTIONS, 5)
    assert confusion.shape == (5, 5)
    assert confusion.sum(dim=1).tolist() == [4, 2, 0, 3, 0]
    assert confusion[3, 2].item() == 1


def test_inputs_may_be_lists_and_read_only_arrays() -> None:
    labels = LABELS.numpy().copy()
    labels.flags.writeable = False
    expected = balanced_accuracy(PREDICTIONS, LABELS, 4)
    assert balanced_accuracy(PREDICTIONS.tolist(), labels, 4) == expected


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: per_class_accuracy([0, 1], [0, 1, 1], 2), "one prediction for each label"),
        (lambda: per_class_accuracy([0, 1], [0, 2], 2), "labels run from 0 to 2, but there are 2"),
        (lambda: per_class_accuracy([0, 1], [0.0, 1.0], 2), "labels must be integers"),
        (lambda: macro_f1([0, 5], [0, 1], 2), "predictions run from 0 to 5"),
        (lambda: confusion_matrix([0, 1], [0], 2), "one prediction for each label"),
        (lambda: class_groups([1, 2], groups="thirds"), "unknown grouping 'thirds'"),
        (lambda: class_groups([1, 2], many=5, few=9), "must not be above many"),
        (
            lambda: worst_class(torch.zeros(0).long(), torch.zeros(0).long(), 2),
            "no worst class without samples",
        ),
    ],
)
def test_bad_arguments_are_refused(call, words: str) -> None:
    with pytest.raises(LongTailedError, match=words):
        call()


def test_no_samples_give_nan() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    assert math.isnan(balanced_accuracy(nothing, nothing, 3))
    assert math.isnan(shot_accuracy(nothing, nothing, [9, 9, 9]).overall)
