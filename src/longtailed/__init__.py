"""Long-tailed (class-imbalanced) visual recognition.

The names here are the main entry points. Everything else is public from its sub-package, which
needs no import of its own: `longtailed.losses.ldam_loss`. `dir(longtailed)` lists both.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from longtailed.errors import LongTailedError

if TYPE_CHECKING:
    from longtailed import (
        analysis,
        data,
        losses,
        methods,
        metrics,
        nn,
        recipes,
        report,
        runs,
        training,
    )
    from longtailed.data import ImageSet, load_imageset, make_long_tailed, make_sampler
    from longtailed.methods import Method, build_method
    from longtailed.nn import build_network
    from longtailed.recipes import Recipe
    from longtailed.report import write_report
    from longtailed.runs.prediction import predict
    from longtailed.runs.run import train
    from longtailed.runs.trained import evaluate, restore
    from longtailed.training.fit import fit

__version__ = "0.1.0"

__all__ = [
    "ImageSet",
    "LongTailedError",
    "Method",
    "Recipe",
    "analysis",
    "build_method",
    "build_network",
    "data",
    "evaluate",
    "fit",
    "load_imageset",
    "losses",
    "make_long_tailed",
    "make_sampler",
    "methods",
    "metrics",
    "nn",
    "predict",
    "recipes",
    "report",
    "restore",
    "runs",
    "train",
    "training",
    "write_report",
]

_HOMES = {
    "ImageSet": "data",
    "Method": "methods",
    "Recipe": "recipes",
    "build_method": "methods",
    "build_network": "nn",
    "evaluate": "runs.trained",
    "fit": "training.fit",
    "load_imageset": "data",
    "make_long_tailed": "data",
    "make_sampler": "data",
    "predict": "runs.prediction",
    "restore": "runs.trained",
    "train": "runs.run",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    """Import a name or sub-package when it is first asked for: `longtailed --help` is quick."""
    if name not in __all__:
        raise AttributeError(f"module 'longtailed' has no attribute {name!r}")
    if name not in _HOMES:
        return import_module(f"longtailed.{name}")
    value = getattr(import_module(f"longtailed.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
