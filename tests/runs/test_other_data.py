"""A finished run on other data: classes by name, options of its own data, sound weights."""

from __future__ import annotations

import csv
import io
import json
import shutil

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image

from longtailed.report.strict_json import read_json
from longtailed.runs.run import train
from longtailed.training.checkpoint import read_weights

COLOURS = {"ant": (220, 30, 30), "bee": (30, 220, 30), "moth": (30, 30, 220), "wasp": (200,) * 3}
ORDER = ("wasp", "ant", "moth")  # of the run's labels
SETTINGS = {
    "network.options.width": 0.5,
    "image_size": 32,
    "batch_size": 8,
    "lr": 0.05,
    "epochs": 6,
    "workers": 0,
    "holdout": 0,
}


def write_images(folder, classes, count: int = 8, seed: int = 0) -> None:
    """Write images whose colour tells their class, whatever the folder is called."""
    generator = np.random.default_rng(seed)
    for name, colour in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            noise = generator.integers(-20, 20, (34, 34, 3))
            pixels = np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def lines(names) -> str:
    return "".join(
        f"{colour}/{i}.png {label}\n" for label, colour in names.items() for i in range(8)
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return a folder with images and a run that tells their classes apart, in ORDER."""
    home = tmp_path_factory.mktemp("home")
    own = {name: name for name in ORDER}
    write_images(home / "set" / "train", own)
    write_images(home / "set" / "test", own, seed=1)
    settings = {**SETTINGS, "class_names": ",".join(ORDER)}
    given = {"data": home / "set", "network": "resnet8", "overrides": settings, "device": "cpu"}
    finished = train(**given, out=home / "run", progress=False, report=False)
    assert finished.results["evaluations"]["last"]["top1"] == 1
    write_images(home / "other", own, seed=2)
    write_images(home / "subset", {"ant": "ant", "wasp": "wasp"}, seed=3)
    write_images(home / "superset", {**own, "bee": "bee"}, seed=3)
    write_images(home / "renamed", {"ant": "ant", "moth": "moth", "hornet": "wasp"}, seed=3)
    (home / "numbers.txt").write_text(lines({0: "wasp", 1: "ant", 2: "moth"}))
    return home


def test_other_data_is_matched_by_name(home, run):
    code, printed, errors = run("evaluate", home / "run", "--data", home / "other")
    assert code == 0, errors
    assert json.loads(printed)["top1"] == 1
    assert "numbers its classes otherwise than the run" in errors
    for names in (ORDER, ("moth", "wasp", "ant")):
        given = ["--class-names", ",".join(names)]
        code, printed, errors = run("evaluate", home / "run", "--data", home / "other", *given)
        assert (code, json.loads(printed)["top1"]) == (0, 1)
        assert ("matched by name" in errors) == (names != ORDER)
    numbers = ["--data", home / "numbers.txt", "--root", home / "other"]
    code, printed, errors = run(
        "evaluate", home / "run", *numbers, "--class-names", ",".join(ORDER)
    )
    assert (code, json.loads(printed)["top1"]) == (0, 1)


def test_classes_without_images_are_named(home, run):
    code, printed, errors = run("evaluate", home / "run", "--data", home / "subset")
    assert code == 0, errors
    figures = json.loads(printed)
    assert (figures["top1"], figures["classes_without_images"]) == (1, ["moth"])
    assert "subset has 2 of the 3 classes of the run" in errors
    assert "No test images of 1 class ('moth'): the figures do not cover them." in errors


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("superset", "'bee', which is not among the 3 classes of the run"),
        ("renamed", "'hornet', which is not among the 3 classes of the run"),
        ("numbers.txt", "nothing says which is which"),
    ],
)
def test_classes_that_the_run_does_not_know_are_refused(data, message, home, run):
    root = ["--root", home / "other"] if data.endswith("txt") else []
    code, printed, errors = run("evaluate", home / "run", "--data", home / data, *root)
    assert (code, printed) == (2, "")
    assert message in errors
    assert "--class-names" in errors
    assert len([line for line in errors.splitlines() if line.startswith("error: ")]) == 1


def test_options_without_data_open_the_runs_own(home, run, tmp_path):
    code, printed, errors = run("evaluate", home / "run", "--class-names", "ant,moth,wasp")
    assert (code, json.loads(printed)["top1"]) == (0, 1), errors
    for option in (["--root", tmp_path], ["--label-column", "label"]):
        code, _, errors = run("evaluate", home / "run", *option)
        assert code == 2
        assert "does not take the option" in errors


def test_the_images_of_a_list_may_move(home, run, tmp_path):
    shutil.copytree(home / "other", tmp_path / "images")
    (tmp_path / "numbers.txt").write_text((home / "numbers.txt").read_text())
    given = ["--data", tmp_path / "numbers.txt", "--network", "resnet8", "--out", tmp_path / "run"]
    given += [f"{key}={value}" for key, value in {**SETTINGS, "epochs": 1}.items()]
    code, _, errors = run("train", *given, "--root", tmp_path / "images")
    assert code == 0, errors
    (tmp_path / "images").rename(tmp_path / "moved")
    assert run("evaluate", tmp_path / "run")[0] == 2
    code, printed, errors = run("evaluate", tmp_path / "run", "--root", tmp_path / "moved")
    assert code == 0, errors
    own = read_json(tmp_path / "run" / "results.json")["evaluations"]["last"]
    assert json.loads(printed)["top1"] == own["top1"]
    assert run("train", *given, "--root", tmp_path / "moved")[0] == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value, home, run, tmp_path):
    broken = shutil.copytree(home / "run", tmp_path / "broken")
    weights = read_weights(broken / "model.safetensors")
    weights["network.head.bias"][1] = value
    safetensors.torch.save_file(weights, broken / "model.safetensors")
    for command in (["evaluate", broken], ["predict", broken, home / "other" / "ant"]):
        code, printed, errors = run(*command)
        assert (code, printed) == (2, "")
        assert "has 1 value in network.head.bias that is NaN or infinite" in errors


def test_a_head_is_taken_over_by_name(home, run, tmp_path):
    settings = {**SETTINGS, "epochs": 0}
    given = ["--data", home / "other", "--network", "resnet8", f"network.init_from={home / 'run'}"]
    given += [f"{key}={value}" for key, value in settings.items()]
    code, _, errors = run("train", *given, "--out", tmp_path / "run")
    assert code == 0, errors
    assert "the head was loaded, too, its classes put in this run's order by name" in errors
    manifest = read_json(tmp_path / "run" / "manifest.json")
    assert manifest["class_names"] == sorted(ORDER)
    assert manifest["init_from"]["head"]
    own = read_json(tmp_path / "run" / "results.json")["evaluations"]["last"]
    assert own["top1"] == 1
    before = read_json(home / "run" / "manifest.json")
    assert (manifest["mean"], manifest["normalization"]) == (before["mean"], "weights")


@pytest.mark.parametrize("given", ["network.options.weights", "network.init_from"])
def test_images_are_normalised_as_the_weights_of_a_file_are_used_to(given, home, tmp_path):
    model = timm.create_model("test_resnet")
    torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.pth")
    settings = {"image_size": 32, "epochs": 0, "holdout": 0, "batch_size": 8}
    settings[given] = tmp_path / "weights.pth"
    run = {"data": home / "other", "network": "test_resnet", "progress": False, "report": False}
    for own in ({}, {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}):
        out = tmp_path / f"run-{len(own)}"
        train(**run, overrides={**settings, **own}, out=out, device="cpu")
        manifest = read_json(out / "manifest.json")
        expected = list(own.get("mean", (0.5, 0.5, 0.5)))  # the latter: test_resnet's own
        assert manifest["mean"] == expected
        assert manifest["normalization"] == ("recipe" if own else "weights")
        assert "fc.weight" in str(manifest["weights"] or manifest["init_from"]["note"])


def test_predictions_are_by_name(home, run):
    code, printed, _ = run("predict", home / "run", home / "other" / "moth")
    assert code == 0
    assert {row["class"] for row in csv.DictReader(io.StringIO(printed))} == {"moth"}
