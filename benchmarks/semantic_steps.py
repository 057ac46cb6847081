"""A step of ISDA, RISDA and MetaSAug against a step of plain cross-entropy, in alternation.

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE python benchmarks/semantic_steps.py [--rounds 12]

ResNet-32 on ready batches of 100 random images of CIFAR's size, in channels_last: loss, backward
and the update by SGD; MetaSAug with a meta batch of 100. In each round every method takes a step,
in one process, so that what else the machine does hits all of them; the processor time is the
steadier clock on a shared one. Ratios are medians over the rounds. `spelled_out` is MetaSAug with
the meta gradient by double differentiation, the graph of second order that the authors build.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import torch
from record import record
from torch.func import functional_call

from longtailed.data import Batch
from longtailed.methods import METHODS, Progress
from longtailed.nn import build_network

BATCH = 100


def random_batch(classes: int, device: torch.device, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(BATCH, 3, 32, 32, generator=generator).to(device)
    labels = torch.randint(classes, (BATCH,), generator=generator).to(device)
    return Batch((images.to(memory_format=torch.channels_last),), labels, labels)


def make_step(name: str, classes: int, device: torch.device, bf16: bool) -> Callable[[], None]:
    """Return one whole training step of the method, in its second stage."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network("resnet32", classes).to(memory_format=torch.channels_last)
    options = {"start": 0} if name.startswith("metasaug") else {}
    method = METHODS[name](network, [500] * classes, **options).to(device).train()
    optimizer = torch.optim.SGD(method.parameters(), lr=1e-3, momentum=0.9, fused=True)
    batches = {key: random_batch(classes, device, i) for i, key in enumerate(("train", "meta"))}
    progress = Progress(200, 100, torch.Generator(device))
    progress.enter(165, 1e-3)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            (loss,) = method.loss(batches, progress).values()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def second_order(model, logits, record, criterion, covariance, batch, meta_batch, inner_lr):
    """Return the meta gradient by differentiating twice, as the authors do."""
    leaf = covariance.clone().requires_grad_()
    parameters = dict(model.named_parameters())
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    logits = functional_call(model, {**parameters, **buffers}, (batch[0],))[1]
    loss = criterion(logits.float(), batch[1], model.head.weight, leaf)
    gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
    ahead = {n: p - inner_lr * g for (n, p), g in zip(parameters.items(), gradients, strict=True)}
    logits = functional_call(model, {**ahead, **buffers}, (meta_batch[0],))[1]
    loss = torch.nn.functional.cross_entropy(logits.float(), meta_batch[1])
    return torch.autograd.grad(loss, leaf)[0]


def spelled_out(step: Callable[[], None]) -> Callable[[], None]:
    """Return a step of MetaSAug that uses `second_order`."""

    def changed() -> None:
        with patch("longtailed.methods.metasaug.gradient_from_logits", second_order):
            step()

    return changed


def clocks(device: torch.device) -> np.ndarray:
    """Return wall time and this process's processor time, in seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


def seconds(step: Callable[[], None], device: torch.device) -> np.ndarray:
    started = clocks(device)
    step()
    return clocks(device) - started


def measure(
    names: list[str], classes: int, rounds: int, device: torch.device, bf16: bool
) -> dict[str, object]:
    """Return milliseconds a step and the ratio to cross-entropy's step of the same round."""
    steps = {name: make_step(name, classes, device, bf16) for name in names}
    if "metasaug" in steps:
        steps["metasaug spelled_out"] = spelled_out(make_step("metasaug", classes, device, bf16))
    for step in steps.values():
        for _ in range(2):
            step()
    times: dict[str, list[np.ndarray]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(seconds(step, device))
    plain = np.array(times["ce"])
    return {name: figures_of(np.array(own), plain) for name, own in times.items()}


def figures_of(own: np.ndarray, plain: np.ndarray) -> dict[str, float]:
    """Return the medians of a method's times [rounds, 2] and of its ratios to the plain step."""
    wall, processor = np.median(own / plain, axis=0)
    return {
        "wall_ms": round(1e3 * float(np.median(own[:, 0])), 1),
        "processor_ms": round(1e3 * float(np.median(own[:, 1])), 1),
        "wall_ratio": round(float(wall), 3),
        "processor_ratio": round(float(processor), 3),
        "ratio_of_best": round(float(own[:, 0].min() / plain[:, 0].min()), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--methods", nargs="*", default=["isda", "risda", "metasaug"])
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    figures = {
        f"{classes} classes": measure(
            ["ce", *options.methods], classes, options.rounds, device, options.bf16
        )
        for classes in (10, 100)
    }
    command = "OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE python benchmarks/semantic_steps.py"
    record("semantic_steps", command, {"batch": BATCH, "bf16": options.bf16, **figures})


if __name__ == "__main__":
    main()
