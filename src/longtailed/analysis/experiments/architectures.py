"""Deeper networks: does depth help on imbalanced data, and does pre-training help each depth?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from longtailed.analysis.experiments import published
from longtailed.analysis.experiments.definition import Experiment
from longtailed.analysis.experiments.intervals import Conclusion, conclude, within
from longtailed.analysis.experiments.results import Results, rank1
from longtailed.analysis.experiments.setup import Point, Setup
from longtailed.analysis.experiments.starts import IMBALANCES, draw_grid, gains_by, grid
from longtailed.errors import LongTailedError

METHODS = {"paper": ("CE", "CE+RS", "CE+RW", "LDAM"), "small": ("CE",)}
NETWORKS = {
    "paper": ("resnet32", "resnet44", "resnet56", "resnet110"),
    "small": ("resnet8", "resnet20"),
}
SMALL_CHANGE = 2.0  # points; published rows of plain networks differ by about that


def points(setup: Setup) -> list[Point]:
    """Return the grid of Table 11 for one data set.

    Coarse: the shallowest and the deepest network at imbalance 100, by cross-entropy.
    """
    methods, networks = METHODS[setup.size], NETWORKS[setup.size]
    if setup.base.network.name != networks[0]:
        raise LongTailedError("this experiment sets the networks itself; leave out network.")
    imbalances: tuple[int, ...] = IMBALANCES[setup.size]
    if setup.coarse:
        methods, networks, imbalances = methods[:1], (networks[0], networks[-1]), imbalances[:1]
    return grid(setup, methods, networks, imbalances)


def conclusions(results: Results) -> list[Conclusion]:
    """Return what depth does without a start, and whether the start helps each network."""
    networks = list(dict.fromkeys(str(p.settings["network"]) for p in results.points))
    shallow, deep = networks[0], networks[-1]
    plain = [point for point in results.points if point.settings["start"] == "none"]
    ends = [[p for p in plain if p.settings["network"] == name] for name in (shallow, deep)]
    differences = [results.difference(b, a, rank1) for a, b in zip(*ends, strict=True)]
    means = [sum(values) / len(differences) for values in zip(*differences, strict=True)]
    depth = conclude(
        "Depth changes little",
        f"Rank-1 accuracy of {deep} minus {shallow}, without pre-training",
        means,
        within(SMALL_CHANGE),
    )
    return [depth, *gains_by(results, "network")]


def draw(results: Results, table: Mapping[str, Any] | None) -> Figure:
    """Return accuracy without and with the start, for each network."""
    return draw_grid(results, "network", table)


ARCHITECTURES = Experiment(
    summary="Networks of several depths, without and with rotation pre-training.",
    points=points,
    conclude=conclusions,
    draw=draw,
    published=published.architectures,
)
