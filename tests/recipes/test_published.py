"""The table of published figures: every row can be trained, and a run finds its rows."""

from __future__ import annotations

import csv
from importlib import resources

import pytest

from longtailed.recipes import named_recipe, override
from longtailed.recipes.published import (
    CERTAINTIES,
    MEASURES,
    figures_for,
    figures_of,
    published_table,
)


def test_every_row_is_complete_and_can_be_trained():
    for row in published_table():
        assert 0 < row.figure < 100, row
        assert row.measure in MEASURES, row
        assert row.certainty in CERTAINTIES, row
        assert row.protocol, row
        assert row.source, row
        recipe = row.build()
        assert recipe.name == row.name
        assert recipe.data.imbalance == row.imbalance


def test_rows_differ():
    text = resources.files("longtailed.recipes").joinpath("published.csv").read_text("utf-8")
    rows = [tuple(row) for row in csv.reader(text.splitlines())]
    assert len(set(rows)) == len(rows)


def test_a_recipe_with_a_figure_at_its_ratio_holds_no_image_of_cifar_out():
    for row in published_table():
        recipe = row.build()
        if recipe.protocol == "honest" and recipe.data.source.startswith("cifar"):
            pytest.fail(f"{row} is compared with a run on fewer images")


def test_errors_become_accuracies():
    (row,) = figures_of("cifar100-lt-50-metasaug")
    assert (row.figure, row.measure) == (48.10, "error")
    assert row.accuracy == pytest.approx(51.90)
    assert row.sentence.startswith("error 48.1 %, best epoch on the test images; arXiv 2103.12579")


def test_a_run_finds_the_rows_of_its_own_settings():
    recipe = named_recipe("cifar100-lt-ldam-drw")
    assert [row.figure for row in figures_for(recipe)] == [42.04]
    assert [row.figure for row in figures_for(override(recipe, ["seed=3"]))] == [42.04]
    assert [row.figure for row in figures_for(override(recipe, ["imbalance=10"]))] == [58.71]
    assert [row.figure for row in figures_for(override(recipe, ["profile=step"]))] == [45.36]
    assert figures_for(override(recipe, ["epochs=5"])) == []
    assert figures_for(named_recipe("digits-ce")) == []


def test_rows_that_were_not_read_say_so():
    recalled = next(row for row in figures_of("cifar10-lt-focal") if row.imbalance == 100)
    assert "(recalled)" in recalled.sentence
