"""The toy cases: all classes alike but the last, the tail class, which has fewer images.

In case 1 the head classes grow and the tail class does not; in case 2 the tail class shrinks and
the head classes do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from longtailed.analysis.experiments.definition import Experiment
from longtailed.analysis.experiments.drawing import draw_class_sizes
from longtailed.analysis.experiments.intervals import ABOVE, BELOW, Conclusion, conclude, within
from longtailed.analysis.experiments.published import published_table
from longtailed.analysis.experiments.results import Results, heads, tail
from longtailed.analysis.experiments.setup import PAPER_IMAGES, Point, Setup

HEAD_SHARES = (1 / 12, 1 / 6, 1 / 3, 2 / 3, 1)  # of the largest head, in case 1's small grid
TAIL_SHARES = (1, 1 / 2, 1 / 4, 1 / 8, 1 / 24, 1 / 48)  # of the head's size, in case 2's
PAPER_TAIL = 50
KNEE = 1 / 8  # of the head's size, below which the fall is said to be steep
FLAT_TAIL, FLAT_HEADS = 10.0, 2.0  # points that they may change and still be called flat


def _point(setup: Setup, name: str, head_images: int, tail_images: int) -> Point:
    counts = [head_images] * (setup.classes - 1) + [tail_images]
    settings = {"head_images": head_images, "tail_images": tail_images}
    return setup.point(name, counts, settings=settings)


def _published_sizes(experiment: str, key: str) -> Sequence[int]:
    table = published_table(experiment, 10)
    assert table is not None
    sizes: Sequence[int] = table[key]
    return sizes


def case_1_points(setup: Setup) -> list[Point]:
    """Return the grid: all classes but the last have n images, the last always as few.

    Paper: n = 100, 200, ..., 5000 (coarse: the ten columns of Table 4) and 50. Small: a twelfth of
    the largest head to all of it, and half of the smallest head.
    """
    sizes: Sequence[int]
    if setup.paper:
        setup.images(PAPER_IMAGES)
        columns = _published_sizes("toy-case-1", "head_images")
        sizes, rare = (columns if setup.coarse else range(100, PAPER_IMAGES + 1, 100)), PAPER_TAIL
    else:
        sizes = [round(setup.images() * share) for share in HEAD_SHARES]
        rare = max(1, sizes[0] // 2)
    return [_point(setup, f"heads-{n}", n, rare) for n in sizes]


def case_2_points(setup: Setup) -> list[Point]:
    """Return the grid: all classes but the last have the most images, the last ever fewer.

    Paper: 5000 and 5000, 4900, ..., 100 (coarse: the ten columns of Table 5).
    """
    sizes: Sequence[int]
    if setup.paper:
        most = setup.images(PAPER_IMAGES)
        columns = _published_sizes("toy-case-2", "tail_images")
        sizes = columns if setup.coarse else range(PAPER_IMAGES, 0, -100)
    else:
        most = setup.images()
        # Of few images the smallest shares are one image, and one place in the grid.
        sizes = list(dict.fromkeys(max(1, int(most * share)) for share in TAIL_SHARES))
    return [_point(setup, f"tail-{n}", most, n) for n in sizes]


def case_1_conclusions(results: Results) -> list[Conclusion]:
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
            within(FLAT_TAIL),
        ),
    ]


def case_2_conclusions(results: Results) -> list[Conclusion]:
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
            within(FLAT_HEADS),
        ),
    ]


def draw_case_1(results: Results, table: Mapping[str, Any] | None) -> Figure:
    """Return accuracy over the size of the head classes."""
    rare = results.points[0].settings["tail_images"]
    xlabel = f"Images of each head class (the tail class has {rare})"
    return draw_class_sizes(results, "head_images", xlabel, table)


def draw_case_2(results: Results, table: Mapping[str, Any] | None) -> Figure:
    """Return accuracy over the size of the tail class."""
    most = results.points[0].settings["head_images"]
    xlabel = f"Images of the tail class (each head class has {most})"
    return draw_class_sizes(results, "tail_images", xlabel, table)


TOY_CASE_1 = Experiment(
    summary="Head classes grow, the tail class does not: does the tail suffer from imbalance?",
    points=case_1_points,
    conclude=case_1_conclusions,
    draw=draw_case_1,
)
TOY_CASE_2 = Experiment(
    summary="The tail class shrinks, the head classes do not: where does its accuracy go?",
    points=case_2_points,
    conclude=case_2_conclusions,
    draw=draw_case_2,
)
