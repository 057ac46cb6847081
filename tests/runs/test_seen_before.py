"""Images that initial weights have learnt from, among those that judge a run."""

from __future__ import annotations

import shutil

import pytest

from longtailed.report.strict_json import read_json
from longtailed.runs.directory import learnt_images
from longtailed.runs.run import train

SMALL = {"network.options.width": 0.5, "epochs": 1, "batch_size": 256}
HELD = 100  # 10 of each of the ten digits


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Return the directory of a run on digits that holds nothing out."""
    directory = tmp_path_factory.mktemp("first") / "run"
    go(directory, method="ce", holdout=0)
    return directory


def go(out, method="crt", report=False, **settings):
    return train(
        data="digits",
        method=method,
        network="resnet8",
        overrides=SMALL | settings,
        out=out,
        device="cpu",
        progress=False,
        report=report,
    )


@pytest.mark.parametrize("file", ["", "model.safetensors"])
def test_held_out_images_of_an_earlier_runs_training_are_said(first, file, tmp_path):
    start = {"network.init_from": str(first / file), "holdout": 10}
    with pytest.warns(UserWarning, match=f"trained on {HELD} of {HELD} holdout images of") as said:
        run = go(tmp_path / "run", report=True, **start)
    assert len([one for one in said if "trained on" in str(one.message)]) == 1
    seen = read_json(tmp_path / "run" / "manifest.json")["seen_by_initial_weights"]
    assert seen == {"holdout": HELD}
    assert f"trained on {HELD} of its holdout images" in run.report.read_text()


def test_test_images_of_another_split_and_of_a_run_before_are_said(first, tmp_path, recwarn):
    same = {"network.init_from": str(first), "holdout": 0}
    go(tmp_path / "same", **same)
    assert not [one for one in recwarn if "trained on" in str(one.message)]
    assert read_json(tmp_path / "same" / "manifest.json")["seen_by_initial_weights"] == {}
    chained = {"network.init_from": str(tmp_path / "same"), "subset_seed": 1, "holdout": 10}
    with pytest.warns(UserWarning, match=r"trained on \d+ of \d+ holdout images"):
        go(tmp_path / "chained", **chained)


def test_runs_that_began_from_each_other_are_read_once(first, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(first, "one")
    go(tmp_path / "two", **{"network.init_from": "one", "holdout": 0})
    shutil.rmtree("one")
    go(tmp_path / "one", **{"network.init_from": "two", "holdout": 0})
    assert len(learnt_images(tmp_path / "one")) == 2 * len(learnt_images(first))
