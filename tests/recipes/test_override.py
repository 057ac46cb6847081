"""Overrides that contradict each other, do nothing, or leave a rate that does not fit."""

from __future__ import annotations

import json

import numpy as np
import pytest

from longtailed.errors import LongTailedError
from longtailed.recipes import Recipe, compose, load_recipe, named_recipe, override
from longtailed.runs.run import as_recipe

DIGITS = {"data": "digits"}


@pytest.mark.parametrize(
    ("flags", "overrides", "place"),
    [
        ({"network": "foo"}, ["network=resnet8"], "network.name"),
        ({"method": "ldam"}, ["method=ce"], "stages.0.method"),
        ({"imbalance": 10}, ["imbalance=20"], "data.imbalance"),
        ({}, ["data=photos"], "data.source"),
        ({}, ["epochs=3", "stages.0.epochs=4"], "stages.0.epochs"),
        ({"method": "focal"}, ["gamma=1", "stages.0.options.gamma=2"], "stages.0.options.gamma"),
    ],
)
def test_a_setting_given_twice_with_different_values_is_refused(flags, overrides, place):
    for recipe in (None, "digits-ce"):
        with pytest.raises(LongTailedError, match=f"{place} is given twice, as .* give it once"):
            as_recipe(recipe, **DIGITS, **flags, overrides=overrides)


def test_a_setting_given_twice_with_one_value_is_taken():
    same = ["network=resnet8", "imbalance=20", "lr=.5", "precision=32", "precision='32'"]
    recipe = as_recipe(None, **DIGITS, network="resnet8", imbalance=20.0, overrides=same)
    assert (recipe.network.name, recipe.stages[0].optimizer.lr) == ("resnet8", 0.5)


@pytest.mark.parametrize("overrides", ["epochs=3", {"epochs": np.int64(3)}])
def test_a_single_text_and_numpy_numbers_are_taken(overrides):
    assert as_recipe(**DIGITS, overrides=overrides).stages[0].epochs == 3
    counts = {"counts": np.full(10, 3)}
    assert as_recipe(**DIGITS, overrides=counts).data.counts == (3,) * 10


def test_views_and_options_may_be_called_method():
    assert as_recipe(**DIGITS, overrides=["views.method=flip"]).data.views == {"method": "flip"}
    options = as_recipe(**DIGITS, overrides=["network.options.method=3"]).network.options
    assert options == {"method": 3}


def test_weights_that_are_none_are_no_start():
    recipe = as_recipe(**DIGITS, overrides=["network.options.weights=none"])
    assert recipe == as_recipe(**DIGITS)


@pytest.mark.parametrize("key", ["2.lr", "stages.2.lr"])
def test_a_stage_that_is_not_there_is_named(key):
    message = f"'{key}' is about stage 2, but the recipe has 2, numbered from 0"
    with pytest.raises(LongTailedError, match=message):
        override(named_recipe("cifar10-lt-crt"), [f"{key}=1"])


def test_a_composed_recipe_is_called_what_it_is():
    assert as_recipe(**DIGITS, overrides=["method=ldam", "imbalance=20"]).name == (
        "digits-20-ldam-resnet32"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["beta=0.5"], "beta has no effect, because weighting is 'none'"),
        (["weighting_start=0.5"], "weighting_start has no effect, because weighting is 'none'"),
        (["sampler_start=3"], "sampler_start has no effect, because sampler is 'instance'"),
        (["samples_per_class=2"], "because sampler is 'instance', not 'class-aware'"),
        (
            ["method=isda", "stages.0.options.gamma=1"],
            "gamma has no effect, because criterion is 'ce'",
        ),
        (["method=metasaug", "meta=off", "meta_lr=1"], "meta_lr has no .* because meta is 'off'"),
        (["method=concutmix", "omega=0", "top_k=3"], "top_k has no effect, because omega is 0"),
        (["method=tau-norm", "epochs=0", "tau=1", "select=train"], "select has no .* tau is 1"),
        (["method=rsg", "head_classes=[0]", "head_ratio=0.5"], "because head_classes is"),
        (["schedule=cosine", "milestones=[0.5]"], "milestones has no effect, because kind is 'co"),
        (["cosine_shift=1"], "cosine_shift has no effect, because kind is 'step', not 'cosine'"),
        (["optimizer=adamw", "momentum=0.5"], "momentum has no effect, because name is 'adamw'"),
        (["max_count=20"], "max_count has no effect, because imbalance is None"),
        (["profile=step"], "profile has no effect, because imbalance is None"),
        (["unlabelled_imbalance=2"], "because unlabelled is None"),
        (["similar.head_weight=0.5"], "head_weight has no effect, because fraction is 0"),
        (["optimizer=adamw", "nesterov=true"], "nesterov is a setting of sgd; adamw has none"),
    ],
)
def test_a_setting_without_effect_is_refused(changes, message):
    with pytest.raises(LongTailedError, match=message) as caught:
        override(compose("digits"), changes)
    assert "\n" not in str(caught.value)


def test_a_setting_that_has_an_effect_or_its_default_is_taken():
    drs = override(compose("digits", "ce-drs"), ["beta=0.5", "sampler_start=3"])
    assert drs.stages[0].options == {"beta": 0.5, "sampler_start": 3}
    aware = override(compose("digits"), ["sampler=class-aware", "samples_per_class=2"])
    assert aware.stages[0].options["samples_per_class"] == 2
    override(compose("digits"), ["weighting=inverse", "weighting_start=1"])
    override(compose("digits"), ["optimizer=adamw", "nesterov=false", "beta=0.9999"])
    # What a recipe brings along is nobody's mistake.
    inert = override(named_recipe("cifar10-lt-ldam-drw"), ["weighting=none"])
    assert inert.stages[0].options["weighting"] == "none"


@pytest.mark.parametrize("start", [1.0, 2.0, -1, "0.8"])
def test_a_position_is_an_epoch_or_a_part_of_the_run(start):
    for method, option in (("ce-drw", "weighting_start"), ("risda", "freeze_start")):
        with pytest.raises(LongTailedError, match=rf"{option}.* 1\.0 would be the end of the run"):
            override(compose("digits", method), {option: start})
    with pytest.raises(LongTailedError, match=r"warmup.* 1\.0 would be the end of the run"):
        override(compose("digits"), {"warmup": start})
    with pytest.raises(LongTailedError, match=r"milestones.* 1\.0 would be the end of the run"):
        override(compose("digits"), {"milestones": [start]})


SCRATCH, FINE = (0.1, 2e-4, 200), (0.01, 1e-4, 30)


def training(recipe: Recipe) -> tuple[float, float, int]:
    stage = recipe.stages[0]
    return stage.optimizer.lr, stage.optimizer.weight_decay, stage.epochs


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, SCRATCH),
        ({"network.pretrained": True}, FINE),
        ({"network.options.weights": "file.pt"}, FINE),
        ({"network.init_from": "file.pt"}, FINE),
        ({"network.init_from": "file.pt", "lr": 0.3, "epochs": 7}, (0.3, 1e-4, 7)),
        ({"optimizer": "adamw"}, (1e-3, 0.05, 200)),
        ({"optimizer": "adamw", "lr": 0.1}, (0.1, 0.05, 200)),
        ({"optimizer": "adamw", "weight_decay": 0}, (1e-3, 0, 200)),
        ({"optimizer": "adamw", "network.init_from": "file.pt"}, (1e-4, 0.05, 30)),
        ({"optimizer": "sgd", "network.pretrained": True}, FINE),
    ],
)
def test_rates_that_were_not_chosen_follow_the_optimiser_and_the_start(changes, expected):
    assert training(as_recipe(**DIGITS, network="resnet18", overrides=changes)) == expected


def test_a_named_recipe_keeps_its_rates_unless_its_optimiser_changes():
    base = named_recipe("imagenet-lt-bcl")
    assert training(override(base, {"network.init_from": "file.pt"})) == training(base)
    changed = override(base, {"optimizer": "adamw", "decay_norm_and_bias": False})
    assert training(changed)[:2] == (1e-3, 0.05)
    assert not changed.stages[0].optimizer.decay_norm_and_bias
    nesterov = override(named_recipe("cifar10-lt-isda"), {"optimizer": "adamw"})
    assert not nesterov.stages[0].optimizer.nesterov
    again = override(override(changed, {"lr": 0.5}), {"optimizer": "adamw", "epochs": 3})
    assert training(again) == (0.5, 0.05, 3)  # the optimiser is the same as before
    assert training(override(changed, {"optimizer": "sgd"}))[:2] == (0.1, 2e-4)


def test_a_stored_recipe_keeps_its_rates():
    old = compose("digits").model_dump(mode="json")
    old["stages"][0]["optimizer"] |= {"name": "adamw", "lr": 0.1, "weight_decay": 2e-4}
    stored = load_recipe(json.loads(json.dumps(old)))
    assert training(stored) == SCRATCH
    assert training(as_recipe(stored)) == SCRATCH


def test_an_optimiser_made_by_hand_has_its_usual_rate():
    recipe = Recipe.model_validate({"stages": [{"optimizer": {"name": "adamw"}}]})
    assert training(recipe)[:2] == (1e-3, 0.05)
    assert training(Recipe())[:2] == (0.1, 2e-4)
