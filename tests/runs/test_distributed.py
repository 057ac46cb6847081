"""Two processes on the CPU: one run, one set of files, the weights and figures of one model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from longtailed import evaluate
from longtailed.data import make_sampler
from longtailed.data.loading import load_splits
from longtailed.data.streams import step_seed
from longtailed.recipes import compose, override
from longtailed.training.checkpoint import read_weights

EPOCHS, BATCH = 2, 64
SETTINGS = [
    f"epochs={EPOCHS}",
    f"batch_size={BATCH}",
    "lr=0.02",
    "imbalance=10",
    "holdout=5",
    "sampler=class-balanced",
    "network.options.width=0.5",
    "precision=32",
]
RECIPE = override(compose("digits", "ce", "resnet8"), SETTINGS)

# What each process draws and ends with is written beside the run, under its rank.
SCRIPT = """
import os, sys
from pathlib import Path
import numpy as np
import torch
from longtailed.runs import run
from longtailed.report.strict_json import read_json
from longtailed.data import Feed
from longtailed.recipes import load_recipe

torch.set_num_threads(1)
home = Path(sys.argv[1])
order, fit = Feed.order, run.fit

def order_and_note(feed, epoch, epochs):
    drawn = order(feed, epoch, epochs)
    np.save(home / f"drawn-{epoch}-{feed.rank}.npy", drawn)
    return drawn

def fit_and_note(method, job):
    result = fit(method, job)
    torch.save(method.state_dict(), home / f"state-{job.fabric.global_rank}.pt")
    return result

Feed.order, run.fit = order_and_note, fit_and_note
recipe = load_recipe(read_json(home / "recipe.json"))
finished = run.train(recipe, out=home / "run", device="cpu", progress=False)
top1 = finished.results["evaluations"]["last"]["top1"]
(home / f"top1-{os.environ['RANK']}").write_text(str(top1))
"""


def launch(home: Path) -> None:
    (home / "script.py").write_text(SCRIPT)
    (home / "recipe.json").write_text(RECIPE.model_dump_json())
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    ended = subprocess.run(
        [sys.executable, *torchrun, str(home / "script.py"), str(home)],
        env={**os.environ, **threads},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]


def test_two_processes_make_one_run(tmp_path):
    launch(tmp_path)  # once for all: starting the processes is what takes the time
    assert_one_model(tmp_path)
    assert_figures_of_one_process(tmp_path)
    assert_one_set_of_files(tmp_path / "run")
    assert_shared_draws(tmp_path)


def assert_one_model(home: Path) -> None:
    states = [torch.load(home / f"state-{rank}.pt", weights_only=True) for rank in (0, 1)]
    different = [name for name in states[0] if not torch.equal(states[0][name], states[1][name])]
    assert different == []  # neither parameters nor statistics of batch normalisation
    saved = read_weights(home / "run" / "model.safetensors")
    assert saved.keys() == {name for name in states[0] if name.startswith("network.")}
    assert all(torch.equal(tensor, states[0][name]) for name, tensor in saved.items())


def assert_figures_of_one_process(home: Path) -> None:
    evaluation = evaluate(home / "run", device="cpu")
    together = json.loads((home / "run" / "results.json").read_text())["evaluations"]["last"]
    alone = evaluation.figures
    with np.load(home / "run" / "evaluation-last.npz") as saved:
        assert len(saved["labels"]) % 2 == 1  # the shares of the two are not equal
        np.testing.assert_array_equal(saved["labels"], evaluation.labels)
        np.testing.assert_array_equal(saved["predictions"], evaluation.predictions)
        np.testing.assert_allclose(saved["confidences"], evaluation.confidences, rtol=1e-4)
    for name in ("images", "top1", "top5", "per_class", "macro_f1", "worst_class", "groups"):
        assert together[name] == alone[name]
    for name in ("ece", "classwise_ece"):
        assert together[name] == pytest.approx(alone[name], abs=1e-4)
    known = [float((home / f"top1-{rank}").read_text()) for rank in (0, 1)]
    assert known == [together["top1"]] * 2


def assert_one_set_of_files(run: Path) -> None:
    assert {entry.name for entry in run.iterdir()} == {
        "checkpoint.pt",
        "evaluation-holdout-chosen.npz",
        "evaluation-last.npz",
        "holdout-chosen.safetensors",
        "images.parquet",
        "manifest.json",
        "metrics.jsonl",
        "model.safetensors",
        "recipe.json",
        "report.html",
        "results.json",
    }
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(EPOCHS))
    assert json.loads((run / "manifest.json").read_text())["processes"] == 2


def assert_shared_draws(home: Path) -> None:
    train = load_splits(RECIPE.data)[0]["train"]
    sampler = make_sampler("class-balanced", train.labels, 10, step_seed(RECIPE.seed, "0/train"))
    steps = len(train) // 2 // (BATCH // 2)
    for epoch in range(EPOCHS):
        shares = [np.load(home / f"drawn-{epoch}-{rank}.npy") for rank in (0, 1)]
        assert [share.shape for share in shares] == [(steps * (BATCH // 2),)] * 2
        draws = sampler.indices(epoch, EPOCHS)[: steps * BATCH]
        for rank, share in enumerate(shares):
            np.testing.assert_array_equal(share.ravel(), draws[rank::2])
            counts = np.bincount(train.labels[share.ravel()], minlength=10)
            assert counts.min() > 0.3 * counts.max()  # of classes with 120 down to 12 images
