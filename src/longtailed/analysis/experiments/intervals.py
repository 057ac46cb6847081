"""What several seeds allow to conclude: t-intervals, and a verdict on an expected difference."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats

LEVEL = "95 % t-interval over seeds"
LEAST_SEEDS = 3  # two may agree by chance: accuracies are whole numbers of test images


@dataclass(frozen=True)
class Interval:
    """A mean over `number` values with its 95 % t-interval, which a single value does not have."""

    mean: float
    low: float | None
    high: float | None
    number: int

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values, rounded to a thousandth."""
        ends = (None if end is None else round(end, 3) for end in (self.low, self.high))
        return dict(zip(("mean", "low", "high"), (round(self.mean, 3), *ends), strict=True))


def t_interval(values: Sequence[float]) -> Interval:
    """Return the mean of the values and its 95 % t-interval: mean ± t s / sqrt(n).

    t is the 0.975 quantile of Student's t with n - 1 degrees of freedom.

    >>> t_interval([1.0, 2.0, 3.0]).as_json()
    {'mean': 2.0, 'low': -0.484, 'high': 4.484}
    """
    mean, number = statistics.fmean(values), len(values)
    if number < 2:
        return Interval(mean, None, None, number)
    quantile = float(stats.t.ppf(0.975, number - 1))
    half = quantile * statistics.stdev(values) / math.sqrt(number)
    return Interval(mean, mean - half, mean + half, number)


@dataclass(frozen=True)
class Expected:
    """The open range in which a difference should lie, and how to say that."""

    low: float
    high: float
    text: str

    def verdict(self, found: Interval) -> str:
        """Return "holds" or "does not hold" if the whole interval says so, else "undecided".

        Fewer than `LEAST_SEEDS` values decide nothing, however close they are.
        """
        if found.low is None or found.high is None or found.number < LEAST_SEEDS:
            return "undecided"
        if self.low < found.low and found.high < self.high:
            return "holds"
        outside = found.high <= self.low or found.low >= self.high
        return "does not hold" if outside else "undecided"


ABOVE = Expected(0.0, math.inf, "above 0")
BELOW = Expected(-math.inf, 0.0, "below 0")


def within(margin: float) -> Expected:
    """Return what is expected of a difference that is small enough to be called none."""
    return Expected(-margin, margin, f"within ±{margin:g}")


def under(bound: float) -> Expected:
    """Return what is expected of an accuracy that is low."""
    return Expected(-math.inf, bound, f"under {bound:g}")


@dataclass(frozen=True)
class Conclusion:
    """A claim, the quantity that decides it (in `unit`), what was found, and the verdict."""

    claim: str
    quantity: str
    found: Interval
    expected: Expected
    unit: str = "points"

    @property
    def verdict(self) -> str:
        """ "holds", "does not hold" or "undecided"; always the last for one or two seeds."""
        return self.expected.verdict(self.found)

    @property
    def sentence(self) -> str:
        """The claim with the measured quantity, its interval and the verdict."""
        found = self.found
        spread = "no interval, one seed"
        if found.low is not None and found.high is not None:
            spread = f"95 % interval {found.low:+.1f} to {found.high:+.1f}, {found.number} seeds"
        return (
            f"{self.claim}: {self.verdict}. {self.quantity}: {found.mean:+.1f} {self.unit} "
            f"({spread}); expected {self.expected.text}."
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "claim": self.claim,
            "verdict": self.verdict,
            "quantity": self.quantity,
            "unit": self.unit,
            **self.found.as_json(),
            "seeds": self.found.number,
            "expected": self.expected.text,
            "sentence": self.sentence,
        }


def conclude(
    claim: str, quantity: str, values: Sequence[float], expected: Expected, unit: str = "points"
) -> Conclusion:
    """Return the conclusion on one value for each seed."""
    return Conclusion(claim, quantity, t_interval(values), expected, unit)
