"""Weights in files of training programs: found, or refused in a sentence; never in silence."""

from __future__ import annotations

import argparse
import json
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from longtailed.errors import LongTailedError
from longtailed.nn.weights import find_weights

NAMES = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean")


def state(start: float = 0.0, prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + name: torch.full((3,), start + i) for i, name in enumerate(NAMES)}


OWN = {**state(9), "bn.num_batches_tracked": torch.tensor(0)}
COUNT = {"bn.num_batches_tracked": torch.tensor(5)}
FC = {"fc.weight": torch.zeros(7, 3), "fc.bias": torch.zeros(7)}
PLAIN = {**state(), **COUNT, **FC}
EMA = {**state(50), **COUNT, **FC}


def prefixed(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


# What each program writes, and what must be said of it.
PROGRAMS = {
    "plain": (PLAIN, "5 tensors of weights.pth; left out: fc.weight, fc.bias"),
    "timm": (
        {
            "arch": "resnet10t",
            "state_dict": PLAIN,
            "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}},
            "args": argparse.Namespace(lr=0.1, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2)),
            "metric": np.float64(71.2),
            "state_dict_ema": EMA,
        },
        "5 tensors of weights.pth, under 'state_dict'; left out: fc.weight, fc.bias, "
        "'state_dict_ema' (a moving average of the weights), arch, optimizer, args, metric",
    ),
    "parallel": (
        {"state_dict": prefixed("module.", PLAIN), "best_acc1": torch.tensor(41.0)},
        "under 'state_dict' 'module.'; left out: module.fc.weight, module.fc.bias, best_acc1",
    ),
    "lightning": (
        {"state_dict": prefixed("model.", PLAIN), "pytorch-lightning_version": "2.0"},
        "under 'state_dict' 'model.'; left out: model.fc.weight, model.fc.bias, pytorch-lightning",
    ),
    "deit": (
        {"model_ema": EMA, "model": PLAIN},
        "under 'model'; left out: fc.weight, fc.bias, 'model_ema' (a moving average of the",
    ),
    "average alone": (
        {"state_dict_ema": PLAIN},
        "5 tensors of weights.pth, under 'state_dict_ema'",
    ),
    "moco": (
        {
            "state_dict": {
                **prefixed("module.encoder_k.", {**state(50), **COUNT}),
                **prefixed("module.encoder_q.", PLAIN),
                "module.queue": torch.zeros(2, 2),
            }
        },
        "under 'state_dict' 'module.encoder_q.'; left out: module.encoder_q.fc.weight, "
        "module.encoder_q.fc.bias, module.encoder_k (5 tensors), module.queue (1 tensors)",
    ),
    "classifier-balancing": (
        {
            "epoch": 3,
            "state_dict_best": {
                "feat_model": prefixed("module.", {**state(), **COUNT}),
                "classifier": prefixed("module.", FC),
            },
        },
        "under 'state_dict_best.feat_model' 'module.'; left out: epoch, state_dict_best.classifier",
    ),
    "other key": ({"net": PLAIN}, "under 'net'; left out: fc.weight, fc.bias"),
    "before 2018": ({**state(), **FC}, "4 tensors of weights.pth; left out: fc.weight, fc.bias"),
    "nothing else": ({**state(), **COUNT}, "5 tensors of weights.pth"),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_weights_are_found_and_every_key_is_accounted_for(program, tmp_path):
    content, note = PROGRAMS[program]
    torch.save(content, tmp_path / "weights.pth")
    found = find_weights(tmp_path / "weights.pth", OWN)
    for name, tensor in state().items():
        assert torch.equal(found.tensors[name], tensor), name
    assert note in found.note
    timm = ((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    assert found.statistics == (timm if program == "timm" else None)


def test_safetensors_bring_the_statistics_of_a_timm_config_beside_them(tmp_path):
    safetensors.torch.save_file(PLAIN, tmp_path / "model.safetensors")
    config = {"pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = find_weights(tmp_path / "model.safetensors", OWN)
    assert found.statistics == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


class Unsafe:
    """An object that runs code when it is read the usual way."""

    ran = False

    def __reduce__(self):
        return (setattr, (Unsafe, "ran", True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<html><body>Not found</body>", "is a text that begins with '<html>.*web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a text that begins with 'version http"),
        (b"\x80\x02 half a file", "cannot be read safely as a file of weights"),
        (
            nn.Linear(2, 2),
            r"holds Python objects \(torch\.nn\.modules\.linear\.Linear\) that could",
        ),
        ({"state_dict": PLAIN, "extra": Unsafe()}, r"holds Python objects \(builtins\.setattr, "),
        ({"epoch": 3}, "holds no weights"),
        ({"state_dict": prefixed("a.", FC)}, r"conv\.weight is missing"),
        ({**PLAIN, "extra.weight": torch.zeros(1)}, r"extra\.weight is not part of the backbone"),
        ({**PLAIN, "bn.bias": torch.zeros(1)}, r"bn\.bias has shape \[1\] instead of \[3\]"),
        ({**PLAIN, "bn.bias": torch.tensor([0, 0, torch.nan])}, r"bn\.bias holds NaN"),
    ],
)
def test_what_holds_no_weights_is_refused_in_a_sentence(content, message, tmp_path):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(LongTailedError, match=message) as caught:
        find_weights(path, OWN)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Unsafe.ran


def test_a_truncated_checkpoint_is_refused(tmp_path):
    torch.save(PLAIN, tmp_path / "weights.pth")
    whole = (tmp_path / "weights.pth").read_bytes()
    (tmp_path / "weights.pth").write_bytes(whole[: len(whole) // 2])
    assert not zipfile.is_zipfile(tmp_path / "weights.pth")
    with pytest.raises(LongTailedError, match="cannot be read safely"):
        find_weights(tmp_path / "weights.pth", OWN)
