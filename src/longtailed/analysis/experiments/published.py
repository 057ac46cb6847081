"""The published tables of arXiv 2107.03758, which stand in published.json beside this module."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any


def published_table(experiment: str, classes: int) -> dict[str, Any] | None:
    """Return what is published for an experiment on CIFAR with that many classes, None if nothing.

    Orientation for paper-sized runs, no targets: single runs, read from images in the repository
    of a paper that its author withdrew. Accuracies are percent.

    >>> published_table("toy-case-1", 10)["per_class"][-1][:2]
    [43.0, 47.9]
    """
    found: dict[str, Any] | None = _tables().get(experiment, {}).get(str(classes))
    return found


@cache
def _tables() -> dict[str, Any]:
    text = files(__package__).joinpath("published.json").read_text(encoding="utf-8")
    tables: dict[str, Any] = json.loads(text)["tables"]
    return tables
