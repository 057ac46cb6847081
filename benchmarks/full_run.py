"""A whole run, captured and eager: seconds and accuracy over several seeds.

    python benchmarks/full_run.py cifar10-lt-ce data.source=... precision=bf16 --seeds 0-2

On one GPU the aim is 200 epochs of CIFAR-10-LT (imbalance 100, ResNet-32, batch 128, evaluation
every 10 epochs) in under 30 s, captured and eager equally accurate within the spread over seeds.
The two take turns, seed by seed; on a CPU, where nothing is captured, there is the eager run only.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

import torch
from record import record

from longtailed.recipes import override
from longtailed.runs.run import as_recipe, train
from longtailed.runs.seeds import parse_seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--seeds", default="0-2")
    parser.add_argument("--name", default="full_run")
    options = parser.parse_args()
    recipe = as_recipe(options.recipe, overrides=options.overrides)
    modes = ("always", "never") if torch.cuda.is_available() else ("never",)
    figures: dict[str, dict[str, list[float]]] = {
        mode: {"train_seconds": [], "total_seconds": [], "top1": []} for mode in modes
    }
    with tempfile.TemporaryDirectory() as home:
        for seed in parse_seeds(options.seeds):
            for mode in modes:
                chosen = override(recipe, {"seed": seed, "capture": mode})
                started = time.perf_counter()
                results = train(chosen, out=f"{home}/{mode}-{seed}", progress=False).results
                row = figures[mode]
                row["total_seconds"].append(round(time.perf_counter() - started, 2))
                row["train_seconds"].append(round(results["train_seconds"], 2))
                row["top1"].append(results["evaluations"]["last"]["top1"])
    summary = {mode: {"mean_top1": statistics.fmean(row["top1"])} for mode, row in figures.items()}
    command = f"python benchmarks/full_run.py {options.recipe} {' '.join(options.overrides)}"
    record(options.name, command, {"runs": figures, "summary": summary})


if __name__ == "__main__":
    main()
