"""A whole run: data, network, stages, evaluation and files of one directory."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from longtailed.checkpoint import (
    load_training_state,
    load_weights,
    read_json,
    save_weights,
    write_json,
)
from longtailed.data.streams import Splits, step_seed
from longtailed.errors import LongTailedError
from longtailed.evaluation import Evaluation, evaluate_split
from longtailed.fit import fit
from longtailed.job import FitResult, Job
from longtailed.methods import Method, build_method
from longtailed.nn import Network, build_network
from longtailed.prepare import prepare
from longtailed.recipes import Recipe, compose, load_recipe, named_recipe, override
from longtailed.report import write_report

LAST, CHOSEN, BEST_TEST = "last", "holdout-chosen", "best-test"


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


def make_fabric(device: str = "auto", devices: int = 1, precision: str = "32") -> Fabric:
    """Return launched Fabric on the device asked for.

    `device` is "auto" (CUDA if there is one), "cpu", "cuda" or "cuda:K"; `devices` is the number
    of processes. Under torchrun the environment's world is used.
    Raises `LongTailedError` for a device that this machine does not have.
    """
    kind, _, number = device.partition(":")
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "auto":
        kind = "cuda" if available else "cpu"
    if kind not in {"cpu", "cuda"} or (number and not number.isdigit()):
        raise LongTailedError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:K.")
    if kind == "cuda" and max(devices, int(number or 0) + 1) > available:
        raise LongTailedError(
            f"device {device!r} with {devices} process(es) was asked for, but this machine has "
            f"{available} CUDA device(s); use device=cpu."
        )
    if kind == "cpu" and precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        warnings.warn(
            "this processor has no bfloat16 arithmetic: precision=bf16 will be many times slower "
            "than precision=32.",
            stacklevel=2,
        )
    world = int(os.environ.get("LOCAL_WORLD_SIZE", devices))
    fabric = Fabric(
        accelerator=kind,
        devices=[int(number)] if number and world == 1 else world,
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", 1)),
        strategy="ddp" if int(os.environ.get("WORLD_SIZE", world)) > 1 else "auto",
        precision="bf16-mixed" if precision == "bf16" else "32-true",
    )
    fabric.launch()
    return fabric


def as_recipe(
    recipe: Recipe | str | None = None,
    *,
    data: str | None = None,
    method: str | None = None,
    network: str | None = None,
    imbalance: float | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> Recipe:
    """Return the recipe meant by a name, a value, or data + method + network, with overrides."""
    if recipe is None:
        if data is None:
            raise LongTailedError("say what to train: a recipe's name, or data (a source or path).")
        base = compose(data, method or "ce", network or "resnet32", imbalance=imbalance)
        return override(base, _assignments(overrides))
    base = named_recipe(recipe) if isinstance(recipe, str) else recipe
    given = {"method": method, "network.name": network, "data.imbalance": imbalance}
    given["data.source"] = data
    extra = [f"{key}={value}" for key, value in given.items() if value is not None]
    return override(base, [*extra, *_assignments(overrides)])


def _assignments(overrides: Sequence[str] | Mapping[str, Any]) -> Sequence[str]:
    if isinstance(overrides, Mapping):
        return [f"{key}={value!r}" for key, value in overrides.items()]
    return overrides


def train(
    recipe: Recipe | str | None = None,
    *,
    data: str | None = None,
    method: str | None = None,
    network: str | None = None,
    imbalance: float | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    out: str | Path | None = None,
    device: str = "auto",
    devices: int = 1,
    progress: bool = True,
    tensorboard: bool = False,
) -> FinishedRun:
    """Return the finished run of a recipe, trained, evaluated and reported in one directory.

    Called again with the same arguments it goes on where it was interrupted, or returns the
    finished run. `out` is the directory (default: runs/<recipe's name>-<hash>).

    >>> from longtailed import train
    >>> run = train(data="digits", method="ldam-drw", network="resnet20",
    ...             overrides={"epochs": 2, "imbalance": 20}, progress=False)  # doctest: +SKIP

    Raises `LongTailedError` for anything wrong with the recipe, data or directory, and
    `Interrupted` when Ctrl-C or SIGTERM stopped it after saving.
    """
    chosen = as_recipe(
        recipe, data=data, method=method, network=network, imbalance=imbalance, overrides=overrides
    )
    directory = Path(out) if out else Path("runs") / f"{chosen.name}-{chosen.identity[:8]}"
    claim(directory, chosen)
    results = directory / "results.json"
    if results.exists():
        finished = FinishedRun(directory, chosen, read_json(results))
        if not finished.report.exists():
            write_report([directory])
        return finished
    fabric = make_fabric(device, devices, chosen.precision)
    splits, manifest = prepare(chosen, fabric.device)
    network_ = initial_network(chosen, splits)
    if fabric.is_global_zero:
        machine = {"parameters": network_.num_parameters(), "network": chosen.network.name}
        write_json(directory / "manifest.json", {**manifest, **machine, **environment(fabric)})
    runner = _Runner(chosen, directory, fabric, splits, progress, tensorboard)
    written = runner.evaluate(*runner.train(network_))
    if fabric.is_global_zero:
        write_json(results, written)
        write_report([directory])
    fabric.barrier()
    return FinishedRun(directory, chosen, written)


def claim(directory: Path, recipe: Recipe) -> None:
    """Make the directory the home of this recipe's run; refuse one that holds anything else."""
    path = directory / "recipe.json"
    if path.exists():
        held = load_recipe(read_json(path))
        if held.identity != recipe.identity:
            raise LongTailedError(
                f"{directory} holds another recipe ({_difference(held, recipe)}); choose another "
                "directory with --out, or remove this one."
            )
        return
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise LongTailedError(f"{directory} exists and holds no run; choose another directory.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LongTailedError(f"cannot make {directory}: {error.strerror}.") from None
    write_json(path, recipe.model_dump(mode="json"))


def _difference(held: Recipe, wanted: Recipe) -> str:
    """Return the first setting in which two recipes differ, as text."""

    def walk(old: Any, new: Any, path: str) -> str:
        if isinstance(old, dict) and isinstance(new, dict):
            pairs = [(key, old.get(key), new.get(key)) for key in {**old, **new}]
        elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            pairs = [(str(i), *pair) for i, pair in enumerate(zip(old, new, strict=True))]
        else:
            return f"{path} is {old!r} there and {new!r} here"
        key, first, second = next(pair for pair in pairs if pair[1] != pair[2])
        return walk(first, second, f"{path}.{key}" if path else key)

    return walk(held.model_dump(mode="json"), wanted.model_dump(mode="json"), "")


def environment(fabric: Fabric) -> dict[str, Any]:
    """Return the hardware and versions that a run's figures belong to."""
    device = fabric.device
    cuda = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "hardware": cuda or f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "processes": fabric.world_size,
        "versions": {
            "longtailed": importlib.metadata.version("longtailed"),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": importlib.metadata.version("torchvision"),
            "timm": importlib.metadata.version("timm"),
        },
    }


def initial_network(recipe: Recipe, splits: Splits) -> Network:
    """Return the recipe's network as training finds it; its weights depend on the seed alone.

    A pretrained network brings its own normalisation, unless the recipe sets one.
    """
    spec = recipe.network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(step_seed(recipe.seed, "network"))
        network = build_network(
            spec.name,
            splits.sets["train"].num_classes,
            head=recipe.head,
            pretrained=spec.pretrained,
            **spec.options,
        )
    config = network.backbone.data_config
    if spec.pretrained and config is not None and recipe.data.mean is None:
        splits.mean, splits.std = config.mean, config.std
    if recipe.channels_last:
        network.to(memory_format=torch.channels_last)
    return network


@dataclass
class _Runner:
    """Trains the stages of one run and evaluates what comes out."""

    recipe: Recipe
    directory: Path
    fabric: Fabric
    splits: Splits
    progress: bool
    tensorboard: bool

    def train(self, network: Network) -> tuple[Method, FitResult]:
        """Return the last stage's method and what `fit` said of it."""
        recipe, checkpoint = self.recipe, self.directory / "checkpoint.pt"
        reached = load_training_state(checkpoint).get("stage", 0) if checkpoint.exists() else 0
        counts = self.splits.sets["train"].class_counts
        for number, stage in enumerate(recipe.stages):
            method = build_method(stage.method, network, counts, **stage.options)
            if number < reached:
                continue  # its outcome is part of the state that the reached stage loads
            result = fit(method, self._job(number))
            network = method.network
        return method, result

    def _job(self, number: int) -> Job:
        recipe, stage = self.recipe, self.recipe.stages[number]
        select_on = {}
        if number + 1 == len(recipe.stages):
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
        lines = (self.directory / "metrics.jsonl").read_text().splitlines() if write else []
        seconds = sum(json.loads(line)["seconds"] for line in lines)
        return {"evaluations": evaluations, "epochs": epochs, "train_seconds": seconds}

    def _figures(self, method: Method, name: str) -> dict[str, Any]:
        evaluation = evaluate_split(method, self.splits, "test", self.fabric)
        if self.fabric.is_global_zero:
            evaluation.save(self.directory / f"evaluation-{name}.npz")
        return evaluation.figures


def restore(
    directory: Path | str, weights: str = LAST, device: str = "auto"
) -> tuple[Recipe, Method, dict[str, Any]]:
    """Return a finished run's recipe, its trained method in eval mode, and its manifest.

    `weights` is "last", "holdout-chosen" or "best-test". Raises `LongTailedError` if the
    directory holds no such weights.
    """
    home = Path(directory)
    recipe = load_recipe(read_json(home / "recipe.json"))
    manifest = read_json(home / "manifest.json")
    path = home / ("model.safetensors" if weights == LAST else f"{weights}.safetensors")
    if not path.exists():
        there = [LAST] * (home / "model.safetensors").exists()
        there += [p.stem for p in home.glob("*.safetensors") if p.stem != "model"]
        raise LongTailedError(
            f"{home} has no weights called {weights!r}; it has {', '.join(there) or 'none yet'}."
        )
    spec, stage = recipe.network, recipe.stages[-1]
    options = {key: value for key, value in spec.options.items() if key != "weights"}
    network = build_network(spec.name, len(manifest["class_names"]), head=recipe.head, **options)
    counts = manifest["splits"]["train"]["counts"]
    method = build_method(stage.method, network, counts, **stage.options)
    load_weights(path, method, method.saved_prefixes)
    return recipe, method.eval(), manifest


def evaluate(
    directory: Path | str,
    *,
    data: str | None = None,
    split: str | None = None,
    weights: str = LAST,
    device: str = "auto",
) -> Evaluation:
    """Return the evaluation of a finished run on its own test split, or on other data.

    Other data must have the classes that the run was trained on, by name.
    """
    recipe, method, manifest = restore(directory, weights)
    changes: dict[str, Any] = {"imbalance": None, "holdout": 0}
    if data is not None:
        changes["source"] = data
    if split is not None:
        changes["eval_split"] = split
    fabric = make_fabric(device, precision=recipe.precision)
    changed = recipe.model_copy(update={"data": recipe.data.model_copy(update=changes)})
    splits, _ = prepare(changed, fabric.device)
    names = list(splits.sets["test"].class_names)
    if names != manifest["class_names"]:
        raise LongTailedError(
            f"the run was trained on {len(manifest['class_names'])} classes "
            f"({', '.join(manifest['class_names'][:3])}, ...), the data has {len(names)} "
            f"({', '.join(names[:3])}, ...)."
        )
    splits.mean, splits.std = manifest["mean"], manifest["std"]
    return evaluate_split(method.to(fabric.device), splits, "test", fabric)
