"""Two processes on the CPU contrast the whole batch, with the loss and gradients of one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = """
import sys
from pathlib import Path
import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from longtailed.data import Batch, ImageSet, Splits, parse_view
from longtailed.training.engine import make_fabric
from longtailed.training.fit import fit
from longtailed.training.job import Job
from longtailed.training.options import FitOptions
from longtailed.methods import BalancedContrastive, Progress, build_method
from longtailed.nn import build_network
from longtailed.training.optim import Optimizer

torch.set_num_threads(1)
home = Path(sys.argv[1])
fabric = make_fabric("cpu")
rank = fabric.global_rank
generator = torch.Generator().manual_seed(1)
views = torch.randn(3, 12, 3, 8, 8, generator=generator, dtype=torch.float64)
labels = torch.tensor([0, 0, 1, 0, 2, 0, 0, 1, 0, 1, 3, 3])

def network():
    torch.manual_seed(0)
    return build_network("resnet8", 4, width=0.5)

class Double(BalancedContrastive):
    def embed(self, views):
        features = self.network.features(torch.cat(tuple(views)))
        logits = self.network.head(features[: len(views[0])])
        return logits, self.projection(features).unflatten(0, (len(views), -1))

    def prototypes(self):
        return self.prototype_head(self.network.head.weight)

def double(**options):
    # Batch-norm at rest: else it would normalise each process's images by themselves.
    return Double(network(), [24, 12, 6, 3], temperature=0.2, **options).double().eval()

def step(method, module, part):
    batch = Batch(tuple(views[:, part]), labels[part], labels[part])
    terms = module({"train": batch}, Progress(1, 1, torch.Generator()))
    sum(terms.values()).backward()
    gradients = {name: p.grad.clone() for name, p in method.named_parameters()}
    return {name: term.detach() for name, term in terms.items()}, gradients

def together(**options):
    method = double(**options)
    return step(method, DistributedDataParallel(method), torch.arange(12).chunk(2)[rank])

def alone(part):
    method = double()
    return step(method, method, part)

def trained(name):
    pixels = (60 * views[0].repeat(4, 1, 1, 1) + 128).clamp(0, 255).to(torch.uint8)
    train = ImageSet(pixels, labels.repeat(4).numpy(), tuple("abcd"), name="noise")
    view = parse_view("flip")
    named = {"strong": view, "sim": view, "standard": view}
    splits = Splits({"train": train}, named, (0.5,) * 3, (0.5,) * 3)
    method = build_method(name, network(), [24, 12, 6, 6], semantic_start=0)
    options = FitOptions(epochs=2, batch_size=8, optimizer=Optimizer(lr=0.05))
    fit(method, Job(fabric, splits, options, show_progress=False))
    return dict(method.named_parameters())

found = {
    "gathered": together(),
    "apart": together(gather=False),
    "weights": {name: p.detach() for name, p in trained("concutmix").items()},
}
distributed.destroy_process_group()
found["whole"] = alone(torch.arange(12))
found["halves"] = [alone(part) for part in torch.arange(12).chunk(2)]
torch.save(found, home / f"{rank}.pt")
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What each of the two processes ends with; starting them is what takes the time."""
    home: Path = tmp_path_factory.mktemp("two")
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


def assert_close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_two_processes_contrast_the_whole_batch(results):
    terms, gradients = results[0]["whole"]
    for found in results:
        assert_close(found["gathered"][0]["contrastive"], terms["contrastive"])
        assert_close(found["gathered"][1], gradients)
    adjusted = [found["gathered"][0]["logit_adjusted"] for found in results]
    assert_close(sum(adjusted) / 2, terms["logit_adjusted"])


def test_without_gathering_each_contrasts_its_own_images(results):
    halves = results[0]["halves"]
    for found, (terms, _) in zip(results, halves, strict=True):
        assert_close(found["apart"][0], terms)
        mean = {name: (halves[0][1][name] + halves[1][1][name]) / 2 for name in halves[0][1]}
        assert_close(found["apart"][1], mean)
    whole = results[0]["whole"][0]["contrastive"]
    assert abs(sum(terms["contrastive"] for terms, _ in halves) / 2 - whole) > 0.01


def test_two_processes_train_one_model_with_gathered_embeddings(results):
    first, second = (found["weights"] for found in results)
    for name, weight in first.items():
        assert bool(weight.isfinite().all())
        assert torch.equal(weight, second[name]), name
