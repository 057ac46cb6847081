"""The report's charts over one or several runs, each as one inline SVG."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from longtailed.report.canvas import (
    MUTED,
    RC,
    Styled,
    add_legend,
    new_figure,
    plain_log,
    shorten,
    to_svg,
)
from longtailed.report.load import GROUPS, RunRecord

_MANY_CLASSES = 60  # classes from which a trend line says more than the points
_RASTER_POINTS = 3000  # points from which one picture is smaller than the paths
_ZERO = 0.5  # where a class without training images stands on a logarithmic axis


@mpl.rc_context(RC)
def class_counts(runs: Sequence[Styled], alt: str) -> Markup:
    """Return the class-size curve: training images (log) over classes sorted by size."""
    figure = new_figure()
    axes = figure.subplots()
    curves = {tuple(np.sort(s.run.counts)[::-1].tolist()): s for s in reversed(runs)}
    for counts, styled in reversed(curves.items()):
        shared = len(curves) == 1
        sizes = np.asarray(counts, dtype=np.float64)
        axes.plot(
            np.arange(1, len(sizes) + 1),
            np.where(sizes > 0, sizes, np.nan),
            color=styled.color,
            linestyle="-" if shared else styled.dash,
            marker=styled.marker if len(sizes) <= 25 else None,
            markersize=5,
            label=None if shared else styled.key,
        )
    axes.set(yscale="log", xlabel="Class rank (1 = most images)", ylabel="Training images")
    _draw_thresholds(axes, runs[0].run.last.rule)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    plain_log(axes.yaxis)
    add_legend(figure, axes)
    return to_svg(figure, alt, "counts")


def _draw_thresholds(axes: Axes, rule: str) -> None:
    """Draw the two counts that bound the groups, where the rule is one of counts."""
    bounds = re.search(r">\s*(\d+).*<\s*(\d+)", rule)
    if bounds is None:
        return
    low, high = axes.get_ylim()
    many, few = map(int, bounds.groups())
    for value, text, above in ((many, "many >", True), (few, "few <", False)):
        if low < value < high:
            left = value**2 < low * high  # the end of the line that is farther from the curve
            axes.axhline(value, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
            axes.annotate(
                f"{text} {value}",
                (0 if left else 1, value),
                xycoords=axes.get_yaxis_transform(),
                xytext=(4 if left else 0, 2 if above else -3),
                textcoords="offset points",
                ha="left" if left else "right",
                va="bottom" if above else "top",
                color=MUTED,
            )


@mpl.rc_context(RC)
def accuracy_by_count(runs: Sequence[Styled], alt: str) -> Markup:
    """Return test accuracy of each class over its training images (log), with a trend if many.

    A class without training images stands at 0.5 images, one without test images is left out.
    """
    figure = new_figure()
    axes = figure.subplots()
    crowded = max(len(s.run.counts) for s in runs) > _MANY_CLASSES
    raster = sum(len(s.run.counts) for s in runs) > _RASTER_POINTS
    faint = 0.35 if len(runs) == 1 else 0.16
    for styled in runs:
        counts, accuracy = _tested_classes(styled.run)
        axes.plot(
            counts,
            accuracy,
            linestyle="none",
            marker=styled.marker,
            markersize=3.5 if crowded else 6.5,
            markeredgewidth=0,
            color=styled.color,
            alpha=faint if crowded else 0.85,
            rasterized=raster,
            label=None if crowded or len(runs) == 1 else styled.key,
        )
        if crowded:
            _draw_trend(axes, styled, alone=len(runs) == 1)
    if len(runs) == 1:
        _name_worst(axes, runs[0].run)
    axes.set(xscale="log", xlabel="Training images of the class", ylabel="Test accuracy (%)")
    axes.set_ylim(-3, 103)
    plain_log(axes.xaxis)
    add_legend(figure, axes)
    return to_svg(figure, alt, "accuracy")


def _tested_classes(run: RunRecord) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return (training images, test accuracy in %) of the classes that have test images."""
    pairs = [
        (max(int(count), _ZERO), 100 * rate)
        for count, rate in zip(run.counts, run.last.per_class, strict=True)
        if rate is not None
    ]
    counts, accuracy = np.asarray(pairs, dtype=np.float64).reshape(-1, 2).T
    return counts, accuracy


def _name_worst(axes: Axes, run: RunRecord) -> None:
    """Write the worst class's name beside its mark, on the side towards the chart's middle."""
    count, rate = max(int(run.counts[run.last.worst_class]), _ZERO), run.last.rates["worst"] or 0.0
    middle = np.sqrt(max(int(run.counts.min()), _ZERO) * float(run.counts.max()))
    axes.annotate(
        f"worst: {shorten(run.class_names[run.last.worst_class], 18)}",
        (count, 100 * rate),
        xytext=(7 if count < middle else -7, -8 if rate > 0.1 else 8),
        textcoords="offset points",
        ha="left" if count < middle else "right",
        va="center",
    )


def _draw_trend(axes: Axes, styled: Styled, *, alone: bool) -> None:
    """Draw mean accuracy over twelve equally large sets of classes of neighbouring size."""
    counts, accuracy = _tested_classes(styled.run)
    parts = [p for p in np.array_split(np.argsort(counts, kind="stable"), 12) if p.size]
    axes.plot(
        [np.exp(np.log(counts[part]).mean()) for part in parts],
        [accuracy[part].mean() for part in parts],
        color=styled.color,
        linestyle=styled.dash,
        linewidth=2.6,
        label="mean of classes of similar size" if alone else styled.key,
    )


@mpl.rc_context(RC)
def group_bars(runs: Sequence[Styled], alt: str) -> Markup:
    """Return mean class accuracy of the many, medium and few groups as bars, a run a colour."""
    figure = new_figure()
    axes = figure.subplots()
    width = min(0.8 / len(runs), 0.5)
    for i, styled in enumerate(runs):
        for place, group in enumerate(GROUPS):
            x = place + (i - (len(runs) - 1) / 2) * width
            rate = styled.run.last.rates[group]
            if rate is None:
                axes.text(x, 2, "absent", rotation=90, ha="center", va="bottom", color=MUTED)
                continue
            axes.bar(x, 100 * rate, width * 0.9, color=styled.color)
            if len(runs) <= 4:
                axes.text(x, 100 * rate + 1, f"{100 * rate:.0f}", ha="center", va="bottom")
        if len(runs) > 1:
            axes.bar(0, 0, color=styled.color, label=styled.key)
    axes.set_xticks(range(len(GROUPS)), _group_ticks(runs))
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    axes.set(xlim=(-0.55, 2.55), ylim=(0, 105), ylabel="Mean class accuracy (%)")
    add_legend(figure, axes)
    return to_svg(figure, alt, "groups")


def _group_ticks(runs: Sequence[Styled]) -> list[str]:
    """Return the groups' names, with their number of classes where the runs agree on it."""
    sizes = runs[0].run.last.group_classes
    if any(styled.run.last.group_classes != sizes for styled in runs):
        return [group.capitalize() for group in GROUPS]
    return [
        f"{group.capitalize()}\n{sizes[group]} {'class' if sizes[group] == 1 else 'classes'}"
        for group in GROUPS
    ]


@mpl.rc_context(RC)
def reliability(runs: Sequence[Styled], alt: str, bins: int = 15) -> Markup:
    """Return accuracy over confidence in equal-width bins, above the share of images per bin."""
    figure = new_figure(400, 420)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
    edges = np.linspace(0, 100, bins + 1)
    for styled in runs:
        run = styled.run
        place = np.clip(np.ceil(run.confidences * bins).astype(np.int64) - 1, 0, bins - 1)
        images = np.bincount(place, minlength=bins)
        right = np.bincount(place, weights=run.labels == run.predictions, minlength=bins)
        confidence = np.bincount(place, weights=run.confidences, minlength=bins)
        seen = images > 0
        upper.plot(
            100 * confidence[seen] / images[seen],
            100 * right[seen] / images[seen],
            color=styled.color,
            linestyle=styled.dash,
            marker=styled.marker,
            markersize=5.5,
            label=styled.key if len(runs) > 1 else None,
        )
        share = 100 * images / images.sum()
        if len(runs) == 1:
            lower.bar(edges[:-1], share, 92 / bins, align="edge", color=styled.color)
        else:
            lower.stairs(share, edges, color=styled.color, linestyle=styled.dash, linewidth=1.6)
    upper.set(ylabel="Accuracy (%)", ylim=(0, 102))
    lower.set(xlabel="Confidence (%)", ylabel="Images (%)", xlim=(0, 101))
    add_legend(figure, upper)
    return to_svg(figure, alt, "reliability")


@mpl.rc_context(RC)
def training_curve(
    curves: Iterable[tuple[Styled, str, Sequence[float | None]]],
    alt: str,
    ylabel: str,
    *,
    stages: Sequence[tuple[int, str]] = (),
    chosen: int | None = None,
    from_zero: bool = False,
) -> Markup:
    """Return values over epochs; `curves` hold a look, a legend text ("" for none) and values.

    `stages` marks (first epoch, name) of later stages, `chosen` the epoch taken on held-out data.
    """
    figure = new_figure(400, 270)
    axes = figure.subplots()
    for styled, label, values in curves:
        y = np.asarray([np.nan if value is None else value for value in values], dtype=np.float64)
        known = np.flatnonzero(~np.isnan(y))
        axes.plot(
            known + 1,
            y[known],
            color=styled.color,
            linestyle=styled.dash,
            marker=styled.marker if known.size <= 15 else None,
            markersize=4.5,
            label=label or None,
        )
    top = axes.get_xaxis_transform()
    for first, name in stages:
        axes.axvline(first - 0.5, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        axes.text(first, 1.01, name, transform=top, color=MUTED, va="bottom")
    if chosen is not None:
        axes.axvline(chosen, color=MUTED, linewidth=1)
        axes.text(chosen, 0.03, f"chosen: {chosen} ", transform=top, color=MUTED, ha="right")
    axes.set(xlabel="Epoch", ylabel=ylabel)
    if from_zero:
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    add_legend(figure, axes)
    return to_svg(figure, alt, f"curve-{ylabel}")
