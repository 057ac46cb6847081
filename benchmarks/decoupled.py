"""Pre-training steps against a plain one, and classifier stages on a frozen backbone.

    python benchmarks/decoupled.py --rounds 8

Steps: ResNet-32, batch 128, forward, backward and update, the methods taking turns. Stages: the
sizes of CIFAR-10-LT at imbalance 100 (12,406 random images); first one pass that computes the
features of a split, then each stage of `cifar10-lt-<method>` with `fit` on the features that are
there. Pixels are random, which no cost here depends on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from record import record

from longtailed.data import ImageSet, Splits, long_tail_counts, view_preset
from longtailed.methods import Progress, build_method
from longtailed.nn import build_network
from longtailed.recipes.decoupled import CLASSIFIERS, retraining
from longtailed.training.engine import make_fabric
from longtailed.training.features import FeatureStore
from longtailed.training.fit import fit
from longtailed.training.job import Job

COUNTS = long_tail_counts(10, 5000, 100)
BARS = {"rotation": None, "moco": 2.6}


def clocks() -> np.ndarray:
    """Return wall time and this process's processor time, in seconds."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


def random_set(counts: list[int]) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    size = (sum(counts), 3, 32, 32)
    pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, np.repeat(np.arange(10), counts), tuple("abcdefghij"), name="random")


def random_splits(device: torch.device) -> Splits:
    views = {"standard": view_preset("small", 32), "sim": view_preset("simclr-small", 32)}
    return Splits(
        sets={"train": random_set(COUNTS), "holdout": random_set([10] * 10)},
        views={**views, "test": view_preset("none", 32)},
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        device=device,
    )


def step_of(name: str, splits: Splits, batch: int) -> Callable[[], None]:
    """Return forward, backward and update of a method on one ready batch."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network("resnet32", 10).to(memory_format=torch.channels_last)
        method = build_method(name, network, COUNTS).to(splits.device).train()
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.01, momentum=0.9, fused=True)
    progress = Progress(200, 8, torch.Generator(splits.device).manual_seed(0))
    progress.enter(0, 0.01)
    feed = splits.open("train", method.streams["train"], batch, seed=0)
    batches = {"train": next(feed.epoch(0, 1))}

    def step() -> None:
        torch.autograd.backward(torch.stack([*method.loss(batches, progress).values()]).sum())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            method.after_step(progress)

    return step


def measure_steps(rounds: int, batch: int) -> dict[str, object]:
    splits = random_splits(make_fabric().device)
    steps = {name: step_of(name, splits, batch) for name in ("ce", *BARS)}
    taken: dict[str, list[np.ndarray]] = {name: [] for name in steps}
    for _ in range(rounds + 2):  # the first two warm up
        for name, step in steps.items():
            started = clocks()
            step()
            taken[name].append(clocks() - started)
    seconds = {name: np.array(values[2:]) for name, values in taken.items()}
    return {
        name: {
            "over_plain_wall_and_processor": np.median(seconds[name] / seconds["ce"], axis=0)
            .round(3)
            .tolist(),
            "bar": bar,
        }
        for name, bar in BARS.items()
    }


def measure_stages() -> dict[str, object]:
    """Return the seconds of the pass over the images and of each stage that follows it."""
    fabric = make_fabric()
    splits = random_splits(fabric.device)
    store = FeatureStore(splits, fabric)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network("resnet32", 10).to(memory_format=torch.channels_last)
    network.to(fabric.device)
    seconds: dict[str, list[float]] = {}
    for split in splits.sets:
        started = clocks()
        store.of(network, split)
        seconds[f"features of {split}"] = (clocks() - started).round(2).tolist()
    for name in CLASSIFIERS:
        stage = retraining(name)
        method = build_method(name, network, COUNTS, **stage.options)
        job = replace(Job(fabric, splits, stage, show_progress=False), features=store)
        started = clocks()
        fit(method, job)
        seconds[name] = (clocks() - started).round(2).tolist()
    return {"images": sum(COUNTS), "seconds_wall_and_processor": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batch", type=int, default=128)
    options = parser.parse_args()
    figures = {
        "steps": measure_steps(options.rounds, options.batch),
        "stages": measure_stages(),
    }
    record("decoupled", f"python benchmarks/decoupled.py --rounds {options.rounds}", figures)


if __name__ == "__main__":
    main()
