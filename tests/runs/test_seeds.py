"""Several seeds of one recipe: separate runs, one report, mean and deviation."""

from __future__ import annotations

import statistics

import pytest

from longtailed.errors import LongTailedError
from longtailed.recipes import compose, override
from longtailed.runs.seeds import parse_seeds, spread, train_seeds

QUICK = ["network=resnet8", "network.options.width=0.5", "epochs=1", "imbalance=20"]


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-4", [0, 1, 2, 3, 4]), ("3", [3]), ("1,5, 7-8,5", [1, 5, 7, 8])]
)
def test_seeds_are_read_from_text(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "4-1", "1-", "-1", "1,,2"])
def test_text_without_seeds_is_one_sentence(text):
    with pytest.raises(LongTailedError, match="names no seeds"):
        parse_seeds(text)


def test_several_jobs_of_several_processes_are_refused(tmp_path):
    with pytest.raises(LongTailedError, match="2 jobs of 2 processes each cannot share the devic"):
        train_seeds(compose("digits"), [0, 1], out=tmp_path, jobs=2, devices=2)


def test_each_seed_is_trained_as_asked(monkeypatch, tmp_path):
    asked = []

    def noted(_recipe, **how):
        asked.append(how)
        raise LongTailedError("that is enough.")

    monkeypatch.setattr("longtailed.runs.seeds.train", noted)
    with pytest.raises(LongTailedError, match="that is enough"):
        train_seeds(compose("digits"), [0], out=tmp_path, devices=2, tensorboard=True, device="cpu")
    assert asked[0] | {"devices": 2, "tensorboard": True, "device": "cpu"} == asked[0]


@pytest.mark.parametrize("jobs", [1, 2])
def test_each_seed_is_a_run_of_its_own(tmp_path, jobs):
    recipe = override(compose("digits"), QUICK)
    finished = train_seeds(recipe, [0, 1], out=tmp_path, jobs=jobs, progress=False)
    assert [one.directory.name for one in finished] == ["seed-0", "seed-1"]
    assert [one.recipe.seed for one in finished] == [0, 1]
    accuracies = [one.results["evaluations"]["last"]["top1"] for one in finished]
    assert accuracies[0] != accuracies[1]
    mean, deviation = spread(finished)["top1"]
    assert mean == pytest.approx(statistics.fmean(accuracies))
    assert deviation == pytest.approx(statistics.stdev(accuracies))
    assert spread(finished[:1])["top1"] == (accuracies[0], None)
    assert "standard deviation" in (tmp_path / "report.html").read_text()
