"""The look of the report's charts: run colours, chart defaults, and figures as inline SVG.

Every chart is drawn on its own `matplotlib.figure.Figure`. Its few colours are stand-ins that
become CSS variables in the SVG, so that the page, not the chart, decides on light or dark.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from longtailed.report.load import RunRecord

# At least 4.5:1 against the page; hues chosen for the common colour deficiencies, and markers and
# dashes tell runs apart as well. The style sheet holds a lighter set for dark pages.
RUN_COLORS = (
    "#0067a5",
    "#c2500a",
    "#00805e",
    "#8a3f8f",
    "#8f6b00",
    "#343a8c",
    "#5f6672",
    "#c24a72",
)
_MARKERS = "osD^vPX*"
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
INK, MUTED, GRID = "#1c2128", "#59636f", "#d9dfe4"
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid"} | {
    color: f"--run-{i}" for i, color in enumerate(RUN_COLORS)
}
RC: Any = {  # Any, because newer matplotlib names every key in its types
    "font.size": 13,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "legend.columnspacing": 1.2,
    "lines.linewidth": 1.8,
}


@dataclass(frozen=True)
class Styled:
    """A run with the letter, label, colour, marker and dash it has in every chart."""

    run: RunRecord
    key: str
    label: str
    index: int

    @property
    def color(self) -> str:
        """The run's colour, a stand-in that `to_svg` turns into a CSS variable."""
        return RUN_COLORS[self.index % len(RUN_COLORS)]

    @property
    def marker(self) -> str:
        """The run's marker."""
        return _MARKERS[self.index % len(_MARKERS)]

    @property
    def dash(self) -> Any:
        """The run's line style."""
        return _DASHES[self.index % len(_DASHES)]


def style_runs(runs: Sequence[RunRecord], labels: Sequence[str]) -> list[Styled]:
    """Return the runs with one look each, the same for the same position in the list."""
    return [
        Styled(run, chr(ord("A") + i) if i < 26 else str(i + 1), label, i)
        for i, (run, label) in enumerate(zip(runs, labels, strict=True))
    ]


def shorten(text: str, length: int) -> str:
    """Return the text, its end replaced by an ellipsis where it is longer than `length`."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def new_figure(width: float = 400, height: float = 300) -> Figure:
    """Return an empty figure of that many CSS pixels, laid out so that no text is cut."""
    return Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")


def plain_log(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers (1, 10, 100), more of them on a short one."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if high < 2000 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_locator(NullLocator())


def add_legend(figure: Figure, axes: Axes) -> None:
    """Put the legend, where anything is labelled, above the axes in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        entry = 60 + 8 * max(map(len, labels))
        columns = max(1, min(len(handles), int(72 * figure.get_figwidth() // entry)))
        figure.legend(handles, labels, loc="outside upper left", ncols=columns)


def to_svg(figure: Figure, alt: str, name: str) -> Markup:
    """Return the figure as one inline `<svg>` with `alt` as its accessible name.

    `name` must differ between the charts of a page: it makes the ids of clip paths and markers
    unique and, with no date inside, the text reproducible.
    """
    buffer = io.StringIO()
    with warnings.catch_warnings(), mpl.rc_context({"svg.hashsalt": name}):
        # The reader's browser draws the text, so a glyph missing from matplotlib's font is fine.
        warnings.filterwarnings("ignore", message="Glyph")
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", dpi=144, transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # matplotlib repeats these ids in every figure
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    box = re.search(r'viewBox="[^"]*"', text)
    body = text[text.index(">", text.index("<svg")) + 1 :]
    assert box is not None
    return Markup(f'<svg role="img" aria-label="{escape(alt)}" {box[0]}>{body}')
