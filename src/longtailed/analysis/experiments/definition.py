"""What an experiment is: a grid of runs, what it shows, and what may be concluded from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from longtailed.analysis.experiments.intervals import Conclusion
from longtailed.analysis.experiments.results import Results
from longtailed.analysis.experiments.setup import Point, Setup


@dataclass(frozen=True)
class Experiment:
    """One claim of arXiv 2107.03758 and the runs that test it.

    Args:
        summary: one line about it.
        points: the grid for a setup.
        conclude: what its results say.
        draw: its chart; the second argument holds the published figures, in paper size.
    """

    summary: str
    points: Callable[[Setup], list[Point]]
    conclude: Callable[[Results], list[Conclusion]]
    draw: Callable[[Results, Mapping[str, Any] | None], Figure]
