from __future__ import annotations

import math

import pytest
import torch

from longtailed.errors import LongTailedError
from longtailed.metrics import CalibrationBins


def example(samples: int = 60, num_classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(samples, num_classes, generator=generator, dtype=torch.float64)
    return logits.softmax(dim=1), torch.randint(num_classes, (samples,), generator=generator)


def filled(probabilities: torch.Tensor, labels: torch.Tensor, bins: int = 15) -> CalibrationBins:
    table = CalibrationBins(probabilities.shape[1], bins)
    table.update(probabilities, labels)
    return table


def by_hand(confidences: list[float], correct: list[bool], bins: int) -> float:
    error = 0.0
    for b in range(bins):
        inside = [
            i for i, p in enumerate(confidences) if b / bins < p <= (b + 1) / bins or (p == b == 0)
        ]
        if inside:
            accuracy = sum(correct[i] for i in inside) / len(inside)
            confidence = sum(confidences[i] for i in inside) / len(inside)
            error += len(inside) / len(confidences) * abs(accuracy - confidence)
    return error


@pytest.mark.parametrize("bins", [1, 4, 10, 15])
def test_top_label_error_equals_an_explicit_loop(bins: int) -> None:
    probabilities, labels = example()
    confidences, predictions = probabilities.max(dim=1)
    correct = predictions == labels
    error = filled(probabilities, labels, bins).top_label_error()
    assert error == pytest.approx(by_hand(confidences.tolist(), correct.tolist(), bins), rel=1e-12)


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_classwise_error_equals_an_explicit_loop(bins: int) -> None:
    probabilities, labels = example()
    error = filled(probabilities, labels, bins).classwise_error()
    rows = [by_hand(probabilities[:, c].tolist(), (labels == c).tolist(), bins) for c in range(4)]
    assert error == pytest.approx(sum(rows) / 4, rel=1e-12)


def test_batches_add_up() -> None:
    probabilities, labels = example()
    table = CalibrationBins(4)
    for rows in torch.arange(60).split(17):
        table.update(probabilities[rows], labels[rows])
    assert table.classwise_error() == pytest.approx(
        filled(probabilities, labels).classwise_error(), rel=1e-12
    )
    assert table.top_label_error() == pytest.approx(
        filled(probabilities, labels).top_label_error(), rel=1e-12
    )


def test_sums_of_processes_add_up() -> None:
    probabilities, labels = example()
    tables = [CalibrationBins(4), CalibrationBins(4)]
    for table, rows in zip(tables, (slice(0, 20), slice(20, 60)), strict=True):
        table.update(probabilities[rows], labels[rows])
    for total, part in zip(tables[0].sums(), tables[1].sums(), strict=True):
        total += part
    assert tables[0].classwise_error() == pytest.approx(
        filled(probabilities, labels).classwise_error(), rel=1e-12
    )


def test_edges_belong_to_the_lower_bin() -> None:
    # bins (0, .5] with 0.0 and 0.5, and (.5, 1] with 1.0
    probabilities = torch.tensor([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    errors = filled(probabilities, torch.tensor([0, 0, 1]), bins=2).classwise_errors()
    assert errors[0].item() == pytest.approx((abs(2 - 0.5) + abs(0 - 1)) / 3)


def test_perfect_confidence_has_no_error() -> None:
    labels = torch.tensor([0, 1, 2, 1])
    probabilities = torch.eye(3)[labels]
    assert filled(probabilities, labels).classwise_error() == 0
    assert filled(probabilities, labels).top_label_error() == 0


def test_a_class_without_samples_shows_the_probability_it_receives() -> None:
    table = CalibrationBins(3)
    table.update(torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.7, 0.2]]), torch.tensor([0, 1]))
    assert table.classwise_errors()[2].item() == pytest.approx(0.2)


def test_half_precision_and_strided_probabilities() -> None:
    probabilities, labels = example()
    exact = filled(probabilities, labels).classwise_error()
    strided = probabilities.t().contiguous().t()
    assert filled(strided, labels).classwise_error() == pytest.approx(exact, rel=1e-12)
    rounded = filled(probabilities.bfloat16(), labels).classwise_error()
    assert rounded == pytest.approx(exact, abs=0.03)


def test_update_reads_nothing_on_the_host() -> None:
    table = CalibrationBins(4, device="meta")
    labels = torch.empty(8, dtype=torch.int64, device="meta")
    table.update(torch.empty(8, 4, device="meta"), labels)
    assert table.classwise_errors().is_meta


def test_no_samples_give_nan() -> None:
    assert math.isnan(CalibrationBins(3).top_label_error())
    assert math.isnan(CalibrationBins(3).classwise_error())


def test_bad_arguments_are_refused() -> None:
    probabilities, labels = example()
    with pytest.raises(LongTailedError, match=r"must have the shape \[N, 5\]"):
        CalibrationBins(5).update(probabilities, labels)
    with pytest.raises(LongTailedError, match="at least 1 bin"):
        CalibrationBins(3, bins=0)
