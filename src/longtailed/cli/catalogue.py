"""What there is by name, with a line about each, for `longtailed list`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from longtailed.analysis.experiments import EXPERIMENTS
from longtailed.data import SAMPLERS, SOURCES, VIEWS
from longtailed.data.class_probabilities import KINDS
from longtailed.errors import LongTailedError, unknown_name
from longtailed.methods import METHODS, method_class, method_options
from longtailed.nn import list_networks
from longtailed.nn.timm_backbone import timm_names
from longtailed.recipes import RECIPES, Recipe, compose, named_recipe
from longtailed.recipes.override import recipe_keys, value_text
from longtailed.recipes.published import figures_of


def _first_line(entry: object) -> str:
    return (inspect.getdoc(entry) or "").partition("\n")[0]


def methods() -> dict[str, str]:
    """Return each method with what it is and what its name presets."""
    notes = {}
    for name, entry in METHODS.items():
        preset = entry.keywords if isinstance(entry, partial) else {}
        shown = ", ".join(f"{key}={value}" for key, value in preset.items())
        notes[name] = _first_line(method_class(name)) + (f" [{shown}]" if shown else "")
    return notes


class RecipeRow(NamedTuple):
    """A line of `longtailed list recipes`: what is trained on what, and the published figure."""

    name: str
    data: str
    epochs: str
    top1: str


def recipe_row(name: str) -> RecipeRow:
    """Return the line about a recipe; `top1` is in percent, with "~" unless it was read."""
    recipe = named_recipe(name)
    rows = [row for row in figures_of(name) if not row.overrides]
    top1 = f"{rows[0].accuracy:.4g}" + "~" * (rows[0].certainty != "read") if rows else ""
    return RecipeRow(name, _data(recipe), "+".join(str(s.epochs) for s in recipe.stages), top1)


def _data(recipe: Recipe) -> str:
    source = Path(recipe.data.source).stem.removesuffix("_train")
    return source if recipe.data.imbalance is None else f"{source} {recipe.data.imbalance:g}:1"


def keys() -> dict[str, str]:
    """Return each key of a recipe of one stage, with its default."""
    found = {}
    for path in recipe_keys(compose("digits")):
        section: Any = Recipe()
        for part in path[:-1]:
            section = section[part] if isinstance(part, int) else getattr(section, part)
        if isinstance(section, BaseModel):  # not a method's options
            default = type(section).model_fields[str(path[-1])].get_default()
            found[".".join(map(str, path))] = value_text(default)
    return found


def options() -> dict[str, str]:
    """Return each method's options as "METHOD OPTION", with their defaults."""
    return {
        f"{method} {option}": value_text(default)
        for method in METHODS
        for option, (_, default) in method_options(method).items()
    }


def samplers() -> dict[str, str]:
    """Return each sampler with what it draws and how."""
    notes = {}
    for name, entry in SAMPLERS.items():
        cls = entry.func if isinstance(entry, partial) else entry
        notes[name] = f"{KINDS[name]}. {_first_line(cls)}"
    return notes


def experiments() -> dict[str, str]:
    """Return each experiment with its question."""
    return {name: one.summary for name, one in EXPERIMENTS.items()}


LISTS: dict[str, Callable[[], dict[str, str]]] = {
    "methods": methods,
    "networks": list_networks,
    "sources": lambda: dict(SOURCES),
    "recipes": lambda: dict.fromkeys(RECIPES, ""),
    "views": lambda: {name: text or "no augmentation" for name, text in VIEWS.items()},
    "samplers": samplers,
    "experiments": experiments,
    "keys": keys,
}

SEARCHED: dict[str, Callable[[], dict[str, str]]] = {
    "networks": lambda: dict.fromkeys(timm_names(), "from timm"),
    "keys": options,
}
"""What is too long to be listed as a whole, and is listed if words choose from it."""

REST = {
    "networks": "and every timm model by its name, e.g. resnet50; `list networks vit tiny` "
    "searches them.",
    "keys": "and the options of each method; `list keys ldam` shows those of LDAM's methods.",
}
"""How a user gets at what `SEARCHED` holds."""


def select(what: str, words: Sequence[str]) -> dict[str, str]:
    """Return what the list called `what` says of the names that have every word in them.

    Raises `LongTailedError` for an unknown list, and if no name has the words.
    """
    if what not in LISTS:
        raise unknown_name("list", what, LISTS)
    notes = LISTS[what]()
    if words and what in SEARCHED:
        notes |= SEARCHED[what]()
    wanted = [word.lower() for word in words]
    found = {
        name: note for name, note in notes.items() if all(word in name.lower() for word in wanted)
    }
    if not found:
        raise LongTailedError(
            f"no name in the list of {what} has {' and '.join(map(repr, words))} in it; "
            f"`longtailed list {what}` shows all."
        )
    return found
