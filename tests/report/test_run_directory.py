"""A run's directory as everything that reads one sees it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from longtailed.errors import LongTailedError
from longtailed.report import RunDirectory

MakeRun: TypeAlias = Callable[..., Path]
Change: TypeAlias = Callable[[Path, Callable[[dict[str, Any]], object]], None]


def test_a_run_that_is_being_trained_has_no_results(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", epochs=1)
    assert RunDirectory(path).is_finished
    (path / "results.json").unlink()
    run = RunDirectory(path)
    assert (run.holds_run, run.is_begun, run.is_finished) == (True, True, False)
    assert run.recipe["stages"][0]["method"] == "ldam-drw"
    assert len(run.manifest["class_names"]) == 10
    with pytest.raises(LongTailedError, match=r"results\.json is missing; train it to the end"):
        _ = run.results
    (path / "manifest.json").unlink()  # killed between the two files
    assert (RunDirectory(path).holds_run, RunDirectory(path).is_begun) == (True, False)


def test_what_is_no_directory_is_one_sentence(tmp_path: Path) -> None:
    assert not RunDirectory(tmp_path / "none").holds_run
    with pytest.raises(LongTailedError, match="none does not exist; name the directory of a run"):
        _ = RunDirectory(tmp_path / "none").manifest
    (tmp_path / "file").touch()
    with pytest.raises(LongTailedError, match="file is not a directory"):
        _ = RunDirectory(tmp_path / "file").recipe


def test_values_stand_as_they_are_in_the_file(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", epochs=1)
    run = RunDirectory(path)
    for name in ("recipe", "manifest", "results"):
        assert getattr(run, name) == json.loads((path / f"{name}.json").read_text())


def test_a_rate_that_is_nan_is_absent(make_run: MakeRun, change: Change, tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", epochs=1)

    def make_absent(results: dict[str, Any]) -> None:
        last = results["evaluations"]["last"]
        last["per_class"][3] = math.nan
        last["groups"]["few"] = None
        last.pop("top5")

    change(path / "results.json", make_absent)
    last = RunDirectory(path).evaluations["last"]
    assert (last.per_class[3], last.groups.few, last.top5) == (None, None, None)
    assert last.tested_on == "the test images"


def test_weights_that_are_not_there_are_answered_with_those_that_are(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with pytest.raises(LongTailedError, match="no weights called 'last'; it has none yet"):
        run.weights()
    for name in ("model", "holdout-chosen"):
        (tmp_path / f"{name}.safetensors").touch()
    assert run.weights() == tmp_path / "model.safetensors"
    assert run.weights("holdout-chosen") == tmp_path / "holdout-chosen.safetensors"
    with pytest.raises(LongTailedError, match="'best-test'; it has last, holdout-chosen"):
        run.weights("best-test")
