"""Does the diagnosis tell scarcity from similarity? Constructed cases with a known answer.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/diagnosis.py [--seeds 0 1 2]
    ... --cifar DATA      # the same on a small part of CIFAR-10, added to the same file
    ... --keep FOLDER     # keep the runs, and do not train again those that are there

One tail class and one head class among ten. `base` is the reference; `similar` replaces half of the
head images by mixtures with tail images (0.8 tail), counts unchanged; `control` mixes them with a
third class; `few` takes tail images away and changes nothing else; `equal` and `equal-similar`
have as many tail as head images. Similarity must rise in `similar` and `equal-similar`, towards
that head class, and not in `few` or `control`; scarcity must rise in `few`, and not in `similar`.

Beside it an idea that was tried and dropped: a classifier re-fitted on the frozen features without
the mixed images (which only a constructed case knows) against without as many random head images.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import RESULTS, record
from sklearn.linear_model import LogisticRegression

from longtailed import train
from longtailed.analysis.diagnosis import Findings, examine, nearest_means, of_run
from longtailed.data import mix_similar_samples
from longtailed.runs.run import as_recipe

DIGITS = {
    "source": "digits", "head": 8, "tail": 9, "third": 3, "counts": (110, 30, 5),
    "overrides": {"epochs": 40, "batch_size": 32, "lr": 0.05, "schedule.gamma": 0.1},
}  # fmt: skip
CIFAR = {
    "source": None, "head": 0, "tail": 9, "third": 4, "counts": (200, 66, 10),
    "overrides": {"epochs": 20, "batch_size": 64, "lr": 0.05, "schedule.gamma": 0.1},
}  # fmt: skip
SHARE = 0.5  # of the head images are mixed
ARMS = ("base", "similar", "few", "control", "equal", "equal-similar")


def settings(case: dict[str, Any], arm: str, seed: int) -> dict[str, Any]:
    full, some, few = case["counts"]
    counts = [full] * 10
    counts[case["tail"]] = {"few": few, "equal": full, "equal-similar": full}.get(arm, some)
    overrides = {
        **case["overrides"], "seed": seed, "data.subset_seed": seed, "data.holdout": 0,
        "data.counts": counts, "network.options.width": case.get("width", 1.0),
    }  # fmt: skip
    if "similar" in arm or arm == "control":
        overrides |= {
            "data.similar.fraction": SHARE,
            "data.similar.head_classes": [case["head"]],
            "data.similar.tail_class": case["third"] if arm == "control" else case["tail"],
        }
    return overrides


def examined(case: dict[str, Any], arm: str, seed: int, home: Path) -> dict[str, float]:
    out = home / f"{arm}-{seed}"
    overrides = settings(case, arm, seed)
    train(data=case["source"], method="ce", network="resnet8", overrides=overrides, out=out,
          device="cpu", progress=False)  # fmt: skip
    found = examine(of_run(out, device="cpu"))
    parts, head, tail = found.parts, case["head"], case["tail"]
    row = {
        "error": parts.error[tail],
        "scarcity": parts.scarcity[tail],
        "similarity": parts.similarity[tail],
        "rest": parts.rest[tail],
        "similarity_to_head": parts.towards[tail, head],
        "head_leakage": found.leakage[tail, head],
        "mean_cosine": found.cosine[tail, head],
        "look_alike_share": found.alike[tail, head],
    }
    if "similar" in arm:
        row |= dropped_idea(found, case, seed)
    return {name: round(float(value), 4) for name, value in row.items()}


def dropped_idea(found: Findings, case: dict[str, Any], seed: int) -> dict[str, float]:
    evidence = found.evidence
    labels, truth = evidence.train.labels, evidence.test.labels
    blank = np.zeros((len(labels), 1), np.uint8)  # which rows are mixed does not depend on pixels
    rows = mix_similar_samples(blank, labels, case["head"], case["tail"], SHARE, seed=seed).rows
    # Another seed: with the same one the permutation would pick the mixed images again.
    heads = np.flatnonzero(labels == case["head"])
    random = np.random.RandomState(seed + 1000).permutation(heads)
    errors = {}
    for name, left_out in (("mixed", rows), ("random", random[: len(rows)])):
        kept = np.setdiff1d(np.arange(len(labels)), left_out)
        model = LogisticRegression(class_weight="balanced", max_iter=500)
        model.fit(evidence.features[kept].numpy(), labels[kept])
        guessed = model.predict(evidence.test_features.numpy())
        errors[name] = float((guessed != truth)[truth == case["tail"]].mean())
    tail, known = case["tail"], torch.from_numpy(labels)
    learnt = nearest_means(evidence.features, known, 10)[rows] == tail
    neutral = nearest_means(evidence.neutral, known, 10)[rows] == tail
    neutral |= known[evidence.nearest[0][rows, 0]] == tail
    return {
        "refit_without_mixed": errors["mixed"],
        "refit_without_random": errors["random"],
        "mixed_found_in_learnt_features": float(learnt.float().mean()),
        "mixed_found_in_neutral_features": float(neutral.float().mean()),
    }


def summary(rows: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, str]]:
    return {
        arm: {
            name: f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}"
            for name in runs[0]
            if len(values := [run[name] for run in runs]) > 1
        }
        for arm, runs in rows.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--cifar", help="a source of CIFAR-10")
    parser.add_argument("--keep", type=Path, help="a folder for the runs; default: a temporary one")
    given = parser.parse_args()
    torch.set_num_threads(1)
    case = {**CIFAR, "source": given.cifar, "width": 0.5} if given.cifar else DIGITS
    as_recipe(data=str(case["source"]))  # a bad source is said before anything is trained
    with tempfile.TemporaryDirectory() as temporary:
        home = given.keep or Path(temporary)
        rows = {
            arm: [examined(case, arm, seed, home) for seed in given.seeds] for arm in given.arms
        }
    path = RESULTS / "diagnosis-constructed.json"
    figures = json.loads(path.read_text())["figures"] if path.exists() else {}
    name = "cifar10" if given.cifar else "digits"
    setting = {
        "case": json.loads(json.dumps({k: v for k, v in case.items() if k != "source"})),
        "seeds": given.seeds,
    }
    held = figures.get(name, {})
    if all(held.get(key) == value for key, value in setting.items()):
        rows = held["runs"] | rows  # arms measured before stay
    figures[name] = {**setting, "mean and standard deviation": summary(rows), "runs": rows}
    command = "python benchmarks/diagnosis.py, then with --cifar DATA --arms base similar few equal"
    record("diagnosis-constructed", command, figures)


if __name__ == "__main__":
    main()
