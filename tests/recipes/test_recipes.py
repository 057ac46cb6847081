"""Recipes: all are valid, survive JSON, and take overrides with helpful refusals."""

from __future__ import annotations

import json

import pytest

from longtailed.errors import LongTailedError
from longtailed.recipes import RECIPES, compose, load_recipe, named_recipe, override, recipe_note
from longtailed.recipes.published import figures_of


@pytest.mark.parametrize("name", RECIPES)
def test_named_recipes_survive_json_and_say_what_to_expect(name):
    recipe = named_recipe(name)
    assert recipe.name == name
    again = load_recipe(json.loads(recipe.model_dump_json()))
    assert again == recipe
    assert again.identity == recipe.identity
    assert figures_of(name) or "figure" in recipe_note(name)


def test_short_keys_reach_their_place():
    recipe = override(
        compose("digits", "focal"),
        [
            "epochs=7",
            "lr=0.05",
            "imbalance=20",
            "gamma=2",
            "seed=3",
            "profile=step",
            "views.standard=flip",
        ],
    )
    stage = recipe.stages[0]
    assert (stage.epochs, stage.optimizer.lr, recipe.data.imbalance) == (7, 0.05, 20)
    assert stage.options == {"gamma": 2.0}  # the focal loss's, not the schedule's
    assert (recipe.seed, recipe.data.profile) == (3, "step")
    assert recipe.data.views == {"standard": "flip"}


def test_changing_the_method_changes_which_options_exist():
    recipe = override(compose("digits", "focal"), ["tau=0.5", "method=logit-adjustment"])
    assert recipe.stages[0].options == {"tau": 0.5}


def test_head_follows_the_method():
    assert compose("digits", "ce").head == "linear"
    assert compose("digits", "ldam").head == "cosine"


def test_identity_changes_with_any_setting():
    recipe = compose("digits")
    assert recipe.identity != override(recipe, ["epochs=7"]).identity
    assert recipe.identity == compose("digits").identity


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("epocs=3", "unknown key 'epocs'; did you mean 'epochs'"),
        ("epochs=many", "stages.0.epochs cannot be 'many': input should be a valid integer"),
        ("epochs=-1", "stages.0.epochs cannot be -1: input should be greater than or equal to 0"),
        ("imbalance=0.5", "data.imbalance cannot be 0.5"),
        ("profile=linear", "data.profile cannot be 'linear': input should be 'exp' or 'step'"),
        ("epochs", "'epochs' is not an override; write key=value"),
        ("method=lda", "unknown method 'lda'; did you mean 'ldam'"),
        ("max_margin=wide", "option 'max_margin' of method 'ldam' cannot be 'wide'"),
        ("stages.0.options.tau=1", "unknown option of method 'ldam' 'tau'|unknown key"),
        ("views.standard=flop", "unknown operation 'flop'|flop"),
        (
            "holdout=1.5",
            "data.holdout cannot be 1.5: give images of each class, a whole number from 0 on, or a",
        ),
        ("data.epochs=3", "unknown key 'data.epochs'"),
    ],
)
def test_bad_overrides_are_one_sentence(assignment, message):
    with pytest.raises(LongTailedError, match=message) as caught:
        override(compose("digits", "ldam"), [assignment])
    assert "\n" not in str(caught.value)


def test_keys_of_several_stages_need_a_number():
    recipe = compose("digits")
    values = recipe.model_dump(mode="json")
    values["stages"] = [values["stages"][0], {**values["stages"][0], "method": "focal"}]
    two = load_recipe(values)
    assert override(two, ["stages.1.epochs=4", "0.epochs=2", "gamma=3"]).stages[1].epochs == 4
    with pytest.raises(LongTailedError, match=r"ambiguous; say which: stages\.0\.epochs"):
        override(two, ["epochs=3"])


def test_unknown_recipes_and_keys_name_the_nearest():
    with pytest.raises(LongTailedError, match="did you mean 'cifar10-lt-ldam-drw'"):
        named_recipe("cifar10-ldam-drw")
    with pytest.raises(LongTailedError, match="no key 'epochs'"):
        load_recipe({"epochs": 3})


def test_counts_are_a_setting_like_any_other():
    plain = override(compose("digits"), ["counts=[30,20,10]"])
    assert plain.data.counts == (30, 20, 10)
    assert plain.identity != compose("digits").identity
    assert load_recipe(json.loads(plain.model_dump_json())).identity == plain.identity
    swapped = override(named_recipe("cifar10-lt-ce"), ["imbalance=none", "counts=[5000,50]"])
    assert (swapped.data.imbalance, swapped.data.counts) == (None, (5000, 50))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["counts=[5000,50]"], "counts .* so does imbalance; give one of them"),
        (["imbalance=none", "max_count=9", "counts=[5,5]"], "so does max_count"),
        (["imbalance=none", "counts=[5,0]"], "data.counts.1 cannot be 0"),
        (["imbalance=none", "counts=[]"], "data.counts cannot be"),
        (["imbalance=none", "counts=many"], "data.counts cannot be 'many'"),
    ],
)
def test_bad_counts_are_one_sentence(changes, message):
    with pytest.raises(LongTailedError, match=message):
        override(named_recipe("cifar10-lt-ce"), changes)


def test_similar_samples_are_part_of_a_recipe():
    plain = compose("digits")
    similar = override(plain, ["fraction=0.3", "similar.tail_class=noise", "head_weight=0.5"])
    assert (similar.data.similar.fraction, similar.data.similar.tail_class) == (0.3, "noise")
    assert load_recipe(json.loads(similar.model_dump_json())).identity == similar.identity
    assert similar.identity != plain.identity == override(plain, ["fraction=0"]).identity
    with pytest.raises(LongTailedError, match=r"tail_class cannot be .tail.: give the number"):
        override(plain, ["similar.tail_class=tail"])
    with pytest.raises(LongTailedError, match=r"data\.similar\.fraction cannot be 2"):
        override(plain, ["fraction=2"])
