"""RSG's recipes against the published settings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from longtailed.data.augment.views import View, parse_view
from longtailed.data.default_views import default_views
from longtailed.data.positions import epoch_at
from longtailed.methods import method_options
from longtailed.recipes import RECIPES, named_recipe

RSG = sorted(name for name in RECIPES if "-rsg" in name)


def published_rate(name: str, epoch: int) -> float:
    """The learning rate by the published tables, as factor of the base rate."""
    drops = {
        "cifar": {159: 0.01, 179: 0.0001},
        "imagenet": {59: 0.1, 79: 0.01, 94: 0.001},
        "places": {9: 0.1, 19: 0.01},
        "inaturalist18": {99: 0.1, 139: 0.01, 169: 0.001},
    }
    (drop,) = (values for key, values in drops.items() if name.startswith(key))
    if epoch < 5 and not name.startswith("places"):
        return (epoch + 1) / 5
    return next((drop[e] for e in sorted(drop, reverse=True) if epoch >= e), 1.0)


@pytest.mark.parametrize("name", RSG)
def test_learning_rates_are_the_published_ones(name: str) -> None:
    (stage,) = named_recipe(name).stages
    rates = [stage.schedule.factor(epoch, stage.epochs) for epoch in range(stage.epochs)]
    assert rates == pytest.approx([published_rate(name, e) for e in range(stage.epochs)])


@pytest.mark.parametrize("name", RSG)
def test_generation_begins_with_the_balancing_one_epoch_after_a_drop(name: str) -> None:
    (stage,) = named_recipe(name).stages
    options = {key: default for key, (_, default) in method_options(stage.method).items()}
    options |= stage.options
    start = epoch_at(options["generate_start"], stage.epochs)
    assert start - 1 in [epoch_at(m, stage.epochs) for m in stage.schedule.milestones]
    if stage.method.endswith("drw"):
        assert epoch_at(options["weighting_start"], stage.epochs) == start
    if stage.method.endswith("drs"):
        assert epoch_at(options["sampler_start"], stage.epochs) == start


def test_the_rows_of_the_original_are_there() -> None:
    long_tail = named_recipe("cifar10-lt-rsg-ldam-drw")
    assert (long_tail.data.profile, long_tail.data.imbalance) == ("exp", 100)
    step = named_recipe("cifar10-step-rsg-focal")
    assert (step.data.profile, step.data.imbalance) == ("step", 50)
    assert step.data.selection == long_tail.data.selection == "first"
    assert (step.head, long_tail.head) == ("linear", "cosine")
    assert named_recipe("inaturalist18-rsg-ldam-drs").head == "cosine"
    assert {f"cifar{k}-{kind}" for k in (10, 100) for kind in ("lt", "step")} == {
        name.removesuffix("-rsg-ldam-drw") for name in RSG if name.endswith("-rsg-ldam-drw")
    }


# Epochs, batch, base learning rate, weight decay, LDAM's margin and scale, the start of generation.
PUBLISHED = {
    "cifar": (200, 128, 0.1, 2e-4, 0.5, 30, 160),
    "imagenet-lt": (100, 256, 0.1, 2e-4, 0.3, 30, 80),
    "places-lt": (30, 256, 0.01, 1e-4, 0.2, 50, 10),
    "inaturalist18": (180, 256, 0.1, 5e-5, 0.1, 50, 140),
}


@pytest.mark.parametrize("name", RSG)
def test_settings_are_the_published_ones(name: str) -> None:
    (published,) = (values for key, values in PUBLISHED.items() if name.startswith(key))
    epochs, batch_size, lr, weight_decay, margin, scale, start = published
    (stage,) = named_recipe(name).stages
    optimizer = stage.optimizer
    assert (stage.epochs, stage.batch_size) == (epochs, batch_size)
    assert (optimizer.name, optimizer.momentum, optimizer.nesterov) == ("sgd", 0.9, False)
    assert (optimizer.lr, optimizer.weight_decay) == (lr, weight_decay)
    assert optimizer.decay_norm_and_bias
    assert (stage.accumulate, stage.clip) == (1, None)
    options = {key: default for key, (_, default) in method_options(stage.method).items()}
    options |= stage.options
    assert epoch_at(options["generate_start"], epochs) == start
    if "ldam" in stage.method:
        assert (options["max_margin"], options["scale"]) == (margin, scale)
    if "focal" in stage.method:
        assert options["gamma"] == 1
    if stage.method.endswith("drs"):
        assert (options["sampler"], options["weighting"]) == ("effective-number", "none")
    shared = ("head_ratio", "num_centers", "contrastive_dim", "strength", "cesc_weight")
    assert [options[key] for key in shared] == [0.2, 15, 256, 1.0, 0.1]
    assert (options["mv_weight"], options["beta"], options["padded"]) == (0.01, 0.9999, False)


@pytest.mark.parametrize(
    ("name", "network", "jitter", "mean"),
    [
        ("imagenet-lt", "resnext50_32x4d", True, None),
        ("places-lt", "resnet152.tv_in1k", False, None),
        ("inaturalist18", "resnet50", True, (0.466, 0.471, 0.380)),
    ],
)
def test_views_and_networks_of_the_large_sets(name: str, network: str, jitter, mean) -> None:
    recipe = named_recipe(f"{name}-rsg-ldam-drs")
    assert (recipe.network.name, recipe.network.pretrained) == (network, name == "places-lt")
    assert recipe.data.mean == mean
    files: Any = SimpleNamespace(images=["a.jpg"], in_memory=False, stored_size=None)
    views = default_views(files, files, recipe.data)
    expected = "resized_crop(224), flip" + ", color_jitter(0.4, 0.4, 0.4, 0)" * jitter
    assert views["standard"] == parse_view(expected)
    assert views["test"] == parse_view("resize(256), center_crop(224)")


def test_views_of_cifar_are_a_padded_crop_and_a_flip() -> None:
    pixels = torch.zeros(1, 3, 32, 32)
    images: Any = SimpleNamespace(images=pixels, in_memory=True, stored_size=(32, 32))
    for name in RSG:
        if name.startswith("cifar"):
            views = default_views(images, images, named_recipe(name).data)
            assert (views["standard"], views["test"]) == (parse_view("pad_crop(4), flip"), View())
