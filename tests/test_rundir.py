"""A run's directory belongs to one recipe and one set of images."""

from __future__ import annotations

import json

import pytest

from longtailed.checkpoint import write_json
from longtailed.errors import LongTailedError
from longtailed.recipes import compose, override
from longtailed.rundir import check_directory, claim_directory, read_recipe

MANIFEST = {"splits": {"train": {"sha256": "a"}, "test": {"sha256": "b"}}}
RECIPE = compose("digits")


def test_a_claimed_directory_is_recognised(tmp_path):
    directory = tmp_path / "deep" / "run"
    check_directory(directory, RECIPE)
    claim_directory(directory, RECIPE, MANIFEST)
    check_directory(directory, RECIPE)
    assert read_recipe(directory) == RECIPE
    with pytest.raises(LongTailedError, match=r"stages\.0\.epochs is 200 there and 3 here"):
        check_directory(directory, override(RECIPE, ["epochs=3"]))
    with pytest.raises(LongTailedError, match=r"stages is .* there"):
        check_directory(directory, RECIPE.model_copy(update={"stages": RECIPE.stages * 2}))


def test_how_a_run_is_executed_may_change(tmp_path):
    claim_directory(tmp_path, RECIPE, MANIFEST)
    for change in ("capture=never", "compile=true", "checkpoint_every=1"):
        check_directory(tmp_path, override(RECIPE, [change]))
    with pytest.raises(LongTailedError, match="seed is 0 there and 1 here"):
        check_directory(tmp_path, override(RECIPE, ["capture=never", "seed=1"]))


def test_a_directory_with_other_things_is_refused(tmp_path):
    (tmp_path / "letter.txt").touch()
    for path in (tmp_path, tmp_path / "letter.txt"):
        with pytest.raises(LongTailedError, match="exists and holds no run"):
            check_directory(path, RECIPE)


def test_what_a_killed_run_left_is_cleared(tmp_path):
    leftover = tmp_path / ".checkpoint.pt.123.tmp"
    leftover.touch()
    check_directory(tmp_path, RECIPE)
    claim_directory(tmp_path, RECIPE, MANIFEST)
    assert not leftover.exists()


def test_data_that_changed_since_is_refused_only_if_training_began(tmp_path):
    claim_directory(tmp_path, RECIPE, MANIFEST)
    changed = {"splits": {**MANIFEST["splits"], "train": {"sha256": "c"}}}
    claim_directory(tmp_path, RECIPE, changed)
    (tmp_path / "checkpoint.pt").touch()
    claim_directory(tmp_path, RECIPE, changed)
    with pytest.raises(LongTailedError, match="the train images have changed since"):
        claim_directory(tmp_path, RECIPE, MANIFEST)
    assert json.loads((tmp_path / "manifest.json").read_text()) == changed


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LongTailedError, match=r"cannot use .*Not a directory"):
        claim_directory(tmp_path / "file" / "run", RECIPE, MANIFEST)


def test_a_recipe_of_another_version_names_its_file(tmp_path):
    write_json(tmp_path / "recipe.json", {"future": 1})
    with pytest.raises(LongTailedError, match=r"recipe\.json cannot be used: .*another version"):
        read_recipe(tmp_path)
