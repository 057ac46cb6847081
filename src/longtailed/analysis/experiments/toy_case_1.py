"""Toy case 1: the head classes grow, the tail class does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from longtailed.analysis.experiments import published
from longtailed.analysis.experiments.definition import Experiment
from longtailed.analysis.experiments.drawing import draw_class_sizes
from longtailed.analysis.experiments.intervals import ABOVE, Conclusion, conclude, within
from longtailed.analysis.experiments.results import Results, heads, tail
from longtailed.analysis.experiments.setup import PAPER_IMAGES, Point, Setup

PAPER_TAIL = 50
SHARES = (1 / 12, 1 / 6, 1 / 3, 2 / 3, 1)  # of the largest head in a small grid
FLAT = 10.0  # points that the tail may change and still be called flat


def points(setup: Setup) -> list[Point]:
    """Return the grid: all classes but the last have n images, the last always as few.

    Paper: n = 100, 200, ..., 5000 (coarse: the ten columns of Table 4) and 50. Small: a twelfth of
    the largest head to all of it, and half of the smallest head.
    """
    sizes: Sequence[int]
    if setup.paper:
        setup.images(PAPER_IMAGES)
        table = published.toy_case_1()["head_images"]
        sizes, rare = (table if setup.coarse else range(100, PAPER_IMAGES + 1, 100)), PAPER_TAIL
    else:
        sizes = [round(setup.images() * share) for share in SHARES]
        rare = max(1, sizes[0] // 2)
    others = setup.classes - 1
    return [
        setup.point(
            f"heads-{n}", [n] * others + [rare], settings={"head_images": n, "tail_images": rare}
        )
        for n in sizes
    ]


def conclusions(results: Results) -> list[Conclusion]:
    """Return whether the heads gain and the tail stays, from the ends of the grid."""
    few, many = results.points[0], results.points[-1]
    numbers = f"at {many.settings['head_images']} minus {few.settings['head_images']} head images"
    return [
        conclude(
            "More head images raise the head classes",
            f"Mean head accuracy {numbers}",
            results.difference(many, few, heads),
            ABOVE,
        ),
        conclude(
            "More head images leave the tail class where it is",
            f"Tail accuracy {numbers}",
            results.difference(many, few, tail),
            within(FLAT),
        ),
    ]


def draw(results: Results, table: Mapping[str, Any] | None) -> Figure:
    """Return accuracy over the size of the head classes."""
    rare = results.points[0].settings["tail_images"]
    xlabel = f"Images of each head class (the tail class has {rare})"
    return draw_class_sizes(results, "head_images", xlabel, table)


TOY_CASE_1 = Experiment(
    summary="Head classes grow, the tail class does not: does the tail suffer from imbalance?",
    points=points,
    conclude=conclusions,
    draw=draw,
    published=lambda classes: published.toy_case_1() if classes == 10 else None,
)
