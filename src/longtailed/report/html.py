"""Write finished runs as one self-contained HTML page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from longtailed.errors import LongTailedError
from longtailed.report import figures, narrative, tables
from longtailed.report.canvas import Styled, style_runs
from longtailed.report.confusion import MAX_BINS, MAX_NUMBERED
from longtailed.report.load import GROUPS, RunRecord, load_run
from longtailed.report.protocol import protocol
from longtailed.report.strict_json import to_json


def write_report(run_dirs: Sequence[Path | str], out: Path | str | None = None) -> Path:
    """Return the path of the written report, one HTML file that needs nothing else.

    `run_dirs` are directories of finished runs; several are set side by side and compared to the
    first. `out` is the file to write: by default `report.html`, in the run's directory for one
    run, beside the first run's directory for several.

    Raises `LongTailedError` for no run, a run given twice, an unfinished or unreadable run, and
    an `out` that cannot be written.
    """
    directories = [Path(run_dir) for run_dir in run_dirs]
    if not directories:
        raise LongTailedError("a report needs at least one run directory; none was given.")
    if len({directory.resolve() for directory in directories}) < len(directories):
        raise LongTailedError("a run directory was given twice; name each run once.")
    runs = [load_run(directory) for directory in directories]
    styled = style_runs(runs, tables.run_labels(runs))
    home = directories[0] if len(runs) == 1 else directories[0].resolve().parent
    path = home / "report.html" if out is None else Path(out)
    if path.is_dir():
        path = path / "report.html"
    text = _render(styled)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LongTailedError(f"cannot write {path}: {error.strerror}.") from error
    return path


def _render(runs: Sequence[Styled]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("longtailed.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("template.html.j2").render(_content(runs))


def _content(runs: Sequence[Styled]) -> dict[str, Any]:
    """Return everything the template shows, as text, rows and charts."""
    several = len(runs) > 1
    class_table, left_out = tables.class_rows(runs)
    return {
        "runs": runs,
        "several": several,
        "headline": narrative.headline(runs),
        "summary": narrative.summary(runs),
        "tested_on": narrative.tested_on(runs),
        "tiles": [] if several else _tiles(runs[0]),
        "unlike": narrative.unlike(runs),
        "leaks": narrative.leaks(runs),
        "seen_before": narrative.seen_before(runs),
        "metrics": tables.METRICS,
        "results": tables.result_blocks(runs),
        "rules": _group_rules(runs),
        "absent": any(s.run.last.rates[group] is None for s in runs for group in GROUPS),
        "differences": tables.difference_blocks(runs) if several else [],
        "changed": tables.recipe_differences(runs) if several else [],
        "frequency_charts": figures.frequency(runs),
        "class_table": class_table,
        "sizes_of": narrative.sizes_of(runs),
        "classes_left_out": left_out,
        "confusions": figures.confusions(runs),
        "numbered": all(len(styled.run.counts) <= MAX_NUMBERED for styled in runs),
        "binned": any(len(styled.run.counts) > MAX_BINS for styled in runs),
        "reliability": figures.calibration(runs),
        "confidence": tables.confidence_rows(runs),
        "training_charts": figures.training(runs),
        "protocol": protocol(runs),
        "splits": [_splits(styled.run) for styled in runs],
        "recipes": [pretty_json(styled.run.recipe) for styled in runs],
        "manifests": [pretty_json(styled.run.manifest) for styled in runs],
        "noise": narrative.noise_note(runs),
        "seeds": narrative.seed_note(runs),
        "chosen": any("holdout-chosen" in styled.run.evaluations for styled in runs),
        "optimistic": any("best-test" in styled.run.evaluations for styled in runs),
    }


def _tiles(styled: Styled) -> list[tuple[str, str, str]]:
    """Return (name, figure, remark) of the figures worth seeing first."""
    run, last = styled.run, styled.run.last
    tiles = [("Balanced accuracy", "balanced_accuracy", "mean over classes"), ("Top-1", "top1", "")]
    tiles += [(group.capitalize(), group, _classes(last.group_classes[group])) for group in GROUPS]
    tiles.append(("Worst class", "worst", run.class_names[last.worst_class]))
    tiles.append(("ECE", "ece", "calibration error"))
    return [(name, narrative.percent(last.rates[key]), remark) for name, key, remark in tiles]


def _classes(number: int) -> str:
    return f"{number:,} class" if number == 1 else f"{number:,} classes"


def _group_rules(runs: Sequence[Styled]) -> list[str]:
    """Return the group rule with class numbers, once if all runs share it."""
    texts = []
    for styled in runs:
        sizes = styled.run.last.group_classes
        numbers = ", ".join(f"{group} {_classes(sizes[group])}" for group in GROUPS)
        texts.append(f"{styled.run.last.rule} ({numbers})")
    if len(set(texts)) == 1:
        return texts[:1]
    return [f"{styled.key}: {text}" for styled, text in zip(runs, texts, strict=True)]


def _splits(run: RunRecord) -> list[tuple[str, str, str, str, str, str]]:
    """Return (split, images, classes with images, largest, smallest class, hash) of each split."""
    rows = []
    for name, entry in run.manifest["splits"].items():
        counts = [int(count) for count in entry["counts"]]
        numbers = (entry["images"], sum(count > 0 for count in counts), max(counts), min(counts))
        texts = [f"{int(number):,}" for number in numbers]
        rows.append((name, *texts, str(entry.get("sha256", "not recorded"))))
    return rows


def pretty_json(value: Mapping[str, Any]) -> str:
    """Return indented JSON in which a list of plain values stays on one line."""
    text = to_json(value, indent=2, ensure_ascii=False)
    return re.sub(
        r"\[\s+([^\[\]{}]*?)\s+\]", lambda m: "[" + re.sub(r"\s*\n\s*", " ", m[1]) + "]", text
    )
