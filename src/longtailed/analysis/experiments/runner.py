"""Run an experiment: train its grid, and write figures, chart and conclusions."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from longtailed.analysis.experiments.definition import Experiment
from longtailed.analysis.experiments.drawing import save_figure
from longtailed.analysis.experiments.intervals import LEVEL, Conclusion
from longtailed.analysis.experiments.published import published_table
from longtailed.analysis.experiments.results import Results, outcome_of
from longtailed.analysis.experiments.setup import Point, Setup, make_setup, seeded
from longtailed.errors import LongTailedError
from longtailed.report.run_directory import RunDirectory
from longtailed.report.strict_json import read_json, to_json
from longtailed.runs.run import FinishedRun
from longtailed.runs.seeds import Task, train_all
from longtailed.training.checkpoint import write_atomically

FILE = "experiment.json"


@dataclass(frozen=True)
class FinishedExperiment:
    """An experiment's directory, its results and conclusions, and what experiment.json holds."""

    directory: Path
    results: Results
    conclusions: tuple[Conclusion, ...]
    content: Mapping[str, Any]


def run_grid(
    name: str,
    experiment: Experiment,
    *,
    size: str = "small",
    coarse: bool = False,
    data: str | None = None,
    seeds: Sequence[int] = range(5),
    jobs: int = 1,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    out: str | Path | None = None,
    device: str = "auto",
    progress: bool = True,
) -> FinishedExperiment:
    """Return the finished experiment: every point of its grid trained with every seed.

    Runs are ordinary ones below `out` (default: runs/<name>-<size>-<hash>), as
    <point>/seed-<k>; the same call again goes on where it stopped. `jobs` are trained at a time.
    Beside them come experiment.json, results.csv, chart.png and chart.svg.

    Raises `LongTailedError` for bad settings, data that is too small for the grid, and a directory
    that holds another experiment.
    """
    if not seeds or jobs < 1:
        raise LongTailedError("an experiment needs at least one seed and one job.")
    setup = make_setup(name, size, data, overrides, coarse)
    points = tuple(experiment.points(setup))
    home = Path(out) if out else Path("runs") / f"{name}-{size}-{_hash(points)}"
    _check_home(home, name, size)
    started = time.perf_counter(), _processor_seconds()
    results = _train(home, setup, points, tuple(dict.fromkeys(seeds)), jobs, device, progress)
    cost = {
        "wall_seconds": round(time.perf_counter() - started[0], 1),
        "processor_seconds": round(_processor_seconds() - started[1], 1),
    }
    return _finish(home, name, experiment, results, cost)


def _finish(
    home: Path, name: str, experiment: Experiment, results: Results, cost: Mapping[str, float]
) -> FinishedExperiment:
    """Conclude, and write all files but the runs' own."""
    conclusions = tuple(experiment.conclude(results))
    table = published_table(name, results.setup.classes) if results.setup.paper else None
    content = _content(name, experiment, results, conclusions, table, cost, home)
    _write(home / FILE, _as_text(content))
    _write(home / "results.csv", results.csv())
    save_figure(experiment.draw(results, table), home / "chart")
    return FinishedExperiment(home, results, conclusions, content)


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


def _as_text(content: Mapping[str, Any]) -> str:
    """Return JSON with one line for each entry, and for each element of a list of objects."""

    def shown(value: Any) -> str:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines = ",\n    ".join(to_json(one, ensure_ascii=False) for one in value)
            return f"[\n    {lines}\n  ]"
        return to_json(value, ensure_ascii=False)

    lines = ",\n".join(f"  {to_json(key)}: {shown(value)}" for key, value in content.items())
    return f"{{\n{lines}\n}}\n"


def _hash(points: Sequence[Point]) -> str:
    text = "".join(point.recipe.identity for point in points)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _check_home(home: Path, name: str, size: str) -> None:
    if not (home / FILE).exists():
        return
    held = read_json(home / FILE)
    if (held.get("experiment"), held.get("size")) != (name, size):
        raise LongTailedError(
            f"{home} holds the experiment {held.get('experiment')!r} in size {held.get('size')}; "
            "choose another directory with --out."
        )


def _processor_seconds() -> float:
    """Return the processor time of this process and of its ended children."""
    return sum(os.times()[:4])


def _train(
    home: Path,
    setup: Setup,
    points: tuple[Point, ...],
    seeds: tuple[int, ...],
    jobs: int,
    device: str,
    progress: bool,
) -> Results:
    # Seed by seed, so that an interrupted experiment can be concluded with fewer seeds.
    places = [(point, seed) for seed in seeds for point in points]
    tasks = [
        Task(seeded(point.recipe, seed), home / point.name / f"seed-{seed}", device, report=False)
        for point, seed in places
    ]
    console = Console(stderr=True)
    runs: list[FinishedRun] = list(
        track(
            train_all(tasks, jobs),
            description=f"{len(points)} points x {len(seeds)} seeds",
            total=len(tasks),
            console=console,
            transient=True,
            disable=not (progress and console.is_terminal),
        )
    )
    outcomes = [outcome_of(run, place[0].name) for run, place in zip(runs, places, strict=True)]
    grouped = {p.name: [one for one in outcomes if one.point == p.name] for p in points}
    return Results(setup, points, seeds, grouped)


def _content(
    name: str,
    experiment: Experiment,
    results: Results,
    conclusions: Sequence[Conclusion],
    table: Mapping[str, Any] | None,
    cost: Mapping[str, float],
    home: Path,
) -> dict[str, Any]:
    setup, first = results.setup, results.points[0]
    manifest = RunDirectory(home / first.name / f"seed-{results.seeds[0]}").manifest
    return {
        "experiment": name,
        "summary": experiment.summary,
        "size": setup.size,
        "coarse": setup.coarse,
        "data": {"source": manifest["source"], "class_names": manifest["class_names"]},
        "seeds": list(results.seeds),
        "interval": LEVEL,
        "accuracies": "percent of the test images after the last epoch",
        "tested_on": manifest["tested_on"],
        "conclusions": [one.as_json() for one in conclusions],
        "points": results.table(),
        "runs": [one.as_json() for p in results.points for one in results.outcomes[p.name]],
        "published": table,
        "settings": _settings(first),
        "last_call": cost,
        **{key: manifest[key] for key in ("hardware", "versions", "parameters")},
    }


def _settings(point: Point) -> dict[str, Any]:
    """Return the first point's recipe; the others differ in class sizes and their settings."""
    values = point.recipe.model_dump(mode="json", exclude_defaults=True)
    source = Path(values.get("data", {}).get("source", "digits")).name
    return {**values, "data": {**values.get("data", {}), "source": source}}
