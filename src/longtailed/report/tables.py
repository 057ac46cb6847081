"""The report's figures as rows of text: results, differences, seeds, protocol, classes."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longtailed.report.canvas import Styled
from longtailed.report.confusion import count_order
from longtailed.report.load import GROUPS, Evaluation, RunRecord
from longtailed.report.strict_json import to_json

# (rate, column heading, digits after the point); all are shown in %.
METRICS = (
    ("top1", "Top-1", 1),
    ("top5", "Top-5", 1),
    ("balanced_accuracy", "Balanced", 1),
    ("macro_f1", "Macro F1", 1),
    ("many", "Many", 1),
    ("medium", "Medium", 1),
    ("few", "Few", 1),
    ("harmonic_mean", "Harmonic mean", 1),
    ("worst", "Worst class", 1),
    ("ece", "ECE", 2),
    ("classwise_ece", "Class-wise ECE", 2),
)
EVALUATION_LABELS = {
    "last": "Last epoch",
    "holdout-chosen": "Epoch chosen on the held-out split",
    "best-test": "Best test epoch",
}
OPTIMISTIC = "selected on the test images, optimistic"
_MAX_CLASS_ROWS = 1000


@dataclass(frozen=True)
class Row:
    """One row of figures: its heading, a remark under it, and per metric (figure, text below)."""

    heading: str
    remark: str
    cells: tuple[tuple[str, str], ...]
    optimistic: bool = False


@dataclass(frozen=True)
class Block:
    """Rows that share one run, or one set of runs; `index` is the run's colour, None for a set."""

    heading: str
    rows: tuple[Row, ...]
    key: str = ""
    index: int | None = None


def run_labels(runs: Sequence[RunRecord]) -> list[str]:
    """Return one distinct label per run: its name, then its seed, then its directory if needed."""
    labels = [run.name for run in runs]
    for extra in ([f"seed {run.seed}" for run in runs], [run.directory.name for run in runs]):
        repeated = {label for label, times in Counter(labels).items() if times > 1}
        labels = [
            f"{label}, {more}" if label in repeated else label
            for label, more in zip(labels, extra, strict=True)
        ]
    return labels


def seed_groups(runs: Sequence[Styled]) -> list[list[Styled]]:
    """Return the runs grouped by images and recipe without its seed, in the order given."""
    groups: dict[str, list[Styled]] = {}
    for styled in runs:
        recipe = {key: value for key, value in styled.run.recipe.items() if key != "seed"}
        same = json.dumps([recipe, styled.run.manifest["splits"]], sort_keys=True)
        groups.setdefault(same, []).append(styled)
    return list(groups.values())


def result_blocks(runs: Sequence[Styled]) -> list[Block]:
    """Return the results of each run, then mean and deviation of runs that differ in seed only."""
    blocks = [
        Block(
            styled.label,
            tuple(_result_row(styled.run, e) for e in styled.run.evaluations.values()),
            styled.key,
            styled.index,
        )
        for styled in runs
    ]
    return blocks + [_seed_block(group) for group in seed_groups(runs) if len(group) > 1]


def _result_row(run: RunRecord, evaluation: Evaluation) -> Row:
    cells = []
    for key, _, digits in METRICS:
        rate = evaluation.rates[key]
        below = run.class_names[evaluation.worst_class] if key == "worst" else ""
        cells.append((_absent(key), "") if rate is None else (f"{100 * rate:.{digits}f}", below))
    return Row(
        *_evaluation_heading(run, evaluation),
        cells=tuple(cells),
        optimistic=evaluation.name == "best-test",
    )


def _absent(key: str) -> str:
    return "absent" if key in GROUPS else "–"


def _evaluation_heading(run: RunRecord, evaluation: Evaluation) -> tuple[str, str]:
    remarks = []
    if evaluation.epoch is not None and run.epochs > 0:
        epoch = run.epochs_before_last_stage + evaluation.epoch + 1
        remarks.append(f"epoch {epoch} of {run.epochs}")
    if evaluation.name == "best-test":
        remarks.append(OPTIMISTIC)
    return EVALUATION_LABELS.get(evaluation.name, evaluation.name), "; ".join(remarks)


def _seed_block(group: Sequence[Styled]) -> Block:
    rows = [
        Row(
            EVALUATION_LABELS.get(name, name),
            OPTIMISTIC if name == "best-test" else "",
            tuple(_mean_and_deviation(group, name, key, digits) for key, _, digits in METRICS),
            optimistic=name == "best-test",
        )
        for name in _shared_evaluations(group)
    ]
    keys = ", ".join(styled.key for styled in group)
    return Block(f"{group[0].run.name}: mean ± standard deviation of {keys}", tuple(rows))


def _shared_evaluations(runs: Sequence[Styled]) -> list[str]:
    return [n for n in runs[0].run.evaluations if all(n in s.run.evaluations for s in runs)]


def rates_of(group: Iterable[Styled], name: str, key: str) -> list[float] | None:
    """Return one rate of all runs in a group, None if any run lacks it."""
    rates = [styled.run.evaluations[name].rates[key] for styled in group]
    known = [rate for rate in rates if rate is not None]
    return known if len(known) == len(rates) else None


def _mean_and_deviation(
    group: Sequence[Styled], name: str, key: str, digits: int
) -> tuple[str, str]:
    rates = rates_of(group, name, key)
    if rates is None:
        return _absent(key), ""
    mean, deviation = 100 * statistics.fmean(rates), 100 * statistics.stdev(rates)
    return f"{mean:.{digits}f}", f"± {deviation:.{digits}f}"


def difference_blocks(runs: Sequence[Styled]) -> list[Block]:
    """Return, in points, each later run minus the first, evaluation by evaluation.

    Where seeds were repeated for several recipes, differences of the means follow.
    """
    first, *others = runs
    blocks = [
        Block(f"{styled.label}", _difference_rows([first], [styled]), styled.key, styled.index)
        for styled in others
    ]
    groups = seed_groups(runs)
    if 1 < len(groups) < len(runs):
        blocks += [
            Block(
                f"Mean of {_keys(group)} minus mean of {_keys(groups[0])}",
                _difference_rows(groups[0], group),
            )
            for group in groups[1:]
        ]
    return blocks


def _keys(group: Sequence[Styled]) -> str:
    return ", ".join(styled.key for styled in group)


def _difference_rows(base: Sequence[Styled], other: Sequence[Styled]) -> tuple[Row, ...]:
    rows = []
    for name in _shared_evaluations([*base, *other]):
        cells = []
        for key, _, digits in METRICS:
            old, new = rates_of(base, name, key), rates_of(other, name, key)
            if old is None or new is None:
                cells.append((_absent(key), ""))
            else:
                change = statistics.fmean(new) - statistics.fmean(old)
                cells.append((signed(100 * change, digits), ""))
        remark = OPTIMISTIC if name == "best-test" else ""
        heading = EVALUATION_LABELS.get(name, name)
        rows.append(Row(heading, remark, tuple(cells), optimistic=name == "best-test"))
    return tuple(rows)


def signed(value: float, digits: int = 1) -> str:
    """Return the number with a sign, a true minus, and no sign on what rounds to zero."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else "\N{MINUS SIGN}") + text


def confidence_rows(runs: Sequence[Styled]) -> list[tuple[Styled, tuple[str, ...]]]:
    """Return (run, (mean confidence, accuracy, their difference, ECE)) after the last epoch."""
    rows: list[tuple[Styled, tuple[str, ...]]] = []
    for styled in runs:
        run = styled.run
        confidence = 100 * float(run.confidences.mean())
        accuracy = 100 * float((run.labels == run.predictions).mean())
        ece = run.last.rates["ece"]
        texts = (f"{confidence:.1f}", f"{accuracy:.1f}", signed(confidence - accuracy))
        rows.append((styled, (*texts, "–" if ece is None else f"{100 * ece:.2f}")))
    return rows


def recipe_differences(runs: Sequence[Styled]) -> list[tuple[str, tuple[str, ...]]]:
    """Return (setting, its value in each run) for every recipe setting that is not the same."""
    flat = [_flatten(styled.run.recipe) for styled in runs]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    rows = [(key, tuple(settings.get(key, "–") for settings in flat)) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _flatten(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        items = list(enumerate(value))  # numbered as the keys of overrides are
    else:
        return {prefix: value if isinstance(value, str) else to_json(value)}
    flat: dict[str, str] = {}
    for key, item in items:
        flat |= _flatten(item, f"{prefix}.{key}" if prefix else str(key))
    return flat


def class_rows(runs: Sequence[Styled]) -> tuple[list[tuple[str, str, tuple[str, ...]]], int]:
    """Return (name, training images, accuracy in each run) per class, and how many were left out.

    Rarest class first; only for runs over the same classes, counts are those of the first run.
    """
    first = runs[0].run
    if any(styled.run.class_names != first.class_names for styled in runs):
        return [], 0
    order = count_order(first.counts)[::-1]
    rows = []
    for i in order[:_MAX_CLASS_ROWS]:
        rates = [styled.run.last.per_class[i] for styled in runs]
        texts = tuple("–" if rate is None else f"{100 * rate:.1f}" for rate in rates)
        rows.append((first.class_names[i], f"{first.counts[i]:,}", texts))
    return rows, max(0, len(order) - _MAX_CLASS_ROWS)
