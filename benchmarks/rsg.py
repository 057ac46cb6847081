"""RSG's own cost: the generator against a loop over samples and chunks, and a whole training step.

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE python benchmarks/rsg.py [--rounds 6]

The naive form is written as the method's text reads: centres repeated to the size of the maps,
one-hot products in double precision to pick a centre, gates computed where they are needed, a loop
over chunks of pairs with a growing batch, the critic's 3x3 convolution on whole maps. Both forms
have the same weights and must agree before they are timed. All forms take turns in one process; on
a shared machine the processor time is the steadier clock.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from record import record
from torch import Tensor
from torch.nn import functional

from longtailed.data import long_tail_counts
from longtailed.data.streams import Batch
from longtailed.methods import Progress, RareSampleGenerator, build_method
from longtailed.nn import build_network

BEFORE, AFTER = 0, 9
# Name, shape of the maps, classes, head samples in the batch. Plain shuffling at imbalance 100
# gives CIFAR-10 batches of two thirds head samples; the balanced sampler, with which the large sets
# are trained while samples are generated, gives a fifth.
CASES = (
    ("128x32x16x16, shuffled", (128, 32, 16, 16), 10, 83),
    ("32x1024x14x14, balanced", (32, 1024, 14, 14), 1000, 6),
    ("32x1024x14x14, shuffled", (32, 1024, 14, 14), 1000, 20),
)
# What was aimed at: how many times faster than the loop, and how many plain steps a step may take.
FACTORS = {name: 3 if shape[1] == 32 else 5 for name, shape, _, _ in CASES}
STEP = "ResNet-32 step, batch 128"
STEPS = {"rsg before / plain": 1.6, "rsg after / plain": 1.8, "rsg after, padded / plain": 1.8}
Outputs = tuple[Tensor, Tensor, Tensor, Tensor]


def naive(module: RareSampleGenerator, x: Tensor, y: Tensor, generate: bool) -> Outputs:
    fixed = x.detach()
    gates, centers = naive_gates(module, fixed, y), module.centers[y]
    batch = len(x)
    repeated = centers[..., None, None].repeat(1, 1, 1, *x.shape[2:])
    offsets = fixed[:, None].repeat(1, gates.shape[1], 1, 1, 1) - repeated
    cesc = (gates * (offsets**2).sum((2, 3, 4))).sum(1).mean()
    if not generate:
        half = batch // 2
        same = (y[:half] == y[half:]).long()
        logits = naive_critic(module, fixed[:half], fixed[half:])
        return x, y, cesc + functional.cross_entropy(logits, same), torch.zeros(())
    head_list = module.is_head.nonzero().flatten().tolist()
    known = torch.tensor(head_list).expand(batch, len(head_list))
    is_head = (y[:, None] == known).any(1)
    heads, tails = is_head.nonzero().flatten(), (~is_head).nonzero().flatten()
    fewer, more = min(len(heads), len(tails)), max(len(heads), len(tails))
    features, labels, losses = x, y, []
    for chunk in range(max(1, int(more * module.strength / max(fewer, 1))) if fewer else 0):
        part = slice(chunk * fewer, (chunk + 1) * fewer)
        head, tail = (heads[part], tails) if len(heads) >= len(tails) else (heads, tails[part])
        new, loss = naive_chunk(module, fixed, y, head, tail)
        features, labels = torch.cat((features, new)), torch.cat((labels, y[tail]))
        losses.append(loss)
    return features, labels, cesc, torch.stack(losses).mean()


def naive_gates(module: RareSampleGenerator, x: Tensor, y: Tensor) -> Tensor:
    pooled = functional.adaptive_avg_pool2d(x, 1).flatten(1)
    scores = torch.bmm(pooled[:, None], module.gate_weight[y])[:, 0] + module.gate_bias[y]
    return scores.softmax(1)


def naive_critic(module: RareSampleGenerator, u: Tensor, v: Tensor, frozen: bool = False) -> Tensor:
    for parameter in module.contrast.parameters():
        parameter.requires_grad_(not frozen)
    hidden = module.contrast.conv1(torch.cat((u, v), dim=1)).relu()
    return module.contrast.fc(
        functional.adaptive_avg_pool2d(module.contrast.conv2(hidden), 1).flatten(1)
    )


def naive_chunk(
    module: RareSampleGenerator, x: Tensor, y: Tensor, head: Tensor, tail: Tensor
) -> tuple[Tensor, Tensor]:
    moved = []
    for rows in (head, tail):
        gates = naive_gates(module, x[rows], y[rows]).detach()
        chosen = gates.cpu().numpy().argmax(1)
        one_hot = torch.from_numpy(np.eye(gates.shape[1])[chosen])[:, None]
        maps = module.centers.detach()[y[rows]][..., None, None].repeat(1, 1, 1, *x.shape[2:])
        nearest = torch.bmm(one_hot, maps.flatten(2).double()).float().view(x[rows].shape)
        moved.append(x[rows] - nearest)
    v, r = moved
    u = module.transform(v)
    different = torch.zeros(len(head), dtype=torch.int64)
    ce = functional.cross_entropy(naive_critic(module, x[head], u, frozen=True), different)
    first, second, third = (z.permute(0, 2, 3, 1).reshape(-1, z.shape[1]) for z in (u, v, r))
    norm = (first.norm(dim=1) - second.norm(dim=1)).abs().sum() / len(head)
    product = functional.normalize(first, dim=1) * functional.normalize(third, dim=1)
    return x[tail] + u, ce + norm + (1 - product.sum(1)).sum() / len(head)


def alternate(forms: dict[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Return median wall and processor seconds of each form, which take turns."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in forms}
    for _ in range(rounds + 1):
        for name, form in forms.items():
            wall, processor = time.perf_counter(), time.process_time()
            form()
            taken = time.perf_counter() - wall, time.process_time() - processor
            seconds[name].append(taken)
    return {name: np.median(values[1:], axis=0) for name, values in seconds.items()}


def shuffled_labels(batch: int, classes: int, heads: int) -> Tensor:
    """Return labels of which `heads` are of the first fifth of the classes, in random order."""
    generator = np.random.default_rng(0)
    fifth = classes // 5
    labels = np.append(
        generator.integers(0, fifth, heads), generator.integers(fifth, classes, batch - heads)
    )
    return torch.from_numpy(generator.permutation(labels))


def module_case(
    shape: tuple[int, ...], classes: int, heads: int, generate: bool, rounds: int
) -> dict[str, object]:
    torch.manual_seed(0)
    module = RareSampleGenerator(classes, shape[1], range(classes // 5))
    with torch.no_grad():
        module.centers.normal_()
    x, y = torch.randn(shape).relu(), shuffled_labels(shape[0], classes, heads)

    def step(form: Callable[..., Outputs], **options: bool) -> Outputs:
        module.requires_grad_(True)
        module.zero_grad()
        features = x.clone().requires_grad_()
        outputs = form(features, y, generate, **options)
        (outputs[0].sum() + 0.1 * outputs[2] + 0.01 * outputs[3]).backward()
        return outputs

    forms: dict[str, Callable[..., Outputs]] = {
        "naive": lambda *args: naive(module, *args),
        "ours": module,
    }
    expected, found = (step(form) for form in forms.values())
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    runs: dict[str, Callable[[], object]] = {
        name: partial(step, form) for name, form in forms.items()
    }
    runs["ours padded"] = lambda: step(module, padded=True)
    medians = alternate(runs, rounds)
    return {
        "heads_tails_pairs": [heads, shape[0] - heads, len(found[0]) - shape[0]],
        "milliseconds": {n: [round(1e3 * s, 1) for s in both] for n, both in medians.items()},
        "naive_over_ours": ratios(medians, "naive", "ours"),
        "naive_over_ours_padded": ratios(medians, "naive", "ours padded"),
    }


def ratios(medians: dict[str, np.ndarray], above: str, below: str) -> dict[str, float]:
    wall, processor = medians[above] / medians[below]
    return {"wall": round(float(wall), 3), "processor": round(float(processor), 3)}


def training_step(name: str, epoch: int, **options: object) -> Callable[[], None]:
    """Return one whole step of ResNet-32 on a batch of 128, ready to be called."""
    torch.manual_seed(0)
    network = build_network("resnet32", 10, "cosine").to(memory_format=torch.channels_last)
    method = build_method(name, network, long_tail_counts(10, 5000, 100), **options).train()
    groups = method.parameter_groups()
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, weight_decay=2e-4, fused=True)
    images = torch.randn(128, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    batch = Batch((images,), shuffled_labels(128, 10, 83), torch.arange(128))
    progress = Progress(10, 1, torch.Generator())
    progress.enter(epoch, 0.01)

    def step() -> None:
        sum(method({"train": batch}, progress).values()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def step_ratios(rounds: int) -> dict[str, object]:
    steps: dict[str, Callable[[], object]] = {
        "plain": training_step("ldam-drw", BEFORE),
        "rsg before": training_step("rsg-ldam-drw", BEFORE),
        "rsg after": training_step("rsg-ldam-drw", AFTER),
        "rsg after, padded": training_step("rsg-ldam-drw", AFTER, padded=True),
    }
    medians = alternate(steps, rounds)
    figures: dict[str, object] = {
        "milliseconds": {n: [round(1e3 * s, 1) for s in both] for n, both in medians.items()}
    }
    return figures | {f"{n} / plain": ratios(medians, n, "plain") for n in list(steps)[1:]}


def compare_with_bars(figures: dict[str, Any]) -> list[dict[str, object]]:
    """Return each bar with the figure (processor time) and whether it is met, also if it is not."""
    rows: list[dict[str, object]] = []
    for name, least in FACTORS.items():
        for phase in ("before", "after"):
            case = f"generator {name}, {phase} the start"
            for form in ("naive_over_ours", "naive_over_ours_padded"):
                found = figures[case][form]["processor"]
                rows.append({"case": case, "figure": form, "at least": least, "found": found})
                rows[-1]["met"] = found >= least
    for name, most in STEPS.items():
        found = figures[STEP][name]["processor"]
        rows.append({"case": STEP, "figure": name, "at most": most, "found": found})
        rows[-1]["met"] = found <= most
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=6)
    rounds = parser.parse_args().rounds
    figures: dict[str, object] = {"milliseconds_are": ["wall", "processor"], "rounds": rounds}
    for name, shape, classes, heads in CASES:
        for phase, generate in (("before", False), ("after", True)):
            figures[f"generator {name}, {phase} the start"] = module_case(
                shape, classes, heads, generate, rounds
            )
    figures[STEP] = step_ratios(rounds)
    figures["bars"] = compare_with_bars(figures)
    record("rsg", "python benchmarks/rsg.py", figures)


if __name__ == "__main__":
    main()
