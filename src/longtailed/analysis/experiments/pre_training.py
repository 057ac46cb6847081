"""Self-supervised pre-training: does a rotation start help methods for imbalanced data?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from longtailed.analysis.experiments import published
from longtailed.analysis.experiments.definition import Experiment
from longtailed.analysis.experiments.intervals import Conclusion
from longtailed.analysis.experiments.results import Results
from longtailed.analysis.experiments.setup import Point, Setup
from longtailed.analysis.experiments.starts import IMBALANCES, draw_grid, gains_by, grid

METHODS = ("CE", "CE+RS", "CE+RW", "CE+DRW")


def points(setup: Setup) -> list[Point]:
    """Return the grid of Table 1 for one data set: four methods and imbalances (coarse: 100)."""
    imbalances = IMBALANCES[setup.size][: 1 if setup.coarse else None]
    return grid(setup, METHODS, [setup.base.network.name], imbalances)


def conclusions(results: Results) -> list[Conclusion]:
    """Return whether the start helps over all, and each method."""
    return gains_by(results, "method")


def draw(results: Results, table: Mapping[str, Any] | None) -> Figure:
    """Return accuracy without and with the start, for each method."""
    return draw_grid(results, "method", table)


PRE_TRAINING = Experiment(
    summary="Rotation pre-training before four methods: do better representations help?",
    points=points,
    conclude=conclusions,
    draw=draw,
    published=published.pre_training,
)
