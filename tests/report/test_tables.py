from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np

from longtailed.report import load_run, plots
from longtailed.report.canvas import style_runs
from longtailed.report.confusion import binned_confusion, top_confused
from longtailed.report.tables import difference_blocks, result_blocks, run_labels, signed


def test_difference_rows_are_exact(runs: dict[str, Path]) -> None:
    records = [load_run(runs["one"]), load_run(runs["seed1"])]
    styled = style_runs(records, run_labels(records))
    (block,) = difference_blocks(styled)
    assert [row.heading for row in block.rows] == [
        "Last epoch",
        "Epoch chosen on the held-out split",
        "Best test epoch",
    ]
    first, second = (float(record.last.rates["top1"] or 0) for record in records)
    assert block.rows[0].cells[0] == (signed(100 * (second - first)), "")
    assert block.rows[0].cells[6] == ("absent", "")
    assert [row.optimistic for row in block.rows] == [False, False, True]
    mean = result_blocks(styled)[-1].rows[0].cells[0]
    spread = abs(first - second) / np.sqrt(2)
    assert mean == (f"{50 * (first + second):.1f}", f"± {100 * spread:.1f}")


def test_signed() -> None:
    assert [signed(1.26), signed(-1.26), signed(-0.01)] == ["+1.3", "\N{MINUS SIGN}1.3", "0.0"]


def test_labels_are_distinct(runs: dict[str, Path]) -> None:
    one = load_run(runs["one"])
    again = replace(one, directory=Path("elsewhere"))
    assert run_labels([one, again, load_run(runs["large"])]) == [
        "cifar10-ldam-drw, seed 0, one",
        "cifar10-ldam-drw, seed 0, elsewhere",
        "imagenet-lt-bcl",
    ]


def test_confusion_matches_an_explicit_count(runs: dict[str, Path]) -> None:
    run = load_run(runs["one"])
    expected = np.zeros((10, 10), np.int64)  # counts fall with the label: order is the identity
    for true, predicted in zip(run.labels, run.predictions, strict=True):
        expected[true, predicted] += 1
    assert np.array_equal(binned_confusion(run), expected)
    np.fill_diagonal(expected, 0)
    pairs = top_confused(run, 10)
    assert [pair.images for pair in pairs] == sorted(expected.ravel().tolist())[::-1][:10]
    true, predicted = (run.class_names.index(name) for name in (pairs[0].true, pairs[0].predicted))
    assert expected[true, predicted] == pairs[0].images
    assert pairs[0].share == pairs[0].images / 100
    assert (pairs[0].true_count, pairs[0].predicted_count) == (
        run.counts[true],
        run.counts[predicted],
    )


def test_confusion_bins_follow_the_class_counts(runs: dict[str, Path]) -> None:
    run = load_run(runs["large"])
    order = np.random.default_rng(3).permutation(1000)
    manifest = json.loads(json.dumps(run.manifest))
    manifest["splits"]["train"]["counts"] = np.empty(1000, int)
    manifest["splits"]["train"]["counts"][order] = np.arange(1000, 0, -1)
    shuffled = replace(run, manifest=manifest, labels=order[run.labels])
    matrix = binned_confusion(replace(shuffled, predictions=order[run.labels]))
    assert np.array_equal(matrix, np.diag([20 * 20] * 50))


def test_charts_are_reproducible_and_leave_no_trace(runs: dict[str, Path]) -> None:
    before = dict(mpl.rcParams)
    records = [load_run(runs["one"])]
    styled = style_runs(records, run_labels(records))
    first = plots.group_bars(styled, 'a "quoted" text')
    assert first == plots.group_bars(styled, 'a "quoted" text')
    assert first.startswith('<svg role="img" aria-label="a &#34;quoted&#34; text" viewBox=')
    assert "var(--run-0)" in first
    assert dict(mpl.rcParams) == before
