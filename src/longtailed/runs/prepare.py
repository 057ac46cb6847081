"""From a recipe to its splits, ready for training, and a manifest."""

from __future__ import annotations

from typing import Any

import torch

from longtailed.data import Splits
from longtailed.data.given import Given
from longtailed.data.loading import META_IMAGES
from longtailed.data.preparation import Opened, open_data, prepare_data
from longtailed.data.settings import Data
from longtailed.methods import method_class
from longtailed.recipes import Recipe


def with_meta(recipe: Recipe) -> Data:
    """Return the recipe's data section, with a meta set if a method needs one."""
    streams = [s for stage in recipe.stages for s in method_class(stage.method).streams.values()]
    if recipe.data.meta_per_class is None and any(s.split == "meta" for s in streams):
        return recipe.data.model_copy(update={"meta_per_class": META_IMAGES})
    return recipe.data


def open_images(recipe: Recipe, scan: bool = True, given: Given | None = None) -> Opened:
    """Return the image sets of a recipe; see `load_splits`."""
    return open_data(with_meta(recipe), scan, given)


def prepare(
    recipe: Recipe, device: torch.device, opened: Opened | None = None, leaks: bool = False
) -> tuple[Splits, dict[str, Any]]:
    """Return a recipe's splits, ready to be streamed to `device`, and their manifest.

    `opened` are the recipe's images, if they are open already; `leaks`: see `prepare_data`.
    """
    opened = opened or open_images(recipe)
    return prepare_data(with_meta(recipe), device, opened, recipe.channels_last, leaks)
