"""Verification: do head images that look like tail images lower the tail class?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from longtailed.analysis.experiments.definition import Experiment
from longtailed.analysis.experiments.drawing import (
    HEAD,
    OTHERS,
    PUBLISHED,
    TAIL,
    accuracy_axis,
    plot_intervals,
)
from longtailed.analysis.experiments.intervals import BELOW, Conclusion, conclude, under, within
from longtailed.analysis.experiments.results import Results, head, tail
from longtailed.analysis.experiments.setup import PAPER_IMAGES, Point, Setup
from longtailed.data import long_tail_counts
from longtailed.data.similar import Similar
from longtailed.errors import LongTailedError
from longtailed.report.canvas import RC, add_legend, new_figure

IMBALANCE = {"paper": 100, "small": 20}
TAIL_WEIGHT, FRACTION, MOST = (0.8, 0.2, 0.5)  # what one sweep holds fixed while the other runs
FRACTIONS = {"paper": (0.1, 0.2, 0.3, 0.4, 0.5), "small": (0.1, 0.2, 0.3, 0.5)}
WEIGHTS: dict[str, Sequence[float]] = {
    "paper": [k / 10 for k in range(1, 11)],
    "coarse": (0.2, 0.4, 0.6, 0.8, 1.0),
    "small": (0.4, 0.8, 1.0),
}
CONTROLS: dict[str, dict[str, Any]] = {
    "noise": {"tail_class": "noise"},
    "other head": {"tail_class": 1},
    "appended": {"mode": "append"},
}
"""Arms at the largest share: mixed with random pixels or another head class, or added to the head
class instead of replacing its images. They are ours."""

FLAT = 2.0  # points that the head class may change and still be called constant


def points(setup: Setup) -> list[Point]:
    """Return the grid: the untouched set, a sweep of the share, one of the weight, and controls.

    The first class is mixed with the last in an exponential long tail (imbalance 100; small: 20).
    Paper: shares 0 ... 0.5 at tail weight 0.8, weights 0 ... 1 at share 0.2 in steps of 0.1
    (coarse: 0.2).

    Raises `LongTailedError` before anything is trained if the images are files, or if the recipe
    says what to mix.
    """
    if not setup.in_memory:
        raise LongTailedError(
            f"{setup.base.data.source}: similar samples are mixed of pixels in memory, but these "
            "images are files; store small images of one size as parquet."
        )
    if setup.base.data.similar != Similar():
        raise LongTailedError(
            "this experiment sets the similar samples itself; leave out all settings of similar."
        )
    most = setup.images(PAPER_IMAGES)
    counts = long_tail_counts(setup.classes, most, IMBALANCE[setup.size])
    weights = WEIGHTS["coarse" if setup.paper and setup.coarse else setup.size]
    places = [(share, TAIL_WEIGHT) for share in FRACTIONS[setup.size]]
    places += [(FRACTION, weight) for weight in weights]

    def place(name: str, arm: str, share: float, weight: float, **changes: Any) -> Point:
        # The recipe counts the weight of the head image, the sweep that of the tail image.
        similar = {"fraction": share, "head_weight": round(1 - weight, 6), **changes}
        settings = {"arm": arm, "fraction": share, "tail_weight": weight}
        return setup.point(name, counts, settings=settings, similar=similar)

    grid = [place("untouched", "untouched", 0.0, 0.0)]
    for share, weight in dict.fromkeys(places):
        grid.append(place(f"share-{share:g}-weight-{weight:g}", "similar", share, weight))
    for arm, changes in CONTROLS.items():
        if setup.classes > 2 or arm != "other head":
            name = f"{arm.replace(' ', '-')}-{MOST:g}"
            grid.append(place(name, arm, MOST, TAIL_WEIGHT, **changes))
    return grid


def _sweep(results: Results, wanted: Callable[[Point], bool]) -> list[Point]:
    """Return the untouched point and the wanted similar ones."""
    similar = [p for p in results.points if p.settings["arm"] == "similar" and wanted(p)]
    return [results.points[0], *similar]


def by_share(results: Results) -> list[Point]:
    """Return the points of the sweep of the share, untouched first."""
    return _sweep(results, lambda point: point.settings["tail_weight"] == TAIL_WEIGHT)


def by_weight(results: Results) -> list[Point]:
    """Return the points of the sweep of the tail image's weight, untouched first."""
    found = _sweep(results, lambda point: point.settings["fraction"] == FRACTION)
    return sorted(found, key=lambda point: float(point.settings["tail_weight"]))


def conclusions(results: Results) -> list[Conclusion]:
    """Return what both sweeps and the controls say."""
    shares, weights = by_share(results), by_weight(results)
    none, most, pure = shares[0], shares[-1], weights[-1]
    at_most = f"at share {MOST:g} minus share 0"
    return [
        conclude(
            "The tail class falls with the share of similar samples",
            "Slope of tail accuracy for each 0.1 of share",
            _slopes(results, shares, "fraction"),
            BELOW,
        ),
        conclude(
            "Similar samples lower the tail class",
            f"Tail accuracy {at_most}",
            results.difference(most, none, tail),
            BELOW,
        ),
        conclude(
            "The tail class falls with the weight of the tail image",
            "Slope of tail accuracy for each 0.1 of weight, below 1",
            # At weight 1 they are tail images under another label, a claim of its own.
            _slopes(results, weights[:-1], "tail_weight"),
            BELOW,
        ),
        conclude(
            "Tail images with the head's label (weight 1) leave the tail class next to nothing",
            "Tail accuracy at weight 1",
            results.values(pure, tail),
            under(5.0),
        ),
        conclude(
            "Similar samples leave the head class where it is",
            f"Head accuracy {at_most}",
            results.difference(most, none, head),
            within(FLAT),
        ),
        *_controlled(results, most, none),
    ]


def _slopes(results: Results, sweep: list[Point], setting: str) -> list[float]:
    """Return by how much the tail's accuracy changes for each 0.1 of a setting, seed by seed."""
    return [0.1 * slope for slope in results.slope(sweep, setting, tail)]


def _controlled(results: Results, most: Point, none: Point) -> list[Conclusion]:
    """Return how similar samples compare with the control arms at the same share."""
    arms = {str(point.settings["arm"]): point for point in results.points}
    found = [
        conclude(
            f"Mixing with the tail hurts the tail more than {what}",
            f"Tail accuracy, similar minus {arm}, at share {MOST:g}",
            results.difference(most, arms[arm], tail),
            BELOW,
        )
        for arm, what in (
            ("noise", "mixing with noise"),
            ("other head", "mixing with another head class"),
        )
        if arm in arms
    ]
    added = conclude(
        "Similar samples hurt the tail also when the head keeps its genuine images",
        f"Tail accuracy, appended at share {MOST:g} minus untouched",
        results.difference(arms["appended"], none, tail),
        BELOW,
    )
    return [*found, added]


@mpl.rc_context(RC)
def draw(results: Results, table: Mapping[str, Any] | None) -> Figure:
    """Return accuracy of both classes over the share (with the controls) and over the weight."""
    figure = new_figure(900, 400)
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, x, sweep in (
        (left, "fraction", by_share(results)),
        (right, "tail_weight", by_weight(results)),
    ):
        places = [float(point.settings[x]) for point in sweep]
        for measure, name, look in (
            (head, "head class (mixed)", {"color": HEAD, "marker": "s"}),
            (tail, "tail class", {"color": TAIL, "linewidth": 2.6}),
        ):
            found = [results.interval(point, measure) for point in sweep]
            plot_intervals(axes, places, found, name, **look)
        if table is not None:
            axes.plot(table[x][x], table[x]["tail"], label="tail, published", **PUBLISHED)
    _draw_controls(left, results)
    accuracy_axis(left)
    left.set(xlabel=f"Share of the head class that is mixed (tail weight {TAIL_WEIGHT:g})")
    right.set(xlabel=f"Weight of the tail image (share {FRACTION:g})")
    add_legend(figure, left)
    return figure


def _draw_controls(axes: Axes, results: Results) -> None:
    """Draw the tail class in the control arms beside the largest share."""
    controls = [point for point in results.points if point.settings["arm"] in CONTROLS]
    for number, (point, color, marker) in enumerate(
        zip(controls, OTHERS, "D^v", strict=False), start=1
    ):
        place = [float(point.settings["fraction"]) + 0.02 * number]
        label = f"tail, {point.settings['arm']}"
        look = {"color": color, "marker": marker, "linestyle": "none", "markersize": 7}
        plot_intervals(axes, place, [results.interval(point, tail)], label, **look)


SIMILAR_SAMPLES = Experiment(
    summary="Head images mixed with tail images: does category similarity hurt the tail?",
    points=points,
    conclude=conclusions,
    draw=draw,
)
