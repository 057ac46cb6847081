"""Which classes are taken for which: the confusion matrix and its largest entries."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm

from longtailed.report.canvas import MUTED, RC, Styled, new_figure, shorten, to_svg
from longtailed.report.load import RunRecord

MAX_BINS = 50  # cells per side of a confusion matrix
MAX_NUMBERED = 15  # classes up to which a cell holds its number
MAX_NAMED = 30  # classes up to which every row is named
# One hue whose opacity grows: readable under the page's ink colour on light and on dark paper.
_HEAT = LinearSegmentedColormap.from_list("heat", [(0, 0.404, 0.647, 0), (0, 0.404, 0.647, 0.8)])


@dataclass(frozen=True)
class Confused:
    """Test images of one class predicted as another, with the training images of both."""

    true: str
    predicted: str
    images: int
    share: float  # of the true class's test images
    true_count: int
    predicted_count: int


def count_order(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the class indices, the class with most training images first; ties by index."""
    return np.argsort(-counts, kind="stable")


def binned_confusion(run: RunRecord) -> npt.NDArray[np.int64]:
    """Return image counts [B,B], rows true and columns predicted, of count-ordered class bins.

    B = min(C, 50); bins hold equally many classes (one more in the first ones where C is no
    multiple), so up to 50 classes a bin is a class. Never builds a C x C matrix.
    """
    bins = min(len(run.counts), MAX_BINS)
    bin_of = np.empty(len(run.counts), np.int64)
    for i, members in enumerate(np.array_split(count_order(run.counts), bins)):
        bin_of[members] = i
    cells = bin_of[run.labels] * bins + bin_of[run.predictions]
    return np.bincount(cells, minlength=bins * bins).reshape(bins, bins)


def top_confused(run: RunRecord, limit: int) -> list[Confused]:
    """Return the `limit` most frequent (true, predicted) pairs of unequal classes."""
    wrong = run.labels != run.predictions
    codes = run.labels[wrong] * len(run.counts) + run.predictions[wrong]
    pairs, images = np.unique(codes, return_counts=True)
    tested = np.bincount(run.labels, minlength=len(run.counts))
    names, counts = run.class_names, run.counts
    found = []
    for place in np.argsort(-images, kind="stable")[:limit]:
        true, predicted = divmod(int(pairs[place]), len(counts))
        found.append(
            Confused(
                true=names[true],
                predicted=names[predicted],
                images=int(images[place]),
                share=float(images[place] / tested[true]),
                true_count=int(counts[true]),
                predicted_count=int(counts[predicted]),
            )
        )
    return found


@mpl.rc_context(RC | {"axes.grid": False})
def confusion_chart(styled: Styled, alt: str) -> Markup:
    """Return the confusion matrix: shade is the share of a true row, numbers are test images."""
    run = styled.run
    matrix = binned_confusion(run)
    share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure = new_figure(540, 580) if len(run.counts) <= MAX_NAMED else new_figure(430, 480)
    axes = figure.subplots()
    image = axes.imshow(share, cmap=_HEAT, norm=PowerNorm(0.5, 0, 100), interpolation="nearest")
    if len(run.counts) <= MAX_NUMBERED:
        for row, column in np.argwhere(matrix):
            number = str(matrix[row, column])
            axes.text(column, row, number, ha="center", va="center", fontsize=11, in_layout=False)
    _label_axes(axes, run)
    bar = figure.colorbar(
        image, ax=axes, location="top", shrink=0.6, aspect=34, pad=0.02, anchor=(0, 0)
    )
    bar.set_ticks([0, 1, 5, 20, 50, 100])
    bar.set_label("Share of the row's test images (%)")
    return to_svg(figure, alt, f"confusion-{styled.key}")


def _label_axes(axes: Axes, run: RunRecord) -> None:
    """Name every class where there is room, else give the training images along the order."""
    order = count_order(run.counts)
    bins = min(len(order), MAX_BINS)
    axes.spines[["top", "right"]].set_visible(True)
    if len(order) <= MAX_NAMED:
        size = 11 if len(order) <= MAX_NUMBERED else 9
        names = [shorten(run.class_names[i], 14) for i in order]
        axes.set_xticks(range(bins), names)
        if max(map(len, names)) > 3:
            axes.tick_params(axis="x", rotation=45)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        axes.set_yticks(range(bins), names)
        axes.tick_params(labelsize=size, length=0)
        axes.set(xlabel="Predicted class", ylabel="True class")
        return
    places = np.linspace(0, bins - 1, 6).round().astype(int)
    first = [members[0] for members in np.array_split(order, bins)]
    labels = [f"{run.counts[first[place]]:,}" for place in places]
    axes.set_xticks(places, labels)
    axes.set_yticks(places, labels)
    axes.tick_params(color=MUTED)
    suffix = "by training images, most frequent first"
    axes.set(xlabel=f"Predicted, {suffix}", ylabel=f"True, {suffix}")
