"""RSG with several processes: parts that a phase does not train stay as with one process."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from longtailed.data.streams import Batch
from longtailed.methods import RSG, Progress
from longtailed.nn import build_network
from longtailed.recipes import compose
from longtailed.runs import run
from longtailed.training.engine import make_fabric
from longtailed.training.optim import Optimizer

COUNTS = [24, 12, 6, 3]
PHASES = (0, 0, 9, 9, 0)  # the epochs of the steps, with generation from 8 on
BATCHES = [(0, 1, 0, 2, 0, 3, 0, 0), (0, 0, 0, 0, 0, 0, 0, 0)]  # the second one has no pairs


def train(method: RSG, module: nn.Module) -> dict[str, Tensor]:
    """Return the state after a few steps of `module`, which holds the method."""
    optimizer = Optimizer(weight_decay=0.1).build(method, method.parameter_groups())
    for step, epoch in enumerate(PHASES):
        progress = Progress(10, 4, torch.Generator())
        progress.enter(epoch, 0.1)
        labels = torch.tensor(BATCHES[step % 2])
        images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        batches = {"train": Batch((images,), labels, torch.arange(8))}
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(module(batches, progress).values())).sum().backward()
        optimizer.step()
    return method.state_dict()


@pytest.fixture
def process_group(tmp_path) -> Any:
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("padded", [True, False])
def test_exchanged_gradients_leave_resting_parts_alone(process_group, padded: bool) -> None:
    torch.manual_seed(0)
    network = build_network("resnet8", 4, width=0.5)
    method = RSG(network, COUNTS, num_centers=3, contrastive_dim=8, padded=padded).train()
    alone = copy.deepcopy(method)
    wrapped = DistributedDataParallel(method, find_unused_parameters=True)
    together, expected = train(method, wrapped), train(alone, alone)
    different = [n for n in expected if not torch.equal(together[n], expected[n])]
    assert different == []


@pytest.mark.parametrize("name", ["ce", "rsg"])
def test_a_run_looks_for_resting_parameters_where_a_method_has_them(
    name: str, monkeypatch, tmp_path
) -> None:
    asked: list[bool] = []

    def stop(*_: Any, idle_parameters: bool) -> None:
        asked.append(idle_parameters)
        raise InterruptedError

    monkeypatch.setattr(run, "make_fabric", stop)
    with pytest.raises(InterruptedError):
        run.train(compose("digits", name, "resnet8"), out=tmp_path / "run")
    assert asked == [name == "rsg"]


@pytest.mark.parametrize("idle", [True, False])
def test_the_engine_passes_it_on(idle: bool, monkeypatch) -> None:
    asked: list[str] = []

    class Recorded:
        def __init__(self, **options: Any) -> None:
            asked.append(options["strategy"])

        def launch(self) -> None:
            pass

    monkeypatch.setattr("longtailed.training.engine.Fabric", Recorded)
    make_fabric("cpu", 2, idle_parameters=idle)
    assert asked == ["ddp_find_unused_parameters_true" if idle else "ddp"]
