"""The diagnosis as a printed table."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from longtailed.analysis.diagnosis.advice import KEPT, Advice
from longtailed.analysis.diagnosis.findings import FEW_ERRORS, Findings
from longtailed.analysis.diagnosis.limits import warnings

MOST_ROWS = 15


def print_diagnosis(
    findings: Findings, advice: Sequence[Advice], limits: Sequence[str], out: str
) -> None:
    """Print the classes with most error, the parts of it, and what to try first."""
    estimated = findings.evidence.estimated
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("class", overflow="fold")
    for column in ("images", "acc.*" if estimated else "acc.", "scarcity", "similarity", "rest"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("most similar", overflow="fold", min_width=8)
    table.add_column("largest parts", overflow="fold", min_width=11)  # "similarity,"
    for label in findings.by_error()[:MOST_ROWS]:
        table.add_row(*_row(findings, label))
    Console().print(table)
    left_out = len(findings.by_error()) - MOST_ROWS
    more = f" {left_out} classes with less error are in the page." if left_out > 0 else ""
    print(
        f"Tested on {findings.evidence.about['tested_on']}. Percent of the class's test images; "
        "scarcity + similarity + rest = 100 - accuracy. "
        f"Brackets: training images of the similar class.{more}"
    )
    if estimated:
        print("* estimated from the nearest other images; no classifier was trained.")
    print(
        "Largest parts: those of a fifth of the error or more, the largest first. Unclear: the "
        f"largest could be chance. Few errors: fewer than {FEW_ERRORS}, not divided."
    )
    _print_advice(findings, advice)
    for text in (*warnings(findings), limits[0]):
        print(f"\n{text}")
    print(f"All limits, example images and look-alikes: {out}")


def _print_advice(findings: Findings, advice: Sequence[Advice]) -> None:
    print("\nWhat to try first")
    for number, one in enumerate(advice, start=1):
        print(f"{number}. {one.title}. {one.reason}")
        for command in one.commands:
            print(f"   - {command.what}:\n     {command.line}")
    if not findings.evidence.estimated and any(one.commands for one in advice):
        print(KEPT)


def _row(findings: Findings, label: int) -> list[str]:
    parts, similar = findings.parts, findings.similar_class(label)
    shares = ["-", "-", "-"]
    if findings.divided(label):
        rows = (parts.scarcity, parts.similarity, parts.rest)
        shares = [f"{round(100 * row[label], 1) + 0.0:.1f}" for row in rows]  # no -0.0
    name = "-"
    if similar is not None:
        name = f"{findings.names[similar]} ({findings.counts[similar]:,})"
    return [
        escape(findings.names[label]),
        f"{findings.counts[label]:,}",
        f"{100 * (1 - parts.error[label]):.1f}",
        *shares,
        escape(name),
        _word(findings, label),
    ]


def _word(findings: Findings, label: int) -> str:
    """Return the verdict in few words."""
    if not findings.divided(label):
        return "few errors" if findings.parts.wrong[label] else "-"
    return ", ".join(findings.large_parts(label)) or "unclear"
