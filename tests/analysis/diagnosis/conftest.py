"""Fixtures that read an advised command, and say in what two recipes differ."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from longtailed.cli import main as cli
from longtailed.recipes import Recipe
from longtailed.runs import seeds  # noqa: F401  what keeps `train` must have the real one


class Reached(Exception):  # noqa: N818  it ends a command before it trains
    """What `longtailed train` would train, and where."""

    def __init__(self, recipe: Recipe, out: Any) -> None:
        super().__init__(recipe.name)
        self.recipe, self.out = recipe, out


@pytest.fixture(scope="session")
def parse_command() -> Callable[[str], Reached]:
    """What a command `longtailed train ...` would train, read by the command line itself."""
    return _parse


def _parse(line: str) -> Reached:

    def reach(recipe: Recipe, *, out: Any, **_: Any) -> None:
        raise Reached(recipe, out)

    words = shlex.split(line)
    assert words[:2] == ["longtailed", "train"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("longtailed.runs.run.train", reach)
        result = CliRunner().invoke(cli.app, words[1:])
    assert isinstance(result.exception, Reached), (line, result.output, result.exception)
    return result.exception


@pytest.fixture(scope="session")
def changed_settings() -> Callable[[Recipe, Recipe], set[str]]:
    """The keys of all settings in which two recipes differ, but for their names."""
    return _changed


def _changed(old: Recipe, new: Recipe) -> set[str]:
    one, other = (_flat(recipe.model_dump(mode="json")) for recipe in (old, new))
    keys = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
    return keys - {"name"}


def _flat(value: Any, path: str = "") -> dict[str, str]:
    """Return the leaves of a nested value as texts: 1 is not 1.0."""
    if isinstance(value, dict):
        pairs = value.items()
    elif path == "stages":
        pairs = enumerate(value)
    else:
        return {path: json.dumps(value)}
    leaves = {}
    for key, one in pairs:
        leaves |= _flat(one, f"{path}.{key}".lstrip("."))
    return leaves
