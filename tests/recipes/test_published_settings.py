"""Recipes that carry a published figure do what was published; see also each family's tests."""

from __future__ import annotations

import numpy as np
import pytest

from longtailed.data import view_preset
from longtailed.recipes import RECIPES, named_recipe, override

FAMILIES = {  # a part of the names of recipes -> whether their authors drop the last partial batch
    "cifar10-lt-ce": False,
    "cifar100-lt-ldam-drw": False,
    "cifar100-lt-metasaug-ldam": False,
    "cifar10-lt-risda": False,
    "cifar10-lt-concutmix": False,
    "cifar100-lt-bcl": False,
    "cifar10-lt-rotation-ce-drw": False,
    "cifar10-lt-rsg-ldam-drw": True,
    "cifar10-step-rsg": True,
    "imagenet-lt-rsg-ldam-drs": True,
    "imagenet-lt-risda": False,
    "imagenet-lt-concutmix": False,
    "inaturalist18-bcl": False,
    # Their epochs have floor(N / batch) steps.
    "imagenet-lt-ce": True,
    "imagenet-lt-crt": True,
    "inaturalist18-moco-ce": True,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_partial_batches_are_dropped_where_the_authors_drop_them(name):
    assert {stage.drop_last for stage in named_recipe(name).stages} == {FAMILIES[name]}


def test_moco_drops_partial_batches():
    stages = named_recipe("cifar10-lt-moco-ce").stages
    assert [(stage.method, stage.drop_last) for stage in stages] == [("moco", True), ("ce", False)]


def test_rsg_measures_its_displacements_as_the_authors_code_does():
    for name in RECIPES:
        for stage in named_recipe(name).stages:
            if stage.method.startswith("rsg"):
                assert stage.options["layout"] == "legacy", name


def test_concutmix_uses_the_images_of_its_authors():
    for ratio in ("", "50-", "10-"):
        assert named_recipe(f"cifar10-lt-{ratio}concutmix").data.subset_seed == 10
        assert named_recipe(f"cifar100-lt-{ratio}concutmix").data.subset_seed == 10
        assert named_recipe(f"cifar10-lt-{ratio}bcl").data.subset_seed == 0


def test_prototypes_of_cifar100_come_from_classes():
    assert "prototype_source" not in named_recipe("cifar100-lt-concutmix").stages[0].options


@pytest.mark.parametrize(
    "name",
    [
        "imagenet-lt-ce",
        "imagenet-lt-lws",
        "imagenet-lt-ldam-drs",
        "imagenet-lt-rsg-ldam-drs",
        "imagenet-lt-risda",
        "imagenet-lt-metasaug",
        "imagenet-lt-bcl",
        "imagenet-lt-moco-crt",
        "inaturalist18-ce",
        "inaturalist18-rsg-ldam-drs",
        "inaturalist18-risda",
        "inaturalist17-metasaug",
        "inaturalist18-moco-ce",
        "inaturalist18-tau-norm",
    ],
)
def test_networks_from_scratch_start_without_zeroed_branches(name):
    assert named_recipe(name).network.options["zero_init_last"] is False


@pytest.mark.parametrize("name", ["places-lt-ce", "places-lt-crt", "places-lt-rsg-ldam-drs"])
def test_places_starts_from_the_first_weights_of_torchvision(name):
    network = named_recipe(name).network
    assert (network.name, network.pretrained) == ("resnet152.tv_in1k", True)


@pytest.mark.parametrize(
    ("name", "jitter"),
    [("places-lt-ce", True), ("places-lt-lws", True), ("places-lt-rsg-ldam-drs", False)],
)
def test_colours_of_places_are_changed_where_the_authors_change_them(name, jitter):
    own = named_recipe(name).data.views
    text = own.get("standard", str(view_preset("large", 224)))
    assert ("color_jitter" in text) is jitter


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_class_balanced_sampling_on_cifar_draws_with_the_weights_of_the_authors_sampler(dataset):
    stage = named_recipe(f"{dataset}-lt-class-balanced-sampling").stages[0]
    assert (stage.method, stage.options) == (
        "class-balanced-sampling",
        {"sampler": "effective-number"},
    )


def test_bcl_trains_its_networks_for_90_epochs():
    for name in ("imagenet-lt-bcl", "imagenet-lt-bcl-resnext50"):
        assert named_recipe(name).stages[0].epochs == 90


def test_a_retrained_classifier_with_class_weights_follows_a_slow_first_stage():
    rates = []
    for stage in named_recipe("cifar10-lt-crt-class-balanced").stages:
        factors = [stage.schedule.factor(epoch, stage.epochs) for epoch in range(stage.epochs)]
        rates.append(stage.optimizer.lr * np.array(factors))
    np.testing.assert_allclose(rates[0][[4, 159, 160, 199]], [0.01, 0.01, 1e-4, 1e-4])
    np.testing.assert_allclose(rates[1][[4, 159, 160, 199]], [0.1, 0.1, 1e-3, 1e-3])


def test_class_balanced_sampling_of_the_decoupling_study_takes_classes_in_turn():
    recipe = named_recipe("imagenet-lt-ce-class-balanced")
    assert recipe.name == "imagenet-lt-ce-class-balanced"
    assert recipe.stages[0].options == {"sampler": "class-aware"}


@pytest.mark.parametrize(
    "name",
    [
        "imagenet-lt-crt",
        "places-lt-lws",
        "inaturalist18-crt",
        "imagenet-lt-moco-crt",
        "inaturalist18-moco-crt",
    ],
)
def test_published_classifier_stages_augment_images_and_move_statistics(name):
    options = named_recipe(name).stages[-1].options
    assert options == {"features": "fresh", "batch_norm": "train"}


def test_published_rows_compute_in_float32():
    for name in RECIPES:
        if not name.startswith("digits"):
            assert named_recipe(name).precision == "32", name


def test_an_option_of_a_numbered_stage_needs_no_prefix():
    recipe = named_recipe("cifar10-lt-crt")
    changed = override(recipe, ["1.features=fresh", "stages.1.batch_norm=train", "0.lr=0.05"])
    assert changed.stages[1].options == {"features": "fresh", "batch_norm": "train"}
    assert changed.stages[0].optimizer.lr == 0.05
