"""Whole experiments, shrunk: what they train, write and conclude, and that they resume."""

from __future__ import annotations

import csv
import io
import json
import sys

import pytest
from PIL import Image

from longtailed.analysis.experiments import (
    EXPERIMENTS,
    run_experiment,
    similar_samples,
    starts,
    toy_cases,
)
from longtailed.cli import main as cli
from longtailed.errors import LongTailedError

QUICK = ["epochs=1", "network.options.width=0.25", "batch_size=64"]
QUICK_PAPER = [*QUICK, "network=resnet8"]


@pytest.fixture(autouse=True)
def fewer_points(monkeypatch):
    """Leave the ends of each small grid."""
    monkeypatch.setattr(toy_cases, "HEAD_SHARES", (1 / 4, 1))
    monkeypatch.setattr(toy_cases, "TAIL_SHARES", (1, 1 / 24))
    monkeypatch.setitem(similar_samples.FRACTIONS, "small", (0.5,))
    monkeypatch.setitem(similar_samples.WEIGHTS, "small", (0.8, 1.0))
    monkeypatch.setattr(starts, "PRE_TRAINING_METHODS", ("CE+RS",))
    monkeypatch.setitem(starts.DEPTHS, "small", ("resnet8",))


def run(name, tmp_path, **changes):
    given = {"seeds": [0], "overrides": QUICK, "out": tmp_path / "out", "progress": False}
    return run_experiment(name, **{**given, **changes})


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs_from_end_to_end(name, tmp_path):
    found = run(name, tmp_path)
    home, content = found.directory, json.loads((found.directory / "experiment.json").read_text())
    assert content == json.loads(json.dumps(found.content))
    assert content["experiment"] == name
    assert {one["verdict"] for one in content["conclusions"]} == {"undecided"}  # one seed
    assert len(content["points"]) == len(content["runs"]) == len(found.results.points)
    for one in content["runs"]:
        assert len(one["per_class"]) == len(one["counts"]) == 10
        assert one["rank5"] >= one["rank1"] >= 0
    assert content["published"] is None
    assert content["versions"]["torch"]
    rows = list(csv.DictReader(io.StringIO((home / "results.csv").read_text())))
    assert len(rows) == len(content["runs"])
    assert float(rows[0]["rank1"]) == pytest.approx(content["runs"][0]["rank1"], abs=1e-3)
    with Image.open(home / "chart.png") as chart:
        assert chart.width > 400
    assert "<svg" in (home / "chart.svg").read_text()
    for point in found.results.points:
        manifest = json.loads((home / point.name / "seed-0" / "manifest.json").read_text())
        share = point.settings.get("fraction", 0)
        assert ("similar" in manifest) == (share > 0)
        if share:  # what was asked for is what was trained on
            added = 60 if point.settings["arm"] == "appended" else 0
            assert manifest["similar"]["images"] == int(120 * share)
            assert manifest["splits"]["train"]["counts"][0] == 120 + added


def test_more_seeds_go_on_where_it_stopped_and_give_intervals(tmp_path):
    first = run("toy-case-1", tmp_path)
    place = first.directory / first.results.points[0].name / "seed-0" / "model.safetensors"
    written = place.stat().st_mtime_ns
    again = run("toy-case-1", tmp_path, seeds=[0, 1])
    assert place.stat().st_mtime_ns == written
    values = [one["per_class"] for one in again.content["runs"]]
    assert values[0] == first.content["runs"][0]["per_class"]
    assert values[0] != values[1]
    assert all(one.found.low is not None for one in again.conclusions)
    assert again.content["points"][0]["tail"]["low"] is not None
    assert [one["seed"] for one in again.content["runs"]] == [0, 1, 0, 1]
    with pytest.raises(LongTailedError, match="holds the experiment 'toy-case-1'"):
        run("toy-case-2", tmp_path)
    with pytest.raises(LongTailedError, match="holds another recipe"):
        run("toy-case-1", tmp_path, overrides=[*QUICK, "lr=0.3"])


def test_a_directory_has_one_size_and_a_seed_counts_once(tmp_path, monkeypatch):
    monkeypatch.setattr(toy_cases, "HEAD_SHARES", (1,))
    found = run("toy-case-1", tmp_path, seeds=[0, 0])
    assert found.results.seeds == (0,)
    assert found.conclusions[0].found.number == 1
    monkeypatch.setattr(toy_cases, "PAPER_IMAGES", 100)
    with pytest.raises(LongTailedError, match="'toy-case-1' in size small"):
        run("toy-case-1", tmp_path, size="paper", data="digits", overrides=QUICK_PAPER)


def test_published_figures_stand_beside_paper_sized_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(toy_cases, "PAPER_IMAGES", 100)
    found = run("toy-case-1", tmp_path, size="paper", data="digits", overrides=QUICK_PAPER)
    assert [p.settings["head_images"] for p in found.results.points] == [100]
    assert found.content["published"]["per_class"][-1][0] == 43.0
    assert "published" in (found.directory / "chart.svg").read_text()


def test_no_seed_is_refused(tmp_path):
    with pytest.raises(LongTailedError, match="at least one seed"):
        run("toy-case-1", tmp_path, seeds=[])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["toy-case-3"], "unknown experiment 'toy-case-3'; did you mean"),
        (["toy-case-1", "--seeds", "x"], "names no seeds"),
        (["toy-case-1", "--size", "large"], "unknown size 'large'"),
        (["toy-case-1", "--size", "paper", "--data", "digits"], "needs 5,000 training images"),
        (["toy-case-1", "imbalance=3"], "leave out imbalance"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["longtailed", "experiment", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_the_command_prints_accuracies_and_conclusions(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(
        sys,
        "argv",
        ["longtailed", "experiment", "toy-case-1", *QUICK, "--seeds", "0-1", "-o", f"{tmp_path}/a"],
    )
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "head images" in printed
    assert "95 % t-interval over seeds" in printed
    assert "- More head images raise the head classes:" in printed
