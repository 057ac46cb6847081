"""What the runs of an experiment's grid came to, and figures over seeds."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from longtailed.analysis.experiments.intervals import Interval, t_interval
from longtailed.analysis.experiments.setup import Point, Setup
from longtailed.report.run_directory import RunDirectory
from longtailed.runs.run import FinishedRun


@dataclass(frozen=True)
class Outcome:
    """One run: its point and seed, class sizes, and accuracies in percent after the last epoch.

    `per_class` [C] are test accuracies; `rank5` is None for five classes or fewer.
    """

    point: str
    seed: int
    counts: tuple[int, ...]
    per_class: tuple[float, ...]
    rank1: float
    rank5: float | None
    loss: float | None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values, accuracies rounded to a thousandth of a percent."""
        values = {**vars(self), "counts": list(self.counts)}
        values["per_class"] = [round(value, 3) for value in self.per_class]
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}


Measure: TypeAlias = Callable[[Outcome], float]


def rank1(outcome: Outcome) -> float:
    """Return the accuracy over all test images."""
    return outcome.rank1


def tail(outcome: Outcome) -> float:
    """Return the accuracy of the last class."""
    return outcome.per_class[-1]


def heads(outcome: Outcome) -> float:
    """Return the mean accuracy of all classes but the last."""
    return float(np.mean(outcome.per_class[:-1]))


def head(outcome: Outcome) -> float:
    """Return the accuracy of the first class."""
    return outcome.per_class[0]


def outcome_of(run: FinishedRun, point: str) -> Outcome:
    """Return the outcome of a finished run, of which every class has test images."""
    figures = run.results["evaluations"]["last"]
    held = RunDirectory(run.directory)
    losses = [line["loss"] for line in held.metrics if "loss" in line]
    top5 = figures["top5"]
    return Outcome(
        point=point,
        seed=run.recipe.seed,
        counts=tuple(held.manifest["splits"]["train"]["counts"]),
        per_class=tuple(100 * accuracy for accuracy in figures["per_class"]),
        rank1=100 * figures["top1"],
        rank5=None if top5 is None else 100 * top5,
        loss=losses[-1] if losses else None,
    )


@dataclass(frozen=True)
class Results:
    """All outcomes of a grid: for each point one outcome for each seed, in the seeds' order."""

    setup: Setup
    points: tuple[Point, ...]
    seeds: tuple[int, ...]
    outcomes: Mapping[str, Sequence[Outcome]]

    def values(self, point: Point, measure: Measure) -> list[float]:
        """Return a measure of a point, one value for each seed."""
        return [measure(outcome) for outcome in self.outcomes[point.name]]

    def interval(self, point: Point, measure: Measure) -> Interval:
        """Return the mean of a measure over seeds, with its interval."""
        return t_interval(self.values(point, measure))

    def difference(self, first: Point, second: Point, measure: Measure) -> list[float]:
        """Return the measure at the first point minus that at the second, seed by seed."""
        pairs = zip(self.values(first, measure), self.values(second, measure), strict=True)
        return [a - b for a, b in pairs]

    def slope(self, points: Sequence[Point], x: str, measure: Measure) -> list[float]:
        """Return for each seed the least-squares slope of a measure over the setting `x`."""
        places = np.array([point.settings[x] for point in points], dtype=np.float64)
        centred = places - places.mean()
        table = np.array([self.values(point, measure) for point in points])
        return list(map(float, centred @ table / (centred @ centred)))

    def class_interval(self, point: Point, number: int) -> Interval:
        """Return the accuracy of one class at a point."""
        return self.interval(point, lambda outcome: outcome.per_class[number])

    def table(self) -> list[dict[str, Any]]:
        """Return for each point its settings, class sizes, and figures with intervals."""
        rows = []
        for point in self.points:
            first = self.outcomes[point.name][0]
            row: dict[str, Any] = {"point": point.name, **point.settings}
            row["counts"] = list(first.counts)
            for name, measure in (("rank1", rank1), ("heads", heads), ("tail", tail)):
                row[name] = self.interval(point, measure).as_json()
            if first.rank5 is not None:
                row["rank5"] = self.interval(point, lambda o: o.rank5 or 0.0).as_json()
            classes = range(len(first.counts))
            row["per_class"] = [self.class_interval(point, c).as_json() for c in classes]
            rows.append(row)
        return rows

    def csv(self) -> str:
        """Return one row for each run: point, settings, seed, counts and accuracies."""
        names = list(dict.fromkeys(key for point in self.points for key in point.settings))
        classes = range(self.setup.classes)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        accuracies = [f"accuracy_{c}" for c in classes]
        counts = [f"images_{c}" for c in classes]
        writer.writerow(["point", *names, "seed", "rank1", "rank5", *accuracies, *counts])
        for point in self.points:
            for one in self.outcomes[point.name]:
                figures = [one.rank1, one.rank5, *one.per_class]
                shown = ["" if value is None else f"{value:.3f}" for value in figures]
                settings = [point.settings.get(name, "") for name in names]
                writer.writerow([point.name, *settings, one.seed, *shown, *one.counts])
        return text.getvalue()
