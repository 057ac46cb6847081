"""Collects the figures of finished runs into one results file, each with the recipe it belongs to.

    python benchmarks/collect.py cifar10-semantic-short runs/ce runs/isda runs/digits/*/seed-*

A folder of runs `seed-0`, `seed-1`, ... may be named in place of its runs: it becomes one row with
mean and standard deviation.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from record import record

from longtailed.report.run_directory import RunDirectory
from longtailed.runs.directory import read_recipe
from longtailed.runs.run import FinishedRun
from longtailed.runs.seeds import spread


def finished(directory: Path) -> FinishedRun:
    return FinishedRun(directory, read_recipe(directory), RunDirectory(directory).results)


def row(directory: Path) -> dict[str, Any]:
    """Return what is kept of one run, or of several seeds of one recipe."""
    runs = [finished(one) for one in sorted(directory.glob("seed-*")) or [directory]]
    first = runs[0]
    kept: dict[str, Any] = {
        "recipe": first.recipe.model_dump(mode="json", exclude_defaults=True),
        "train_images": RunDirectory(first.directory).manifest["splits"]["train"]["images"],
        "seeds": [one.recipe.seed for one in runs],
        "train_seconds": [round(one.results["train_seconds"]) for one in runs],
    }
    kept["recipe"].get("data", {}).pop("source", None)  # a path of one machine
    for name, (mean, deviation) in spread(runs).items():
        kept[name] = round(100 * mean, 2)
        if deviation is not None:
            kept[f"{name}_sd"] = round(100 * deviation, 2)
    lines = (first.directory / "metrics.jsonl").read_text().splitlines()
    kept["metrics_of_last_epoch"] = json.loads(lines[-1]).get("metrics", {})
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--made-at", help="the commit that the runs were made at, if another")
    options = parser.parse_args()
    figures: dict[str, Any] = {"runs_made_at": options.made_at} if options.made_at else {}
    figures["runs"] = {directory.name: row(directory) for directory in options.runs}
    record(options.name, f"python benchmarks/collect.py {options.name} ...", figures)


if __name__ == "__main__":
    main()
