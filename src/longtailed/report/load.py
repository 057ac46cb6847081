"""Read a finished run directory into one checked, immutable record."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from longtailed.errors import LongTailedError

GROUPS = ("many", "medium", "few")
_FILES = ("results.json", "recipe.json", "manifest.json", "metrics.jsonl", "evaluation-last.npz")
_RATES = ("top1", "balanced_accuracy", "macro_f1", "harmonic_mean", "ece", "classwise_ece")


@dataclass(frozen=True)
class Evaluation:
    """The figures of one network state on one split, rates in 0..1; None marks an absent one."""

    name: str
    epoch: int | None
    split: str
    tested_on: str
    images: int
    rates: Mapping[str, float | None]
    worst_class: int
    rule: str
    group_classes: Mapping[str, int]
    per_class: tuple[float | None, ...]


@dataclass(frozen=True, eq=False)
class RunRecord:
    """Everything a report shows of one finished run.

    `labels`, `predictions`, `confidences` [N] are those of the last epoch on the test images;
    `chosen_on` says what the epoch was chosen on, and an evaluation's `tested_on` which images its
    figures are of; `train_seconds` covers all stages, and an evaluation's epoch counts from 0 in
    the last stage. `published` holds a sentence for each figure that was published for the run's
    settings.
    """

    directory: Path
    recipe: Mapping[str, Any]
    manifest: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    evaluations: Mapping[str, Evaluation]
    chosen_on: str
    published: tuple[str, ...]
    train_seconds: float
    labels: npt.NDArray[np.int64]
    predictions: npt.NDArray[np.int64]
    confidences: npt.NDArray[np.float64]

    @property
    def name(self) -> str:
        """The recipe's name, or the directory's where the recipe has none."""
        return str(self.recipe.get("name") or self.directory.name)

    @property
    def seed(self) -> int:
        """The seed the run was trained with."""
        return int(self.recipe.get("seed", self.manifest.get("seed", 0)))

    @property
    def methods(self) -> tuple[str, ...]:
        """The method of each stage in training order, an immediate repetition named once."""
        names = [str(stage["method"]) for stage in self.recipe["stages"]]
        return tuple(name for i, name in enumerate(names) if i == 0 or name != names[i - 1])

    @property
    def class_names(self) -> list[str]:
        """The class names in label order."""
        return [str(name) for name in self.manifest["class_names"]]

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Training images per class, in label order."""
        return np.asarray(self.manifest["splits"]["train"]["counts"], dtype=np.int64)

    @property
    def epochs_before_last_stage(self) -> int:
        """Epochs of all stages but the last, which is where chosen epochs start counting."""
        return sum(int(stage.get("epochs", 0)) for stage in self.recipe["stages"][:-1])

    @property
    def epochs(self) -> int:
        """Epochs over all stages."""
        return self.epochs_before_last_stage + int(self.recipe["stages"][-1].get("epochs", 0))

    @property
    def last(self) -> Evaluation:
        """The evaluation after the last epoch, which every finished run has."""
        return self.evaluations["last"]


def load_run(run_dir: Path | str) -> RunRecord:
    """Return the record of a finished run directory.

    Reads `recipe.json`, `manifest.json`, `metrics.jsonl`, `results.json` and `evaluation-last.npz`.
    Raises `LongTailedError` when a file is missing, unreadable, or does not fit the others.
    """
    directory = Path(run_dir)
    if not directory.is_dir():
        raise LongTailedError(f"{directory} is not a directory; name the directory of a run.")
    for name in _FILES:
        if not (directory / name).is_file():
            raise LongTailedError(
                f"{directory} holds no finished run: {name} is missing; train it to the end first."
            )
    results = _read_json(directory / "results.json")
    manifest = _checked_manifest(directory / "manifest.json")
    classes = len(manifest["class_names"])
    metrics = _read_metrics(directory / "metrics.jsonl")
    seconds = sum(float(record.get("seconds", 0)) for record in metrics)
    labels, predictions, confidences = _read_predictions(directory, classes)
    return RunRecord(
        directory=directory,
        recipe=_checked_recipe(directory / "recipe.json"),
        manifest=manifest,
        metrics=metrics,
        evaluations=_read_evaluations(directory / "results.json", results, classes),
        chosen_on=str(results.get("chosen_on", "not recorded")),
        published=tuple(map(str, results.get("published", ()))),
        train_seconds=seconds or float(results.get("train_seconds") or 0),
        labels=labels,
        predictions=predictions,
        confidences=confidences,
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise LongTailedError(
            f"{path} cannot be read as JSON ({error}); train the run again."
        ) from error
    if not isinstance(value, dict):
        raise LongTailedError(f"{path} does not hold a JSON object; train the run again.")
    return value


def _lacks(path: Path, what: str) -> LongTailedError:
    return LongTailedError(
        f"{path} lacks {what}; it is no file of a finished run, train the run again."
    )


def _checked_recipe(path: Path) -> dict[str, Any]:
    recipe = _read_json(path)
    stages = recipe.get("stages")
    if not isinstance(stages, list) or not stages:
        raise _lacks(path, "a list of stages")
    if not all(isinstance(stage, dict) and "method" in stage for stage in stages):
        raise _lacks(path, "the method of a stage")
    return recipe


def _checked_manifest(path: Path) -> dict[str, Any]:
    manifest = _read_json(path)
    for key in ("source", "class_names", "splits", "imbalance_ratio", "network", "parameters"):
        if key not in manifest:
            raise _lacks(path, repr(key))
    splits = manifest["splits"] if isinstance(manifest["splits"], dict) else {}
    for split in ("train", "test"):
        entry = splits.get(split)
        if not isinstance(entry, dict) or not {"images", "counts"} <= entry.keys():
            raise _lacks(path, f"images and counts of the {split} split")
        if len(entry["counts"]) != len(manifest["class_names"]):
            raise LongTailedError(
                f"{path} names {len(manifest['class_names'])} classes but counts "
                f"{len(entry['counts'])} of the {split} split; train the run again."
            )
    return manifest


def _read_metrics(path: Path) -> tuple[Mapping[str, Any], ...]:
    """Return one record per epoch in training order; of an epoch repeated by a resume, the last."""
    epochs: dict[tuple[int, int], Mapping[str, Any]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            epochs[int(record["stage"]), int(record["epoch"])] = record
        except (ValueError, TypeError, KeyError) as error:
            raise LongTailedError(
                f"{path} line {number} is no epoch record; train the run again."
            ) from error
    return tuple(epochs[key] for key in sorted(epochs))


def _read_evaluations(path: Path, results: dict[str, Any], classes: int) -> dict[str, Evaluation]:
    entries = results.get("evaluations")
    if not isinstance(entries, dict) or "last" not in entries:
        raise _lacks(path, "the evaluation 'last'")
    epochs = results.get("epochs") or {}
    evaluations = {}
    for name, entry in entries.items():
        try:
            evaluations[name] = _evaluation(name, epochs.get(name), entry)
        except (KeyError, TypeError, ValueError) as error:
            raise _lacks(path, f"{error} in the evaluation {name!r}") from error
        found = evaluations[name]
        if len(found.per_class) != classes or not 0 <= found.worst_class < classes:
            raise LongTailedError(
                f"{path} does not fit the run's {classes} classes; train the run again."
            )
    return evaluations


def _evaluation(name: str, epoch: int | None, entry: Mapping[str, Any]) -> Evaluation:
    groups = entry["groups"]
    rates = {key: _rate(entry[key]) for key in _RATES}
    rates["top5"] = _rate(entry.get("top5"))
    rates["worst"] = _rate(entry["worst_class"]["accuracy"])
    rates |= {group: _rate(groups[group]) for group in GROUPS}
    return Evaluation(
        name=name,
        epoch=epoch,
        split=str(entry["split"]),
        tested_on=str(entry.get("tested_on", "the test images")),
        images=int(entry["images"]),
        rates=rates,
        worst_class=int(entry["worst_class"]["class"]),
        rule=str(groups["rule"]),
        group_classes={group: int(groups["classes"][group]) for group in GROUPS},
        per_class=tuple(_rate(value) for value in entry["per_class"]),
    )


def _rate(value: Any) -> float | None:
    """Return a rate as a float, None for null and for NaN, both of which mean "absent"."""
    if value is None or math.isnan(float(value)):
        return None
    return float(value)


def _read_predictions(
    directory: Path, classes: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    path = directory / "evaluation-last.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            labels = np.asarray(archive["labels"], dtype=np.int64)
            predictions = np.asarray(archive["predictions"], dtype=np.int64)
            confidences = np.asarray(archive["confidences"], dtype=np.float64)
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise LongTailedError(
            f"{path} cannot be read as labels, predictions and confidences; train the run again."
        ) from error
    if not labels.shape == predictions.shape == confidences.shape or labels.ndim != 1:
        raise LongTailedError(f"{path} holds arrays of unequal length; train the run again.")
    both = np.concatenate([labels, predictions])
    if both.size == 0 or both.min() < 0 or both.max() >= classes:
        raise LongTailedError(
            f"{path} does not hold labels of the run's {classes} classes; train the run again."
        )
    return labels, predictions, confidences
