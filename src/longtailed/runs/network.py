"""The network of a run, as training finds it and as a finished run has it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from longtailed.data import Splits
from longtailed.data.streams import step_seed
from longtailed.errors import LongTailedError
from longtailed.nn import Network, build_network
from longtailed.nn.given import PREFIX, network_of
from longtailed.recipes import Recipe


def recipe_network(
    recipe: Recipe,
    num_classes: int,
    image_size: int,
    module: nn.Module | None = None,
    **options: Any,
) -> Network:
    """Return the network that a recipe names, or one around a copy of the module that was given.

    Raises `LongTailedError` if a module was given in Python once and is not now.
    """
    name = recipe.network.name
    if module is not None:
        if recipe.network.options:
            raise LongTailedError("network.options are for a network by name, not for a module.")
        return network_of(module, num_classes, recipe.head, image_size)
    if name.startswith(PREFIX):
        raise LongTailedError(
            f"the network of this run, {name.removeprefix(PREFIX)}, was given in Python and cannot "
            "be built from its name; give the module again (network=)."
        )
    return build_network(name, num_classes, recipe.head, image_size=image_size, **options)


def initial_network(recipe: Recipe, splits: Splits, module: nn.Module | None = None) -> Network:
    """Return the recipe's network as training finds it; its weights depend on the seed alone.

    With pretrained weights, or weights from a file (`weights`), images are normalised as they were
    when these were trained, unless the recipe gives a mean and standard deviation. `module` is the
    network, if it was given in Python.
    """
    spec, train = recipe.network, splits.sets["train"]
    image = next(splits.scan("train", batch_size=2)).images[0].cpu()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(step_seed(recipe.seed, "network"))
        try:
            network = recipe_network(
                recipe,
                train.num_classes,
                image.shape[-1],
                module,
                pretrained=spec.pretrained,
                **spec.options,
            )
        except (TypeError, ValueError, RuntimeError, AssertionError) as error:
            if isinstance(error, LongTailedError):
                raise
            raise LongTailedError(
                f"the network {spec.name} does not take the options {spec.options}: {_line(error)}."
            ) from None
        try:
            with torch.no_grad():
                network.eval()(image)
        except (RuntimeError, AssertionError) as error:
            raise LongTailedError(
                f"the network {spec.name} does not take images of {image.shape[2]} x "
                f"{image.shape[3]}: {_line(error)}; choose another image_size or network."
            ) from None
    network.train()
    config = network.backbone.data_config
    brought = spec.pretrained or "weights" in spec.options
    if brought and config is not None and recipe.data.mean is None:
        splits.mean, splits.std, splits.normalized_by = config.mean, config.std, "weights"
    if recipe.channels_last:
        network.to(memory_format=torch.channels_last)
    return network


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160].rstrip(".")
