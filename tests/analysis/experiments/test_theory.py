"""The boundary between two normal classes, against simulation."""

from __future__ import annotations

import numpy as np
import pytest

from longtailed.analysis.experiments import boundary_shift, boundary_variance

HEAD, TAIL, DEVIATION = 1.0, 3.0, 1.0  # the two classes that the paper's figure shows


def simulate(head_count, tail_count, fraction, similarity, repeats=20_000):
    """Return the estimated boundary (mean_h + mean_t) / 2 of many drawn training sets."""
    random = np.random.default_rng(0)
    heads = random.normal(HEAD, DEVIATION, (repeats, head_count))
    moved = random.random((repeats, head_count)) < fraction
    heads += moved * similarity * (TAIL - HEAD)
    tails = random.normal(TAIL, DEVIATION, (repeats, tail_count))
    return (heads.mean(1) + tails.mean(1)) / 2


@pytest.mark.parametrize(
    ("head_count", "tail_count", "fraction", "similarity"),
    [(100, 5, 0.0, 0.0), (20, 5, 0.2, 0.8), (100, 5, 0.5, 0.8), (50, 50, 0.3, 1.0)],
)
def test_shift_and_variance_are_those_of_a_simulation(head_count, tail_count, fraction, similarity):
    found = simulate(head_count, tail_count, fraction, similarity)
    shift = boundary_shift(fraction, similarity, HEAD, TAIL)
    variance = boundary_variance(
        head_count, tail_count, DEVIATION, fraction, similarity, TAIL - HEAD
    )
    error = 5 * np.sqrt(variance / len(found))
    assert found.mean() - (HEAD + TAIL) / 2 == pytest.approx(shift, abs=error)
    assert found.var() == pytest.approx(variance, rel=0.05)


def test_more_head_images_shrink_the_variance_but_not_the_shift():
    few, many = simulate(10, 200, 0.5, 0.8), simulate(300, 200, 0.5, 0.8, repeats=4000)
    assert few.var() > 5 * many.var()
    for found in (few, many):
        assert found.mean() == pytest.approx(2.0 + 0.4, abs=0.02)


def test_tail_accuracy_falls_with_the_share():
    random = np.random.default_rng(1)
    tested = random.normal(TAIL, DEVIATION, 50_000)
    accuracies = [
        (tested > 2.0 + boundary_shift(share, 0.8, HEAD, TAIL)).mean()
        for share in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    ]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] - accuracies[-1] > 0.1


def test_without_similar_samples_the_harmonic_mean_of_the_counts_decides():
    assert boundary_variance(5000, 50, 2.0) == pytest.approx(4 / 4 * (1 / 5000 + 1 / 50))
    assert boundary_variance(100, 50, 2.0) < 1.5 * boundary_variance(5000, 50, 2.0)
