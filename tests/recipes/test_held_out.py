"""Which named recipes hold images out to choose an epoch on: all without a published figure."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from longtailed.recipes import RECIPES, named_recipe

# The rows of CIFAR that no published figure exists of, by the end of their names.
UNPUBLISHED = (
    r"cifar10-lt-balanced-softmax|cifar100-lt-mixup-drw",
    r"cifar10+-lt-isda",
    r"cifar10-lt-(10|20|50|200)-risda|cifar100-lt-(20|200)-risda",
    r"cifar10+-(lt|step)-rsg(-focal)?|cifar10+-step-rsg-ldam-drw",
    r"cifar10+-lt-concutmix-(no-mixing|area-only|semantic-\d+|ours-mixed-prior)",
    r"cifar10+-lt-20-rotation-ldam-drw|cifar10+-lt(-\d+)?-rotation-ldam-drw-crt",
    r"cifar10+-lt(-\d+)?-moco(-ce|-ldam-drw-crt)?",
    r"cifar10+-lt-(crt|lws|tau-norm|ncm|crt-class-balanced)",
)


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("cifar")])
def test_a_row_of_cifar_trains_on_all_images_only_if_its_figure_is_published(name):
    recipe = named_recipe(name)
    if re.fullmatch("|".join(UNPUBLISHED), name):
        assert (recipe.data.holdout, recipe.protocol) == (None, "honest")
    else:
        assert (recipe.data.holdout, recipe.protocol) == (0, "published")


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.startswith("cifar")])
def test_of_the_others_only_inaturalist_whose_val_split_has_the_figures_holds_nothing_out(name):
    data = named_recipe(name).data
    assert (data.holdout == 0) == name.startswith("inaturalist") == (data.eval_split == "val")


def test_the_readme_says_how_many_hold_nothing_out():
    readme = Path(__file__).parents[2].joinpath("README.md").read_text(encoding="utf-8")
    none_held_out = sum(named_recipe(name).data.holdout == 0 for name in RECIPES)
    assert f"{none_held_out} of the {len(RECIPES)} named recipes" in " ".join(readme.split())
