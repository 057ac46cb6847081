"""The charts of a page with their titles and the text that stands for each when unseen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from longtailed.report import plots
from longtailed.report.canvas import Styled
from longtailed.report.confusion import MAX_BINS, MAX_NAMED, Confused, confusion_chart, top_confused
from longtailed.report.load import GROUPS, RunRecord
from longtailed.report.narrative import percent, tested_on


@dataclass(frozen=True)
class Chart:
    """A chart (None where there is nothing to draw), its title, and a remark under it."""

    title: str
    svg: Markup | None
    remark: str = ""


@dataclass(frozen=True)
class Confusion:
    """A run's confusion matrix and its most confused class pairs."""

    styled: Styled
    svg: Markup
    compact: bool  # few enough labels to be read at a phone's width
    pairs: Sequence[Confused]


def frequency(runs: Sequence[Styled]) -> list[Chart]:
    """Return the charts of class sizes, of accuracy over class size, and of the groups."""
    first = runs[0].run
    sizes = (
        f"Line chart on a logarithmic axis: training images of {len(first.counts):,} classes, "
        f"falling from {first.counts.max():,} to {first.counts.min():,}."
    )
    scatter = "Scatter chart: test accuracy of each class over its number of training images."
    groups = "Bar chart of mean class accuracy. " + " ".join(
        f"{styled.label}: "
        + ", ".join(f"{group} {percent(styled.run.last.rates[group])}" for group in GROUPS)
        + "."
        for styled in runs
    )
    empty = any((styled.run.counts == 0).any() for styled in runs)
    return [
        Chart(
            "Training images per class",
            plots.class_counts(runs, sizes),
            "Classes sorted by size."
            + (" Classes without training images are not drawn." if empty else ""),
        ),
        Chart(
            "Accuracy by class size",
            plots.accuracy_by_count(runs, scatter),
            f"A mark is a class, after the last epoch, on {tested_on(runs)}."
            + (" A class without training images stands at 0.5." if empty else ""),
        ),
        Chart(
            "Many, medium and few",
            plots.group_bars(runs, groups),
            "Mean of the class accuracies in each group, after the last epoch, on "
            f"{tested_on(runs)}.",
        ),
    ]


def confusions(runs: Sequence[Styled]) -> list[Confusion]:
    """Return each run's confusion matrix with its 10 (beyond 50 classes: 20) top pairs."""
    found = []
    for styled in runs:
        classes = len(styled.run.counts)
        side = min(classes, MAX_BINS)
        alt = (
            f"Confusion matrix, {side} by {side}, of {styled.label}: "
            f"{percent(styled.run.last.rates['top1'])} of the test images are classified correctly."
        )
        pairs = top_confused(styled.run, 10 if classes <= MAX_BINS else 20)
        chart = confusion_chart(styled, alt)
        found.append(Confusion(styled, chart, classes > MAX_NAMED, pairs))
    return found


def calibration(runs: Sequence[Styled]) -> Chart:
    """Return the reliability diagram with the histogram of confidences."""
    errors = ", ".join(
        f"{styled.label} {percent(styled.run.last.rates['ece'], 2)}" for styled in runs
    )
    alt = f"Accuracy over confidence in 15 bins, with the share of images in each. ECE: {errors}."
    return Chart(
        "Reliability",
        plots.reliability(runs, alt),
        "Below the dashed line a network is surer than it is right; above it, less sure. "
        "The lower panel shows how many test images have each confidence.",
    )


def training(runs: Sequence[Styled]) -> list[Chart]:
    """Return the charts of loss, held-out accuracy and learning rate over all stages' epochs."""
    if not any(styled.run.metrics for styled in runs):
        return []
    stages = _later_stages(runs[0]) if len(runs) == 1 else []
    rates = [
        (styled, styled.key if len(runs) > 1 else "", _series(styled, "lr")) for styled in runs
    ]
    return [
        _loss(runs, stages),
        _watched_accuracy(runs, stages),
        Chart(
            "Learning rate",
            plots.training_curve(
                rates,
                "Learning rate over epochs.",
                "Learning rate",
                stages=stages,
                from_zero=True,
            ),
        ),
    ]


def _series(styled: Styled, *path: str) -> list[float | None]:
    """Return one value per epoch, None where the record has none at that path."""
    values: list[float | None] = []
    for record in styled.run.metrics:
        value: Any = record
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        values.append(None if value is None else float(value))
    return values


def _later_stages(styled: Styled) -> list[tuple[int, str]]:
    """Return (first epoch, counted from 1 over all stages; method) of every stage but the first."""
    metrics = styled.run.metrics
    return [
        (i + 1, str(record["method"]))
        for i, record in enumerate(metrics)
        if i and record["stage"] != metrics[i - 1]["stage"]
    ]


def _loss(runs: Sequence[Styled], stages: Sequence[tuple[int, str]]) -> Chart:
    """Return the total loss of several runs, or every loss term of a single one."""
    remark = "Training loss, mean of the epoch."
    if len(runs) > 1:
        curves = [(styled, styled.key, _series(styled, "loss")) for styled in runs]
        remark += " Losses of different methods are not on one scale."
    else:
        run = runs[0].run
        terms = list(dict.fromkeys(t for record in run.metrics for t in record.get("terms", {})))
        curves = [(runs[0], "total" if len(terms) > 1 else "", _series(runs[0], "loss"))]
        if len(terms) > 1:
            looks = [Styled(run, "", term, i) for i, term in enumerate(terms, start=1)]
            curves += [(look, look.label, _series(look, "terms", look.label)) for look in looks]
        elif terms:
            remark += f" Its only term is {terms[0]}."
    svg = plots.training_curve(curves, "Training loss over epochs.", "Loss", stages=stages)
    return Chart("Loss", svg, remark)


def _watched_accuracy(runs: Sequence[Styled], stages: Sequence[tuple[int, str]]) -> Chart:
    """Return accuracy per epoch on the held-out split, else on a test set that was watched."""
    split = next(
        (s for s in ("holdout", "test") if any(s in r for st in runs for r in st.run.metrics)), None
    )
    if split is None:
        return Chart("Held-out accuracy", None, "No split was held out, so none was recorded.")
    curves: list[tuple[Styled, str, Sequence[float | None]]]
    if len(runs) > 1:
        curves = [(s, s.key, _percents(s, split, "balanced_accuracy")) for s in runs]
        remark = "Balanced accuracy."
    else:
        kinds = (("balanced", "balanced_accuracy"), ("top-1", "top1"))
        looks = [(Styled(runs[0].run, "", name, i), key) for i, (name, key) in enumerate(kinds)]
        curves = [(look, look.label, _percents(look, split, key)) for look, key in looks]
        remark = "Balanced and top-1 accuracy."
    if split == "holdout":
        title, remark = "Held-out accuracy", f"{remark} Neither trained nor tested on."
    else:
        title, remark = "Test accuracy", f"{remark} Watched, as the published protocol does."
    recorded = [curve for curve in curves if any(value is not None for value in curve[2])]
    drawn = {look.key for look, _, _ in recorded}
    missing = [look.key for look, _, _ in curves if look.key not in drawn]
    if missing:
        remark += f" Not recorded for {', '.join(missing)}."
    svg = plots.training_curve(
        recorded,
        f"{title} over epochs.",
        "Accuracy (%)",
        stages=stages,
        chosen=_chosen_epoch(runs[0].run) if len(runs) == 1 else None,
    )
    return Chart(title, svg, remark)


def _chosen_epoch(run: RunRecord) -> int | None:
    """Return the epoch chosen on the held-out split, counted from 1 over all stages."""
    chosen = run.evaluations.get("holdout-chosen")
    if chosen is None or chosen.epoch is None:
        return None
    return run.epochs_before_last_stage + chosen.epoch + 1


def _percents(styled: Styled, split: str, key: str) -> list[float | None]:
    return [None if rate is None else 100 * rate for rate in _series(styled, split, key)]
