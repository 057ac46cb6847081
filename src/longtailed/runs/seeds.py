"""One recipe trained with several seeds: the spread that a single run cannot show."""

from __future__ import annotations

import multiprocessing
import re
import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from longtailed.errors import LongTailedError
from longtailed.recipes import Recipe, override
from longtailed.report import write_report
from longtailed.runs.directory import default_directory
from longtailed.runs.run import FinishedRun, train

FIGURES = ("top1", "balanced_accuracy", "macro_f1", "ece")
GROUPS = ("many", "medium", "few")


def parse_seeds(text: str) -> list[int]:
    """Return the seeds that a text such as "0-4" or "1,5,7-9" means, without repeats.

    >>> parse_seeds("0-2,7")
    [0, 1, 2, 7]
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise LongTailedError(f"{text!r} names no seeds; write for example 0-4 or 1,5,7.")
        seeds += range(int(match[1]), int(match[2] or match[1]) + 1)
    return list(dict.fromkeys(seeds))


def train_seeds(
    recipe: Recipe,
    seeds: Sequence[int],
    *,
    out: str | Path | None = None,
    jobs: int = 1,
    device: str = "auto",
    devices: int = 1,
    progress: bool = True,
    tensorboard: bool = False,
) -> list[FinishedRun]:
    """Return the finished runs of a recipe with several seeds, and report them side by side.

    Each run has a directory `seed-<k>` below `out` (default: runs/<name>-<hash>), so that
    seeds can be added later and each resumes by itself. `jobs` runs share the device at a time,
    in processes of their own: small networks leave most of a GPU idle. The report is
    `out`/report.html. `device`, `devices` and `tensorboard` are those of `train`.

    Raises `LongTailedError` for several jobs of several processes each.
    """
    if jobs > 1 and devices > 1:
        raise LongTailedError(
            f"{jobs} jobs of {devices} processes each cannot share the devices; give either of "
            "the two."
        )
    home = Path(out) if out else default_directory(recipe)
    show = progress and jobs == 1
    tasks = [
        Task(
            override(recipe, {"seed": seed}),
            home / f"seed-{seed}",
            device,
            show,
            devices=devices,
            tensorboard=tensorboard,
        )
        for seed in seeds
    ]
    finished = list(train_all(tasks, jobs))
    write_report([one.directory for one in finished], home / "report.html")
    return finished


class Task(NamedTuple):
    """A run to be trained: its recipe and directory, and how it is shown."""

    recipe: Recipe
    out: Path
    device: str = "auto"
    progress: bool = False
    report: bool = True
    devices: int = 1
    tensorboard: bool = False


def train_all(tasks: Sequence[Task], jobs: int = 1) -> Iterator[FinishedRun]:
    """Yield the finished runs in the order of the tasks, `jobs` processes at a time."""
    if jobs == 1:
        yield from map(_train, tasks)
    else:
        spawn = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        with ProcessPoolExecutor(jobs, mp_context=spawn) as pool:
            yield from pool.map(_train, tasks)


def _train(task: Task) -> FinishedRun:
    return train(
        task.recipe,
        out=task.out,
        device=task.device,
        devices=task.devices,
        progress=task.progress,
        tensorboard=task.tensorboard,
        report=task.report,
    )


def spread(finished: Sequence[FinishedRun], evaluation: str = "last") -> dict[str, Any]:
    """Return name -> (mean, sample standard deviation) of an evaluation's figures over runs.

    The deviation of a single run is None; a figure that a run lacks (an absent group) is left out.
    """
    rows: dict[str, list[float]] = {}
    for one in finished:
        figures = one.results["evaluations"][evaluation]
        values = {name: figures[name] for name in FIGURES}
        values |= {name: figures["groups"][name] for name in GROUPS}
        for name, value in values.items():
            if value is not None:
                rows.setdefault(name, []).append(value)
    return {
        name: (statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
        for name, values in rows.items()
        if len(values) == len(finished)
    }
