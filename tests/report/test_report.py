from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from longtailed.errors import LongTailedError
from longtailed.report import html, load_run, write_report

MakeRun: TypeAlias = Callable[..., Path]
Change: TypeAlias = Callable[[Path, Callable[[dict[str, Any]], object]], None]
ReadPage: TypeAlias = Callable[[Path], Any]


@pytest.fixture(scope="module")
def page(runs: dict[str, Path], read_page: ReadPage) -> Any:
    """The report of one run with everything in it, in its default place."""
    assert write_report([runs["one"]]) == runs["one"] / "report.html"
    return read_page(runs["one"] / "report.html")


def test_default_places(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "_render", lambda runs: f"{len(runs)} runs")
    assert write_report([str(runs["large"])]) == runs["large"] / "report.html"
    assert write_report([runs["large"]], tmp_path) == tmp_path / "report.html"
    beside = runs["large"].resolve().parent / "report.html"
    assert write_report([runs["large"], runs["seed1"]]) == beside
    assert beside.read_text() == "2 runs"


def test_headline_says_method_network_data_and_result(page: Any, runs: dict[str, Path]) -> None:
    rate = 100 * float(load_run(runs["one"]).last.rates["balanced_accuracy"] or 0)
    expected = f"ldam-drw with resnet32 on cifar10: {rate:.1f}\xa0% balanced accuracy"
    assert page.headline == expected


def test_absent_group_is_called_absent(page: Any) -> None:
    assert "Few absent 0 classes" in page.text
    assert "no class falls in the group" in page.text
    assert "few absent." in page.html  # the alternative text of the groups chart


def test_evaluations_are_labelled(page: Any) -> None:
    assert "Last epoch epoch 12 of 12" in page.text
    assert "Epoch chosen on the held-out split epoch 11 of 12" in page.text
    assert "Best test epoch epoch 11 of 12; selected on the test images, optimistic" in page.text


def test_odd_run_is_reported(
    make_run: MakeRun, change: Change, read_page: ReadPage, tmp_path: Path
) -> None:
    """Odd names, no epochs, a class without training or test images, everything correct."""
    run = make_run(tmp_path / "run", methods=("tau-norm",), epochs=1, holdout=False)

    def make_odd(manifest: dict[str, Any]) -> None:
        manifest["splits"]["train"]["counts"][9] = 0
        manifest["imbalance_ratio"] = float("inf")
        manifest["class_names"][:4] = ["<script>alert(1)</script>", "a & b", "$x_1$", "猫"]

    change(run / "manifest.json", make_odd)
    change(run / "recipe.json", lambda recipe: recipe["stages"][0].update(epochs=0))
    change(
        run / "results.json",
        lambda written: (
            written["epochs"].update(last=-1),
            written["evaluations"]["last"]["per_class"].__setitem__(3, None),
            written["evaluations"]["last"].update(top5=None),
        ),
    )
    (run / "metrics.jsonl").write_text("")
    labels = np.arange(10)
    np.savez(run / "evaluation-last.npz", labels=labels, predictions=labels, confidences=labels / 9)
    page = read_page(write_report([run]))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.html
    assert "No test image was classified wrongly" in page.text
    assert "stands at 0.5" in page.text
    assert "undefined, a class is empty" in page.text
    assert "Learning rate" not in page.text
    assert "epoch 0 of 0" not in page.text


def test_pretty_json_keeps_plain_lists_on_one_line() -> None:
    assert html.pretty_json({"a": [1, 2, {"b": []}], "c": [3, 4]}) == (
        '{\n  "a": [\n    1,\n    2,\n    {\n      "b": []\n    }\n  ],\n  "c": [3, 4]\n}'
    )


def test_bad_requests_are_refused(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "_render", lambda runs: "")
    with pytest.raises(LongTailedError, match="at least one run"):
        write_report([])
    with pytest.raises(LongTailedError, match="given twice"):
        write_report([runs["one"], runs["one"] / "."])
    with pytest.raises(LongTailedError, match="does not exist"):
        write_report([tmp_path / "nowhere"])
    (tmp_path / "file").touch()
    with pytest.raises(LongTailedError, match="cannot write"):
        write_report([runs["one"]], tmp_path / "file" / "report.html")


def test_published_figures_of_the_same_settings_stand_in_the_report(
    make_run: MakeRun, change: Change, read_page: ReadPage, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run")
    assert "nothing for these settings" in read_page(write_report([run])).text
    published = "accuracy 77.03 %, best epoch on the test images; arXiv 1906.07413"
    change(run / "results.json", lambda written: written.update(published=[published]))
    assert load_run(run).published == (published,)
    assert published in read_page(write_report([run])).text
