"""The stages of a recipe: how each is built, and what is wrong with one before any trains."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from longtailed.data import Splits
from longtailed.data.streams import step_seed
from longtailed.errors import LongTailedError
from longtailed.methods import Method, build_method, method_class
from longtailed.nn import Network
from longtailed.recipes import Recipe
from longtailed.runs.initial_weights import load_initial_weights


def build_stage(recipe: Recipe, number: int, network: Network, splits: Splits) -> Method:
    """Return a stage's method around the network, which gets the head that the stage needs.

    New weights depend on the recipe's seed and the stage's number alone.
    """
    stage = recipe.stages[number]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(step_seed(recipe.seed, "method", number))
        network.requires_grad_(True)  # an earlier stage may have frozen parts
        network.use_head(recipe.heads[number])
        counts = splits.sets["train"].class_counts
        return build_method(stage.method, network, counts, **stage.options)


def check_stages(recipe: Recipe, network: Network, splits: Splits) -> None:
    """Raise `LongTailedError` for what would stop a later stage, after hours of earlier ones.

    Also for a view that no stage asks for, and for one that gives images of another size.
    """
    network = copy.deepcopy(network)
    asked = {("test", split) for split in splits.sets if split != "unlabelled"}
    for number, stage in enumerate(recipe.stages):
        method = build_stage(recipe, number, network, splits)
        asked |= {(v, stream.split) for stream in method.streams.values() for v in stream.views}
        if stage.epochs and not method.trains:
            raise LongTailedError(f"{stage.method} trains nothing; give its stage epochs=0.")
        if stage.epochs or not method.trains:
            sizes = {name: imageset.class_counts for name, imageset in splits.sets.items()}
            for stream in method.streams.values() if stage.epochs else ():
                splits.imageset(stream.split)
            method.check(sizes, stage.batch_size)
    _check_views(recipe.data.views, asked, splits)


def _check_views(own: Mapping[str, str], asked: set[tuple[str, str]], splits: Splits) -> None:
    """Raise `LongTailedError` unless the views that are asked for, with their splits, all fit."""
    names = {name for name, _ in asked}
    if "strong" in names and "strong" not in own:
        names.add("standard")  # which it begins with
    unused = [name for name in own if name not in names]
    if unused:
        raise LongTailedError(
            f"no stage asks for the view {unused[0]!r}; they ask for {', '.join(sorted(names))} "
            f"(views.{unused[0]}=none leaves it out)."
        )
    for name, split in sorted(asked):
        if split in splits.sets:
            splits.check_view(name, split)


def start_from(recipe: Recipe, network: Network, splits: Splits) -> dict[str, Any] | None:
    """Load the weights that the recipe's network starts from; return what they were, if any.

    Images are then normalised as they were when the weights were trained, unless the recipe gives
    a mean and standard deviation.

    Raises `LongTailedError` if they do not fit, or if a stage takes over a classifier or builds on
    a frozen backbone that nothing has trained.
    """
    spec = recipe.network
    loaded = None
    if spec.init_from is not None:
        names = splits.sets["train"].class_names
        loaded = load_initial_weights(Path(spec.init_from), network, names)
        if loaded.statistics is not None and recipe.data.mean is None:
            splits.mean, splits.std = loaded.statistics
            splits.normalized_by = "weights"
    backbone = spec.brings_weights
    head = loaded is not None and loaded.head
    for stage in recipe.stages:
        kind = method_class(stage.method)
        if kind.takes_over_head and not head:
            raise LongTailedError(
                f"{stage.method} takes over a trained classifier; put a stage that trains one "
                "before it, or set network.init_from to a run whose head fits"
                f"{f' (here {loaded.note})' if loaded else ''}."
            )
        if kind.frozen_backbone and not backbone:
            raise LongTailedError(
                f"{stage.method} leaves the backbone as it is, and nothing has trained it; put a "
                "stage that does before it, or set network.init_from."
            )
        if stage.epochs:
            backbone = True  # by this stage or, if it leaves the backbone as it is, before
            head |= not kind.label_free
    if loaded is None:
        return None
    return {"backbone": loaded.backbone, "head": loaded.head, "note": loaded.note}
