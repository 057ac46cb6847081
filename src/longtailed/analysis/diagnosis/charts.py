"""The charts of a diagnosis: count x similarity x accuracy, and which classes are alike."""

from __future__ import annotations

from typing import Literal

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize, PowerNorm

from longtailed.analysis.diagnosis.attribution import FloatArray
from longtailed.analysis.diagnosis.findings import Findings
from longtailed.report.canvas import INK, MUTED, RC, new_figure, plain_log, shorten, to_svg
from longtailed.report.confusion import count_order

MAX_NAMED = 30  # classes that fit beside a heat map or into the scatter
MAX_NUMBERED = 12
# Where a mark's name may stand: offset in points, alignment, part of the width left of it.
_SIDES: tuple[tuple[int, int, Literal["left", "center", "right"], float], ...] = (
    (0, 9, "center", 0.5),
    (0, -22, "center", 0.5),
    (11, -6, "left", 0.0),
    (-11, -6, "right", 1.0),
)
_ORANGE, _BLUE = (0.761, 0.314, 0.039), (0, 0.404, 0.647)
_ERROR = LinearSegmentedColormap.from_list("error", [(*_ORANGE, 0.0), (*_ORANGE, 1.0)])
_HEAT = LinearSegmentedColormap.from_list("heat", [(*_BLUE, 0), (*_BLUE, 0.8)])
_TWO_SIDED = LinearSegmentedColormap.from_list(  # below 0, at 0 (nothing), above 0
    "two-sided",
    [(0, (*_ORANGE, 0.8)), (0.5, (*_ORANGE, 0)), (0.5, (*_BLUE, 0)), (1, (*_BLUE, 0.8))],
)


def shown_classes(findings: Findings) -> list[int]:
    """Return up to 30 classes by count: all, or those with most error and what they resemble."""
    if len(findings.names) <= MAX_NAMED:
        chosen = set(range(len(findings.names)))
    else:
        chosen = set()
        for label in findings.by_error():
            similar = findings.similar_class(label)
            if len(chosen | {label, similar}) > MAX_NAMED:
                break
            chosen |= {label} if similar is None else {label, similar}
    return [int(c) for c in count_order(findings.counts) if int(c) in chosen]


def most_alike(findings: Findings) -> FloatArray:
    """Return the centred cosine [C] of each class's mean to that of its most alike class."""
    others = findings.cosine.copy()
    np.fill_diagonal(others, -np.inf)
    others[:, findings.counts == 0] = -np.inf
    best = others.max(axis=1)
    return np.where(np.isfinite(best), best, 0.0)


@mpl.rc_context(RC)
def scatter(findings: Findings, alt: str) -> Markup:
    """Return count (log) x similarity of each class; the shade is its error."""
    figure = new_figure(640, 430)
    axes = figure.subplots()
    tested = np.flatnonzero(findings.parts.images)
    counts = np.maximum(findings.counts[tested], 0.5)
    alike = most_alike(findings)[tested]
    error = 100 * findings.parts.error[tested]
    crowded = len(tested) > 60
    marks = axes.scatter(
        counts,
        alike,
        c=error,
        cmap=_ERROR,
        norm=Normalize(0, max(10, float(error.max()))),
        s=36 if crowded else 130,
        edgecolors=MUTED,
        linewidths=0.6 if crowded else 1.0,
    )
    named = [c for c in findings.by_error() if c in set(tested)][: MAX_NAMED if not crowded else 12]
    axes.set(xscale="log", xlabel="Training images of the class")
    axes.set_ylabel("Cosine to the most alike class")
    axes.margins(0.12, 0.15)
    plain_log(axes.xaxis)
    bar = figure.colorbar(marks, ax=axes, shrink=0.7, aspect=28, pad=0.02)
    bar.set_label("Error (%)")
    bar.outline.set_edgecolor(MUTED)
    figure.draw_without_rendering()  # so that the places of the marks are known
    _name_points(axes, findings, named, most_alike(findings))
    return to_svg(figure, alt, "diagnosis-scatter")


def _name_points(axes: Axes, findings: Findings, named: list[int], alike: FloatArray) -> None:
    """Write name and accuracy beside the marks where there is room, most error first."""
    places = np.column_stack([np.maximum(findings.counts, 0.5), alike])
    pixels = axes.transData.transform(places)
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in pixels[named]]
    for label in named:
        accuracy = 100 * (1 - findings.parts.error[label])
        text = f"{shorten(findings.names[label], 16)}: {accuracy:.0f} %"
        width, (x, y) = 6.6 * len(text), pixels[label]
        for dx, dy, align, part in _SIDES:
            left, low = x + dx - part * width, y + dy
            box = (left, low, left + width, low + 13)
            inside = axes.bbox.x0 < left and box[2] < axes.bbox.x1 and low > axes.bbox.y0
            if inside and not any(_overlap(box, other) for other in taken):
                axes.annotate(
                    text, tuple(places[label]), xytext=(dx, dy), textcoords="offset points",
                    ha=align, va="bottom", fontsize=11, color=INK, in_layout=False,
                )  # fmt: skip
                taken.append(box)
                break


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@mpl.rc_context(RC | {"axes.grid": False})
def heat_map(
    findings: Findings, values: FloatArray, alt: str, title: str, name: str, xlabel: str
) -> Markup:
    """Return `values` [C, C] in -1..1 between the shown classes as shades, diagonal left out.

    Shares are shades of one colour. Values below 0 have a colour of their own: with few classes
    all cosines of centred class means are below 0, with two always -1.
    """
    classes = shown_classes(findings)
    shown = 100 * values[np.ix_(classes, classes)]
    np.fill_diagonal(shown, 0)
    figure = new_figure(520, 550)
    axes = figure.subplots()
    top = max(1.0, float(np.abs(shown).max()))
    signed = bool(shown.min() < 0)
    image = axes.imshow(
        shown,
        cmap=_TWO_SIDED if signed else _HEAT,
        norm=Normalize(-top, top) if signed else PowerNorm(0.6, 0, top),
        interpolation="nearest",
    )
    if len(classes) <= MAX_NUMBERED:
        _write_numbers(axes, shown)
    names = [shorten(findings.names[c], 14) for c in classes]
    axes.spines[["top", "right"]].set_visible(True)
    axes.set_xticks(range(len(classes)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), names)
    axes.tick_params(labelsize=11 if len(classes) <= 15 else 9, length=0)
    axes.set(xlabel=xlabel, ylabel="Class")
    bar = figure.colorbar(
        image, ax=axes, location="top", shrink=0.6, aspect=34, pad=0.02, anchor=(0, 0)
    )
    bar.set_label(title)
    return to_svg(figure, alt, name)


def _write_numbers(axes: Axes, shown: FloatArray) -> None:
    """Write every value into its cell, but for the diagonal."""
    for row, column in np.argwhere(~np.eye(len(shown), dtype=bool)):
        text = f"{round(shown[row, column])}".replace("-", "\N{MINUS SIGN}")
        color = MUTED if text == "0" else INK
        axes.text(
            column, row, text, ha="center", va="center", fontsize=11, color=color, in_layout=False
        )
