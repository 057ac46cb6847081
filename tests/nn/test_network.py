from __future__ import annotations

import string

import pytest
import torch

from longtailed.errors import LongTailedError
from longtailed.nn import (
    CIFAR_DENSENETS,
    CIFAR_RESNETS,
    CIFAR_RESNEXTS,
    CosineHead,
    LinearHead,
    Network,
    build_network,
    list_networks,
)


@pytest.mark.parametrize(
    ("num_classes", "head", "parameters"),
    [(10, "linear", 464_154), (10, "cosine", 464_144), (100, "cosine", 469_904)],
)
def test_parameter_counts_of_resnet32(num_classes: int, head: str, parameters: int) -> None:
    assert build_network("resnet32", num_classes, head).num_parameters() == parameters


def test_logits_are_the_head_of_the_features() -> None:
    network = build_network("resnet8", 5, width=0.25).eval()
    images = torch.randn(2, 3, 8, 8)
    features = network.features(images)
    assert features.shape == (2, 16)
    assert torch.equal(network(images), network.head(features))
    assert torch.equal(features, network.backbone(images))


def test_a_linear_head_of_a_cifar_resnet_is_kaiming_normal() -> None:
    torch.manual_seed(0)
    head = build_network("resnet8", 1000).head
    assert isinstance(head, LinearHead)
    assert float(head.weight.detach().std()) == pytest.approx((2 / 64) ** 0.5, rel=0.02)
    assert float(head.bias.detach().abs().max()) <= 1 / 8


@pytest.mark.parametrize(
    ("name", "init", "std"),
    [
        ("resnet8", "default", (1 / 3 / 64) ** 0.5),
        ("resnet8", "kaiming", (2 / 64) ** 0.5),
        ("densenet40", "auto", (1 / 3 / 456) ** 0.5),
        ("densenet40", "kaiming", (2 / 456) ** 0.5),
    ],
)
def test_the_start_of_a_linear_head_can_be_chosen(name, init, std) -> None:
    torch.manual_seed(0)
    head = build_network(name, 1000, head_init=init).head
    assert float(head.weight.detach().std()) == pytest.approx(std, rel=0.02)


def test_options_reach_the_head() -> None:
    network = build_network("resnet8", 5, "cosine", head_options={"scale": 30.0}, width=0.25)
    assert isinstance(network.head, CosineHead)
    assert network.head.scale == 30
    network = build_network("resnet8", 5, head_options={"bias": False}, width=0.25)
    assert network.head.bias is None


def test_state_dict_keys_start_with_backbone_and_head() -> None:
    keys = list(build_network("resnet8", 5).state_dict())
    assert keys[0] == "backbone.conv1.weight"
    assert keys[-2:] == ["head.weight", "head.bias"]
    assert all(key.startswith(("backbone.", "head.")) for key in keys)


def test_the_default_generator_decides_all_weights() -> None:
    networks = []
    for _ in range(2):
        torch.manual_seed(7)
        networks.append(build_network("resnet8", 5, "cosine"))
    first, second = (network.state_dict().values() for network in networks)
    assert all(map(torch.equal, first, second))


def test_running_in_two_parts_equals_running_at_once() -> None:
    backbone = build_network("resnet20", 5, width=0.125).backbone.eval()
    images = torch.randn(2, 3, 16, 16)
    expected = backbone.run(images)
    for stage in range(backbone.num_stages + 1):
        maps = backbone.run(images, until=stage)
        assert maps.shape[1] == backbone.stage_channels[stage]
        assert torch.equal(backbone.run(maps, after=stage), expected)
        assert backbone.run(maps, after=stage, until=stage) is maps
    assert torch.equal(backbone.pool(expected), backbone(images))


@pytest.mark.parametrize(
    ("after", "until", "message"),
    [(4, None, "no stage 4"), (None, -1, "no stage -1"), (2, 0, "back to stage 0")],
)
def test_stages_that_do_not_exist_are_refused(
    after: int | None, until: int | None, message: str
) -> None:
    backbone = build_network("resnet8", 5).backbone
    with pytest.raises(LongTailedError, match=message):
        backbone.run(torch.zeros(1, 3, 8, 8), after=after, until=until)


def test_every_listed_network_can_be_built() -> None:
    networks = list_networks()
    assert networks.keys() == {*CIFAR_RESNETS, *CIFAR_DENSENETS, *CIFAR_RESNEXTS}
    for name, description in networks.items():
        assert name.lstrip(string.ascii_lowercase) in description  # the depth
        network = build_network(name, 3, width=0.25).eval()
        assert network(torch.randn(1, 3, 8, 8)).shape == (1, 3)


@pytest.mark.parametrize("name", ["test_resnet", "timm:test_resnet"])
def test_timm_models_are_reached_by_their_name(name: str) -> None:
    network = build_network(name, 4, "cosine", image_size=32).eval()
    assert network.head.weight.shape == (4, 96)
    assert network(torch.randn(1, 3, 32, 32)).shape == (1, 4)


@pytest.mark.parametrize("name", ["resnet33", "timm:resnet32", "hf-hub:someone/resnet18"])
def test_unknown_names_are_refused_with_the_nearest(name: str) -> None:
    with pytest.raises(LongTailedError, match=r"unknown network .* did you mean"):
        build_network(name, 3)


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(LongTailedError, match=r"unknown head 'cosin'.*'cosine'"):
        build_network("resnet8", 3, "cosin")
    with pytest.raises(LongTailedError, match=r"unknown head_init 'defaults'.*'default'"):
        build_network("resnet8", 3, head_init="defaults")
    with pytest.raises(LongTailedError, match="'kaiming' is for a linear head"):
        build_network("resnet8", 3, "cosine", head_init="kaiming")
    with pytest.raises(LongTailedError, match="at least one class"):
        build_network("resnet8", 0)
    with pytest.raises(LongTailedError, match="resnet8 has no option 'depth'"):
        build_network("resnet8", 3, depth=4)
    with pytest.raises(LongTailedError, match="no pretrained weights for resnet8"):
        build_network("resnet8", 3, pretrained=True)
    with pytest.raises(LongTailedError, match=r"linear head does not take the options \['scale'\]"):
        build_network("resnet8", 3, head_options={"scale": 30})
    with pytest.raises(LongTailedError, match=r"head takes 3 features.*gives 64"):
        Network(build_network("resnet8", 3).backbone, LinearHead(3, 3))


def test_a_head_is_replaced_only_by_one_of_another_kind():
    network = build_network("resnet8", 4, width=0.5)
    head = network.head
    network.use_head("linear")
    assert network.head is head
    network.use_head("cosine")
    assert isinstance(network.head, CosineHead)
    assert network.head.weight.shape == head.weight.shape
    assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 4)
