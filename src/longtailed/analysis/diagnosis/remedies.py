"""Which remedies against a long tail a recipe holds already, so that none is advised twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from longtailed.data.positions import epoch_at
from longtailed.errors import LongTailedError
from longtailed.methods import Method, method_class, method_options
from longtailed.methods.bcl import BalancedContrastive
from longtailed.methods.erm import LogitAdjustment
from longtailed.methods.frozen import FrozenBackbone
from longtailed.methods.isda import ISDA
from longtailed.methods.nearest_mean import NearestMean
from longtailed.methods.rsg import RSG
from longtailed.methods.tau_norm import TauNorm
from longtailed.recipes import Recipe, Stage
from longtailed.runs.directory import read_recipe

PRIOR, WEIGHTS = "the class prior in the loss", "class weights"
SAMPLING, MARGINS = "re-sampling", "margins by class size"
CLASSIFIER = "a re-trained classifier"
AUGMENTED = "augmentation of features"
UNLABELLED = "pre-training without labels"
PRETRAINED = "a pretrained network"

BALANCE = (PRIOR, WEIGHTS, SAMPLING, MARGINS, CLASSIFIER)


def remedies(recipe: Recipe) -> set[str]:
    """Return the remedies that a recipe holds, under the names above.

    What a setting names but the run never reaches does not count, such as class weights that begin
    at epoch 160 of 60. A run that starts from other weights also has what these were trained with.
    """
    found = set().union(*map(_of_stage, recipe.stages))
    spec = recipe.network
    if spec.pretrained or "weights" in spec.options:
        found.add(PRETRAINED)
    if spec.init_from is not None:
        found |= _of_start(Path(spec.init_from))
    return found


def trained_stage(recipe: Recipe) -> int | None:
    """Return the number of the last stage that trains the whole network on labels; None: none."""
    numbers = [
        number
        for number, stage in enumerate(recipe.stages)
        if stage.epochs and not _replaces_classifier(cls := method_class(stage.method))
        if not cls.label_free
    ]
    return numbers[-1] if numbers else None


def is_reached(start: float, epochs: int) -> bool:
    """Return whether a run of `epochs` reaches a start (an epoch, or a fraction of the run)."""
    return epoch_at(start, epochs) < epochs


def _replaces_classifier(cls: type[Method]) -> bool:
    return issubclass(cls, FrozenBackbone | TauNorm | NearestMean)


def _options_of(stage: Stage) -> dict[str, Any]:
    """Return the values of all options of a stage's method, set or not."""
    return {n: value for n, (_, value) in method_options(stage.method).items()} | stage.options


def _of_stage(stage: Stage) -> set[str]:
    cls, options = method_class(stage.method), _options_of(stage)
    if not stage.epochs and cls.trains:
        return set()
    if _replaces_classifier(cls):
        return {CLASSIFIER}
    held = {
        UNLABELLED: cls.label_free,
        PRIOR: issubclass(cls, LogitAdjustment | BalancedContrastive) and options["tau"] > 0,
        MARGINS: options.get("max_margin", 0) > 0 and options.get("criterion", "ldam") == "ldam",
        WEIGHTS: options.get("weighting", "none") != "none"
        and is_reached(options.get("weighting_start", options.get("start", 0)), stage.epochs),
        SAMPLING: options.get("sampler", "instance") != "instance"
        and is_reached(options["sampler_start"], stage.epochs),
        AUGMENTED: issubclass(cls, ISDA | RSG),
    }
    return {name for name, holds in held.items() if holds}


def _of_start(path: Path) -> set[str]:
    """Return what the features of a run have from the run or the file that it starts from."""
    try:
        earlier = remedies(read_recipe(path))
    except LongTailedError:
        return {PRETRAINED}
    return (earlier & {UNLABELLED, PRETRAINED}) or {PRETRAINED}
