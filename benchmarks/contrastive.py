"""Balanced contrastive loss and a whole ConCutMix step: time and memory.

    python benchmarks/contrastive.py [--rounds 12] [--batch 128]

* The loss, forward and backward, against the same loss written with dense masks and one-hot rows,
  in alternation in one process. Memory is the peak of what the two passes allocate (gradients
  included, the given features and prototypes not), from the profiler on a CPU.
* A ConCutMix step (three views, semantic labels on) against a plain step of the same batch:
  forward, backward and update of ResNet-32 on ready batches, and preparing the batches beside it.
  "foreground" is what preparing the mixed-in batch costs at every step: images in memory are
  prepared also where they are not used (files are decoded only where they are).

On a shared machine the processor time of the process is the steadier clock (with
OMP_WAIT_POLICY=PASSIVE, so that waiting threads do not count); a GPU's work only the wall shows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from record import record
from torch import Tensor
from torch.nn.functional import normalize
from torch.profiler import ProfilerActivity, profile

from longtailed.data import Batch, ImageSet, Splits, view_preset
from longtailed.data.augment.auto_augment import AutoAugment
from longtailed.data.augment.views import View
from longtailed.losses import balanced_contrastive_loss
from longtailed.methods import Method, Progress, build_method
from longtailed.nn import build_network

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
CASES = {"B=128, C=1000, d=1024": (128, 1000, 1024), "B=128, C=8142, d=1024": (128, 8142, 1024)}


def dense_loss(features: Tensor, labels: Tensor, prototypes: Tensor, temperature: float = 0.1):
    """Return the same loss from one table of all pairs, dense masks and one-hot rows."""
    views, classes = features.shape[1], len(prototypes)
    anchors = len(features) * views
    vectors = torch.cat([features.transpose(0, 1).flatten(0, 1), prototypes])
    labels = torch.cat([labels.repeat(views), torch.arange(classes, device=labels.device)])
    one_hot = torch.eye(classes, device=labels.device)[labels]
    similarities = vectors[:anchors] @ vectors.T / temperature
    similarities = similarities - similarities.max(dim=1, keepdim=True).values.detach()
    same = (labels[:anchors, None] == labels).float()
    others = 1 - torch.eye(anchors, anchors + classes, device=labels.device)
    sizes = (one_hot @ one_hot.sum(0)).expand(anchors, -1) - same
    denominators = (similarities.exp() * others / sizes.clamp_min(1)).sum(1, keepdim=True)
    log_ratios = similarities - denominators.log()
    positives = same * others
    return -((positives * log_ratios).sum(1) / positives.sum(1)).mean()


def example(batch: int, classes: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = normalize(torch.randn(batch, 2, dim, generator=generator), dim=-1)
    prototypes = normalize(torch.randn(classes, dim, generator=generator), dim=-1)
    labels = torch.randint(classes, (batch,), generator=generator)
    return (
        features.to(DEVICE).requires_grad_(),
        labels.to(DEVICE),
        prototypes.to(DEVICE).requires_grad_(),
    )


def both_passes(loss: Callable[..., Tensor], given: tuple[Tensor, Tensor, Tensor]) -> None:
    given[0].grad = given[2].grad = None
    loss(*given).backward()


def clocks() -> np.ndarray:
    if CUDA:
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


def alternate(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Return wall and processor time of each call in ms, [rounds, 2], the calls taking turns."""
    times: dict[str, list[np.ndarray]] = {name: [] for name in calls}
    for _ in range(rounds + 2):  # the first two warm up
        for name, call in calls.items():
            started = clocks()
            call()
            times[name].append(1e3 * (clocks() - started))
    return {name: np.array(values[2:]) for name, values in times.items()}


def compare(upper: np.ndarray, lower: np.ndarray) -> dict[str, object]:
    """Return the ratio of the medians and the quartiles of the pairs' ratios, by either clock."""
    medians = np.median(upper, axis=0) / np.median(lower, axis=0)
    quartiles = np.quantile(upper / lower, [0.25, 0.5, 0.75], axis=0)
    return {
        clock: {
            "ratio_of_medians": round(float(medians[k]), 3),
            "pair_ratio_quartiles": [round(float(q), 3) for q in quartiles[:, k]],
        }
        for k, clock in enumerate(("wall", "processor"))
    }


def medians(times: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Return the median wall and processor time of each call in ms."""
    return {k: [round(float(v), 2) for v in np.median(t, axis=0)] for k, t in times.items()}


def peak_mib(call: Callable[[], object]) -> float:
    """Return the most memory that `call` holds beyond what there was before it, in MiB."""
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        profiler.export_chrome_trace(file.name)
        events = json.loads(Path(file.name).read_text())["traceEvents"]
    events = sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: e["ts"])
    held = np.cumsum([event["args"]["Bytes"] for event in events])
    return float(held.max()) / 2**20


def measure_loss(sizes: tuple[int, int, int], rounds: int) -> dict[str, object]:
    given = example(*sizes)
    ours, dense = (loss(*given).item() for loss in (balanced_contrastive_loss, dense_loss))
    assert abs(ours - dense) < 1e-4 * dense, (ours, dense)
    calls = {
        "ours": lambda: both_passes(balanced_contrastive_loss, given),
        "dense": lambda: both_passes(dense_loss, given),
    }
    times = alternate(calls, rounds)
    memory = {}
    for name, call in calls.items():
        given[0].grad = given[2].grad = None
        memory[name] = peak_mib(call)
    gradients = sum(4 * tensor.numel() for tensor in given if tensor.requires_grad) / 2**20
    return {
        "ms_wall_and_processor": medians(times),
        "times_faster": compare(times["dense"], times["ours"]),
        "peak_mib": {name: round(value, 2) for name, value in memory.items()},
        "of_which_gradients_mib": round(gradients, 2),
        "times_less_memory": round(memory["dense"] / memory["ours"], 2),
    }


def random_splits(batch: int) -> Splits:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (8 * batch, 3, 32, 32), dtype=torch.uint8, generator=generator)
    images = ImageSet(
        pixels, np.arange(8 * batch) % 100, tuple(map(str, range(100))), name="random"
    )
    standard = view_preset("small", 32)
    return Splits(
        sets={"train": images},
        views={
            "standard": standard,
            "strong": View((*standard.ops, AutoAugment())),
            "sim": view_preset("simclr-small", 32),
        },
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        device=DEVICE,
    )


class Trained:
    """A method with its optimiser and batches that are drawn or given."""

    def __init__(self, name: str, splits: Splits, batch: int) -> None:
        options = {"semantic_start": 0} if name == "concutmix" else {}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = build_network("resnet32", 100).to(memory_format=torch.channels_last)
            method = build_method(name, network, [batch * 8 // 100 + 1] * 100, **options)
        self.method: Method = method.to(DEVICE).train()
        self.optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9, fused=True)
        self.progress = Progress(200, 8, torch.Generator(DEVICE).manual_seed(0))
        self.feeds = {
            key: splits.open(key, stream, batch, seed=0) for key, stream in method.streams.items()
        }
        self.draws = {key: feed.endless_draws(200) for key, feed in self.feeds.items()}
        self.batches: dict[str, Batch] = {}
        for key in self.feeds:
            self.draw(key)

    def draw(self, stream: str) -> None:
        feed, drawn = self.feeds[stream], next(self.draws[stream])
        feed.generator.manual_seed(drawn.seed)
        self.batches[stream] = feed.prepare(drawn.tensors)

    def step(self) -> None:
        sum(self.method(self.batches, self.progress).values()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def measure_step(rounds: int, batch: int) -> dict[str, object]:
    splits = random_splits(batch)
    plain, ours = Trained("ce", splits, batch), Trained("concutmix", splits, batch)
    calls: dict[str, Callable[[], None]] = {
        "plain step": plain.step,
        "concutmix step": ours.step,
        "plain batch": lambda: plain.draw("train"),
        "three views": lambda: ours.draw("train"),
        "foreground": lambda: ours.draw("mix"),
    }
    times = alternate(calls, rounds)
    whole = times["concutmix step"] + times["three views"] + times["foreground"]
    return {
        "batch": batch,
        "ms_wall_and_processor": medians(times),
        "concutmix_over_plain": compare(times["concutmix step"], times["plain step"]),
        "with_batches": compare(whole, times["plain step"] + times["plain batch"]),
        "foreground_over_whole": compare(times["foreground"], whole),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batch", type=int, default=128)
    options = parser.parse_args()
    figures = {name: measure_loss(sizes, 3 * options.rounds) for name, sizes in CASES.items()}
    figures["step"] = measure_step(options.rounds, options.batch)
    command = f"python benchmarks/contrastive.py --rounds {options.rounds} --batch {options.batch}"
    record("contrastive", command, figures)


if __name__ == "__main__":
    main()
