from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from longtailed.errors import LongTailedError
from longtailed.report import load_run, write_report

MakeRun: TypeAlias = Callable[..., Path]
Change: TypeAlias = Callable[[Path, Callable[[dict[str, Any]], object]], None]


@pytest.mark.parametrize(
    "name",
    ["results.json", "recipe.json", "manifest.json", "metrics.jsonl", "evaluation-last.npz"],
)
def test_unfinished_run_is_refused(name: str, make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "x", epochs=1)
    (run / name).unlink()
    with pytest.raises(LongTailedError) as caught:
        load_run(run)
    assert str(caught.value) == (
        f"{run} holds no finished run: {name} is missing; train it to the end first."
    )


BREAKAGES: dict[str, tuple[str, Callable[[Any], object], str]] = {
    "key": (
        "results.json",
        lambda results: results["evaluations"]["last"].pop("ece"),
        "lacks 'evaluations.last.ece'",
    ),
    "last": (
        "results.json",
        lambda results: results["evaluations"].pop("last"),
        "lacks 'evaluations.last'",
    ),
    "accuracies": (
        "results.json",
        lambda results: results["evaluations"]["last"]["per_class"].pop(),
        "does not fit the run's 10 classes",
    ),
    "stages": ("recipe.json", lambda recipe: recipe.clear(), "lacks 'stages'"),
    "method": (
        "recipe.json",
        lambda recipe: recipe["stages"][0].pop("method"),
        "lacks 'stages.0.method'",
    ),
    "source": ("manifest.json", lambda manifest: manifest.pop("source"), "lacks 'source'"),
    "split": (
        "manifest.json",
        lambda manifest: manifest["splits"].pop("test"),
        "lacks 'splits.test'",
    ),
    "number": (
        "manifest.json",
        lambda manifest: manifest["splits"]["train"].update(images="many"),
        "splits.train.images: Input should be a valid integer",
    ),
    "no stage": (
        "recipe.json",
        lambda recipe: recipe["stages"].clear(),
        "stages: List should have at least 1 item",
    ),
    "names": (
        "manifest.json",
        lambda manifest: manifest["class_names"].pop(),
        "names 9 classes but counts 10",
    ),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_broken_run_is_refused_in_one_sentence(
    name: str, make_run: MakeRun, change: Change, tmp_path: Path
) -> None:
    file, breakage, message = BREAKAGES[name]
    run = make_run(tmp_path / "x", epochs=1)
    change(run / file, breakage)
    with pytest.raises(LongTailedError, match=re.escape(message)) as caught:
        write_report([run])
    assert str(run / file) in str(caught.value)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("results.json", b"{", "cannot be read as JSON"),
        ("recipe.json", b"[]", "does not hold a JSON object"),
        ("metrics.jsonl", b"{}\n", "line 1 is no epoch record"),
        ("evaluation-last.npz", b"PK\x03\x04", "cannot be read as labels"),
    ],
)
def test_unreadable_file_is_refused(
    file: str, content: bytes, message: str, make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "x", epochs=1)
    (run / file).write_bytes(content)
    with pytest.raises(LongTailedError, match=message) as caught:
        load_run(run)
    assert str(run / file) in str(caught.value)


def test_repeated_epochs_keep_the_last(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=3)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    again = json.dumps(json.loads(lines[1]) | {"loss": 77.0})
    (run / "metrics.jsonl").write_text("\n".join([*lines, again, ""]))
    assert [record["loss"] == 77.0 for record in load_run(run).metrics] == [False, True, False]


def test_predictions_must_fit_the_classes(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "x", epochs=1)
    np.savez(
        run / "evaluation-last.npz", labels=[0, 10], predictions=[0, 1], confidences=[0.5, 0.5]
    )
    with pytest.raises(LongTailedError, match="labels of the run's 10 classes"):
        load_run(run)
    np.savez(run / "evaluation-last.npz", labels=[0, 1], predictions=[0], confidences=[0.5])
    with pytest.raises(LongTailedError, match="unequal length"):
        load_run(run)


def test_epochs_and_seconds_cover_all_stages(runs: dict[str, Path]) -> None:
    run = load_run(runs["two-stage"])
    assert run.methods == ("moco", "crt")
    assert (run.epochs, run.last.epoch, len(run.metrics)) == (12, 5, 12)
    assert run.train_seconds == pytest.approx(12 * 1.02)
