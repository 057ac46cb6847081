"""A finished run as one immutable record, with all that a report shows of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from longtailed.report.run_directory import EvaluationEntry, RateEntries, RunDirectory

GROUPS = ("many", "medium", "few")


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
    run = RunDirectory(run_dir)
    results, manifest = run.results, run.manifest
    labels, predictions, confidences = run.predictions()
    seconds = sum(float(row.get("seconds", 0)) for row in run.metrics)
    epochs = results.get("epochs", {})
    return RunRecord(
        directory=run.path,
        recipe=run.recipe,
        manifest=manifest,
        metrics=run.metrics,
        evaluations={
            name: _evaluation(name, epochs.get(name), entry)
            for name, entry in run.evaluations.items()
        },
        chosen_on=str(results.get("chosen_on", "not recorded")),
        published=tuple(map(str, results.get("published", ()))),
        train_seconds=seconds or float(results.get("train_seconds") or 0),
        labels=labels,
        predictions=predictions,
        confidences=confidences,
    )


def _evaluation(name: str, epoch: int | None, entry: EvaluationEntry) -> Evaluation:
    rates = {key: getattr(entry, key) for key in RateEntries.model_fields}
    rates |= {group: getattr(entry.groups, group) for group in GROUPS}
    return Evaluation(
        name=name,
        epoch=epoch,
        split=entry.split,
        tested_on=entry.tested_on,
        images=entry.images,
        rates={**rates, "worst": entry.worst_class.accuracy},
        worst_class=entry.worst_class.number,
        rule=entry.groups.rule,
        group_classes=entry.groups.classes,
        per_class=tuple(entry.per_class),
    )
