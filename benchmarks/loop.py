"""The loop's own cost: `fit` against a bare PyTorch loop, in alternation in one process.

    python benchmarks/loop.py [--precision bf16] [--epochs 8]

Both train ResNet-32 with SGD at batch 128 on random pixels of CIFAR's size. `fit` does all that it
does in a real run but evaluation and checkpoints: order, crop, flip, normalise, sums of the terms,
the check for finite losses. The bare loop gets ready float batches: it is forward, backward and
update alone. After each epoch of `fit` the same number of bare steps is timed.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from record import record

from longtailed.data import ImageSet, Splits, parse_view
from longtailed.engine import make_fabric
from longtailed.fit import fit
from longtailed.job import FitOptions, Job
from longtailed.methods import CrossEntropy
from longtailed.nn import build_network

STEPS, BATCH, CLASSES = 8, 128, 10


def random_images() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    size = (STEPS * BATCH, 3, 32, 32)
    pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    labels = np.arange(STEPS * BATCH) % CLASSES
    return ImageSet(pixels, labels, tuple(map(str, range(CLASSES))), name="random")


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_network("resnet32", CLASSES).to(memory_format=torch.channels_last)


class Bare:
    """Forward, backward and update on ready batches; nothing else."""

    def __init__(self, fabric) -> None:
        self.fabric, self.network = fabric, network().to(fabric.device).train()
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4, fused=True
        )
        images = torch.randn(BATCH, 3, 32, 32, device=fabric.device)
        self.images = images.to(memory_format=torch.channels_last)
        self.labels = torch.arange(BATCH, device=fabric.device) % CLASSES

    def run(self) -> list[float]:
        times = []
        for _ in range(STEPS):
            started = time.perf_counter()
            with self.fabric.autocast():
                logits = self.network(self.images)
            torch.nn.functional.cross_entropy(logits.float(), self.labels).backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            synchronize(self.fabric.device)
            times.append(time.perf_counter() - started)
        return times


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


class Timed(CrossEntropy):
    """Notes when each step of `fit` ends, and lets the bare loop run between epochs."""

    def prepare(self, bare: Bare) -> Timed:
        self.bare, self.ends, self.pairs = bare, [], []
        return self

    def after_step(self, progress) -> None:
        synchronize(self.class_counts.device)
        self.ends.append(time.perf_counter())

    def end_epoch(self, run, progress) -> None:
        ours = np.diff(self.ends).tolist()
        with torch.enable_grad():
            theirs = self.bare.run()[1:]
        self.pairs.append((statistics.median(ours), statistics.median(theirs)))
        self.ends.clear()


def measure(precision: str, epochs: int) -> dict[str, object]:
    fabric = make_fabric(precision=precision)
    splits = Splits(
        sets={"train": random_images()},
        views={"standard": parse_view("pad_crop(4), flip"), "test": parse_view("")},
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        device=fabric.device,
    )
    method = Timed(network(), [STEPS * BATCH // CLASSES] * CLASSES).prepare(Bare(fabric))
    fit(method, Job(fabric, splits, FitOptions(epochs=epochs), show_progress=False))
    pairs = method.pairs[1:]  # the first epoch warms up
    ratios = sorted(ours / theirs for ours, theirs in pairs)
    return {
        "fit_ms_per_step": round(1e3 * statistics.median(p[0] for p in pairs), 2),
        "bare_ms_per_step": round(1e3 * statistics.median(p[1] for p in pairs), 2),
        "ratio_median": round(statistics.median(ratios), 4),
        "ratio_min_max": [round(ratios[0], 4), round(ratios[-1], 4)],
        "epochs_compared": len(pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--precision", choices=["32", "bf16"], nargs="*", default=["32", "bf16"])
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    figures = {p: measure(p, options.epochs) for p in options.precision}
    record("loop", "python benchmarks/loop.py", {"steps_per_epoch": STEPS, **figures})


if __name__ == "__main__":
    main()
