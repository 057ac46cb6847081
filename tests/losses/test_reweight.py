from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from longtailed.errors import LongTailedError
from longtailed.losses import class_balanced_weights, inverse_frequency_weights

GOLDEN = Path(__file__).parents[1] / "golden"


def test_class_balanced_weights_equal_the_golden_values() -> None:
    golden = np.load(GOLDEN / "cb_weights.npz")
    counts, beta = golden["cls_num_0"], float(golden["beta_0"])
    weights = class_balanced_weights(counts, beta)
    assert weights.dtype == torch.float32
    np.testing.assert_allclose(weights, golden["reweight_0"], rtol=1e-6)
    np.testing.assert_allclose(weights, golden["drw_epoch160_0"], rtol=1e-6)
    np.testing.assert_array_equal(class_balanced_weights(counts, 0.0), golden["drw_epoch159_0"])


def test_class_balanced_weights_equal_the_golden_values_of_metasaug() -> None:
    golden = np.load(GOLDEN / "metasaug_class_weights.npz")
    weights = class_balanced_weights(golden["counts_0"], dtype=torch.float64)
    np.testing.assert_allclose(weights, golden["weights_0"], rtol=1e-9)


def test_class_balanced_weights_equal_an_explicit_loop() -> None:
    counts, beta = [913, 40, 7, 1], 0.99
    inverse = [(1 - beta) / (1 - beta**n) for n in counts]
    expected = [4 * value / sum(inverse) for value in inverse]
    torch.testing.assert_close(
        class_balanced_weights(counts, beta, dtype=torch.float64),
        torch.tensor(expected, dtype=torch.float64),
    )


def test_limits_of_beta() -> None:
    counts = [500, 30, 2]
    assert class_balanced_weights(counts, 0.0).tolist() == [1, 1, 1]
    torch.testing.assert_close(
        class_balanced_weights(counts, 1 - 1e-9),
        inverse_frequency_weights(counts),
        rtol=1e-5,
        atol=0,
    )


def test_inverse_frequency_weights_follow_the_power() -> None:
    weights = inverse_frequency_weights([16, 4, 1], power=0.5, dtype=torch.float64)
    torch.testing.assert_close(weights / weights[0], torch.tensor([1, 2, 4], dtype=torch.float64))
    assert weights.mean().item() == pytest.approx(1)
    assert inverse_frequency_weights([16, 4, 1], power=0).tolist() == [1, 1, 1]


@pytest.mark.parametrize("weigh", [class_balanced_weights, inverse_frequency_weights])
def test_an_absent_class_weighs_nothing_and_changes_nothing(weigh) -> None:
    without = weigh([100, 20, 5])
    padded = weigh([100, 0, 20, 5, 0])
    assert padded[[1, 4]].tolist() == [0, 0]
    torch.testing.assert_close(padded[[0, 2, 3]], without)
    assert without.mean().item() == pytest.approx(1)


@pytest.mark.parametrize("counts", [[10, 3], (10, 3), np.array([10, 3]), torch.tensor([10, 3])])
def test_counts_may_be_any_sequence_or_tensor(counts) -> None:
    assert torch.equal(class_balanced_weights(counts), class_balanced_weights([10, 3]))


@pytest.mark.parametrize("beta", [1.0, 1.5, -0.1])
def test_beta_out_of_range_is_refused(beta: float) -> None:
    with pytest.raises(LongTailedError, match="beta must be at least 0 and below 1"):
        class_balanced_weights([10, 3], beta)


@pytest.mark.parametrize("counts", [[5, -1], [0, 0]])
def test_impossible_counts_are_refused(counts: list[int]) -> None:
    with pytest.raises(LongTailedError, match="must not be negative, and at least one class"):
        class_balanced_weights(counts)


def test_counts_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(LongTailedError, match="one number for each class"):
        inverse_frequency_weights(np.ones((2, 2), dtype=np.int64))
