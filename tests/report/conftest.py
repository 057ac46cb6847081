"""Synthetic finished runs, laid out as the training loop leaves them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@dataclass(frozen=True)
class Setup:
    """What a synthetic run is made of; the rest follows."""

    name: str = "cifar10-ldam-drw"
    methods: tuple[str, ...] = ("ldam-drw",)
    classes: int = 10
    largest: int = 5000
    smallest: int = 50
    test_per_class: int = 100
    skill: float = 0.3
    seed: int = 0
    holdout: bool = True
    published: bool = False
    epochs: int = 12


def write_run(directory: Path, setup: Setup) -> Path:
    """Write a finished run directory as the training loop would, with made-up predictions."""
    directory.mkdir(parents=True)
    rng = np.random.default_rng(setup.seed + 1000 * setup.classes)
    power = np.linspace(0, 1, setup.classes)
    counts = (setup.largest * (setup.smallest / setup.largest) ** power).round().astype(int)
    labels = np.repeat(np.arange(setup.classes), setup.test_per_class)
    chance = np.clip(0.93 - (0.65 - setup.skill) * power + rng.normal(0, 0.05, len(power)), 0, 1)
    right = rng.random(labels.size) < chance[labels]
    heads = (rng.random(labels.size) ** 2 * setup.classes).astype(int)
    predictions = np.where(right, labels, heads)
    confidences = np.clip(rng.normal(0.62 + 0.25 * right, 0.18), 1 / setup.classes, 1)
    np.savez(
        directory / "evaluation-last.npz",
        labels=labels,
        predictions=predictions,
        confidences=confidences.astype(np.float32),
    )
    evaluation = describe(labels, predictions, confidences, counts)
    (directory / "results.json").write_text(json.dumps(results(setup, evaluation)))
    (directory / "recipe.json").write_text(json.dumps(recipe(setup)))
    (directory / "manifest.json").write_text(json.dumps(manifest(setup, counts)))
    lines = [json.dumps(record) for record in epochs(setup, evaluation)]
    (directory / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return directory


def describe(labels: Any, predictions: Any, confidences: Any, counts: Any) -> dict[str, Any]:
    hits = labels == predictions
    per_class = [float(hits[labels == c].mean()) for c in range(len(counts))]
    masks = {"many": counts > 100, "medium": (counts <= 100) & (counts >= 20), "few": counts < 20}
    means = {
        g: float(np.mean(np.array(per_class)[m])) if m.any() else None for g, m in masks.items()
    }
    worst = int(np.argmin(per_class))
    return {
        "split": "test",
        "images": len(labels),
        "top1": float(hits.mean()),
        "top5": None if len(counts) <= 5 else min(1.0, float(hits.mean()) + 0.15),
        "balanced_accuracy": float(np.mean(per_class)),
        "macro_f1": float(np.mean(per_class)) - 0.011,
        "harmonic_mean": float(len(counts) / np.sum(1 / np.maximum(per_class, 1e-3))),
        "worst_class": {"class": worst, "accuracy": per_class[worst]},
        "groups": means
        | {
            "rule": "training images per class: many > 100, medium 20 to 100, few < 20",
            "classes": {group: int(mask.sum()) for group, mask in masks.items()},
        },
        "ece": float(abs(confidences.mean() - hits.mean())) + 0.012,
        "classwise_ece": 0.18 / len(counts),
        "per_class": per_class,
    }


def results(setup: Setup, last: dict[str, Any]) -> dict[str, Any]:
    share = setup.epochs // len(setup.methods)
    found, chosen = {"last": last}, {"last": share - 1}
    if setup.holdout:
        found["holdout-chosen"] = last | {"top1": last["top1"] + 0.004}
        chosen["holdout-chosen"] = int(share * 0.85)
    if setup.published:
        found["best-test"] = last | {"top1": last["top1"] + 0.009}
        chosen["best-test"] = int(share * 0.9)
    return {"evaluations": found, "epochs": chosen, "train_seconds": 204.7}


def recipe(setup: Setup) -> dict[str, Any]:
    share = setup.epochs // len(setup.methods)
    stages = [
        {
            "method": method,
            "options": {"max_margin": 0.5},
            "epochs": share,
            "milestones": [160, 180],
        }
        for method in setup.methods
    ]
    return {
        "name": setup.name,
        "data": {"source": "cifar10", "imbalance_ratio": 100},
        "network": {"name": "resnet32", "head": "cosine"},
        "stages": stages,
        "seed": setup.seed,
    }


def manifest(setup: Setup, counts: Any) -> dict[str, Any]:
    names = CIFAR if setup.classes == 10 else [f"class {c:04d}" for c in range(setup.classes)]
    tested = [setup.test_per_class] * setup.classes
    sizes = {"train": counts.tolist(), "test": tested}
    if setup.holdout:
        sizes["holdout"] = [10] * setup.classes
    return {
        "source": "cifar10" if setup.classes == 10 else "imagenet-lt",
        "class_names": names,
        "splits": {
            name: {"images": sum(values), "counts": values, "sha256": digest(values)}
            for name, values in sizes.items()
        },
        "imbalance_ratio": float(counts.max() / counts.min()),
        "requested_imbalance": 100.0,
        "profile": "exp",
        "seed": setup.seed,
        "skipped": [],
        "parameters": 464154,
        "network": "resnet32" if setup.classes == 10 else "resnet50",
        "versions": {"python": "3.11.2", "torch": "2.8.0", "longtailed": "0.1.0"},
        "hardware": "1x NVIDIA H200",
    }


def digest(values: list[int]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def epochs(setup: Setup, last: dict[str, Any]) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    share = setup.epochs // len(setup.methods)
    for i in range(setup.epochs):
        stage = min(i // share, len(setup.methods) - 1)
        done = (i + 1) / setup.epochs
        lr = 0.1 * (1.0 if done < 0.8 else 0.01 if done < 0.9 else 0.0001)
        main, extra = 2.3 * (1 - done) ** 1.5 + 0.1, 0.4 * (1 - done) + 0.05
        accuracy = last["balanced_accuracy"] * (1 - 0.75 * (1 - done) ** 2)
        records.append(
            {
                "stage": stage,
                "method": setup.methods[stage],
                "epoch": i - stage * share,
                "lr": lr,
                "seconds": 1.02,
                "images_per_second": 12000.0,
                "loss": main + extra,
                "terms": {setup.methods[stage]: main, "contrast": extra},
            }
        )
        rates = {"top1": accuracy + 0.03, "balanced_accuracy": accuracy}
        records[-1] |= {"holdout": rates} if setup.holdout else {}
        records[-1] |= {"test": rates} if setup.published else {}
    return records


class Page(HTMLParser):
    """A report as its reader gets it; making one checks what holds for every report."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.headline = ""
        self._tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []
        body = re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
        self.text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))
        self._check_self_contained()
        self._check_accessible()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tags.append((tag, dict(attrs)))
        if tag != "meta":
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "h1":
            self.headline += data

    def _attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self._tags if name == tag]

    def _check_self_contained(self) -> None:
        assert "http://" not in self.html
        assert "https://" not in self.html
        assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in self._tags}
        for _, attributes in self._tags:
            for key in ("src", "href", "xlink:href"):
                value = attributes.get(key)
                assert value is None or value.startswith(("#", "data:"))

    def _check_accessible(self) -> None:
        assert all(heading.get("scope") for heading in self._attributes("th"))
        assert self.html.count("<table") == self.html.count("<caption")
        drawings = self._attributes("svg")
        assert len(drawings) >= 5
        assert all(svg["role"] == "img" and svg["aria-label"] for svg in drawings)
        ids = [attributes["id"] for _, attributes in self._tags if "id" in attributes]
        assert len(ids) == len(set(ids))


@pytest.fixture(scope="session")
def read_page() -> Callable[[Path], Page]:
    """Read a report and check what holds for every report."""
    return lambda path: Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    """Write a finished run into a new directory; keywords are the fields of `Setup`."""
    return lambda directory, **settings: write_run(directory, Setup(**settings))


@pytest.fixture(scope="session")
def change() -> Callable[[Path, Callable[[dict[str, Any]], object]], None]:
    """Edit a JSON file in place."""

    def edit_file(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
        value = json.loads(path.read_text())
        edit(value)
        path.write_text(json.dumps(value))

    return edit_file


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run directories: one with everything, 1000 classes, another method, two further seeds."""
    root = tmp_path_factory.mktemp("runs")
    large = Setup("imagenet-lt-bcl", ("bcl",), 1000, 1280, 5, 20, holdout=False, epochs=4)
    setups = {
        "one": Setup(published=True),
        "large": large,
        "two-stage": Setup("cifar10-moco-crt", ("moco", "crt"), skill=0.1, holdout=False),
        "seed1": Setup(seed=1, published=True),
        "seed2": Setup(seed=2, published=True),
    }
    return {name: write_run(root / name, setup) for name, setup in setups.items()}
