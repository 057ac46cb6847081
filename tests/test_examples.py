"""Every example runs, shortened, and prints what its first lines promise."""

from __future__ import annotations

import re
import runpy
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(monkeypatch, tmp_path, capsys) -> Callable[..., str]:
    """Run an example's `main` in an empty directory; return what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def call(name: str, epochs: int) -> str:
        runpy.run_path(str(EXAMPLES / name))["main"](epochs=epochs)
        return capsys.readouterr().out

    return call


def test_there_is_a_test_for_every_example():
    named = set(re.findall(r'run\("(\w+\.py)"', Path(__file__).read_text()))
    assert {path.name for path in EXAMPLES.glob("*.py")} == named


def test_own_folder(run, tmp_path):
    printed = run("own_folder.py", epochs=2)
    assert re.findall(r"^(many|medium|few) +\d", printed, re.MULTILINE) == ["many", "medium", "few"]
    predicted = re.search(r"^000\.png(( (circle|square|triangle) \d+%){3})$", printed, re.MULTILINE)
    assert predicted is not None
    report = Path(printed.split("report: ")[1].strip())
    assert report.is_relative_to(tmp_path)
    assert "<html" in report.read_text(encoding="utf-8")


def test_losses_alone(run):
    printed = run("losses_alone.py", epochs=2)
    for way in ("cross-entropy", "balanced sampling", "logit adjustment", "LDAM, weighted"):
        line = next(line for line in printed.splitlines() if line.startswith(way))
        assert len(re.findall(r"\d+\.\d%", line)) == 3


def shots_in(printed: str) -> list[str]:
    return re.findall(r"(many|medium|few) \d+\.\d%", printed)


def test_own_loop(run):
    assert shots_in(run("own_loop.py", epochs=2)) == ["many", "medium", "few"]


def test_lightning_module(run):
    assert shots_in(run("lightning_module.py", epochs=2)) == ["many", "medium", "few"]


def test_rsg_inside(run):
    assert shots_in(run("rsg_inside.py", epochs=2)) == ["many", "medium", "few"]


@pytest.mark.parametrize("name", ["own_loop.py", "lightning_module.py", "rsg_inside.py"])
def test_it_is_short_and_imports_the_package_alone(name):
    text = (EXAMPLES / name).read_text()
    assert len(text.splitlines()) < 80
    assert re.findall(r"^(?:from|import) (longtailed\S*)", text, re.MULTILINE) == ["longtailed"]


def test_new_method(run, tmp_path):
    printed = run("new_method.py", epochs=1)
    scores = re.findall(r"balanced accuracy (\d+\.\d)%", printed)
    assert len(scores) == 2
    assert list(tmp_path.iterdir()) == []  # `fit` alone writes nothing unless told where


def test_semantic_cloud(run, tmp_path):
    printed = run("semantic_cloud.py", epochs=1)
    borrowed = re.findall(
        r"^digit \d: borrows (.+); test images \d+% -> \d+%$", printed, re.MULTILINE
    )
    assert len(borrowed) == 2
    assert all(re.fullmatch(r"(\d+% from \d(, )?)+", lent) for lent in borrowed)
    assert (tmp_path / printed.split("picture: ")[1].strip()).read_bytes().startswith(b"\x89PNG")
