"""JSON that every reader accepts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import longtailed
from longtailed.report.strict_json import read_json, to_json
from longtailed.training.checkpoint import write_json
from longtailed.training.journal import Journal

NOTHING = {"nan": float("nan"), "list": [1.5, float("inf"), (float("-inf"),)], "text": "NaN"}
WRITTEN = {"nan": None, "list": [1.5, None, [None]], "text": "NaN"}


def refuse(word: str) -> None:
    pytest.fail(f"{word} is no JSON")


def test_what_is_not_finite_is_null(tmp_path):
    assert json.loads(to_json(NOTHING), parse_constant=refuse) == WRITTEN
    write_json(tmp_path / "file.json", NOTHING)
    assert read_json(tmp_path / "file.json") == WRITTEN
    journal = Journal(tmp_path)
    journal.write({"stage": 0, "epoch": 0, **NOTHING})
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=refuse) == {"stage": 0, "epoch": 0, **WRITTEN}


def test_no_other_module_writes_json():
    root = Path(longtailed.__file__).parent
    used = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if re.search(r"json\.dumps?\(", path.read_text(encoding="utf-8"))
    }
    # Texts that are compared or hashed, and not written.
    assert used == {
        "report/strict_json.py",
        "report/tables.py",
        "recipes/recipe.py",
        "runs/directory.py",
    }
