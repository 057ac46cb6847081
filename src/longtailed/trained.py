"""A finished run's model: brought back from its directory, and evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longtailed.checkpoint import load_weights, read_json
from longtailed.data import ImageSet, Splits, parse_view
from longtailed.engine import make_fabric
from longtailed.errors import LongTailedError
from longtailed.evaluation import Evaluation, evaluate_split
from longtailed.loading import load_splits, load_whole
from longtailed.methods import Method, build_method
from longtailed.metrics import Grouping
from longtailed.nn import build_network
from longtailed.prepare import worker_count
from longtailed.recipes import Recipe
from longtailed.rundir import read_recipe

LAST = "last"


def restore(directory: Path | str, weights: str = LAST) -> tuple[Recipe, Method, dict[str, Any]]:
    """Return a finished run's recipe, its trained method in eval mode, and its manifest.

    `weights` is "last", "holdout-chosen" or "best-test". Raises `LongTailedError` if the
    directory holds no such weights.
    """
    home = Path(directory)
    recipe = read_recipe(home)
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
    network = build_network(
        spec.name,
        len(manifest["class_names"]),
        head=recipe.head,
        image_size=manifest["network_input"],
        **options,
    )
    for kind in recipe.heads:
        network.use_head(kind)
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
    **data_options: Any,
) -> Evaluation:
    """Return the evaluation of a finished run on its own test split, or on other images.

    Other data (or another split) must have the classes that the run was trained on, by name; it
    is taken whole, from its test split, else its val split, else all of it. Images are resized
    and cropped as the run's test images were. `groups` says how classes are grouped by size;
    None: as the run's recipe says. `data_options` are settings for opening `data`: root,
    label_column, image_column, class_names, val_list, test_list.

    Raises `LongTailedError` if the classes differ, or if the run's own images have changed.
    """
    recipe, method, manifest = restore(directory, weights)
    imageset = evaluation_images(Path(directory), recipe, manifest, data, split, data_options)
    fabric = make_fabric(device, precision=recipe.precision)
    splits = serve(imageset, recipe, manifest, fabric.device)
    method.to(fabric.device)
    result = evaluate_split(method, splits, "test", fabric, groups=groups or recipe.groups)
    result.figures["split"] = split or "test"
    return result


def evaluation_images(
    directory: Path,
    recipe: Recipe,
    manifest: dict[str, Any],
    data: str | None,
    split: str | None,
    data_options: dict[str, Any],
) -> ImageSet:
    """Return a run's own test images, or those of other data or another split (see `evaluate`)."""
    if data is None and split is None:
        imageset = load_splits(recipe.data)[0]["test"]
        if imageset.fingerprint() != manifest["splits"]["test"]["sha256"]:
            raise LongTailedError(
                f"the test images have changed since {directory} was trained; name data to "
                "evaluate on as it is now."
            )
    else:
        imageset = load_whole(recipe.data, data, split, data_options)
    names = list(imageset.class_names)
    if names != manifest["class_names"]:
        raise LongTailedError(
            f"the run was trained on {len(manifest['class_names'])} classes "
            f"({', '.join(manifest['class_names'][:3])}, ...), the data has {len(names)} "
            f"({', '.join(names[:3])}, ...)."
        )
    return imageset


def serve(
    imageset: ImageSet, recipe: Recipe, manifest: dict[str, Any], device: torch.device
) -> Splits:
    """Return a split "test" that shows images to a finished run's model as its test images were."""
    return Splits(
        sets={"test": imageset},
        views={"test": parse_view(_view_text(imageset, manifest))},
        mean=manifest["mean"],
        std=manifest["std"],
        device=device,
        workers=worker_count(recipe.data),
        channels_last=recipe.channels_last,
    )


def _view_text(imageset: ImageSet, manifest: dict[str, Any]) -> str:
    text: str = manifest["views"]["test"]
    size = manifest["image_size"]  # of the pixels that the run kept in memory; None: files
    images = imageset.images
    if size is None or (isinstance(images, Tensor) and list(images.shape[2:]) == size):
        return text
    side = min(size)
    return ", ".join(filter(None, [f"resize({side})", f"center_crop({side})", text]))
