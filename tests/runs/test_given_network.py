"""Runs with a network that is given in Python as a module."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from PIL import Image
from torch import nn

from longtailed import build_network, evaluate, predict, restore, train
from longtailed.errors import LongTailedError


class Features(nn.Module):
    """A user's backbone: features [N, 12], or maps [N, 12, H, W]."""

    def __init__(self, seed: int = 0, pooled: bool = True, width: int = 12) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.convolution = nn.Conv2d(3, width, 3, stride=2)
        self.norm = nn.BatchNorm2d(width)
        self.pooled = pooled

    def forward(self, images):
        maps = self.norm(self.convolution(images)).relu()
        return maps.mean(dim=(2, 3)) if self.pooled else maps


def run_with(network, out="run", method="ce", **changes):
    return train(
        data="digits",
        network=network,
        method=method,
        imbalance=10,
        overrides={"epochs": 1, "batch_size": 64, **changes},
        out=out,
        device="cpu",
        progress=False,
        report=False,
    )


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_module_is_trained_and_brought_back() -> None:
    module = Features()
    before = copy.deepcopy(module.state_dict())
    run = run_with(module, out=None)
    assert all(torch.equal(module.state_dict()[key], before[key]) for key in before)  # a copy
    assert run.recipe.name == "digits-10-ce-Features"
    with pytest.raises(LongTailedError, match="Features, was given in Python and cannot be built"):
        evaluate(run.directory, device="cpu")
    found = evaluate(run.directory, network=Features(seed=1), device="cpu").figures
    last = run.results["evaluations"]["last"]
    assert found["balanced_accuracy"] == last["balanced_accuracy"]
    _, method, _ = restore(run.directory, network=module)
    trained = method.network.backbone.module.state_dict()
    assert not torch.equal(trained["convolution.weight"], before["convolution.weight"])
    Image.new("RGB", (8, 8)).save("black.png")
    (prediction,) = predict(run.directory, "black.png", network=module, device="cpu")
    assert len(prediction.classes) == 5


def test_a_run_is_known_by_the_weights_it_began_from() -> None:
    run = run_with(Features())
    assert run_with(Features()).results == run.results
    with pytest.raises(LongTailedError, match="the weights that it began from are others"):
        run_with(Features(seed=1))
    with pytest.raises(LongTailedError, match="was given in Python"):
        train(run.recipe, out="other", device="cpu", progress=False)
    (run.directory / "results.json").unlink()  # as if it had been stopped after its last epoch
    resumed = run_with(Features())
    assert resumed.results["evaluations"] == run.results["evaluations"]
    manifest = json.loads((run.directory / "manifest.json").read_text())
    assert list(manifest["initial_weights"]) == ["network"]


@pytest.mark.parametrize(
    ("network", "method"),
    [
        (Features(pooled=False), "ldam"),
        (build_network("resnet8", 10, width=0.25).backbone, "rsg"),
        (build_network("resnet8", 10, width=0.25), "ce"),
        (Features(), "isda"),
    ],
)
def test_forms_of_modules(network, method: str) -> None:
    assert run_with(network, method=method).results["evaluations"]


@pytest.mark.parametrize(
    ("network", "changes", "reason"),
    [
        (Features(width=10), {}, "as many as there are classes"),
        (nn.Linear(3, 3), {}, r"Linear fails on images \[2, 3, 8, 8\]"),
        (nn.Flatten(0), {}, r"for 2 it gives \[384\]"),
        (build_network("resnet8", 4, width=0.25), {}, "is for 4 classes, but there are 10"),
        (Features(), {"network.options.width": 0.5}, "not for a module"),
        (Features(), {"method": "rsg"}, "RSG needs maps"),
        (Features(), {"method": "crt"}, "nothing has trained it"),
    ],
)
def test_unsuitable_modules_are_refused(network, changes, reason: str) -> None:
    changes = dict(changes)
    with pytest.raises(LongTailedError, match=reason):
        run_with(network, method=changes.pop("method", "ce"), **changes)


def test_trained_weights_are_fine_tuned() -> None:
    scratch = run_with(Features(), out="scratch").recipe.stages[0]
    tuned = run_with(Features(), out="tuned", **{"network.pretrained": True})
    assert tuned.recipe.stages[0].optimizer.lr < scratch.optimizer.lr
