"""A whole run: data, network, stages, evaluation and files of one directory."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import nn
from torch.utils.data import Dataset

from longtailed.data import ImageSet
from longtailed.data.given import given_sets, source_of
from longtailed.data.splits import Splits
from longtailed.errors import LongTailedError
from longtailed.methods import Method, method_class, never_begun
from longtailed.nn import Network
from longtailed.nn.given import name_of
from longtailed.recipes import Recipe, compose, named_recipe, override
from longtailed.recipes.published import figures_for
from longtailed.report import write_report
from longtailed.report.run_directory import LAST, RunDirectory
from longtailed.runs.directory import (
    begun_precision,
    check_directory,
    check_unchanged,
    claim_directory,
    default_directory,
    record_run,
    seen_before,
)
from longtailed.runs.network import initial_network
from longtailed.runs.prepare import open_images, prepare
from longtailed.runs.stages import build_stage, check_stages, start_from
from longtailed.training.checkpoint import load_training_state, save_weights, write_json
from longtailed.training.engine import make_fabric
from longtailed.training.evaluation import evaluate_split
from longtailed.training.features import FeatureStore
from longtailed.training.fit import fit
from longtailed.training.job import FitResult, Job
from longtailed.training.provenance import run_provenance

_log = logging.getLogger(__name__)
CHOSEN, BEST_TEST = "holdout-chosen", "best-test"


@dataclass(frozen=True)
class FinishedRun:
    """A trained run: its directory and what results.json holds."""

    directory: Path
    recipe: Recipe
    results: dict[str, Any]

    @property
    def report(self) -> Path:
        """The run's HTML report."""
        return self.directory / "report.html"


def as_recipe(
    recipe: Recipe | str | None = None,
    *,
    data: str | Path | None = None,
    method: str | None = None,
    network: str | None = None,
    imbalance: float | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> Recipe:
    """Return the recipe meant by a name, a value, or data + method + network, with overrides.

    Put together from data, method and network it has the usual settings of training from scratch,
    or of fine-tuning if the network starts from trained weights (pretrained, from a file or from
    another run); a named recipe keeps its own.
    """
    source = None if data is None else str(data)
    flags = {
        "data.source": source, "method": method, "network.name": network,
        "data.imbalance": imbalance,
    }  # fmt: skip
    given = {key: value for key, value in flags.items() if value is not None}
    if recipe is not None:
        base = named_recipe(recipe) if isinstance(recipe, str) else recipe
        return override(base, given, overrides)
    if not source:
        raise LongTailedError("say what to train: a recipe's name, or data (a source or path).")
    wanted = override(compose(source), given, overrides)
    chosen = compose(
        source,
        wanted.stages[0].method,
        wanted.network.name,
        wanted.data.imbalance,
        fine_tuning=wanted.network.brings_weights,
    )
    return override(chosen, given, overrides)


def train(
    recipe: Recipe | str | None = None,
    *,
    data: str | Path | ImageSet | Dataset[Any] | Mapping[str, Any] | None = None,
    method: str | None = None,
    network: str | nn.Module | None = None,
    imbalance: float | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    out: str | Path | None = None,
    device: str = "auto",
    devices: int = 1,
    progress: bool = True,
    tensorboard: bool = False,
    report: bool = True,
) -> FinishedRun:
    """Return the finished run of a recipe, trained, evaluated and reported in one directory.

    Called again with the same arguments it goes on where it was interrupted, or returns the
    finished run. If its images have changed since, an error says which. `data` is the name or path
    of a source, an `ImageSet`, a torch or Hugging Face data set (as for `ImageSet.from_dataset`),
    or a mapping of such sets by split (train, val, test); images that are given so are known by
    their content. `out` is the directory (default: runs/<recipe's name>-<hash>). Without `report`
    no HTML page is written, which saves a second.

    >>> from longtailed import train
    >>> run = train(data="digits", method="ldam-drw", network="resnet20",
    ...             overrides={"epochs": 2, "imbalance": 20}, progress=False)  # doctest: +SKIP

    Raises `LongTailedError` for anything wrong with the recipe, data or directory, and
    `Interrupted` when Ctrl-C or SIGTERM stopped it after saving.
    """
    given = None
    if data is not None and not isinstance(data, str | Path):
        given = given_sets(data)
        data = source_of(given)
    module = network if isinstance(network, nn.Module) else None
    chosen = as_recipe(
        recipe,
        data=data,
        method=method,
        network=name_of(network) if isinstance(network, nn.Module) else network,
        imbalance=imbalance,
        overrides=overrides,
    )
    directory = Path(out) if out else default_directory(chosen)
    check_directory(directory, chosen)
    run = RunDirectory(directory)
    if run.is_finished:
        check_unchanged(directory, chosen, given, module)
        if progress:
            _log.info("%s is finished: nothing is trained, these are its figures.", directory)
        finished = FinishedRun(directory, chosen, run.results)
        if report and not finished.report.exists():
            write_report([directory])
        return finished
    idle = any(method_class(stage.method).idle_parameters for stage in chosen.stages)
    precision = begun_precision(directory, chosen)
    fabric = make_fabric(device, devices, precision, idle_parameters=idle)
    opened = open_images(chosen, given=given)
    if fabric.is_global_zero:
        record, files = record_run(directory, chosen, opened, module)
        files["seen_by_initial_weights"] = seen_before(chosen, record)
    splits, manifest = prepare(chosen, fabric.device, opened, leaks=fabric.is_global_zero)
    del opened  # the bytes of images that are decoded by now
    network_ = initial_network(chosen, splits, module)
    manifest["init_from"] = start_from(chosen, network_, splits)
    manifest["weights"] = getattr(network_.backbone, "loaded", None)
    manifest |= {"mean": list(splits.mean), "std": list(splits.std)}
    manifest["normalization"] = splits.normalized_by
    if progress and fabric.is_global_zero:
        _tell(manifest)
    check_stages(chosen, network_, splits)
    manifest["network_input"] = next(splits.scan("test", batch_size=1)).images[0].shape[-1]
    manifest |= {"parameters": network_.num_parameters(), "network": chosen.network.name}
    if fabric.is_global_zero:
        for name, digest in files.pop("sha256").items():
            manifest["splits"][name]["sha256"] = digest
        claim_directory(directory, chosen, {**manifest, **files, **run_provenance(fabric)}, record)
    fabric.barrier()
    runner = _Runner(chosen, directory, fabric, splits, manifest, progress, tensorboard)
    written = runner.evaluate(*runner.train(network_))
    if fabric.is_global_zero:
        write_json(directory / "results.json", written)
        if report:
            write_report([directory])
    fabric.barrier()
    return FinishedRun(directory, chosen, written)


def _tell(manifest: dict[str, Any]) -> None:
    """Print what was taken of files of weights, and whose mean and deviation normalise images."""
    notes = [manifest["weights"], (manifest["init_from"] or {}).get("note")]
    for note in filter(None, notes):
        print(f"weights: {note}.", file=sys.stderr)
    if any(notes):
        mean, std = ([round(value, 4) for value in manifest[key]] for key in ("mean", "std"))
        source = {"data": "data's", "recipe": "recipe's", "weights": "weights'"}
        said = source[manifest["normalization"]]
        print(f"images are normalised by the {said} mean {mean} and std {std}.", file=sys.stderr)


@dataclass
class _Runner:
    """Trains the stages of one run and evaluates what comes out."""

    recipe: Recipe
    directory: Path
    fabric: Fabric
    splits: Splits
    manifest: Mapping[str, Any]
    progress: bool
    tensorboard: bool

    def __post_init__(self) -> None:
        self.features = FeatureStore(self.splits, self.fabric)

    def train(self, network: Network) -> tuple[Method, FitResult]:
        """Return the last stage's method and what `fit` said of it."""
        recipe, checkpoint = self.recipe, self.directory / "checkpoint.pt"
        reached = load_training_state(checkpoint).get("stage", 0) if checkpoint.exists() else 0
        for number in range(len(recipe.stages)):
            method = build_stage(recipe, number, network, self.splits)
            if number < reached:
                continue  # its outcome is part of the state that the reached stage loads
            self._warn_of_starts(number)
            result = fit(method, self._job(number))
            network = method.network
        return method, result

    def _warn_of_starts(self, number: int) -> None:
        stage = self.recipe.stages[number]
        late = never_begun(stage.method, stage.options, stage.epochs)
        if late and stage.epochs and self.fabric.is_global_zero:
            warnings.warn(
                f"{', '.join(late)} of method '{stage.method}' is never reached in {stage.epochs} "
                "epoch(s) counted from 0; a fraction, such as 0.8, suits a run of any length.",
                stacklevel=4,
            )

    def _job(self, number: int) -> Job:
        recipe, stage = self.recipe, self.recipe.stages[number]
        select_on = {}
        if number + 1 == len(recipe.stages) and not method_class(stage.method).label_free:
            if "holdout" in self.splits.sets:
                select_on["holdout"] = CHOSEN
            if recipe.protocol == "published":
                select_on["test"] = BEST_TEST
        return Job(
            fabric=self.fabric,
            splits=self.splits,
            options=stage,
            seed=recipe.seed,
            directory=self.directory,
            stage=number,
            label=stage.method,
            select_on=select_on,
            capture=recipe.capture,
            compile=recipe.compile,
            features=self.features,
            identity=recipe.identity,
            show_progress=self.progress,
            tensorboard=self.tensorboard,
        )

    def evaluate(self, method: Method, result: FitResult) -> dict[str, Any]:
        """Return what results.json holds; write predictions and the last weights on the way."""
        write = self.fabric.is_global_zero
        if write:
            save_weights(self.directory / "model.safetensors", method, method.saved_prefixes)
        evaluations = {LAST: self._figures(method, LAST)}
        epochs = {LAST: result.epochs - 1}
        for selection in result.selections:
            if selection.epoch is not None:
                method.load_state_dict(selection.weights, strict=False)
                if write:
                    path = self.directory / f"{selection.name}.safetensors"
                    save_weights(path, method, method.saved_prefixes)
                evaluations[selection.name] = self._figures(method, selection.name)
                epochs[selection.name] = selection.epoch
        (self.directory / "metrics.jsonl").touch()  # a run of no epochs has written none
        figures = {name: value.item() for name, value in method.metrics().items()}
        seconds = sum(row["seconds"] for row in RunDirectory(self.directory).metrics)
        return {
            "evaluations": evaluations,
            "epochs": epochs,
            "chosen_on": self._chosen_on(result),
            "published": [row.sentence for row in figures_for(self.recipe)],
            "train_seconds": seconds,
            "metrics": figures,
            **{key: self.manifest[key] for key in ("near_duplicates",) if key in self.manifest},
        }

    def _chosen_on(self, result: FitResult) -> str:
        """Return what the epoch was chosen on, as the console and the report say it."""
        chosen = {selection.name for selection in result.selections if selection.epoch is not None}
        if CHOSEN in chosen:
            text = f"held-out images ({self.manifest['holdout']}); the last epoch is reported, too"
        elif method_class(self.recipe.stages[-1].method).label_free:
            text = "nothing: the last stage trains no classifier"
        elif "holdout" in self.splits.sets:
            text = "nothing: the last stage has no epochs to choose from"
        else:
            text = "nothing: no images were held out (holdout=0), so it is the last epoch"
        if BEST_TEST in chosen:
            text += f"; {BEST_TEST} is chosen on the test images, to compare with published figures"
        return text

    def _figures(self, method: Method, name: str) -> dict[str, Any]:
        evaluation = evaluate_split(
            method,
            self.splits,
            "test",
            self.fabric,
            groups=self.recipe.groups,
            features=self.features,
        )
        if self.fabric.is_global_zero:
            evaluation.save(self.directory / f"evaluation-{name}.npz")
        return {"tested_on": self.manifest["tested_on"], **evaluation.figures}
