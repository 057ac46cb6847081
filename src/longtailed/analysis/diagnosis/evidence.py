"""What a diagnosis is made from: features, labels and predictions of a run or of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from longtailed.analysis.diagnosis.attribution import vote_of_neighbours
from longtailed.analysis.diagnosis.passes import THUMBNAIL, collect, image_side, nearest, predict
from longtailed.analysis.diagnosis.training_fit import TrainingFit, training_fit
from longtailed.data import ImageSet, Splits
from longtailed.data.default_views import default_views, normalization, worker_count
from longtailed.data.loading import load_whole
from longtailed.data.preparation import store
from longtailed.data.settings import Data
from longtailed.errors import LongTailedError
from longtailed.methods import method_class
from longtailed.nn import Network, build_network
from longtailed.recipes import Recipe
from longtailed.report.run_directory import LAST, RunDirectory
from longtailed.runs.directory import changes_since
from longtailed.runs.initial_weights import load_initial_weights
from longtailed.runs.network import initial_network
from longtailed.runs.prepare import open_images, prepare
from longtailed.runs.run import as_recipe
from longtailed.runs.stages import start_from
from longtailed.runs.trained import evaluation_images, own_test, restore, serve
from longtailed.training.engine import make_fabric

PIXELS = "pixels"
DEFAULT_NETWORK = "resnet18"


@dataclass(frozen=True, eq=False)
class Evidence:
    """Features, labels and predictions; everything on the CPU.

    `features` [N, A] and `neutral` [N, B] are those of the training images: `features` of the
    diagnosed network, `neutral` of a source that was not trained on these labels, and `nearest`
    the `similarity.nearest_images` in the latter. `test_features` [M, A] and `predictions` [M]
    belong to `test`, and `fit` says how the network does on its own training images. Without a
    trained classifier the tested images are the training images, each predicted from the others;
    `estimated` is True and `fit` None.
    """

    train: ImageSet
    test: ImageSet
    features: Tensor
    neutral: Tensor
    nearest: tuple[Tensor, Tensor]
    test_features: Tensor
    predictions: Tensor
    fit: TrainingFit | None
    about: dict[str, Any]

    @property
    def estimated(self) -> bool:
        """Whether there is no trained classifier, and its errors are estimated."""
        return self.fit is None


def of_run(
    directory: Path,
    *,
    data: str | None = None,
    split: str | None = None,
    weights: str = LAST,
    look_alikes_from: str | None = None,
    device: str = "auto",
    **data_options: Any,
) -> Evidence:
    """Return the evidence of a finished run on its test images, or on other ones.

    `look_alikes_from`: see `neutral_features`. Raises `LongTailedError` for an unfinished run, one
    trained without labels, and images that are not those the run was trained on.
    """
    if not RunDirectory(directory).is_finished:
        raise LongTailedError(f"{directory} is not finished; train it to the end first.")
    recipe, method, manifest = restore(directory, weights)
    if method_class(recipe.stages[-1].method).label_free:
        raise LongTailedError(
            f"{directory} was trained without labels and has no classifier; diagnose the data "
            f"with its features instead: longtailed diagnose DATA --network-weights {directory}."
        )
    fabric = make_fabric(device, precision=recipe.precision)
    own = data is None and split is None
    splits = _as_trained(directory, recipe, manifest, fabric, own)
    shown, tested_on = splits, own_test(manifest)
    if not own:
        images, tested_on = evaluation_images(
            directory, recipe, manifest, data, split, data_options
        )
        shown = serve(images, recipe, manifest, fabric.device)
    test = shown.imageset("test")
    _check_size(test)
    method.to(fabric.device)
    features, guessed, thumbnails = predict(method, splits, "train", fabric)
    neutral, name = neutral_features(recipe, splits, thumbnails, look_alikes_from, fabric)
    test_features, predictions, _ = predict(method, shown, "test", fabric)
    about = _about_run(directory, recipe, manifest) | {
        "weights": weights,
        "image_side": image_side(splits.imageset("train"), manifest["network_input"]),
        "tested_on": tested_on,
        "look_alikes_from": name,
    }
    train, near = splits.imageset("train"), nearest(neutral, fabric)
    labels, classes = torch.from_numpy(train.labels), train.num_classes
    fit = training_fit(features, guessed, labels, classes, fabric.device)
    return Evidence(train, test, features, neutral, near, test_features, predictions, fit, about)


def _about_run(directory: Path, recipe: Recipe, manifest: dict[str, Any]) -> dict[str, Any]:
    """Return what a diagnosis says about its run."""
    return {
        "kind": "run",
        "name": str(recipe.name or directory.name),
        "directory": str(directory),
        "source": manifest["source"],
        "method": [stage.method for stage in recipe.stages],
        "network": manifest["network"],
        "recipe": recipe.model_dump(mode="json"),
    }


def _as_trained(
    directory: Path, recipe: Recipe, manifest: dict[str, Any], fabric: Fabric, test: bool
) -> Splits:
    """Return the splits that a run was trained on, or refuse if they have changed since."""
    opened = open_images(recipe)
    compared = ("train", "test")[: 1 + test]
    changed = changes_since(directory, opened.sets, compared, recipe.data.verify)
    if changed is not None:
        raise LongTailedError(
            f"the images have changed since {directory} was trained: {changed}. Train it again."
        )
    splits, _ = prepare(recipe, fabric.device, opened)
    splits.mean, splits.std = manifest["mean"], manifest["std"]  # a pretrained network's own
    return splits


def of_data(
    source: str,
    *,
    split: str | None = None,
    network: str | None = None,
    network_weights: str | None = None,
    device: str = "auto",
    **data_options: Any,
) -> Evidence:
    """Return the evidence of a data set, seen by a network that was not trained on its labels.

    `network` is a timm name (default: resnet18) with its pretrained weights, any network with
    `network_weights` (a file, or the directory of a run, whose network it then is), or "pixels"
    for thumbnails without a network. Raises `LongTailedError` if the weights cannot be had.
    """
    fabric = make_fabric(device)
    options = {k: v for k, v in data_options.items() if v is not None}
    data = Data(source=source, **options)
    splits = _opened(data, split or "train", fabric)
    model, name = _network_for_data(source, network, network_weights, splits, data)
    function = None if model is None else model.to(fabric.device).eval().features
    features, thumbnails = collect(function, splits, "train", fabric)
    features = thumbnails if model is None else features
    train = splits.imageset("train")
    labels = torch.from_numpy(train.labels)
    near = nearest(features, fabric)
    predictions = vote_of_neighbours(*near, labels, train.num_classes)
    about = {
        "kind": "data",
        "name": Path(source).name,
        "source": source,
        "options": options,
        "method": [],
        "network": name,
        "image_side": image_side(train, _input_side(splits)),
        "tested_on": f"the images themselves ({split or 'train'}), each left out in turn",
        "look_alikes_from": name,
    }
    return Evidence(train, train, features, features, near, features, predictions, None, about)


def _input_side(splits: Splits) -> int:
    """Return the side of the images that a network is given, in pixels."""
    return int(next(splits.scan("train", batch_size=1)).images[0].shape[-1])


def _opened(data: Data, split: str, fabric: Fabric) -> Splits:
    """Return one split of a data set, all of its images, as "train"."""
    whole = load_whole(data, None, split)
    _check_size(whole)
    sets = store({"train": whole}, data)
    mean, std = normalization(sets["train"], data)
    return Splits(
        sets=sets,
        views=default_views(whole, sets["train"], data),
        mean=mean,
        std=std,
        device=fabric.device,
        workers=worker_count(data),
    )


def neutral_features(
    recipe: Recipe, splits: Splits, thumbnails: Tensor, wanted: str | None, fabric: Fabric
) -> tuple[Tensor, str]:
    """Return features [N, B] of the training images that no label shaped, and what they are called.

    A trained network has learnt every training label by heart, wrong ones too: in its features an
    image looks like its label, whatever it shows. `wanted` is "pixels" (thumbnails of 16 x 16),
    "start" (the network as training began, from pretrained or earlier weights), or the directory
    of a run, such as one of rotation or MoCo. None: "start" if the run began from weights, else
    "pixels".
    """
    spec = recipe.network
    began = spec.brings_weights
    if wanted is None:
        wanted = "start" if began else PIXELS
    if wanted == PIXELS:
        return thumbnails, f"{PIXELS} ({THUMBNAIL} x {THUMBNAIL} thumbnails)"
    if wanted == "start":
        if not began:
            raise LongTailedError(
                "the run began from random weights, which know nothing of images; use pixels or "
                "the directory of a rotation or MoCo run."
            )
        try:
            network, name = initial_network(recipe, splits), "the network as training began"
            start_from(recipe, network, splits)
        except LongTailedError as error:
            why = str(error).rstrip(".")
            raise LongTailedError(f"{why}; or give --look-alikes-from pixels.") from None
    elif RunDirectory(wanted).holds_run:
        network, name = restore(wanted)[1].network, f"the network of {wanted}"
    else:
        raise LongTailedError(
            f"--look-alikes-from {wanted} is neither pixels nor start nor the directory of a run."
        )
    features, _ = collect(network.to(fabric.device).eval().features, splits, "train", fabric)
    return features, name


def _network_for_data(
    source: str, name: str | None, weights: str | None, splits: Splits, data: Data
) -> tuple[Network | None, str]:
    """Return the network that sees a data set, None for pixels, and what to call it."""
    if name == PIXELS:
        if weights is not None:
            raise LongTailedError("pixels need no --network-weights; leave one of them out.")
        return None, f"{PIXELS} ({THUMBNAIL} x {THUMBNAIL} thumbnails)"
    if weights is not None and RunDirectory(weights).holds_run:
        manifest = RunDirectory(weights).manifest
        splits.mean, splits.std = manifest["mean"], manifest["std"]
        return restore(weights)[1].network, f"the network of {weights}"
    name = name or DEFAULT_NETWORK
    if weights is not None:
        size = _input_side(splits)
        network = build_network(name, splits.imageset("train").num_classes, image_size=size)
        load_initial_weights(Path(weights), network)
        return network, f"{name} with the weights of {Path(weights).name}"
    recipe = as_recipe(data=source, network=name, overrides={"network.pretrained": True})
    try:
        return initial_network(recipe, splits), f"{name}, pretrained"
    except LongTailedError as error:
        if "cannot be downloaded" not in str(error):
            raise
        raise LongTailedError(
            f"the pretrained weights of {name} are not on this machine and cannot be downloaded; "
            "give a file or a run of your own with --network-weights, or compare thumbnails "
            "with --network pixels."
        ) from None


def _check_size(imageset: ImageSet) -> None:
    tested = sum(count > 0 for count in imageset.class_counts)
    if tested < 2:
        raise LongTailedError(
            f"{imageset.name} has images of {tested} class(es); a diagnosis compares at least 2."
        )
