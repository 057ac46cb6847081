"""BCL's and ConCutMix's recipes against the published rows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from longtailed.data.positions import epoch_at
from longtailed.data.streams import Batch
from longtailed.methods import build_method, concutmix
from longtailed.nn import build_network
from longtailed.recipes import named_recipe

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "concutmix_lr_schedule.npz")

RATIOS = ("", "50-", "10-")
# Per family: C, network, head, scale, alpha, beta, T, hidden, d, top_k, wd; the omega of ConCutMix.
CIFAR10 = (10, "resnet32", "linear", 1, 2, 0.6, 0.1, 512, 128, 3, 5e-4), 2 / 255
CIFAR100 = (100, "resnet32", "linear", 1, 2, 0.6, 0.1, 512, 128, 30, 5e-4), 20 / 255
LARGE = ("cosine", 30, 1, 0.35, 0.07, 2048, 1024, 30)
R50 = (1000, "resnet50", *LARGE, 5e-4), 200 / 255
X50 = (1000, "resnext50_32x4d", *LARGE, 5e-4), 200 / 255
INATURALIST = (8142, "resnet50", *LARGE, 1e-4), 1628 / 255
PLACES = (365, "resnet152", *LARGE, 5e-4), 200 / 255

ROWS = {
    # name: family, learning rates or their number, tau, last epoch of the warm-up, batch
    "cifar10-lt-10-concutmix": (CIFAR10, "cifar_200", 1.0, 100, 256),
    "cifar10-lt-50-concutmix": (CIFAR10, "cifar_200", 0.81, 100, 256),
    "cifar10-lt-concutmix": (CIFAR10, "cifar_200", 0.85, 100, 256),
    "cifar100-lt-10-concutmix": (CIFAR100, "cifar_200", 1.0, 100, 256),
    "cifar100-lt-50-concutmix": (CIFAR100, "cifar_200", 0.75, 100, 256),
    "cifar100-lt-concutmix": (CIFAR100, "cifar_200", 0.9, 100, 256),
    "cifar100-lt-concutmix-400-epochs": (CIFAR100, "cifar_400", 0.79, 160, 256),
    "imagenet-lt-concutmix": (R50, "imagenet_cos_100", 0.99, 70, 256),
    "imagenet-lt-concutmix-resnext50": (X50, "imagenet_cos_90", 0.99, 60, 256),
    "imagenet-lt-concutmix-resnext50-180-epochs": (X50, "imagenet_cos_180", 0.99, 120, 256),
    "inaturalist18-concutmix": (INATURALIST, "inat_cos_100", 0.99, 80, 128),
    "places-lt-concutmix": (PLACES, 200, 0.99, 70, 256),
    **{f"cifar10-lt-{ratio}bcl": (CIFAR10, "cifar_200", 1, None, 256) for ratio in RATIOS},
    **{f"cifar100-lt-{ratio}bcl": (CIFAR100, "cifar_200", 1, None, 256) for ratio in RATIOS},
    "cifar100-lt-bcl-400-epochs": (CIFAR100, "cifar_400", 1, None, 256),
    "imagenet-lt-bcl": (R50, "imagenet_cos_90", 1, None, 256),
    "imagenet-lt-bcl-resnext50": (X50, "imagenet_cos_90", 1, None, 256),
    "imagenet-lt-bcl-resnext50-sim-rand": (X50, "imagenet_cos_90", 1, None, 256),
    "imagenet-lt-bcl-resnext50-rand-rand": (X50, "imagenet_cos_90", 1, None, 256),
    "inaturalist18-bcl": (INATURALIST, "inat_cos_100", 1, None, 256),
}


def published_rates(row):
    """Return the learning rate of each epoch; Places-LT, of a fork, is a cosine of its own."""
    if isinstance(row, str):
        return GOLDEN[row]
    return [0.05 * (1 + math.cos(math.pi * (epoch + 1) / (row + 1))) for epoch in range(row)]


@pytest.mark.parametrize("name", ROWS)
def test_recipes_are_the_published_rows(name):
    (family, _), schedule, _, _, batch = ROWS[name]
    recipe, rates = named_recipe(name), published_rates(schedule)
    stage = recipe.stages[0]
    assert (recipe.network.name, recipe.head) == family[1:3]
    assert not recipe.network.options.get("zero_init_last", False)
    optimizer = stage.optimizer
    assert (optimizer.name, optimizer.momentum, optimizer.nesterov) == ("sgd", 0.9, False)
    assert (optimizer.weight_decay, optimizer.decay_norm_and_bias) == (family[-1], True)
    assert (stage.batch_size, stage.batch_size * stage.accumulate) == (batch, 256)
    assert stage.epochs == len(rates)
    factors = [stage.schedule.factor(epoch, stage.epochs) for epoch in range(stage.epochs)]
    np.testing.assert_allclose(np.multiply(factors, optimizer.lr), rates, rtol=1e-6, atol=1e-9)


def built(name, small_network):
    stage, num_classes = named_recipe(name).stages[0], ROWS[name][0][0][0]
    network = small_network(num_classes, named_recipe(name).head)
    return build_method(stage.method, network, [5] * num_classes, **stage.options)


@pytest.mark.parametrize("name", ROWS)
def test_built_methods_have_the_published_values(name, small_network):
    (family, omega), _, tau, warm_up, _ = ROWS[name]
    _, _, _, scale, alpha, beta, temperature, hidden, embedding, top_k, _ = family
    method = built(name, small_network)
    assert (method.tau, method.temperature, method.scale) == (tau, temperature, scale)
    assert (method.classifier_weight, method.contrastive_weight) == (alpha, beta)
    assert method.tiled == (name.startswith("cifar10-") and warm_up is not None)
    for head in (method.projection, method.prototype_head):
        assert (head[0].out_features, head[-1].out_features) == (hidden, embedding)
    train = method.streams["train"]
    kinds = tuple(name.split("-")[-2:]) if "rand" in name else ("sim", "sim")
    assert (train.views, train.sampler) == (("strong", *kinds), "instance")
    assert set(method.streams) == ({"train"} if warm_up is None else {"train", "mix"})
    if warm_up is None:
        return
    assert (method.top_k, method.omega) == (top_k, pytest.approx(omega))
    assert epoch_at(method.semantic_start, named_recipe(name).stages[0].epochs) == warm_up + 1
    mix = method.streams["mix"]
    assert (mix.views, mix.sampler) == (("strong",), "class-balanced")
    assert (method.normalizer, method.normalized_distances) == ("sum", False)
    assert method.clamp  # a departure, without effect at these omegas


def test_boxes_are_drawn_as_published(small_network, monkeypatch):
    drawn = []
    monkeypatch.setattr(concutmix, "cutmix", lambda *_, **options: drawn.append(options))
    method = built("cifar10-lt-concutmix", small_network)
    images, labels = torch.zeros(2, 3, 8, 8), torch.arange(2)
    batch = Batch((images,), labels, labels)
    method.mix(batch, batch, torch.Generator())
    assert (drawn[0]["alpha"], drawn[0]["per_sample"]) == (1.0, False)
    assert (method.streams["mix"].share, method.streams["mix"].share_of) == (0.5, "batches")
    assert torch.equal(drawn[0]["partners"][0], images)


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
    for suffix, network in (("", "resnet50"), ("-resnext50", "resnext50_32x4d")):
        for method in ("bcl", "concutmix"):
            recipe = named_recipe(f"imagenet-lt-{method}{suffix}")
            assert (recipe.head, recipe.network.name) == ("cosine", network)
