"""RSG's figures: the pairs of its critic, accuracy with and without generated samples."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from longtailed.data.streams import Batch
from longtailed.methods import RSG, Progress
from longtailed.nn import build_network
from longtailed.training.fit import fit
from longtailed.training.job import Job
from longtailed.training.optim import Optimizer
from longtailed.training.options import FitOptions

BEFORE, AFTER = 0, 9


def progress(epoch: int) -> Progress:
    here = Progress(10, 4, torch.Generator())
    here.enter(epoch, 0.1)
    return here


def images_and_labels(labels: tuple[int, ...]) -> dict[str, Batch]:
    images = torch.randn(len(labels), 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return {"train": Batch((images,), torch.tensor(labels), torch.arange(len(labels)))}


def small(**options: Any) -> RSG:
    torch.manual_seed(0)
    network = build_network("resnet8", 4, width=0.5)
    return RSG(network, [24, 12, 6, 3], num_centers=3, contrastive_dim=8, **options).train()


@pytest.mark.parametrize("padded", [True, False])
def test_metrics_are_rates_over_the_epoch(padded: bool) -> None:
    method = small(padded=padded)
    seen: list[tuple[Tensor, Tensor]] = []
    method.network.head.register_forward_hook(lambda _m, _i, out: seen.append(out.argmax(1)))
    epoch: Any = [(0, 1, 0, 0, 1, 2), (0, 0, 3, 0, 0, 3), (0, 2, 2, 0, 0, 3)]
    for now in (BEFORE, AFTER):
        images, rows = [], []
        for labels in epoch:
            seen.clear()
            method(images_and_labels(labels), progress(now))
            enlarged = list(labels)
            if now == AFTER:  # pairs of the p-th head and tail sample, each repeated in turn
                tails = [label for label in labels if label]
                heads = len(labels) - len(tails)
                fewer, more = min(heads, len(tails)), max(heads, len(tails))
                enlarged += [tails[p % len(tails)] for p in range(more // fewer * fewer)]
            right = [bool(a == b) for a, b in zip(seen[0].tolist(), enlarged, strict=False)]
            images += right[: len(labels)]
            rows += right
        method.end_epoch(None, progress(now))
        found = {name: value.item() for name, value in method.metrics().items()}
        assert found == pytest.approx(
            {
                "same_class_pairs": (2 + 3 + 1) / 9,
                "train_accuracy": sum(images) / 18,
                "train_accuracy_enlarged": sum(rows) / len(rows),
            }
        )
        assert len(rows) > 18 if now == AFTER else len(rows) == 18
        assert not method.tallies.any()


def test_metrics_stand_in_the_journal(splits, fabric, tmp_path) -> None:
    options = FitOptions(epochs=2, batch_size=12, optimizer=Optimizer(lr=0.05))
    job = Job(fabric, splits, options, directory=tmp_path, show_progress=False)
    fit(small(generate_start=1), job)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    for line in lines:
        metrics = json.loads(line)["metrics"]
        assert list(metrics) == ["same_class_pairs", "train_accuracy", "train_accuracy_enlarged"]
        assert all(0 < value < 1 for value in metrics.values())
    first, second = (json.loads(line)["metrics"] for line in lines)
    assert first["train_accuracy"] == first["train_accuracy_enlarged"]
    assert second["train_accuracy"] != second["train_accuracy_enlarged"]
