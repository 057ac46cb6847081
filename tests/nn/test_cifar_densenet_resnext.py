from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from longtailed.errors import LongTailedError
from longtailed.nn import Backbone, CifarDenseNet, CifarResNeXt, build_network

SMALL = {
    "densenet": lambda: CifarDenseNet(2, width=0.25),
    "resnext": lambda: CifarResNeXt(1, 0.125),
}


@pytest.fixture(params=SMALL)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    torch.manual_seed(0)
    return SMALL[request.param]()


@pytest.mark.parametrize(
    ("name", "num_classes", "parameters"),
    [
        ("densenet40", 10, 1_059_288),
        ("densenet40", 100, 1_100_328),
        ("resnext29", 10, 34_426_688),
        ("resnext29", 100, 34_518_848),
    ],
)
def test_parameter_counts_with_a_cosine_head(name: str, num_classes: int, parameters: int) -> None:
    with torch.device("meta"):
        network = build_network(name, num_classes, "cosine")
    assert network.num_parameters() == parameters


@pytest.mark.parametrize(
    ("build", "channels"),
    [(CifarDenseNet, (24, 168, 312, 456)), (CifarResNeXt, (64, 256, 512, 1024))],
)
def test_channels_of_the_published_networks(build: Any, channels: tuple[int, ...]) -> None:
    with torch.device("meta"):
        backbone = build(12 if build is CifarDenseNet else 3)
    assert backbone.stage_channels == channels
    assert backbone.num_features == channels[-1]


def norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    keys = ("running_mean", "running_var", "weight", "bias")
    return functional.batch_norm(x, *(state[f"{name}.{key}"] for key in keys))


def densenet(images: Tensor, state: dict[str, Tensor]) -> Tensor:
    """The evaluation-mode network from its state dict alone."""
    x = functional.conv2d(images, state["conv1.weight"], padding=1)
    for stage in (1, 2, 3):
        for layer in range(2):
            prefix = f"block{stage}.{layer}"
            y = norm(x, state, f"{prefix}.bn").relu()
            x = torch.cat((x, functional.conv2d(y, state[f"{prefix}.conv.weight"], padding=1)), 1)
        if stage < 3:
            y = norm(x, state, f"transition{stage}.bn").relu()
            y = functional.conv2d(y, state[f"transition{stage}.conv.weight"])
            x = (
                y[:, :, ::2, ::2] + y[:, :, 1::2, ::2] + y[:, :, ::2, 1::2] + y[:, :, 1::2, 1::2]
            ) / 4
    return norm(x, state, "bn").relu().flatten(2).mean(2)


def resnext(images: Tensor, state: dict[str, Tensor]) -> Tensor:
    """The evaluation-mode network from its state dict alone."""
    x = functional.conv2d(images, state["conv1.weight"], padding=1)
    x = norm(x, state, "bn1").relu()
    for stage in (1, 2, 3):
        prefix, stride = f"layer{stage}.0", 1 if stage == 1 else 2
        weights = [state[f"{prefix}.{name}.weight"] for name in ("conv1", "conv2", "conv3")]
        y = norm(functional.conv2d(x, weights[0]), state, f"{prefix}.bn1").relu()
        width = y.shape[1] // 8
        groups = [
            functional.conv2d(
                y[:, g * width : (g + 1) * width],
                weights[1][g * width : (g + 1) * width],
                stride=stride,
                padding=1,
            )
            for g in range(8)
        ]
        y = norm(torch.cat(groups, dim=1), state, f"{prefix}.bn2").relu()
        y = norm(functional.conv2d(y, weights[2]), state, f"{prefix}.bn3")
        shortcut = functional.conv2d(x, state[f"{prefix}.projection.weight"], stride=stride)
        x = (y + norm(shortcut, state, f"{prefix}.bn")).relu()
    return x.flatten(2).mean(2)


def test_evaluation_equals_the_network_written_out(backbone: Backbone) -> None:
    backbone.double()
    images = torch.randn(3, 3, 12, 12, dtype=torch.float64)
    backbone(images)  # moves the running statistics away from 0 and 1
    backbone.eval()
    written = densenet if isinstance(backbone, CifarDenseNet) else resnext
    torch.testing.assert_close(backbone(images), written(images, backbone.state_dict()))


@pytest.mark.parametrize("size", [8, 32])
def test_maps_have_the_announced_sizes(backbone: Backbone, size: int) -> None:
    backbone.eval()
    x = torch.randn(1, 3, size, size)
    sides = (1, 2, 4, 4) if isinstance(backbone, CifarDenseNet) else (1, 1, 2, 4)
    for stage, channels in enumerate(backbone.stage_channels):
        x = backbone.run_stage(stage, x)
        assert x.shape == (1, channels, size // sides[stage], size // sides[stage])
    assert backbone.pool(x).shape == (1, backbone.num_features)


def test_a_stage_leaves_its_input_alone(backbone: Backbone) -> None:
    for after in range(3):
        maps = backbone.run(torch.randn(2, 3, 8, 8), until=after).detach()
        before = maps.clone()
        backbone.run(maps, after=after)
        assert torch.equal(maps, before)


def test_gradients_reach_every_parameter(backbone: Backbone) -> None:
    backbone(torch.randn(4, 3, 16, 16)).square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


def test_convolutions_are_drawn_by_fan_out() -> None:
    torch.manual_seed(0)
    densenet, resnext = CifarDenseNet(2, width=2), CifarResNeXt(1, width=0.5)
    expected = {
        densenet.block3[1].conv: (2 / (9 * 24)) ** 0.5,
        densenet.transition2.conv: (2 / densenet.stage_channels[2]) ** 0.5,
        resnext.layer3[0].conv2: (2 / (9 * 1024)) ** 0.5,
    }
    for conv, deviation in expected.items():
        assert isinstance(conv, nn.Conv2d)
        assert float(conv.weight.detach().std()) == pytest.approx(deviation, rel=0.03)


def test_the_head_of_a_resnext_begins_without_bias() -> None:
    with_bias, without = (
        build_network("resnext29", 3, width=0.125, head_options={"bias": bias}).head
        for bias in (True, False)
    )
    assert with_bias.get_parameter("bias").tolist() == [0, 0, 0]
    assert without.bias is None


def test_channels_last_gives_the_same_features(backbone: Backbone) -> None:
    images = torch.randn(2, 3, 16, 16)
    expected = backbone.eval()(images)
    backbone.to(memory_format=torch.channels_last)
    features = backbone(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CifarDenseNet(0), "at least one layer"),
        (lambda: CifarDenseNet(2, 0.125), "width 0.125 gives 1.5 new channels"),
        (lambda: CifarResNeXt(0), "at least one block"),
        (lambda: CifarResNeXt(1, 0.01), "width 0.01 gives 0.64 channels"),
        (lambda: build_network("densenet40", 3, growth=12), "has no option 'growth'"),
        (lambda: build_network("resnext29", 3, pretrained=True), "no pretrained weights"),
    ],
)
def test_impossible_requests_are_refused(build: Any, message: str) -> None:
    with pytest.raises(LongTailedError, match=message):
        build()
