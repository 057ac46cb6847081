"""What there is by name, with a line about each, for `longtailed list`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

from longtailed.analysis.experiments import EXPERIMENTS
from longtailed.data import SAMPLERS, SOURCES, VIEWS
from longtailed.data.class_probabilities import KINDS
from longtailed.methods import METHODS, method_class
from longtailed.nn import list_networks
from longtailed.recipes import RECIPES, recipe_note


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


def recipes() -> dict[str, str]:
    """Return each recipe with its documentation: what, cost and the published figure."""
    return {name: " ".join(recipe_note(name).split()) for name in RECIPES}


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
    "recipes": recipes,
    "views": lambda: {name: text or "no augmentation" for name, text in VIEWS.items()},
    "samplers": samplers,
    "experiments": experiments,
}
