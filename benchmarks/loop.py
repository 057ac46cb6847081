"""The loop's own cost: `fit` against a bare PyTorch loop, in alternation in one process.

    python benchmarks/loop.py [--precision 32 bf16] [--epochs 8]

Both train ResNet-32 with SGD at batch 128 on random pixels of CIFAR's size. `fit` does all that it
does in a real run but evaluation and checkpoints: order, crop, flip, normalise, sums of the terms,
the check for finite losses. The bare loop gets ready float batches: it is forward, backward and
update alone. The two take turns, step by step. On a shared machine the processor time of the
process is the steadier clock (with OMP_WAIT_POLICY=PASSIVE, so that waiting threads do not count).
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from lightning_fabric import Fabric
from record import record

from longtailed.data import ImageSet, Splits, parse_view
from longtailed.methods import CrossEntropy, Progress
from longtailed.nn import Network, build_network
from longtailed.training.engine import make_fabric
from longtailed.training.fit import fit
from longtailed.training.job import Job
from longtailed.training.options import FitOptions

STEPS, BATCH, CLASSES = 8, 128, 10


def random_images() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    size = (STEPS * BATCH, 3, 32, 32)
    pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    labels = np.arange(STEPS * BATCH) % CLASSES
    return ImageSet(pixels, labels, tuple(map(str, range(CLASSES))), name="random")


def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_network("resnet32", CLASSES).to(memory_format=torch.channels_last)


class Bare:
    """Forward, backward and update on a ready batch; nothing else."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric, self.network = fabric, network().to(fabric.device).train()
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4, fused=True
        )
        images = torch.randn(BATCH, 3, 32, 32, device=fabric.device)
        self.images = images.to(memory_format=torch.channels_last)
        self.labels = torch.arange(BATCH, device=fabric.device) % CLASSES

    def step(self) -> None:
        with self.fabric.autocast():
            logits = self.network(self.images)
        torch.nn.functional.cross_entropy(logits.float(), self.labels).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def clocks(device: torch.device) -> np.ndarray:
    """Return wall time and this process's processor time, in seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


class Timed(CrossEntropy):
    """Lets the bare loop take a step after each of `fit`'s, and notes how long both took."""

    def prepare(self, bare: Bare) -> Timed:
        self.bare = bare
        self.ours: list[np.ndarray] = []
        self.theirs: list[np.ndarray] = []
        self.resumed: np.ndarray | None = None
        return self

    def after_step(self, progress: Progress) -> None:
        device = self.class_counts.device
        ended = clocks(device)
        if self.resumed is not None:
            self.ours.append(ended - self.resumed)
        with torch.enable_grad():
            self.bare.step()
        self.resumed = clocks(device)
        if len(self.ours):
            self.theirs.append(self.resumed - ended)


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
    warm = STEPS  # the first steps warm up
    ours, theirs = np.array(method.ours[warm:]), np.array(method.theirs[warm:])
    figures: dict[str, object] = {"pairs": len(ours)}
    for clock, fit_seconds, bare_seconds in zip(
        ("wall", "processor"), ours.T, theirs.T, strict=True
    ):
        quartiles = np.quantile(fit_seconds / bare_seconds, [0.25, 0.5, 0.75])
        figures[clock] = {
            "fit_ms_per_step": round(1e3 * float(np.median(fit_seconds)), 1),
            "bare_ms_per_step": round(1e3 * float(np.median(bare_seconds)), 1),
            "ratio_of_medians": round(float(np.median(fit_seconds) / np.median(bare_seconds)), 4),
            "ratio_of_sums": round(float(fit_seconds.sum() / bare_seconds.sum()), 4),
            "pair_ratio_quartiles": [round(float(quartile), 4) for quartile in quartiles],
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--precision", choices=["32", "bf16"], nargs="*", default=["32"])
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    figures = {p: measure(p, options.epochs) for p in options.precision}
    record("loop", "python benchmarks/loop.py", {"steps_per_epoch": STEPS, **figures})


if __name__ == "__main__":
    main()
