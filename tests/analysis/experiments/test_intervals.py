"""Intervals over seeds and verdicts on them."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from scipy import stats

from longtailed.analysis.experiments.intervals import (
    ABOVE,
    BELOW,
    Interval,
    conclude,
    t_interval,
    under,
    within,
)


@pytest.mark.parametrize("number", [2, 3, 5, 10, 31, 200])
def test_intervals_are_those_of_scipy(number):
    values = list(np.random.default_rng(number).normal(50, 10, number))
    found = t_interval(values)
    expected = stats.t.interval(
        0.95, number - 1, loc=statistics.fmean(values), scale=stats.sem(values)
    )
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("expected", "low", "high", "verdict"),
    [
        (ABOVE, 0.1, 9, "holds"),
        (ABOVE, -1, 9, "undecided"),
        (ABOVE, -9, -1, "does not hold"),
        (ABOVE, 0, 0, "does not hold"),
        (BELOW, -9, -1, "holds"),
        (within(2), -1, 1, "holds"),
        (within(2), -3, 1, "undecided"),
        (within(2), -5, 5, "undecided"),
        (within(2), 3, 4, "does not hold"),
        (within(2), -4, -3, "does not hold"),
        (under(5), 0, 0, "holds"),
        (under(5), 6, 7, "does not hold"),
    ],
)
def test_verdicts(expected, low, high, verdict):
    assert expected.verdict(Interval((low + high) / 2, low, high, 3)) == verdict


def test_one_seed_never_decides():
    found = conclude("Water is wet", "Wetness", [99.0], ABOVE)
    assert found.verdict == "undecided"
    assert found.sentence == (
        "Water is wet: undecided. Wetness: +99.0 points (no interval, one seed); expected above 0."
    )
    assert found.as_json()["low"] is None


def test_two_seeds_that_agree_decide_nothing():
    assert conclude("Water is wet", "Wetness", [1.9, 1.9], ABOVE).verdict == "undecided"
    assert conclude("Water is wet", "Wetness", [1.9, 1.9, 1.9], ABOVE).verdict == "holds"


def test_sentences_say_what_was_measured():
    found = conclude("Water is wet", "Wetness", [1.0, 2.0, 3.0], ABOVE)
    assert found.sentence.startswith("Water is wet: undecided. Wetness: +2.0 points (95 % interval")
    assert "-0.5 to +4.5, 3 seeds" in found.sentence
