"""Charts of experiments in the report's style, as PNG and SVG files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from longtailed.analysis.experiments.intervals import Interval
from longtailed.analysis.experiments.results import Results, heads, tail
from longtailed.report.canvas import MUTED, RC, RUN_COLORS, add_legend, new_figure, plain_log

HEAD, TAIL = RUN_COLORS[0], RUN_COLORS[1]
OTHERS = RUN_COLORS[2:]
PUBLISHED: dict[str, Any] = {
    "color": MUTED, "linestyle": (0, (2, 2)), "linewidth": 1.3, "marker": "x", "markersize": 5,
}  # fmt: skip
"""The look of published figures, which are orientation only."""


def plot_intervals(
    axes: Axes, places: Sequence[float], found: Sequence[Interval], label: str, **look: Any
) -> None:
    """Draw means as marks and their intervals as bars, with a line and a band through them.

    With `linestyle="none"`, for places that are no numbers, there is neither line nor band.
    """
    order = np.argsort(np.asarray(places), kind="stable")
    x = np.asarray(places, dtype=np.float64)[order]
    mean = np.array([found[i].mean for i in order])
    low, high = (
        np.array([getattr(found[i], end) for i in order], dtype=np.float64)
        for end in ("low", "high")
    )
    look = {"marker": "o", "markersize": 5.5, **look}
    axes.plot(x, mean, label=label, **look)
    if not np.isnan(low).all():
        if look.get("linestyle") != "none":
            axes.fill_between(x, low, high, color=look["color"], alpha=0.14, linewidth=0)
        axes.vlines(x, low, high, color=look["color"], linewidth=1)


def accuracy_axis(axes: Axes, low: float = 0.0) -> None:
    """Label the vertical axis; it begins at `low` percent."""
    axes.set(ylabel="Test accuracy (%)", ylim=(low - 2, 102))


@mpl.rc_context(RC)
def draw_class_sizes(
    results: Results, x: str, xlabel: str, published: Mapping[str, Any] | None
) -> Figure:
    """Return accuracy of every class over a class size: heads thin, the last class highlighted."""
    figure = new_figure(620, 400)
    axes = figure.subplots()
    points, last = results.points, results.setup.classes - 1
    places = [float(point.settings[x]) for point in points]
    order = np.argsort(places)
    for number in range(last):
        means = [results.class_interval(point, number).mean for point in points]
        label = "each head class" if number == 0 else None
        axes.plot(
            np.array(places)[order], np.array(means)[order],
            color=HEAD, linewidth=0.8, alpha=0.55, label=label,
        )  # fmt: skip
    mean = [results.interval(point, heads) for point in points]
    plot_intervals(axes, places, mean, "mean of the heads", color=HEAD, marker="s")
    rare = [results.interval(point, tail) for point in points]
    plot_intervals(axes, places, rare, "tail class", color=TAIL, linewidth=2.6)
    if published is not None:
        axes.plot(published[x], published["per_class"][-1], label="tail, published", **PUBLISHED)
    accuracy_axis(axes)
    axes.set(xscale="log", xlabel=xlabel)
    plain_log(axes.xaxis)
    add_legend(figure, axes)
    return figure


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write the figure as a small PNG and as SVG; return their paths."""
    png, svg = stem.with_suffix(".png"), stem.with_suffix(".svg")
    drawn = io.BytesIO()
    with mpl.rc_context({**RC, "svg.hashsalt": stem.name}):
        figure.savefig(drawn, dpi=120)
        figure.savefig(svg, format="svg", metadata={"Date": None})
    Image.open(drawn).convert("RGB").quantize(256).save(png, "PNG", optimize=True)
    return [png, svg]
