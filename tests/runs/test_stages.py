"""Recipes of several stages: heads that change, resuming in any stage, what a stage takes over."""

from __future__ import annotations

import json
from itertools import count

import pytest
import torch

from longtailed import evaluate
from longtailed.errors import Interrupted, LongTailedError
from longtailed.methods import method_class
from longtailed.recipes import Recipe, compose, load_recipe, named_recipe
from longtailed.report.strict_json import read_json
from longtailed.runs.run import train
from longtailed.runs.trained import restore
from longtailed.training.checkpoint import read_weights
from longtailed.training.fit import fit

SETTINGS = {"epochs": 2, "batch_size": 64, "optimizer": {"lr": 0.02}}


def chain(*methods: str, options: dict[str, dict] | None = None, **network: object) -> Recipe:
    """Return a short recipe on digits with these methods, one after the other."""
    values = compose("digits", "ce", "resnet8", imbalance=10).model_dump(mode="json")
    values["data"]["holdout"] = 10
    values["network"]["options"] = {"width": 0.5}
    values["network"].update(network)
    values["stages"] = [
        {
            **SETTINGS,
            "method": method,
            "options": (options or {}).get(method, {}),
            **({} if method_class(method).trains else {"epochs": 0}),
        }
        for method in methods
    ]
    return load_recipe(values)


def run(recipe: Recipe, directory, report: bool = False):
    with pytest.MonkeyPatch.context() as patch:
        if not report:  # it takes longer than the training here
            patch.setattr("longtailed.runs.run.write_report", lambda _directories: None)
        return train(recipe, out=directory, progress=False, device="cpu")


def weights_of(directory) -> dict[str, torch.Tensor]:
    return read_weights(directory / "model.safetensors")


def rows(directory) -> list[dict]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


THREE = chain("rotation", "ldam-drw", "crt")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(THREE, tmp_path_factory.mktemp("whole") / "run")


def test_each_stage_has_the_head_that_it_needs():
    assert THREE.heads == ("cosine", "cosine", "linear")
    assert chain("ce", "crt", "lws", "ncm").heads == ("linear",) * 4
    assert chain("crt", "ldam", "ce").heads == ("linear", "cosine", "linear")
    assert chain("moco", "ce", "ldam", "ncm").heads == ("linear", "linear", "cosine", "cosine")
    assert chain("ce", "ncm", head="cosine").heads == ("cosine", "cosine")
    assert named_recipe("digits-rotation-ldam-drw-crt").heads == THREE.heads


def test_three_stages_run_and_are_restored(whole):
    journal = [(row["stage"], row["method"], row["epoch"]) for row in rows(whole.directory)]
    stages = ["rotation", "ldam-drw", "crt"]
    assert journal == [(s, name, e) for s, name in enumerate(stages) for e in range(2)]
    assert rows(whole.directory)[1]["metrics"]["rotation_accuracy"] > 0
    assert "network.head.bias" in weights_of(whole.directory)
    _, method, _ = restore(whole.directory)
    assert type(method).__name__ == "ClassifierRetraining"
    figures = evaluate(whole.directory, device="cpu").figures
    assert figures["top1"] == whole.results["evaluations"]["last"]["top1"]


# Each stage takes 2 epochs of several steps; after every step `fit` asks whether to stop.
@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("inside", [True, False])
def test_an_interrupted_run_ends_with_the_same_weights(whole, stage, inside, tmp_path, monkeypatch):
    if inside:
        asked = count()

        def stop(self) -> int:
            return 15 * (self.job.stage == stage and next(asked) == 2)

        monkeypatch.setattr("longtailed.training.session.Session._asked_to_stop", stop)
    else:  # killed when the stage is over, before the next one has written anything

        def fit_and_die(method, job):
            result = fit(method, job)
            if job.stage == stage:
                raise KeyboardInterrupt
            return result

        monkeypatch.setattr("longtailed.runs.run.fit", fit_and_die)
    with pytest.raises((Interrupted, KeyboardInterrupt)):
        run(THREE, tmp_path / "run")
    monkeypatch.undo()
    resumed = run(THREE, tmp_path / "run")
    expected = weights_of(whole.directory)
    for name, tensor in weights_of(resumed.directory).items():
        assert torch.equal(tensor, expected[name]), name
    kept = [[row[key] for key in ("stage", "epoch", "loss")] for row in rows(resumed.directory)]
    assert kept == [[r[k] for k in ("stage", "epoch", "loss")] for r in rows(whole.directory)]


def test_classifiers_without_training_report_what_they_chose(tmp_path):
    tau = run(chain("ce", "tau-norm"), tmp_path / "tau", report=True)
    assert 0 <= tau.results["metrics"]["tau"] <= 2
    assert (weights_of(tau.directory)["network.head.bias"] == 0).all()
    means = run(chain("ldam", "ncm"), tmp_path / "ncm")
    assert "nearest.centroids" in weights_of(means.directory)
    scaled = run(chain("ce", "lws"), tmp_path / "lws")
    assert "scales" in weights_of(scaled.directory)
    for finished in (tau, means, scaled):
        figures = evaluate(finished.directory, device="cpu").figures
        assert figures["top1"] == finished.results["evaluations"]["last"]["top1"]
    assert tau.report.exists()


def test_a_stage_without_labels_chooses_no_epoch(tmp_path):
    recipe = chain("moco", options={"moco": {"queue_size": 128, "embedding_dim": 16}})
    finished = run(recipe, tmp_path / "moco")
    assert list(finished.results["evaluations"]) == ["last"]
    names = weights_of(finished.directory)
    assert all(name.startswith("network.") for name in names)
    again = run(chain("ce", init_from=str(finished.directory)), tmp_path / "ce")
    taken = read_json(again.directory / "manifest.json")["init_from"]
    assert taken["backbone"] > 0
    assert not taken["head"]  # MoCo has trained none


def test_a_classifier_that_no_stage_trains_is_refused(tmp_path):
    with pytest.raises(LongTailedError, match=r"takes over a trained linear head, but .* cosine"):
        chain("ldam", "lws")
    with pytest.raises(LongTailedError, match="tau-norm takes over a trained classifier; put a"):
        run(chain("tau-norm"), tmp_path / "run")
    with pytest.raises(LongTailedError, match="lws takes over a trained classifier; put a"):
        run(chain("rotation", "lws"), tmp_path / "run")
    trained = run(chain("ce"), tmp_path / "ce")
    finished = run(
        chain("tau-norm", options={"tau-norm": {"tau": 1}}, init_from=str(trained.directory)),
        tmp_path / "tau",
    )
    before, after = weights_of(trained.directory), weights_of(finished.directory)
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) == name.startswith("network.backbone."), name


@pytest.mark.parametrize("name", ["crt", "ncm"])
def test_a_backbone_that_nothing_trains_is_refused(name, tmp_path):
    with pytest.raises(LongTailedError, match=f"{name} leaves the backbone as it is, and nothing"):
        run(chain(name), tmp_path / "run")
    recipe = chain("ce", name).model_dump(mode="json")
    recipe["stages"][0]["epochs"] = 0
    with pytest.raises(LongTailedError, match=f"{name} leaves the backbone as it is, and nothing"):
        run(load_recipe(recipe), tmp_path / "run")
    trained = run(chain("rotation", name), tmp_path / "run")
    run(chain(name, init_from=str(trained.directory)), tmp_path / "again")


@pytest.mark.parametrize(
    ("second", "changes", "message"),
    [
        ("tau-norm", {"epochs": 2}, "tau-norm trains nothing; give its stage epochs=0"),
        ("crt", {"options": {"batch_norm": "train"}}, "set features=fresh"),
        ("rotation", {"options": {"images": "unlabelled"}}, "no unlabelled images; set data.unl"),
        ("moco", {"options": {"queue_size": 100}}, "queue of 100 keys cannot be filled with b"),
        ("tau-norm", {"holdout": 1}, "too small to choose tau"),
        ("tau-norm", {"holdout": 0}, "chosen on the holdout split, but there is none"),
        ("crt", {"head": "cosine"}, "needs a linear head, but the network has a cosine one"),
    ],
)
def test_what_stops_a_later_stage_stops_the_run_at_once(second, changes, message, tmp_path):
    recipe = chain("ce", second).model_dump(mode="json")
    recipe["data"]["holdout"] = changes.pop("holdout", 10)
    recipe["network"]["head"] = changes.pop("head", "auto")
    recipe["stages"][1].update(changes)
    with pytest.raises(LongTailedError, match=message) as caught:
        run(load_recipe(recipe), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()  # and nothing has been trained
