"""Does self-supervised pre-training help each method, and each depth of network?

A point is a method, a network, an imbalance, and a start: none, or rotation prediction (SSP).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from longtailed.analysis.experiments.definition import Experiment
from longtailed.analysis.experiments.drawing import (
    HEAD,
    PUBLISHED,
    TAIL,
    accuracy_axis,
    plot_intervals,
)
from longtailed.analysis.experiments.intervals import ABOVE, Conclusion, conclude, within
from longtailed.analysis.experiments.results import Results, rank1
from longtailed.analysis.experiments.setup import Point, Setup
from longtailed.data import long_tail_counts
from longtailed.errors import LongTailedError
from longtailed.report.canvas import RC, add_legend, new_figure

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "CE": ("ce", {}),
    "CE+RS": ("ce", {"sampler": "effective-number"}),
    "CE+RW": ("class-balanced", {}),
    "CE+DRW": ("ce-drw", {}),
    "LDAM": ("ldam", {}),
}
"""The papers' names: re-sampling and re-weighting by effective number, and deferred weights."""

IMBALANCES = {"paper": (100, 50, 20, 10), "small": (20,)}
START: tuple[str, dict[str, Any]] = ("rotation", {})
PRE_TRAINING_METHODS = ("CE", "CE+RS", "CE+RW", "CE+DRW")
DEPTH_METHODS = {"paper": ("CE", "CE+RS", "CE+RW", "LDAM"), "small": ("CE",)}
DEPTHS = {
    "paper": ("resnet32", "resnet44", "resnet56", "resnet110"),
    "small": ("resnet8", "resnet20"),
}
SMALL_CHANGE = 2.0  # points; published rows of plain networks differ by about that


def grid(
    setup: Setup, methods: Sequence[str], networks: Sequence[str], imbalances: Sequence[int]
) -> list[Point]:
    """Return every method, network and imbalance, without a rotation start and with one.

    Raises `LongTailedError` if the base recipe chooses a method or its options, which the grid
    would drop.
    """
    if METHODS["CE"] != (setup.base.stages[0].method, setup.base.stages[0].options):
        raise LongTailedError(
            "this experiment sets the methods itself; leave out method and its options."
        )
    most, found = setup.images(), []
    for imbalance, network, method in product(imbalances, networks, methods):
        counts = long_tail_counts(setup.classes, most, imbalance)
        for start in ("none", "rotation"):
            stages = [METHODS[method]] if start == "none" else [START, METHODS[method]]
            settings = {
                "method": method, "network": network, "imbalance": imbalance, "start": start,
            }  # fmt: skip
            name = f"{method.lower().replace('+', '-')}-{network}-{imbalance}-{start}"
            found.append(
                setup.point(name, counts, settings=settings, network=network, stages=stages)
            )
    return found


def method_points(setup: Setup) -> list[Point]:
    """Return the grid of Table 1 for one data set: four methods and imbalances (coarse: 100)."""
    imbalances = IMBALANCES[setup.size][: 1 if setup.coarse else None]
    return grid(setup, PRE_TRAINING_METHODS, [setup.base.network.name], imbalances)


def depth_points(setup: Setup) -> list[Point]:
    """Return the grid of Table 11 for one data set.

    Coarse: the shallowest and the deepest network at imbalance 100, by cross-entropy.
    """
    methods, networks = DEPTH_METHODS[setup.size], DEPTHS[setup.size]
    if setup.base.network.name != networks[0]:
        raise LongTailedError("this experiment sets the networks itself; leave out network.")
    imbalances: tuple[int, ...] = IMBALANCES[setup.size]
    if setup.coarse:
        methods, networks, imbalances = methods[:1], (networks[0], networks[-1]), imbalances[:1]
    return grid(setup, methods, networks, imbalances)


def pairs(results: Results) -> list[tuple[Point, Point]]:
    """Return (without, with) a rotation start for every place of the grid."""
    return list(zip(results.points[::2], results.points[1::2], strict=True))


def gain(results: Results, chosen: Sequence[tuple[Point, Point]]) -> list[float]:
    """Return for each seed the mean rank-1 accuracy with the start minus that without."""
    differences = [results.difference(after, before, rank1) for before, after in chosen]
    return [float(value) for value in np.mean(differences, axis=0)]


def gains_by(results: Results, key: str) -> list[Conclusion]:
    """Return whether the start helps over all, and for every value of a setting."""
    everything = pairs(results)
    groups: dict[str, list[tuple[Point, Point]]] = {}
    for pair in everything:
        groups.setdefault(str(pair[0].settings[key]), []).append(pair)
    quantity = "Rank-1 accuracy with rotation minus without"
    found = [
        conclude("Pre-training helps", quantity, gain(results, everything), ABOVE),
    ]
    if len(groups) > 1:
        found += [
            conclude(f"Pre-training helps {name}", quantity, gain(results, chosen), ABOVE)
            for name, chosen in groups.items()
        ]
    return found


def depth_conclusions(results: Results) -> list[Conclusion]:
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


@mpl.rc_context(RC)
def draw_grid(results: Results, x: str, table: Mapping[str, Any] | None) -> Figure:
    """Return rank-1 accuracy over `x`, without and with the start; a panel for each other place."""
    rows_by = "method" if x == "network" else "network"
    columns = list(dict.fromkeys(p.settings["imbalance"] for p in results.points))
    rows = list(dict.fromkeys(p.settings[rows_by] for p in results.points))
    figure = new_figure(max(520, 300 * len(columns)), 120 + 250 * len(rows))
    panels = figure.subplots(len(rows), len(columns), squeeze=False, sharey=True, sharex=True)
    for (i, row), (j, imbalance) in product(enumerate(rows), enumerate(columns)):
        axes = panels[i][j]
        wanted = {rows_by: row, "imbalance": imbalance}
        _draw_panel(axes, results, x, wanted, table)
        axes.set_title(f"{row}, imbalance {imbalance}", fontsize=13)
        axes.set_ylabel("Rank-1 accuracy (%)" if j == 0 else "")
    add_legend(figure, panels[0][0])
    return figure


def _draw_panel(
    axes: Axes, results: Results, x: str, wanted: Mapping[str, Any], table: Mapping[str, Any] | None
) -> None:
    """Draw one panel: a category of `x` at each integer, the two starts side by side."""
    chosen = [
        (before, after)
        for before, after in pairs(results)
        if all(before.settings[key] == value for key, value in wanted.items())
    ]
    names = [str(before.settings[x]) for before, _ in chosen]
    for side, label, look in (
        (0, "without", {"color": HEAD, "marker": "s"}),
        (1, "with rotation pre-training", {"color": TAIL, "marker": "o"}),
    ):
        places = [k + 0.16 * (side - 0.5) for k in range(len(names))]
        found = [results.interval(pair[side], rank1) for pair in chosen]
        plot_intervals(axes, places, found, label, linestyle="none", **look)
        if table is not None:
            shown = [table["rank1"][published_name(table, pair[side])] for pair in chosen]
            place = table["imbalance"].index(wanted["imbalance"])
            figures = [row[place] for row in shown]
            name = "published" if side == 0 else None
            axes.plot(places, figures, label=name, **{**PUBLISHED, "linestyle": "none"})
    means = [results.interval(point, rank1) for point in results.points]
    lowest = min(one.mean if one.low is None else one.low for one in means)
    accuracy_axis(axes, low=10 * (max(lowest, 0) // 10))
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.5)


def published_name(table: Mapping[str, Any], point: Point) -> str:
    """Return what a published table calls a point: "CE+SSP+RW", or with its network beside it."""
    words = str(point.settings["method"]).split("+")
    if point.settings["start"] == "rotation":
        words.insert(1, "SSP")
    name = "+".join(words)
    return name if name in table["rank1"] else f"{name}, {point.settings['network']}"


PRE_TRAINING = Experiment(
    summary="Rotation pre-training before four methods: do better representations help?",
    points=method_points,
    conclude=lambda results: gains_by(results, "method"),
    draw=lambda results, table: draw_grid(results, "method", table),
)
ARCHITECTURES = Experiment(
    summary="Networks of several depths, without and with rotation pre-training.",
    points=depth_points,
    conclude=depth_conclusions,
    draw=lambda results, table: draw_grid(results, "network", table),
)
