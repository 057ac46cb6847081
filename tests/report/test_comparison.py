from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from longtailed.report import load_run, narrative, write_report
from longtailed.report.canvas import Styled, style_runs
from longtailed.report.narrative import (
    headline,
    noise_note,
    percent,
    seed_note,
    sizes_of,
    summary,
    unlike,
)
from longtailed.report.tables import run_labels


def styled(*directories: Path) -> list[Styled]:
    runs = [load_run(directory) for directory in directories]
    return style_runs(runs, run_labels(runs))


def test_page_compares_methods_and_seeds(
    runs: dict[str, Path], read_page: Callable[[Path], Any], tmp_path: Path
) -> None:
    out = tmp_path / "deeper" / "side by side.html"
    chosen = [runs["two-stage"], runs["one"], runs["seed1"]]
    assert write_report(chosen, out) == out
    page = read_page(out)
    assert page.headline.startswith("moco then crt and ldam-drw with resnet32 on cifar10: ")
    for expected in (
        "Difference to run A (cifar10-moco-crt), in points",
        "cifar10-ldam-drw: mean ± standard deviation of B, C",
        "Mean of B, C minus mean of A",
        "cifar10-ldam-drw, seed 1",
        "Not recorded for A.",
        "stages.1.method crt",
        "One seed each for A",
    ):
        assert expected in page.text
    assert "Not a like-for-like comparison" not in page.text


def test_headline_of_seeds_is_mean_and_deviation(runs: dict[str, Path]) -> None:
    seeds = styled(runs["one"], runs["seed1"], runs["seed2"])
    rates = [100 * float(one.run.last.rates["balanced_accuracy"] or 0) for one in seeds]
    expected = f"3 seeds: {np.mean(rates):.1f} ± {np.std(rates, ddof=1):.1f}\xa0%"
    assert expected in headline(seeds)
    assert "trained 3 times with different seeds" in summary(seeds)[1]
    assert "standard deviation over seeds" in seed_note(seeds)


def test_summary_names_the_highest_and_compares_it(runs: dict[str, Path]) -> None:
    rates = {
        name: 100 * float(load_run(runs[name]).last.rates["balanced_accuracy"] or 0)
        for name in ("two-stage", "one")
    }
    gap = f"{rates['one'] - rates['two-stage']:.1f} points above"
    up = summary(styled(runs["two-stage"], runs["one"]))[1]
    assert up.startswith("B (cifar10-ldam-drw) has the highest")
    assert f"{gap} A (cifar10-moco-crt), the first run" in up
    down = summary(styled(runs["one"], runs["two-stage"]))[1]
    assert down.startswith("A (cifar10-ldam-drw) has the highest")
    assert f"{gap} B (cifar10-moco-crt), the next" in down


def test_unlike_runs_are_pointed_out(runs: dict[str, Path]) -> None:
    assert unlike(styled(runs["one"], runs["seed1"])) == []
    assert unlike(styled(runs["one"], runs["large"])) == [
        "the test images",
        "the training images",
        "the network",
        "the number of epochs",
    ]
    bigger = {"parameters": int(464154 * 1.02)}
    first, second = styled(runs["one"], runs["seed1"])
    changed = replace(second.run, manifest={**second.run.manifest, **bigger})
    assert unlike([first, replace(second, run=changed)]) == ["the number of parameters"]


def test_equal_figures_are_called_a_tie(runs: dict[str, Path]) -> None:
    first, second = styled(runs["one"], runs["two-stage"])
    same = replace(second, run=replace(second.run, evaluations=first.run.evaluations))
    rate = percent(first.run.last.rates["balanced_accuracy"])
    assert headline([first, same]).endswith(f"on cifar10: {rate} balanced accuracy")
    assert "share the highest balanced accuracy" in summary([first, same])[1]


def test_figures_on_different_images_say_whose_they_are(runs: dict[str, Path]) -> None:
    first, second = styled(runs["one"], runs["seed1"])
    assert narrative.tested_on([first, second]) == "the test images"
    assert sizes_of([first, second]) == ""
    last = replace(second.run.last, tested_on="the val split")
    evaluations = {**second.run.evaluations, "last": last}
    manifest = deepcopy(second.run.manifest)
    manifest["splits"]["train"]["counts"][0] -= 1
    other = replace(second, run=replace(second.run, evaluations=evaluations, manifest=manifest))
    both = narrative.tested_on([first, other])
    assert both == "the test images in run A and the val split in run B"
    three = narrative.tested_on([first, other, first])
    assert three == "the test images in runs A and A and the val split in run B"
    assert sizes_of([first, other]) == " of run A"
    assert "top-1 of run A carries" in noise_note([first, other])
    assert "test images, top-1 carries" in noise_note([first])


def test_several_classes_without_test_images_are_them(runs: dict[str, Path]) -> None:
    (one,) = styled(runs["one"])
    last = replace(one.run.last, per_class=(None, None, *one.run.last.per_class[2:]))
    run = replace(one.run, evaluations={**one.run.evaluations, "last": last})
    assert summary([replace(one, run=run)])[1].endswith("there are no test images of them.")
