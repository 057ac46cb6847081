"""Toy case 2: the tail class shrinks, the head classes do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from longtailed.analysis.experiments import published
from longtailed.analysis.experiments.definition import Experiment
from longtailed.analysis.experiments.drawing import draw_class_sizes
from longtailed.analysis.experiments.intervals import ABOVE, BELOW, Conclusion, conclude, within
from longtailed.analysis.experiments.results import Results, heads, tail
from longtailed.analysis.experiments.setup import PAPER_IMAGES, Point, Setup

SHARES = (1, 1 / 2, 1 / 4, 1 / 8, 1 / 24, 1 / 48)  # of the head's size in a small grid
KNEE = 1 / 8  # of the head's size, below which the fall is said to be steep
FLAT = 2.0  # points that the heads may change and still be called flat


def points(setup: Setup) -> list[Point]:
    """Return the grid: all classes but the last have the most images, the last ever fewer.

    Paper: 5000 and 5000, 4900, ..., 100 (coarse: the ten columns of Table 5).
    """
    sizes: Sequence[int]
    if setup.paper:
        most = setup.images(PAPER_IMAGES)
        table = published.toy_case_2()["tail_images"]
        sizes = table if setup.coarse else range(PAPER_IMAGES, 0, -100)
    else:
        most = setup.images()
        # Of few images the smallest shares are one image, and one place in the grid.
        sizes = list(dict.fromkeys(max(1, int(most * share)) for share in SHARES))
    others = setup.classes - 1
    return [
        setup.point(
            f"tail-{n}", [most] * others + [n], settings={"head_images": most, "tail_images": n}
        )
        for n in sizes
    ]


def conclusions(results: Results) -> list[Conclusion]:
    """Return whether the tail falls, most of it at the end, and the heads stay."""
    many, few = results.points[0], results.points[-1]
    most = many.settings["tail_images"]
    knee = min(results.points, key=lambda p: abs(p.settings["tail_images"] - KNEE * most))
    end, middle = few.settings["tail_images"], knee.settings["tail_images"]
    before = results.difference(many, knee, tail)
    after = results.difference(knee, few, tail)
    return [
        conclude(
            "Fewer tail images lower the tail class",
            f"Tail accuracy at {end} minus {most} tail images",
            results.difference(few, many, tail),
            BELOW,
        ),
        conclude(
            "Most of the fall comes at the small end",
            f"Fall from {middle} to {end} tail images minus fall from {most} to {middle}",
            [b - a for a, b in zip(before, after, strict=True)],
            ABOVE,
        ),
        conclude(
            "Fewer tail images leave the head classes where they are",
            f"Mean head accuracy at {end} minus {most} tail images",
            results.difference(few, many, heads),
            within(FLAT),
        ),
    ]


def draw(results: Results, table: Mapping[str, Any] | None) -> Figure:
    """Return accuracy over the size of the tail class."""
    most = results.points[0].settings["head_images"]
    xlabel = f"Images of the tail class (each head class has {most})"
    return draw_class_sizes(results, "tail_images", xlabel, table)


TOY_CASE_2 = Experiment(
    summary="The tail class shrinks, the head classes do not: where does its accuracy go?",
    points=points,
    conclude=conclusions,
    draw=draw,
    published=lambda classes: published.toy_case_2() if classes == 10 else None,
)
