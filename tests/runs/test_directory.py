"""A run's directory belongs to one recipe and one set of images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from longtailed.data import ImageSet
from longtailed.data.preparation import Opened
from longtailed.errors import LongTailedError
from longtailed.recipes import compose, override
from longtailed.report.strict_json import read_json
from longtailed.runs.directory import (
    check_directory,
    claim_directory,
    default_directory,
    read_recipe,
    record_run,
)
from longtailed.training.checkpoint import write_json

SIZES = {"images": 2, "counts": [1, 1]}
MANIFEST = {
    "source": "x", "class_names": ["ant", "bee"], "splits": {"train": SIZES, "test": SIZES},
    "imbalance_ratio": 1.0, "network": "resnet8", "parameters": 1, "initial_weights": {},
}  # fmt: skip
RECIPE = compose("digits")


def opened(*pixels: int, names: str = "ant bee") -> Opened:
    """Return images of one grey each, in one class after the other, as train and test."""
    images = torch.tensor(pixels, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, 2, 2)
    labels = np.arange(len(pixels)) % 2
    imageset = ImageSet(images, labels, tuple(names.split()))
    return Opened({"train": imageset, "test": imageset.subset([0])}, {})


def claim(directory, recipe=RECIPE, images=None) -> None:
    record, files = record_run(directory, recipe, images or opened(1, 2, 3))
    claim_directory(directory, recipe, {**MANIFEST, **files}, record)


def test_a_claimed_directory_is_recognised(tmp_path):
    directory = tmp_path / "deep" / "run"
    check_directory(directory, RECIPE)
    claim(directory)
    check_directory(directory, RECIPE)
    assert read_recipe(directory) == RECIPE
    with pytest.raises(LongTailedError, match=r"stages\.0\.epochs is 200 there and 3 here"):
        check_directory(directory, override(RECIPE, ["epochs=3"]))
    with pytest.raises(LongTailedError, match=r"stages is .* there"):
        check_directory(directory, RECIPE.model_copy(update={"stages": RECIPE.stages * 2}))


@pytest.mark.parametrize(
    "change",
    [
        "capture=never", "compile=true", "checkpoint_every=1", "workers=3", "root=/elsewhere",
        "download=true", "on_bad_image=skip", "verify=content", "name=another",
    ],
)  # fmt: skip
def test_how_a_run_is_executed_and_where_its_files_lie_may_change(change, tmp_path):
    claim(tmp_path)
    other = override(RECIPE, [change])
    assert other != RECIPE
    check_directory(tmp_path, other)
    assert default_directory(other).name.rpartition("-")[2] == RECIPE.identity[:8]
    with pytest.raises(LongTailedError, match="seed is 0 there and 1 here"):
        check_directory(tmp_path, override(RECIPE, [change, "seed=1"]))


@pytest.mark.parametrize("change", ["storage=disk", "data.label_column=x", "source=cifar10"])
def test_what_changes_the_result_is_another_run(change):
    assert override(RECIPE, [change]).identity != RECIPE.identity


def test_files_that_were_moved_are_the_same_run_in_another_default_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = ("network.init_from", "test_list", "unlabelled")
    for setting in settings:
        one, other = (override(RECIPE, {setting: place}) for place in ("a/file", "b/file"))
        assert one.identity == other.identity
        assert default_directory(one) != default_directory(other)
        check_directory(tmp_path / "none", one)
    assert compose("a/photos").identity == compose("b/photos").identity != RECIPE.identity
    spellings = ("photos", "photos/", "./photos", str(tmp_path / "photos"), "x/../photos")
    assert len({default_directory(compose(spelling)) for spelling in spellings}) == 1
    assert default_directory(compose("a/photos")) != default_directory(compose("b/photos"))


def test_a_directory_with_other_things_is_refused(tmp_path):
    (tmp_path / "letter.txt").touch()
    for path in (tmp_path, tmp_path / "letter.txt"):
        with pytest.raises(LongTailedError, match="exists and holds no run"):
            check_directory(path, RECIPE)


def test_what_a_killed_run_left_is_cleared(tmp_path):
    leftover = tmp_path / ".checkpoint.pt.123.tmp"
    leftover.touch()
    check_directory(tmp_path, RECIPE)
    claim(tmp_path)
    assert not leftover.exists()


@pytest.mark.parametrize("mark", ["checkpoint.pt", "results.json"])
def test_data_that_changed_since_is_refused_only_if_training_began(mark, tmp_path):
    claim(tmp_path)
    claim(tmp_path, images=opened(1, 2, 4))
    (tmp_path / mark).touch()
    claim(tmp_path, images=opened(1, 2, 4))
    replaced = r"1 image replaced by another image \(train: 'row 2'\)\. Restore"
    with pytest.raises(LongTailedError, match=replaced):
        claim(tmp_path, images=opened(1, 2, 3))
    with pytest.raises(LongTailedError, match=r"1 image added \(train: 'row 3'\)\."):
        claim(tmp_path, images=opened(1, 2, 4, 5))
    with pytest.raises(LongTailedError, match=r"put into another class \(train: 'row 0', "):
        claim(tmp_path, images=opened(1, 2, 4, names="bee ant"))
    assert read_json(tmp_path / "manifest.json")["class_names"] == ["ant", "bee"]


def test_classes_in_another_order_are_other_data(tmp_path):
    claim(tmp_path)
    (tmp_path / "checkpoint.pt").touch()
    sets = {
        name: replace(imageset, labels=1 - imageset.labels, class_names=("bee", "ant"))
        for name, imageset in opened(1, 2, 3).sets.items()
    }
    with pytest.raises(LongTailedError, match="the classes stand in another order"):
        claim(tmp_path, images=Opened(sets, {}))


def test_initial_weights_that_changed_since_are_other_data(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"one")
    recipe = override(RECIPE, {"network.init_from": tmp_path / "weights.pth"})
    claim(tmp_path / "run", recipe)
    (tmp_path / "run" / "checkpoint.pt").touch()
    claim(tmp_path / "run", recipe)
    (tmp_path / "weights.pth").write_bytes(b"two")
    with pytest.raises(LongTailedError, match="the weights that it began from are others"):
        claim(tmp_path / "run", recipe)


def test_initial_weights_that_are_not_there_are_named_with_their_setting(tmp_path):
    recipe = override(RECIPE, {"network.init_from": tmp_path / "nowhere"})
    with pytest.raises(LongTailedError, match=r"no weights at .*/nowhere, which init_from names"):
        claim(tmp_path / "run", recipe)


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LongTailedError, match=r"cannot use .*Not a directory"):
        claim(tmp_path / "file" / "run")


def test_a_recipe_of_another_version_names_its_file(tmp_path):
    write_json(tmp_path / "recipe.json", {"stages": [{"method": "ce"}], "future": 1})
    with pytest.raises(LongTailedError, match=r"recipe\.json cannot be used: .*another version"):
        read_recipe(tmp_path)
