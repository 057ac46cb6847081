"""Runs on images that are given in Python: a torch data set, an image set, a mapping of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from longtailed import ImageSet, evaluate, train
from longtailed.errors import LongTailedError

NAMES = ("ant", "bee", "wasp")
SHORT = {"epochs": 1, "batch_size": 16, "network.options.width": 0.25, "lr": 0.01}


def options(**changes):
    return {
        "network": "resnet8",
        "overrides": SHORT | changes,
        "device": "cpu",
        "progress": False,
        "report": False,
    }


class Photos(Dataset):
    """Small images of three colours, as a user's data set gives them."""

    classes = list(NAMES)

    def __init__(self, counts: list[int], seed: int = 0) -> None:
        self.targets = np.repeat(np.arange(3), counts).tolist()
        noise = np.random.default_rng(seed).integers(0, 60, (sum(counts), 16, 16, 3))
        noise[np.arange(sum(counts)), :, :, self.targets] += 150
        self.pixels = noise.astype(np.uint8)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int):
        return self.pixels[row], self.targets[row]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_torch_data_set_is_trained_on() -> None:
    data = {"train": Photos([30, 12, 6]), "test": Photos([5, 5, 5], seed=1)}
    run = train(data=data, **options())
    manifest = json.loads((run.directory / "manifest.json").read_text())
    assert manifest["source"] == "Photos"
    assert manifest["class_names"] == list(NAMES)
    assert manifest["splits"]["test"]["counts"] == [5, 5, 5]
    assert manifest["tested_on"] == "the test split"
    assert manifest["storage"] == "memory"  # small images are decoded once
    assert "Photos" in run.directory.name
    with pytest.raises(LongTailedError, match="were given in Python"):
        evaluate(run.directory, device="cpu")
    own = evaluate(run.directory, data=data["test"], device="cpu")
    assert own.figures["tested_on"] == "the test split"
    last = run.results["evaluations"]["last"]
    assert own.figures["balanced_accuracy"] == last["balanced_accuracy"]
    with pytest.warns(UserWarning, match="43 of the 48 images of Photos are among those"):
        other = evaluate(run.directory, data=data["train"], device="cpu")
    assert other.figures["tested_on"] == "all of Photos"
    with pytest.raises(LongTailedError, match="do not go with images"):
        evaluate(run.directory, data=data["test"], split="val", device="cpu")


def test_a_run_is_known_by_the_content_of_what_was_given() -> None:
    run = train(data=Photos([30, 12, 6]), out="run", **options())
    again = train(data=Photos([30, 12, 6]), out="run", **options())
    assert again.results == run.results
    (run.directory / "results.json").unlink()  # as if it had been stopped after its last epoch
    resumed = train(data=Photos([30, 12, 6]), out="run", **options())
    assert resumed.results["evaluations"] == run.results["evaluations"]
    changed = Photos([30, 12, 6])
    changed.pixels[0] ^= 1
    with pytest.raises(LongTailedError, match="1 image replaced by another image"):
        train(data=changed, out="run", **options())
    with pytest.raises(LongTailedError, match="given in Python"):
        train(run.recipe, out="run")


def test_forms_of_given_data_give_the_same_run() -> None:
    photos = Photos([30, 12, 6])
    arrays = ImageSet.from_arrays(photos.pixels, photos.targets, NAMES, name="Photos")
    pixels = torch.from_numpy(photos.pixels).permute(0, 3, 1, 2)
    tensors = ImageSet.from_dataset(
        TensorDataset(pixels, torch.tensor(photos.targets)), NAMES, name="Photos"
    )
    results = [
        train(data=data, out=f"run-{number}", **options()).results["evaluations"]["last"]
        for number, data in enumerate((photos, arrays, tensors))
    ]
    assert results[0] == results[1] == results[2]


def test_large_images_stay_where_they_are() -> None:
    photos = Photos([24, 12, 6])
    photos.pixels = photos.pixels.repeat(5, axis=1).repeat(5, axis=2)
    settings = {"image_size": 32, "storage": "disk", "workers": 1, "holdout": 1}
    run = train(data=photos, **options(**settings))
    assert json.loads((run.directory / "manifest.json").read_text())["storage"] == "disk"


def test_a_recipe_with_given_data_and_groups() -> None:
    photos = Photos([60, 60, 60])
    groups = np.array([f"film {row // 3}" for row in range(180)])
    imageset = ImageSet(
        torch.from_numpy(photos.pixels).permute(0, 3, 1, 2).contiguous(),
        np.array(photos.targets),
        NAMES,
        groups=groups,
    )
    run = train("cifar10-lt-ce", data=imageset, imbalance=3, **options(protocol="honest"))
    manifest = json.loads((run.directory / "manifest.json").read_text())
    assert manifest["groups"]["by"] == "the groups of the given images"
    counts = manifest["splits"]["train"]["counts"]
    assert counts[0] == 3 * counts[2]


@pytest.mark.parametrize(
    ("data", "settings", "reason"),
    [
        ({"test": Photos([5, 5, 5])}, {}, "no train split, but test"),
        ({"train": Photos([5, 5, 5]), "extra": Photos([5, 5, 5])}, {}, "the split 'extra'"),
        (
            {"val": Photos([5, 5, 5]), "validation": Photos([5, 5, 5])},
            {},
            "the split 'validation' twice",
        ),
        (Photos([5, 5, 5]), {"split_by": "film"}, "split_by says how a source is opened"),
        ({"train": Photos([5, 5, 5])}, {"eval_split": "val"}, "no split 'val'; it has 'train'"),
        ([1, 2, 3], {}, "gives items of the type int"),
    ],
)
def test_bad_data_are_refused(data, settings, reason: str) -> None:
    with pytest.raises(LongTailedError, match=reason):
        train(data=data, **options(**settings))
