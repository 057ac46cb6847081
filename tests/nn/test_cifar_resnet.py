from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp
from torch.nn import functional

from longtailed.errors import LongTailedError
from longtailed.nn import CIFAR_RESNETS, CifarResNet
from longtailed.nn.cifar_resnet import BasicBlock, BatchNorm2d


def small(seed: int = 0) -> CifarResNet:
    torch.manual_seed(seed)
    return CifarResNet(blocks=1, width=0.25)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("resnet20", 269_072), ("resnet32", 463_504), ("resnet56", 852_368)],
)
def test_parameter_counts(name: str, parameters: int) -> None:
    backbone = CifarResNet(CIFAR_RESNETS[name])
    assert sum(p.numel() for p in backbone.parameters()) == parameters


def test_depths_follow_from_the_blocks() -> None:
    for name, blocks in CIFAR_RESNETS.items():
        assert int(name.removeprefix("resnet")) == 6 * blocks + 2


@pytest.mark.parametrize("size", [8, 9, 32])
def test_shortcut_equals_an_explicit_loop(size: int) -> None:
    x = torch.randn(2, 4, size, size)
    shortcut = BasicBlock(4, 8, stride=2).shortcut(x)
    half = (size + 1) // 2
    expected = torch.zeros(2, 8, half, half)
    for channel in range(4):
        for row in range(half):
            for column in range(half):
                expected[:, 2 + channel, row, column] = x[:, channel, 2 * row, 2 * column]
    assert torch.equal(shortcut, expected)


def reference(backbone: CifarResNet, images: Tensor) -> Any:
    """The evaluation-mode network from its state dict alone."""
    state = backbone.state_dict()

    def conv_norm(x: Tensor, conv: str, norm: str, stride: int) -> Any:
        x = functional.conv2d(x, state[f"{conv}.weight"], stride=stride, padding=1)
        mean, var = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        factor = state[f"{norm}.weight"] / (var + 1e-5).sqrt()
        shift = state[f"{norm}.bias"] - mean * factor
        return x * factor[:, None, None] + shift[:, None, None]

    x = conv_norm(images, "conv1", "bn1", 1).relu()
    for stage in (1, 2, 3):
        for block in range(len(getattr(backbone, f"layer{stage}"))):
            prefix = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = conv_norm(x, f"{prefix}.conv1", f"{prefix}.bn1", stride).relu()
            y = conv_norm(y, f"{prefix}.conv2", f"{prefix}.bn2", 1)
            if stride == 2:
                zeros = torch.zeros_like(y[:, : y.shape[1] // 4])
                x = torch.cat((zeros, x[:, :, ::2, ::2], zeros), dim=1)
            x = (y + x).relu()
    return x.flatten(start_dim=2).mean(dim=2)


def test_evaluation_equals_the_network_written_out() -> None:
    torch.manual_seed(0)
    backbone = CifarResNet(blocks=2, width=0.25).double()
    images = torch.randn(3, 3, 12, 12, dtype=torch.float64)
    backbone(images)  # moves the running statistics away from 0 and 1
    backbone.eval()
    torch.testing.assert_close(backbone(images), reference(backbone, images))


def test_training_equals_the_same_network_with_counting_batch_norm() -> None:
    backbone = small()
    plain = copy.deepcopy(backbone)
    for module in list(plain.modules()):
        for name, child in module.named_children():
            if isinstance(child, BatchNorm2d):
                norm = nn.BatchNorm2d(child.num_features)
                norm.load_state_dict(child.state_dict())
                setattr(module, name, norm)
    images = torch.randn(4, 3, 8, 8)
    assert torch.equal(backbone(images), plain(images))
    ours, theirs = backbone.state_dict(), plain.state_dict()
    assert ours.keys() == theirs.keys()
    counts = [key for key in ours if not torch.equal(ours[key], theirs[key])]
    assert counts == [key for key in ours if key.endswith("num_batches_tracked")]


def test_batch_norm_without_momentum_averages_all_batches() -> None:
    ours, theirs = BatchNorm2d(2, momentum=None), nn.BatchNorm2d(2, momentum=None)
    for _ in range(3):
        x = torch.randn(4, 2, 3, 3)
        assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_mean, theirs.running_mean)  # type: ignore[arg-type]


def test_state_dict_keys_are_stable() -> None:
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    layers = [("conv1", "bn1")]
    for stage in (1, 2, 3):
        layers += [(f"layer{stage}.0.conv{i}", f"layer{stage}.0.bn{i}") for i in (1, 2)]
    expected = [
        key for conv, bn in layers for key in (f"{conv}.weight", *(f"{bn}.{part}" for part in norm))
    ]
    assert list(small().state_dict()) == expected


def test_weights_are_kaiming_normal_and_come_from_the_default_generator() -> None:
    torch.manual_seed(5)
    backbone = CifarResNet(blocks=1, width=2)
    weight = backbone.state_dict()["layer3.0.conv2.weight"]
    fan_in = 128 * 9
    assert float(weight.std()) == pytest.approx((2 / fan_in) ** 0.5, rel=0.02)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all() and (module.bias == 0).all())
    torch.manual_seed(5)
    again = CifarResNet(blocks=1, width=2)
    assert all(map(torch.equal, backbone.state_dict().values(), again.state_dict().values()))


@pytest.mark.parametrize("size", [8, 17, 64])
def test_maps_have_the_announced_sizes(size: int) -> None:
    backbone = small().eval()
    x = torch.randn(1, 3, size, size)
    for stage, channels in enumerate(backbone.stage_channels):
        x = backbone.run_stage(stage, x)
        side = -(-size // (1, 1, 2, 4)[stage])
        assert x.shape == (1, channels, side, side)
    assert backbone.pool(x).shape == (1, backbone.num_features)


def test_a_stage_leaves_its_input_alone() -> None:
    backbone = small()
    maps = backbone.run(torch.randn(2, 3, 8, 8), until=1).detach()
    before = maps.clone()
    backbone.run(maps, after=1)
    assert torch.equal(maps, before)


def test_gradients_reach_every_parameter() -> None:
    backbone = small()
    backbone(torch.randn(4, 3, 16, 16)).square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_forward_and_reverse_mode_agree_in_training_mode() -> None:
    backbone = small().double()
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    parameters = {name: p.detach() for name, p in backbone.named_parameters()}
    direction = {name: torch.randn_like(p) for name, p in parameters.items()}

    def features(values: dict[str, Tensor]) -> Any:
        return functional_call(backbone, values, (images,))

    tangent = jvp(features, (parameters,), (direction,))[1]
    output, pull = vjp(features, parameters)[:2]
    cotangent = torch.randn_like(output)
    (gradient,) = pull(cotangent)
    product = sum((gradient[name] * direction[name]).sum() for name in parameters)
    torch.testing.assert_close((cotangent * tangent).sum(), product)


def test_channels_last_gives_the_same_maps_in_that_format() -> None:
    backbone = small().eval()
    images = torch.randn(2, 3, 16, 16)
    expected = backbone.run(images)
    backbone = backbone.to(memory_format=torch.channels_last)
    maps = backbone.run(images.contiguous(memory_format=torch.channels_last))
    assert maps.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_autocast_stays_close_and_trains() -> None:
    backbone = small()
    images = torch.randn(4, 3, 8, 8)
    expected = copy.deepcopy(backbone)(images)
    with torch.autocast("cpu", torch.bfloat16):
        features = backbone(images)
    torch.testing.assert_close(features.float(), expected, rtol=0.1, atol=0.1)
    features.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())


def test_one_image_trains() -> None:
    assert bool(small()(torch.randn(1, 3, 8, 8)).isfinite().all())


def test_no_value_is_read_on_the_host() -> None:
    backbone = small().to("meta")  # a meta tensor has a shape but no values to read
    features = backbone(torch.empty(4, 3, 8, 8, device="meta"))
    features.sum().backward()
    assert features.shape == (4, backbone.num_features)


@pytest.mark.parametrize(
    ("blocks", "width", "message"), [(0, 1.0, "at least one block"), (1, 0.3, "multiple of 1/8")]
)
def test_impossible_sizes_are_refused(blocks: int, width: float, message: str) -> None:
    with pytest.raises(LongTailedError, match=message):
        CifarResNet(blocks, width)
