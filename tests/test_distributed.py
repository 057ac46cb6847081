"""Two processes on the CPU: one run, one set of files, the weights and figures of one model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from longtailed import evaluate
from longtailed.checkpoint import read_weights
from longtailed.data import make_sampler
from longtailed.data.streams import step_seed
from longtailed.evaluation import Evaluation
from longtailed.prepare import load_splits
from longtailed.recipes import compose, override
from longtailed.run import claim

EPOCHS, BATCH = 2, 64
SETTINGS = [
    f"epochs={EPOCHS}",
    f"batch_size={BATCH}",
    "lr=0.02",
    "imbalance=10",
    "holdout=5",
    "sampler=class-balanced",
    "network.options.width=0.5",
]
RECIPE = override(compose("digits", "ce", "resnet8"), SETTINGS)

# What each process draws and ends with is written beside the run, under its rank.
SCRIPT = """
import os, sys
from pathlib import Path
import numpy as np
import torch
from longtailed import run
from longtailed.data import Feed
from longtailed.recipes import load_recipe
from longtailed.checkpoint import read_json

torch.set_num_threads(1)
here = Path(sys.argv[1])
order, fit = Feed.order, run.fit

def order_and_note(feed, epoch, epochs):
    drawn = order(feed, epoch, epochs)
    np.save(here / f"drawn-{epoch}-{feed.rank}.npy", drawn)
    return drawn

def fit_and_note(method, job):
    result = fit(method, job)
    torch.save(method.state_dict(), here / f"state-{job.fabric.global_rank}.pt")
    return result

Feed.order, run.fit = order_and_note, fit_and_note
recipe = load_recipe(read_json(here / "recipe.json"))
finished = run.train(recipe, out=here / "run", device="cpu", progress=False)
top1 = finished.results["evaluations"]["last"]["top1"]
(here / f"top1-{os.environ['RANK']}").write_text(str(top1))
"""


class Finished(NamedTuple):
    """Where the two processes left their notes, and their run evaluated by this one process."""

    home: Path
    evaluation: Evaluation

    @property
    def run(self) -> Path:
        return self.home / "run"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Finished:
    home = tmp_path_factory.mktemp("two-processes")
    (home / "script.py").write_text(SCRIPT)
    (home / "recipe.json").write_text(RECIPE.model_dump_json())
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launch, str(home / "script.py"), str(home)]
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    ended = subprocess.run(
        command, env={**os.environ, **threads}, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    return Finished(home, evaluate(home / "run", device="cpu"))


def test_both_processes_end_with_the_same_model(finished):
    states = [torch.load(finished.home / f"state-{r}.pt", weights_only=True) for r in (0, 1)]
    different = [name for name in states[0] if not torch.equal(states[0][name], states[1][name])]
    assert different == []  # parameters, and the running statistics of batch normalisation
    saved = read_weights(finished.run / "model.safetensors")
    assert saved.keys() == {name for name in states[0] if name.startswith("network.")}
    assert all(torch.equal(tensor, states[0][name]) for name, tensor in saved.items())


def test_two_processes_evaluate_what_one_would(finished):
    results = json.loads((finished.run / "results.json").read_text())
    together, alone = results["evaluations"]["last"], finished.evaluation.figures
    with np.load(finished.run / "evaluation-last.npz") as saved:
        assert len(saved["labels"]) % 2 == 1  # the shares of the two are not equal
        np.testing.assert_array_equal(saved["labels"], finished.evaluation.labels)
        np.testing.assert_array_equal(saved["predictions"], finished.evaluation.predictions)
        np.testing.assert_allclose(saved["confidences"], finished.evaluation.confidences, rtol=1e-4)
    for name in ("images", "top1", "top5", "per_class", "macro_f1", "worst_class", "groups"):
        assert together[name] == alone[name]
    assert together["ece"] == pytest.approx(alone["ece"], abs=1e-4)
    assert together["classwise_ece"] == pytest.approx(alone["classwise_ece"], abs=1e-4)
    known = [float((finished.home / f"top1-{rank}").read_text()) for rank in (0, 1)]
    assert known == [together["top1"]] * 2


def test_only_one_process_writes(finished):
    assert {entry.name for entry in finished.run.iterdir()} == {
        "checkpoint.pt",
        "evaluation-holdout-chosen.npz",
        "evaluation-last.npz",
        "holdout-chosen.safetensors",
        "manifest.json",
        "metrics.jsonl",
        "model.safetensors",
        "recipe.json",
        "report.html",
        "results.json",
    }
    lines = (finished.run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(EPOCHS))
    assert json.loads((finished.run / "manifest.json").read_text())["processes"] == 2


def test_the_processes_share_the_draws_of_one(finished):
    train = load_splits(RECIPE.data)[0]["train"]
    seed = step_seed(RECIPE.seed, "0/train")
    sampler = make_sampler("class-balanced", train.labels, 10, seed)
    for epoch in range(EPOCHS):
        shares = [np.load(finished.home / f"drawn-{epoch}-{rank}.npy") for rank in (0, 1)]
        steps = len(train) // 2 // (BATCH // 2)
        assert [share.shape for share in shares] == [(steps, BATCH // 2)] * 2
        draws = sampler.indices(epoch, EPOCHS)[: steps * BATCH]
        for rank, share in enumerate(shares):
            np.testing.assert_array_equal(share.ravel(), draws[rank::2])
        counts = np.bincount(train.labels[np.concatenate(shares).ravel()], minlength=10)
        assert counts.min() > 0.5 * counts.mean()  # of classes with 10 to 100 times fewer images


def test_a_process_may_find_the_directory_half_made_by_another(tmp_path):
    (tmp_path / ".recipe.json.123.tmp").write_text("{")  # as `write_atomically` begins
    claim(tmp_path, RECIPE)
    assert json.loads((tmp_path / "recipe.json").read_text())["name"] == RECIPE.name
