"""Unlabelled images: what is left out, another source, and their own imbalance."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from longtailed.data.loading import load_splits
from longtailed.data.settings import Data
from longtailed.data.unlabelled import load_unlabelled
from longtailed.errors import LongTailedError
from longtailed.recipes import compose, override
from longtailed.runs.run import train


def test_the_rest_is_what_subsampling_left_out():
    sets, notes = load_splits(Data(imbalance=10, max_count=60, unlabelled="rest", holdout=5))
    whole, _ = load_splits(Data(holdout=5))
    rest = sets["unlabelled"]
    assert notes["unlabelled"] == "rest"
    assert len(rest) == len(whole["train"]) - len(sets["train"])
    for other in ("train", "holdout"):
        assert np.intersect1d(rest.indices, sets[other].indices).size == 0


def test_they_have_an_imbalance_of_their_own():
    data = Data(imbalance=10, max_count=60, unlabelled="rest", unlabelled_imbalance=5)
    counts = load_splits(data)[0]["unlabelled"].class_counts
    assert counts[0] / counts[-1] == pytest.approx(5, rel=0.2)


def test_another_source_may_be_named():
    sets, _ = load_splits(Data(imbalance=10, unlabelled="digits"))
    assert len(sets["unlabelled"]) > len(sets["train"])


def test_an_empty_set_is_one_sentence():
    with pytest.raises(LongTailedError, match="no unlabelled images in 'rest'; subsample more"):
        load_splits(Data(unlabelled="rest", holdout=0))


def test_a_stage_is_trained_on_them(tmp_path):
    recipe = override(
        compose("digits", "rotation", "resnet8", imbalance=10),
        ["epochs=1", "batch_size=64", "unlabelled=rest", "max_count=60", "lr=0.02"],
    )
    on_rest = override(recipe, ["images=unlabelled"])
    finished = train(on_rest, out=tmp_path / "run", progress=False, device="cpu")
    assert finished.recipe.stages[0].options == {"images": "unlabelled"}


@pytest.mark.parametrize(
    ("name", "root", "download"),
    [("cifar100", "archives", True), ("more.txt", "archives", False), ("digits", None, False)],
)
def test_another_source_is_opened_where_the_data_lies(name, root, download):
    images, _ = load_splits(Data())
    opened = []

    def load(data, split):
        opened.append((data, split))
        return images["train"]

    data = Data(source="cifar10", root="archives", download=True, unlabelled=name)
    load_unlabelled(data, images["train"], images["train"], load)
    assert opened == [(Data(source=name, root=root, download=download), "train")]


def test_what_the_unlabelled_source_was_read_as_is_noted(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "0.png")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    _, notes = load_splits(Data(imbalance=10, unlabelled=str(tmp_path)))
    assert any("its folders are 2 classes" in note for note in notes["read_as"])
    assert notes["left_out"]["unlabelled"] == {"not readable as an image (.txt)": 1}
