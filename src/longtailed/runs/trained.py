"""A finished run's model: brought back from its directory, and evaluated."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from longtailed.data import ImageSet, Splits, parse_view
from longtailed.data.default_views import worker_count
from longtailed.data.given import decode_small_images
from longtailed.data.image_record import record_images, shared_images
from longtailed.data.loading import existing_splits, load_whole, opened_with
from longtailed.data.sources.names import match_classes
from longtailed.errors import LongTailedError
from longtailed.methods import Method, build_method
from longtailed.metrics.shots import Grouping
from longtailed.recipes import Recipe
from longtailed.report.run_directory import LAST, RunDirectory
from longtailed.runs.directory import RECORD, changes_since, learnt_images, read_recipe
from longtailed.runs.network import recipe_network
from longtailed.runs.prepare import open_images
from longtailed.training.checkpoint import check_finite, load_weights
from longtailed.training.engine import make_fabric
from longtailed.training.evaluation import Evaluation, evaluate_split


def restore(
    directory: Path | str, weights: str = LAST, network: nn.Module | None = None
) -> tuple[Recipe, Method, dict[str, Any]]:
    """Return a finished run's recipe, its trained method in eval mode, and its manifest.

    `weights` is "last", "holdout-chosen" or "best-test". `network` is the module, where the run's
    network was given as one; a copy of it gets the trained weights. Raises `LongTailedError` if the
    directory holds no such weights, or if they are not finite.
    """
    run = RunDirectory(directory)
    recipe, manifest, path = read_recipe(run.path), run.manifest, run.weights(weights)
    spec, stage = recipe.network, recipe.stages[-1]
    options = {key: value for key, value in spec.options.items() if key != "weights"}
    classes, size = len(manifest["class_names"]), manifest["network_input"]
    built = recipe_network(recipe, classes, size, network, **options)
    for kind in recipe.heads:
        built.use_head(kind)
    counts = manifest["splits"]["train"]["counts"]
    method = build_method(stage.method, built, counts, **stage.options)
    load_weights(path, method, method.saved_prefixes)
    check_finite(method, str(path))
    return recipe, method.eval(), manifest


def evaluate(
    directory: Path | str,
    *,
    data: str | Path | ImageSet | Dataset[Any] | None = None,
    split: str | None = None,
    weights: str = LAST,
    device: str = "auto",
    groups: Grouping | None = None,
    network: nn.Module | None = None,
    **data_options: Any,
) -> Evaluation:
    """Return the evaluation of a finished run on its own test split, or on other images.

    `data` is the name or path of a source, an `ImageSet`, or a torch or Hugging Face data set (as
    for `ImageSet.from_dataset`). A run whose images were given in Python needs it, and one whose
    network was given as a module needs `network`, that module.
    The classes of other data (or another split) must be among those that the run was trained on;
    they are matched by name. It is taken whole, from its test split, else its val split, else all
    of it. Images are resized and cropped as the run's test images were. `groups` says how classes
    are grouped by size; None: as the run's recipe says. `data_options` are settings for opening
    `data`, or changes to those of the run's own: root, label_column, image_column, class_names,
    val_list, test_list, verify.

    Raises `LongTailedError` for a class that the run does not know, for weights that are not
    finite, and if the run's own images have changed.
    """
    recipe, method, manifest = restore(directory, weights, network)
    imageset, tested_on = evaluation_images(
        Path(directory), recipe, manifest, data, split, data_options
    )
    fabric = make_fabric(device, precision=recipe.precision)
    splits = serve(imageset, recipe, manifest, fabric.device)
    method.to(fabric.device)
    result = evaluate_split(method, splits, "test", fabric, groups=groups or recipe.groups)
    own = tested_on == own_test(manifest)
    about = {"tested_on": tested_on}
    return replace(result, figures=about | result.figures | {"split": "test" if own else split})


def own_test(manifest: dict[str, Any]) -> str:
    """Return a description of a run's own test images, such as "the test images"."""
    return str(manifest.get("tested_on", "the test images"))


def evaluation_images(
    directory: Path,
    recipe: Recipe,
    manifest: dict[str, Any],
    data: str | Path | ImageSet | Dataset[Any] | None,
    split: str | None,
    data_options: dict[str, Any],
) -> tuple[ImageSet, str]:
    """Return the images to evaluate on, and a description of them for the figures.

    They are a run's own test images, or those of other data or another split (see `evaluate`).
    """
    if isinstance(data, str | Path | None):
        source = None if data is None else str(data)
        own = None if split else _own_test_images(directory, recipe, source, data_options)
        imageset = load_whole(recipe.data, source, split, data_options) if own is None else own
    else:
        if split is not None or any(value is not None for value in data_options.values()):
            raise LongTailedError("split and options for opening a source do not go with images.")
        imageset = decode_small_images(ImageSet.from_dataset(data))
        recorded = (directory / RECORD).exists()
        same = recorded and changes_since(directory, {"test": imageset}, ["test"]) is None
        own = imageset if same else None
    tested_on = own_test(manifest)
    if own is None:
        tested_on = f"all of {imageset.name}"
        _warn_of_training_images(imageset, directory)
    imageset, note = match_classes(
        imageset,
        manifest["class_names"],
        f"the run {directory}",
        "the classes of other data must be among the run's, by name: rename them, or name them "
        "with --class-names",
    )
    if note is not None:
        warnings.warn(note, stacklevel=2)
    return imageset, tested_on


def _own_test_images(
    directory: Path, recipe: Recipe, data: str | None, data_options: dict[str, Any]
) -> ImageSet | None:
    """Return the run's test images; None if `data` is other data or has a split to test on.

    Data without such a split may be what the run cut its test images from, moved or copied.
    """
    options = data_options if data is None else {**data_options, "source": data}
    settings = opened_with(recipe.data, None, options)
    recipe = recipe.model_copy(update={"data": settings})
    if data is not None:
        return _same_data(directory, recipe)
    try:
        sets = open_images(recipe).sets
    except LongTailedError as error:
        if any(value is not None for value in data_options.values()):
            raise
        raise LongTailedError(
            f"the data that {directory} was trained on cannot be opened as it was: {error} Say "
            "where it is now with --data, or --root for the images of a list."
        ) from None
    changed = changes_since(directory, sets, ["test"], settings.verify)
    if changed is not None:
        raise LongTailedError(
            f"the test images have changed since {directory} was trained: {changed}. Restore "
            "the images, or name the data to evaluate on with --data."
        )
    return sets["test"]


def _same_data(directory: Path, recipe: Recipe) -> ImageSet | None:
    """Return the test images of a run's data, moved or copied to where the recipe says.

    None if it is other data, or has a split to test on.
    """
    source, recorded = recipe.data.source, (directory / RECORD).exists()
    if not recorded or {"test", "val"} & set(existing_splits(recipe.data)):
        return None
    try:
        sets = open_images(recipe, scan=False).sets
    except LongTailedError:  # it cannot be opened as the run's data was, so it is other data
        return None
    if changes_since(directory, sets, list(sets), recipe.data.verify) is not None:
        return None
    warnings.warn(
        f"{source} holds the images that the run was made of; it is evaluated on those of them "
        "that were held out for testing.",
        stacklevel=3,
    )
    return sets["test"]


def _warn_of_training_images(imageset: ImageSet, directory: Path) -> None:
    learnt = learnt_images(directory)
    if learnt is None:
        return
    seen = shared_images(record_images({"test": imageset}), learnt)
    if seen:
        warnings.warn(
            f"{seen} of the {len(imageset)} images of {imageset.name} are among those that the "
            "run was trained on.",
            stacklevel=3,
        )


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
