"""CONTRIBUTING.md names files and tables that are there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_every_file_that_it_names_exists() -> None:
    named = set(re.findall(r"`([\w./]+/[\w.]*\.(?:py|j2)|tests/[\w/]*|[\w/]+/)`", TEXT))
    places = (ROOT, ROOT / "src" / "longtailed", ROOT / "src" / "longtailed" / "data")
    new = {"methods/yours.py"}
    assert len(named) > 20
    assert not {name for name in named - new if not any((p / name).exists() for p in places)}


def test_every_table_of_names_that_it_mentions_is_there() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    for name in set(re.findall(r"`([A-Z]{3}[A-Z_]*)`", TEXT)):
        assert re.search(rf"^{name}\b.*=", sources, re.MULTILINE), name


def test_it_lists_the_packages_and_layers_that_are_there() -> None:
    packages = {p.parent.name for p in (ROOT / "src" / "longtailed").glob("*/__init__.py")}
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = contract["contracts"][0]["layers"]
    assert " > ".join(layers) in TEXT
    rows = set(re.findall(r"^\| `(\w+)` \| [a-z`]", TEXT, re.MULTILINE))
    assert packages | {"errors"} <= rows
    assert {name for layer in layers for name in layer.split(" | ")} == packages | {"errors"}
