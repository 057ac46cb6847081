from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from longtailed.errors import LongTailedError
from longtailed.nn import TimmBackbone

# A small member of every family: name, image size, number of stages, options.
FAMILIES: dict[str, tuple[int, int, dict[str, Any]]] = {
    "test_resnet": (32, 4, {}),
    "convnext_atto": (32, 4, {"depths": (1, 1, 2, 1)}),
    "regnety_002": (32, 4, {}),
    "test_byobnet": (32, 4, {}),
    "mobilenetv3_small_050": (32, 6, {}),
    "test_efficientnet": (32, 5, {}),
    "vit_tiny_patch16_224": (32, 4, {"depth": 6, "embed_dim": 48}),
    "deit_tiny_distilled_patch16_224": (32, 3, {"depth": 3, "embed_dim": 48}),
    "swin_tiny_patch4_window7_224": (
        32,
        4,
        {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 2)},
    ),
    "densenet121": (32, 1, {"growth_rate": 8, "block_config": (1, 2, 1, 1)}),  # unknown: one stage
    "levit_128s": (224, 1, {}),  # parts named like known ones, but not all there is
}


@functools.cache
def built(name: str) -> TimmBackbone:
    torch.manual_seed(0)
    size, _, options = FAMILIES[name]
    return TimmBackbone(name, image_size=size, **options).eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_split_equals_the_models_own_features(name: str) -> None:
    size, num_stages, _ = FAMILIES[name]
    backbone = built(name)
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = backbone.model(images)
        features = backbone(images)
        torch.testing.assert_close(features, expected)
        assert features.shape == (2, backbone.num_features)
        assert backbone.num_stages == num_stages
        for stage in range(num_stages + 1):
            maps = backbone.run(images, until=stage)
            assert maps.shape[1 if maps.dim() == 4 else -1] == backbone.stage_channels[stage]
            assert torch.equal(backbone.pool(backbone.run(maps, after=stage)), features)
            assert maps.dim() == 4 or not backbone.spatial


@pytest.mark.parametrize(
    ("name", "parameters"), [("resnet50", 23_508_032), ("resnext50_32x4d", 22_979_904)]
)
def test_parameter_counts(name: str, parameters: int) -> None:
    backbone = TimmBackbone(name, image_size=32)
    assert sum(p.numel() for p in backbone.parameters()) == parameters
    assert backbone.stage_channels == (64, 256, 512, 1024, 2048)
    assert backbone.num_features == 2048


@pytest.mark.parametrize("name", ["test_resnet", "vit_tiny_patch16_224", "densenet121"])
def test_training_reaches_every_parameter(name: str) -> None:
    backbone = copy.deepcopy(built(name)).train()
    backbone(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())


def test_building_neither_trains_nor_draws_random_numbers_beyond_the_model() -> None:
    torch.manual_seed(4)
    model = timm.create_model("test_resnet", num_classes=0)
    after = torch.random.get_rng_state()
    torch.manual_seed(4)
    backbone = TimmBackbone("test_resnet")
    assert torch.equal(torch.random.get_rng_state(), after)
    assert backbone.training
    assert backbone.model.training
    state = backbone.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert list(backbone.state_dict()) == [f"model.{key}" for key in state]


def test_channels_last_and_bfloat16() -> None:
    backbone = copy.deepcopy(built("test_resnet")).to(memory_format=torch.channels_last)
    images = torch.randn(1, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    expected = backbone(images)
    assert backbone.run(images).is_contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        features = backbone(images)
    torch.testing.assert_close(features.float(), expected, rtol=0.1, atol=0.1)


def test_replaced_modules_are_used() -> None:
    backbone = copy.deepcopy(built("test_resnet"))
    backbone.model.bn1 = nn.Identity()
    images = torch.randn(1, 3, 32, 32)
    assert not torch.equal(backbone.run(images), built("test_resnet").run(images))


def test_data_config_is_that_of_the_weights_and_of_the_size_asked_for() -> None:
    config = built("vit_tiny_patch16_224").data_config
    assert config is not None
    assert config.mean == config.std == (0.5, 0.5, 0.5)
    assert config.input_size == (3, 32, 32)
    config = TimmBackbone("test_resnet").data_config
    assert config is not None
    assert config.mean == (0.5, 0.5, 0.5)
    assert config.input_size == (3, 160, 160)


def save_safetensors(state: dict[str, torch.Tensor], path: Path) -> Path:
    safetensors.torch.save_file(state, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def save_pth(state: dict[str, torch.Tensor], path: Path) -> Path:
    wrapped = {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}
    torch.save(wrapped, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


@pytest.mark.parametrize("save", [save_safetensors, save_pth])
def test_a_local_file_of_weights_is_loaded(
    save: Callable[[dict[str, torch.Tensor], Path], Path], tmp_path: Path
) -> None:
    model: Any = timm.create_model("test_resnet").eval()  # with its classifier of 1000 classes
    path = save(model.state_dict(), tmp_path / "weights")
    backbone = TimmBackbone("test_resnet", weights=path, image_size=32).eval()
    images = torch.randn(1, 3, 32, 32)
    expected = model.forward_head(model.forward_features(images), pre_logits=True)
    torch.testing.assert_close(backbone(images), expected)
    assert backbone.loaded is not None
    assert "fc.weight" in backbone.loaded.partition("left out: ")[2]
    assert built("test_resnet").loaded is None


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    path = tmp_path / "weights.pth"

    def message(contents: object) -> str:
        torch.save(contents, path)
        with pytest.raises(LongTailedError) as caught:
            TimmBackbone("test_resnet", weights=path)
        return str(caught.value)

    lacking = {key: value for key, value in state.items() if not key.startswith("bn1.")}
    assert "bn1.weight is missing; bn1.bias is missing; " in message(lacking)
    assert "extra is not part of the backbone" in message({**state, "extra": torch.zeros(1)})
    assert "bn1.bias has shape [1] instead of" in message({**state, "bn1.bias": torch.zeros(1)})
    assert "holds no weights" in message([1, 2])
    assert "holds no weights" in message({"weight": "a text"})
    assert "holds Python objects (pathlib" in message(Path("an object that runs code when read"))
    with pytest.raises(LongTailedError, match="no file of weights"):
        TimmBackbone("test_resnet", weights=tmp_path / "absent.pth")


def test_pretrained_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **options: object) -> None:
        assert options["pretrained"] is True
        raise ConnectionError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(LongTailedError, match=r"cannot be downloaded.*weights=PATH"):
        TimmBackbone("resnet18", pretrained=True)
    with pytest.raises(LongTailedError, match="not both"):
        TimmBackbone("resnet18", pretrained=True, weights="file.pth")


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(LongTailedError, match=r"does not take the options \['colour'\]"):
        TimmBackbone("test_resnet", colour=3)
    with pytest.raises(LongTailedError, match=r"cannot build the model test_resnet\.absent"):
        TimmBackbone("test_resnet.absent")
    with pytest.raises(LongTailedError, match="cannot take images of size 3x8x8"):
        TimmBackbone("densenet121", image_size=8)
