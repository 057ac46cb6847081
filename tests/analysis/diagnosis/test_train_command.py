"""Commands that train a given recipe: read back, they mean the same recipe."""

from __future__ import annotations

import pytest

from longtailed.analysis.diagnosis.train_command import train_command
from longtailed.recipes import RECIPES, named_recipe, override
from longtailed.runs.run import as_recipe

ODD = {
    "data.class_names": "names, of classes.txt", "data.label_column": "007", "data.root": "None",
    "data.counts": [60, 30, 5], "data.views": {"standard": "pad_crop(4), flip", "sim": "flip"},
    "data.holdout": 0.1, "data.mean": [0.5, 0.25, 0.125], "data.std": [1, 1, 1], "data.workers": 0,
    "network.options": {"width": 0.5, "head_options": {"scale": 2.0, "bias": None}},
    "network.head": "cosine", "seed": 3, "capture": "never", "channels_last": False,
}  # fmt: skip
STAGE = {
    "weighting": "inverse", "weighting_start": 1, "epochs": 7, "batch_size": 20, "clip": 1.5,
    "accumulate": 2, "optimizer.name": "adamw", "lr": 1e-4, "kind": "cosine",
    "warmup": 0.25, "checkpoint_every": 3,
}  # fmt: skip


@pytest.mark.parametrize("name", [*list(RECIPES)[::12], "digits-rotation-ldam-drw-crt"])
def test_a_named_recipe_needs_its_name_alone_and_its_settings_need_no_name(name, parse_command):
    recipe = named_recipe(name)
    assert train_command(recipe) == f"longtailed train {name}"
    renamed = recipe.model_copy(update={"name": "mine"})
    assert parse_command(train_command(renamed)).recipe == renamed


@pytest.mark.parametrize(
    "recipe",
    [
        as_recipe(data="my photos/", method="ce", overrides={**ODD, **STAGE}),
        as_recipe(data="photos", network="resnet18", overrides={"network.pretrained": True}),
        as_recipe(data="photos", imbalance=100 / 3, network="resnet18", overrides={
            "network.pretrained": True, "epochs": 200, "batch_size": 128, "kind": "step",
        }),
        as_recipe("digits-ce", overrides={"seed": 4, "lr": 0.05, "network.name": "resnet8"}),
        as_recipe("cifar10-lt-crt", overrides={"name": "own", "1.optimizer.lr": 0.3}),
        as_recipe("digits-rotation-ldam-drw-crt", overrides={
            "0.optimizer.lr": 0.01, "stages.2.options.features": "fresh",
        }),
        as_recipe("cifar10-lt-ldam-drw", overrides={"method": "ncm", "epochs": 0}),
    ],
    ids=lambda recipe: recipe.name,
)  # fmt: skip
def test_a_command_read_back_means_the_same_recipe(recipe, parse_command):
    assert parse_command(train_command(recipe)).recipe == recipe


def test_what_a_named_recipe_says_is_not_said_again(parse_command):
    recipe = as_recipe("digits-ce", overrides={"lr": 0.05})
    assert train_command(recipe) == "longtailed train digits-ce lr=0.05"
    found = parse_command(train_command(recipe, "runs/two words"))
    assert str(found.out) == "runs/two words"


def test_all_stages_of_a_run_that_has_no_name_can_be_said():
    chain = named_recipe("digits-rotation-ldam-drw-crt").model_copy(update={"name": "mine"})
    assert override(chain, {"stages": chain.model_dump()["stages"]}) == chain
    assert "stages=[" in train_command(chain)
