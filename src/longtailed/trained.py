"""A finished run's model: brought back from its directory, and evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from longtailed.checkpoint import load_weights, read_json
from longtailed.engine import make_fabric
from longtailed.errors import LongTailedError
from longtailed.evaluation import Evaluation, evaluate_split
from longtailed.methods import Method, build_method
from longtailed.metrics import Grouping
from longtailed.nn import build_network
from longtailed.prepare import prepare
from longtailed.recipes import Recipe, load_recipe

LAST = "last"


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
    groups: Grouping | None = None,
) -> Evaluation:
    """Return the evaluation of a finished run on its own test split, or on other data.

    Other data must have the classes that the run was trained on, by name. `groups` says how
    classes are grouped by size; None: as the run's recipe says.
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
    method.to(fabric.device)
    return evaluate_split(method, splits, "test", fabric, groups=groups or recipe.groups)
