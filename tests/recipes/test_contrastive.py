"""BCL's and ConCutMix's recipes against the published rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from longtailed.nn import build_network
from longtailed.recipes import named_recipe
from longtailed.schedules import epoch_at

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "concutmix_lr_schedule.npz")

ROWS = {
    # name: epochs, learning rates, tau, last epoch without semantic labels, temperature, batch
    "cifar10-lt-10-concutmix": ("cifar_200", 1.0, 100, 0.1, 256),
    "cifar10-lt-50-concutmix": ("cifar_200", 0.81, 100, 0.1, 256),
    "cifar10-lt-concutmix": ("cifar_200", 0.85, 100, 0.1, 256),
    "cifar100-lt-10-concutmix": ("cifar_200", 1.0, 100, 0.1, 256),
    "cifar100-lt-50-concutmix": ("cifar_200", 0.75, 100, 0.1, 256),
    "cifar100-lt-concutmix": ("cifar_200", 0.9, 100, 0.1, 256),
    "cifar100-lt-concutmix-400-epochs": ("cifar_400", 0.79, 160, 0.1, 256),
    "imagenet-lt-concutmix": ("imagenet_cos_100", 0.99, 70, 0.07, 256),
    "imagenet-lt-concutmix-resnext50": ("imagenet_cos_90", 0.99, 60, 0.07, 256),
    "imagenet-lt-concutmix-resnext50-180-epochs": ("imagenet_cos_180", 0.99, 120, 0.07, 256),
    "inaturalist18-concutmix": ("inat_cos_100", 0.99, 80, 0.07, 128),
    "places-lt-concutmix": (None, 0.99, 70, 0.07, 256),
}


@pytest.mark.parametrize("name", ROWS)
def test_recipes_are_the_published_rows(name):
    schedule, tau, warm_up, temperature, batch = ROWS[name]
    stage = named_recipe(name).stages[0]
    assert stage.options["tau"] == tau
    assert stage.options.get("temperature", 0.1) == temperature
    assert stage.batch_size == batch
    assert batch * stage.accumulate == 256
    assert epoch_at(stage.options["semantic_start"], stage.epochs) == warm_up + 1
    if schedule is not None:
        published = GOLDEN[schedule]
        rates = [
            stage.optimizer.lr * stage.schedule.factor(epoch, stage.epochs)
            for epoch in range(stage.epochs)
        ]
        np.testing.assert_allclose(rates, published, rtol=1e-6, atol=1e-9)


def test_cifar_compares_every_epoch_on_the_test_split_as_published():
    for name in ("cifar10-lt-bcl", "cifar100-lt-concutmix-400-epochs"):
        recipe = named_recipe(name)
        assert recipe.stages[0].evaluate_every == 1
        assert (recipe.protocol, recipe.data.holdout) == ("published", 0)


@pytest.mark.parametrize("method", ["bcl", "concutmix", "concutmix-area-only"])
def test_the_classifier_of_cifar_starts_as_the_published_one(method):
    spec = named_recipe(f"cifar100-lt-{method}").network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weight = build_network(spec.name, 100, **spec.options).head.weight.detach()
    assert weight.abs().max() <= 1 / 8
    assert float(weight.std()) == pytest.approx(0.0722, rel=0.02)


def test_the_ablation_differs_in_one_place():
    base = named_recipe("cifar100-lt-concutmix").stages[0]
    changes = {
        "no-mixing": {"mix_probability": 0.0},
        "area-only": {"omega": 0.0},
        "semantic-50": {"omega": 0.5, "normalizer": "max"},
    }
    for variant, options in changes.items():
        stage = named_recipe(f"cifar100-lt-concutmix-{variant}").stages[0]
        assert stage == base.model_copy(update={"options": {**base.options, **options}})


def test_views_of_bcl_with_rand_augment():
    plain, one, both = (
        named_recipe(f"imagenet-lt-bcl-resnext50{suffix}")
        for suffix in ("", "-sim-rand", "-rand-rand")
    )
    assert plain.stages[0].options["views"] == ("strong", "sim", "sim")
    assert plain.data.views == {}
    assert one.stages[0].options["views"] == ("strong", "sim", "rand")
    assert both.data.views["rand"].endswith("grayscale, rand_augment")
    assert one.stages[0].epochs == 90


def test_names_of_both_methods_mean_the_same_networks():
    for suffix, network, epochs in (("", "resnet50", 100), ("-resnext50", "resnext50_32x4d", 90)):
        for method in ("bcl", "concutmix"):
            recipe = named_recipe(f"imagenet-lt-{method}{suffix}")
            assert (recipe.head, recipe.network.name) == ("cosine", network)
            assert recipe.stages[0].epochs == epochs
