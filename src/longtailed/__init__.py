"""Long-tailed (class-imbalanced) visual recognition.

The names here are the main entry points; everything else is public from its sub-package:
`longtailed.data`, `longtailed.nn`, `longtailed.losses`, `longtailed.methods`,
`longtailed.metrics`, `longtailed.recipes`, `longtailed.report`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from longtailed.errors import LongTailedError

if TYPE_CHECKING:
    from longtailed.data import ImageSet, load_imageset, make_long_tailed
    from longtailed.recipes import Recipe
    from longtailed.report import write_report
    from longtailed.runs.prediction import predict
    from longtailed.runs.run import train
    from longtailed.runs.trained import evaluate

__version__ = "0.1.0"

__all__ = [
    "ImageSet",
    "LongTailedError",
    "Recipe",
    "evaluate",
    "load_imageset",
    "make_long_tailed",
    "predict",
    "train",
    "write_report",
]

_HOMES = {
    "ImageSet": "data",
    "Recipe": "recipes",
    "evaluate": "runs.trained",
    "load_imageset": "data",
    "make_long_tailed": "data",
    "predict": "runs.prediction",
    "train": "runs.run",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    """Import an entry point when it is first asked for, so that `longtailed --help` is quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'longtailed' has no attribute {name!r}")
    value = getattr(import_module(f"longtailed.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
