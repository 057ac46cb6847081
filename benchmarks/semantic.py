"""Semantic augmentation: time and memory of the losses and statistics, against the plain formulas.

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE python benchmarks/semantic.py

"Plain" is the formula with every tensor that the public code holds: N x C x A differences, an
N x C x C product of which the diagonal is kept, one-hot sums. Time: one of ours and one of theirs
in turn, in one process, losses with forward and backward from ready features; the figure is the
median of the pairs' ratios, with quartiles. Memory: growth of the peak resident size over what is
held before (inputs included), in a process of its own for each case and form, at its first call.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from record import record
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, one_hot

from longtailed.losses import ClassStatistics, isda_logits, risda_logits

STRENGTH, SHIFT = 0.3, 0.5


@dataclass(frozen=True)
class Case:
    """Sizes, what is measured at them, and the bars that were set."""

    what: str  # "isda", "risda" or "statistics"
    kind: str  # "full" or "diagonal"
    samples: int
    classes: int
    features: int
    rounds: int
    faster: float | None = None  # at least so many times
    smaller: float | None = None  # at least so many times
    mebibytes: float | None = None  # below so many
    compared: bool = True  # whether the plain formula fits in memory


CASES = {
    "ISDA full": Case("isda", "full", 128, 100, 64, 60, faster=5),
    "RISDA full": Case("risda", "full", 128, 100, 64, 60),
    "ISDA full, 10 classes": Case("isda", "full", 128, 10, 64, 60),
    "ISDA diagonal": Case("isda", "diagonal", 64, 1000, 2048, 8, faster=40, smaller=20),
    "ISDA diagonal, 8142 classes": Case(
        "isda", "diagonal", 512, 8142, 2048, 5, mebibytes=600, compared=False
    ),
    "statistics full": Case("statistics", "full", 128, 100, 64, 60),
    "statistics full, 10 classes": Case("statistics", "full", 128, 10, 64, 60),
    "statistics diagonal": Case("statistics", "diagonal", 64, 1000, 2048, 8, faster=100),
}


class Inputs:
    """Random features, labels, last layer and covariances of one case."""

    def __init__(self, case: Case) -> None:
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.case = case
        size = (case.classes, case.features)
        self.features = normal(case.samples, case.features).relu_()
        self.labels = torch.randint(case.classes, (case.samples,), generator=generator)
        self.statistics = ClassStatistics(*size, case.kind)
        if case.what == "statistics":
            return
        self.features.requires_grad_()
        self.weight = normal(*size).mul_(0.1).requires_grad_()
        self.bias = torch.zeros(case.classes, requires_grad=True)
        self.displacement = normal(*size).mul_(0.1) if case.what == "risda" else None
        covariance = self.statistics.covariance
        if case.kind == "full":
            root = normal(*size, case.features).mul_(0.1)
            torch.bmm(root, root.mT, out=covariance)
        else:
            covariance.uniform_(0, 1, generator=generator)

    def step(self, augment: Callable[[Inputs, Tensor], Tensor]) -> None:
        for leaf in (self.features, self.weight, self.bias):
            leaf.grad = None
        logits = augment(self, linear(self.features, self.weight, self.bias))
        cross_entropy(logits, self.labels).backward()


def ours(inputs: Inputs) -> None:
    if inputs.case.what == "statistics":
        inputs.statistics.update(inputs.features, inputs.labels)
    else:
        inputs.step(our_logits)


def plain(inputs: Inputs) -> None:
    if inputs.case.what == "statistics":
        plain_update(inputs.statistics, inputs.features, inputs.labels)
    else:
        inputs.step(plain_logits)


FORMS = {"ours": ours, "plain": plain}


def our_logits(inputs: Inputs, logits: Tensor) -> Tensor:
    rest = (logits, inputs.labels, inputs.weight, inputs.statistics.covariance)
    if inputs.displacement is None:
        return isda_logits(*rest, STRENGTH)
    return risda_logits(*rest, inputs.displacement, SHIFT, STRENGTH)


def plain_logits(inputs: Inputs, logits: Tensor) -> Tensor:
    labels, covariance = inputs.labels, inputs.statistics.covariance
    samples, (classes, features) = len(labels), inputs.weight.shape
    weight = inputs.weight.expand(samples, classes, features)
    chosen = labels[:, None, None].expand(samples, classes, features)
    difference = weight - weight.gather(1, chosen)
    if covariance.ndim == 3:
        products = torch.bmm(torch.bmm(difference, covariance[labels]), difference.mT)
        variance = (products * torch.eye(classes)).sum(dim=2)
    else:
        variance = (difference.square() * covariance[labels][:, None]).sum(dim=2)
    augmented = logits + 0.5 * STRENGTH * variance
    if inputs.displacement is not None:
        moved = torch.bmm(difference, inputs.displacement[labels][:, :, None]).squeeze(2)
        augmented = augmented + SHIFT * moved
    return augmented


def plain_update(statistics: ClassStatistics, features: Tensor, labels: Tensor) -> None:
    samples, (classes, size) = len(labels), statistics.mean.shape
    shape = (samples, classes, size)
    hot = one_hot(labels, classes).float()[:, :, None].expand(shape)
    own = features[:, None].expand(shape) * hot
    number = hot.sum(dim=0)
    divisor = number.clamp_min(1)
    mean = own.sum(dim=0) / divisor
    deviation = own - mean.expand(shape) * hot
    drift = statistics.mean - mean
    share = number / (number + statistics.count[:, None]).clamp_min(1)
    if statistics.covariance.ndim == 3:
        covariance = torch.bmm(deviation.permute(1, 2, 0), deviation.permute(1, 0, 2))
        covariance = covariance / divisor[:, :, None]
        between = torch.bmm(drift[:, :, None], drift[:, None])
        wide = share[:, :, None].expand_as(covariance)
    else:
        covariance = deviation.square().sum(dim=0) / divisor
        between, wide = drift.square(), share
    statistics.covariance = (
        statistics.covariance * (1 - wide) + covariance * wide + between * wide * (1 - wide)
    )
    statistics.mean = statistics.mean * (1 - share) + mean * share
    statistics.count = statistics.count + number[:, 0]


def check(case: Case) -> float:
    """Return the largest difference between the two forms' results, relative to the largest."""
    results = []
    for form in FORMS.values():
        inputs = Inputs(case)
        for _ in range(2):
            form(inputs)
        buffers = inputs.statistics
        is_loss = case.what != "statistics"
        result = inputs.weight.grad if is_loss else torch.clone(buffers.covariance)
        assert result is not None
        results.append(result)
    return float((results[0] - results[1]).abs().max() / results[1].abs().max())


def milliseconds(case: Case) -> dict[str, list[float]]:
    """Return the times of each form's calls, which take turns; the first round warms up."""
    inputs = {name: Inputs(case) for name in FORMS if case.compared or name == "ours"}
    times: dict[str, list[float]] = {name: [] for name in inputs}
    for _ in range(case.rounds + 1):
        for name, given in inputs.items():
            started = time.perf_counter()
            FORMS[name](given)
            times[name].append(1e3 * (time.perf_counter() - started))
    return {name: values[1:] for name, values in times.items()}


def resident(field: str) -> float:
    """Return this process's VmRSS (now) or VmHWM (at its peak), in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def print_memory(name: str, form: str) -> None:
    """Print the growth of the peak resident size during the first call, in MiB."""
    case = CASES[name]
    FORMS[form](Inputs(Case(case.what, case.kind, 16, 8, 32, 1)))  # loads what torch loads late
    inputs = Inputs(case)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the start
    before = resident("VmRSS")
    FORMS[form](inputs)
    print(resident("VmHWM") - before)


def mebibytes(name: str, form: str) -> float:
    command = [sys.executable, __file__, "--memory", name, form]
    return round(float(subprocess.check_output(command, text=True)), 1)


def measure(name: str) -> dict[str, object]:
    case = CASES[name]
    times = milliseconds(case)
    forms = list(times)
    memory = {form: mebibytes(name, form) for form in forms}
    figures: dict[str, object] = {
        "sizes": {"N": case.samples, "C": case.classes, "A": case.features},
        "median_ms": {form: round(float(np.median(times[form])), 2) for form in forms},
        "peak_extra_mib": memory,
    }
    bars: dict[str, bool] = {}
    if case.compared:
        quartiles = np.quantile(np.divide(times["plain"], times["ours"]), [0.25, 0.5, 0.75])
        ratio = memory["plain"] / max(memory["ours"], 0.1)
        figures["times_faster_quartiles"] = [round(float(quartile), 1) for quartile in quartiles]
        figures["times_smaller"] = round(ratio, 1)
        figures["largest_relative_difference"] = float(f"{check(case):.1e}")
        if case.faster:
            bars[f"{case.faster:g} times faster"] = bool(quartiles[1] >= case.faster)
        if case.smaller:
            bars[f"{case.smaller:g} times smaller"] = ratio >= case.smaller
    if case.mebibytes:
        bars[f"below {case.mebibytes:g} MiB"] = memory["ours"] < case.mebibytes
    return figures | ({"bars_met": bars} if bars else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--memory", nargs=2, metavar=("CASE", "FORM"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        print_memory(*options.memory)
        return
    losses = {name: measure(name) for name in options.cases}
    record("semantic", "python benchmarks/semantic.py", {"losses and statistics": losses})


if __name__ == "__main__":
    main()
