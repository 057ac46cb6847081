"""Two processes on the CPU share what the semantic methods collect, and freeze alike."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from longtailed.data import Batch
from longtailed.methods import RISDA, Progress
from longtailed.nn import build_network

SCRIPT = """
import sys
from pathlib import Path
import numpy as np
import torch
from longtailed.data import Batch, ImageSet, Splits, parse_view
from longtailed.training.engine import make_fabric
from longtailed.training.fit import fit
from longtailed.training.job import Job
from longtailed.training.options import FitOptions
from longtailed.methods import RISDA, MetaSAug, Progress
from longtailed.nn import build_network
from longtailed.training.optim import Optimizer

torch.set_num_threads(1)
home = Path(sys.argv[1])
fabric = make_fabric("cpu")
rank = fabric.global_rank
images, labels = torch.load(home / "given.pt")

def network():
    torch.manual_seed(0)
    return build_network("resnet8", 4, width=0.5)

def own(seed=0):
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    part = order.chunk(2)[rank]
    return Batch((images[part],), labels[part], part)

def progress(epoch):
    now = Progress(10, 4, torch.Generator())
    now.enter(epoch, 0.1)
    return now

def metasaug():
    method = MetaSAug(
        network(), [24, 12, 6, 3], start=0, persist=True, meta="normalized", meta_lr=0.5
    ).train()
    for step in range(2):  # at the first the covariances are empty
        method.loss({"train": own(step), "meta": own(step + 9)}, progress(8))
    return method.statistics.state_dict()

def counted():
    method = RISDA(network(), [24, 12, 6, 3]).eval()
    method.loss({"train": own()}, progress(0))
    return method.graph

class Frozen(RISDA):
    def begin(self, run):
        self.taken = []

    def end_epoch(self, run, progress):
        super().end_epoch(run, progress)
        self.taken.append([p.detach().clone() for p in self.network.parameters()])

def frozen():
    pixels = (60 * images + 128).clamp(0, 255).to(torch.uint8)
    split = ImageSet(pixels, labels.numpy(), tuple("abcd"), name="noise")
    splits = Splits(
        sets={"train": split}, views={"standard": parse_view("")}, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    method = Frozen(network(), [24, 12, 6, 3], start=2, freeze_start=1)
    optimizer = Optimizer(lr=0.05, weight_decay=0.01)
    options = FitOptions(epochs=3, batch_size=16, optimizer=optimizer)
    fit(method, Job(fabric, splits, options, show_progress=False))
    return method.taken

torch.save((metasaug(), counted(), frozen()), home / f"{rank}.pt")
"""


@pytest.fixture(scope="module")
def given() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(48, 3, 8, 8, generator=generator), torch.arange(48) % 4


@pytest.fixture(scope="module")
def results(given, tmp_path_factory):
    """What each of the two processes ends with; starting them is what takes the time."""
    home: Path = tmp_path_factory.mktemp("two")
    torch.save(given, home / "given.pt")
    (home / "script.py").write_text(SCRIPT)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = subprocess.run(
        [sys.executable, *torchrun, str(home / "script.py"), str(home)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    return [torch.load(home / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_two_processes_move_the_covariances_alike(results):
    first, second = (statistics for statistics, _, _ in results)
    assert first["count"].sum() == 2 * 48
    for name, buffer in first.items():
        assert torch.equal(buffer, second[name]), name


def test_two_processes_count_the_predictions_of_both(results, given):
    images, labels = given
    torch.manual_seed(0)
    method = RISDA(build_network("resnet8", 4, width=0.5), [24, 12, 6, 3]).eval()
    method.loss({"train": Batch((images,), labels, labels)}, Progress(10, 4, torch.Generator()))
    assert method.graph.sum() == 48
    for _, graph, _ in results:
        assert torch.equal(graph, method.graph)


def test_a_backbone_frozen_in_two_processes_does_not_move(results):
    ours, theirs = (taken for _, _, taken in results)
    for mine, other in zip(ours, theirs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))
    plain, frozen, augmented = ours  # freezing begins before augmentation does
    for before, after in ((plain, frozen), (frozen, augmented)):
        moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert not any(moved[:-2])
        assert all(moved[-2:])
