"""What a run's directory holds: each file read against a schema, each defect said in one sentence.

    recipe.json             what was trained
    manifest.json           on which images, with how many parameters, on which hardware
    metrics.jsonl           one line an epoch
    results.json            the figures; the run is finished when it is there
    evaluation-NAME.npz     labels, predictions and confidences of the test images
    model.safetensors       the weights after the last epoch; others are NAME.safetensors

NAME is "last", "holdout-chosen" or "best-test".
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from longtailed.errors import LongTailedError
from longtailed.report.strict_json import read_json

LAST = "last"
Rate: TypeAlias = Annotated[
    float | None, AfterValidator(lambda rate: None if rate is None or math.isnan(rate) else rate)
]
"""A share in 0..1, or None for one that does not exist (null or NaN in the file)."""


class _Entry(BaseModel):
    """Part of a file: what it must hold; whatever else it holds is left as it is."""

    model_config = ConfigDict(extra="allow")


class _StageEntry(_Entry):
    method: str
    epochs: int = 0


class _RecipeFile(_Entry):
    stages: Annotated[list[_StageEntry], Field(min_length=1)]


class _SplitEntry(_Entry):
    images: int
    counts: list[int]


class _SplitEntries(_Entry):
    train: _SplitEntry
    test: _SplitEntry


class _ManifestFile(_Entry):
    source: str
    class_names: list[str]
    splits: _SplitEntries
    imbalance_ratio: float | None
    network: str
    parameters: int


class _EpochLine(_Entry):
    stage: int
    epoch: int
    seconds: float = 0.0


class _WorstClass(_Entry):
    number: Annotated[int, Field(alias="class")]
    accuracy: Rate


class _GroupEntry(_Entry):
    many: Rate
    medium: Rate
    few: Rate
    rule: str
    classes: dict[str, int]


class RateEntries(_Entry):
    """Figures that are one rate; a report shows them as `tables.METRICS` says."""

    top1: Rate
    top5: Rate = None
    balanced_accuracy: Rate
    macro_f1: Rate
    harmonic_mean: Rate
    ece: Rate
    classwise_ece: Rate


class EvaluationEntry(RateEntries):
    """The figures of one network state, as results.json holds them."""

    split: str
    images: int
    worst_class: _WorstClass
    groups: _GroupEntry
    per_class: list[Rate]
    tested_on: str = "the test images"


class _ResultsFile(_Entry):
    evaluations: dict[str, EvaluationEntry]
    epochs: dict[str, int | None] = {}


Predictions: TypeAlias = tuple[
    npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]
]


class RunDirectory:
    """A run's directory; each file is read when it is first asked for, and checked.

    Every property raises `LongTailedError` if its file is missing, cannot be read, or lacks
    something. A run that is still being trained has a recipe and a manifest, but no results.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def holds_run(self) -> bool:
        """Whether the directory belongs to a run, finished or not."""
        return (self.path / "recipe.json").exists()

    @property
    def is_begun(self) -> bool:
        """Whether the manifest is there, which is written last before training begins."""
        return (self.path / "manifest.json").exists()

    @property
    def is_finished(self) -> bool:
        """Whether the run has been trained to the end and evaluated."""
        return (self.path / "results.json").exists()

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """The values of recipe.json; `longtailed.runs.directory.read_recipe` makes a `Recipe`."""
        return self._read("recipe.json", _RecipeFile)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The values of manifest.json; train and test count images of every class it names."""
        values = self._read("manifest.json", _ManifestFile)
        classes = len(values["class_names"])
        for split in ("train", "test"):
            counted = len(values["splits"][split]["counts"])
            if counted != classes:
                raise LongTailedError(
                    f"{self.path / 'manifest.json'} names {classes} classes but counts "
                    f"{counted} of the {split} split; train the run again."
                )
        return values

    @cached_property
    def results(self) -> dict[str, Any]:
        """The values of results.json, as they stand there."""
        values = self._read("results.json", _ResultsFile)
        path, classes = self.path / "results.json", len(self.manifest["class_names"])
        if LAST not in values["evaluations"]:
            raise _lacks(path, f"evaluations.{LAST}")
        for entry in values["evaluations"].values():
            worst = entry["worst_class"]["class"]
            if len(entry["per_class"]) != classes or not 0 <= worst < classes:
                raise LongTailedError(
                    f"{path} does not fit the run's {classes} classes; train the run again."
                )
        return values

    @property
    def evaluations(self) -> dict[str, EvaluationEntry]:
        """The figures in results.json by the name of the weights, a rate that is NaN as None."""
        entries = self.results["evaluations"]
        return {name: EvaluationEntry.model_validate(entry) for name, entry in entries.items()}

    @cached_property
    def metrics(self) -> tuple[Mapping[str, Any], ...]:
        """The lines of metrics.jsonl in training order; of a repeated epoch, the last."""
        path, epochs = self._file("metrics.jsonl"), {}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                checked = _EpochLine.model_validate(row)
            except ValueError as error:
                raise LongTailedError(
                    f"{path} line {number} is no epoch record; train the run again."
                ) from error
            epochs[checked.stage, checked.epoch] = row
        return tuple(epochs[key] for key in sorted(epochs))

    def predictions(self, weights: str = LAST) -> Predictions:
        """Return labels, predictions and confidences [N] of the test images."""
        path = self._file(f"evaluation-{weights}.npz")
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                labels = np.asarray(archive["labels"], dtype=np.int64)
                predictions = np.asarray(archive["predictions"], dtype=np.int64)
                confidences = np.asarray(archive["confidences"], dtype=np.float64)
        except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
            raise LongTailedError(
                f"{path} cannot be read as labels, predictions and confidences; train the run "
                "again."
            ) from error
        if not labels.shape == predictions.shape == confidences.shape or labels.ndim != 1:
            raise LongTailedError(f"{path} holds arrays of unequal length; train the run again.")
        both, classes = np.concatenate([labels, predictions]), len(self.manifest["class_names"])
        if both.size == 0 or both.min() < 0 or both.max() >= classes:
            raise LongTailedError(
                f"{path} does not hold labels of the run's {classes} classes; train the run again."
            )
        return labels, predictions, confidences

    def weights(self, name: str = LAST) -> Path:
        """Return the file of the weights called `name`; if it is not there, say which are."""
        path = self.path / ("model.safetensors" if name == LAST else f"{name}.safetensors")
        if not path.exists():
            there = [LAST] * (self.path / "model.safetensors").exists()
            there += [p.stem for p in self.path.glob("*.safetensors") if p.stem != "model"]
            raise LongTailedError(
                f"{self.path} has no weights called {name!r}; it has "
                f"{', '.join(there) or 'none yet'}."
            )
        return path

    def _file(self, name: str) -> Path:
        if not self.path.is_dir():
            what = "is not a directory" if self.path.exists() else "does not exist"
            raise LongTailedError(f"{self.path} {what}; name the directory of a run.")
        if not (self.path / name).is_file():
            raise LongTailedError(
                f"{self.path} holds no finished run: {name} is missing; train it to the end first."
            )
        return self.path / name

    def _read(self, name: str, schema: type[BaseModel]) -> dict[str, Any]:
        path = self._file(name)
        values = read_json(path)
        try:
            TypeAdapter(schema).validate_python(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            if first["type"] == "missing":
                raise _lacks(path, where) from None
            fault = f"{where}: {first['msg']}" if where else "it does not hold a JSON object"
            raise LongTailedError(f"{path} cannot be used: {fault}; train the run again.") from None
        found: dict[str, Any] = values
        return found


def _lacks(path: Path, what: str) -> LongTailedError:
    return LongTailedError(
        f"{path} lacks {what!r}, so this version cannot have written it; train the run again."
    )
