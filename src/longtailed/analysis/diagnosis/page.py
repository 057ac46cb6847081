"""Write a diagnosis as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from longtailed.analysis.diagnosis import charts
from longtailed.analysis.diagnosis.advice import (
    KEPT,
    Advice,
    Share,
    named_classes,
    plural,
    rare_share,
)
from longtailed.analysis.diagnosis.findings import Findings
from longtailed.analysis.diagnosis.limits import warnings
from longtailed.analysis.diagnosis.pictures import class_examples, listed_look_alikes
from longtailed.training.checkpoint import write_atomically

MOST_ROWS = 200
MINUS = "\N{MINUS SIGN}"


def write_page(
    findings: Findings, advice: Sequence[Advice], limits: Sequence[str], path: Path
) -> None:
    """Write the page; raise `LongTailedError` if that is not possible."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [
                jinja2.PackageLoader("longtailed.analysis.diagnosis", "."),
                jinja2.PackageLoader("longtailed.report", "."),
            ]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html.j2").render(_content(findings, advice, limits))
    write_atomically(path, lambda file: file.write(text.encode()))


def _content(findings: Findings, advice: Sequence[Advice], limits: Sequence[str]) -> dict[str, Any]:
    """Return everything the template shows."""
    share = rare_share(findings)
    rows = [_row(findings, label) for label in findings.by_error()]
    shown = charts.shown_classes(findings)
    return {
        "about": findings.evidence.about,
        "estimated": findings.evidence.estimated,
        "warnings": warnings(findings),
        "kept": "" if findings.evidence.estimated else KEPT,
        "headline": _headline(findings),
        "summary": _summary(findings, share),
        "tiles": _tiles(findings, share),
        "advice": advice,
        "rows": rows[:MOST_ROWS],
        "rows_left_out": max(0, len(rows) - MOST_ROWS),
        "scatter": charts.scatter(findings, _scatter_text(findings)),
        "cosine": charts.heat_map(
            findings, findings.cosine,
            "Heat map of the cosine between class means.",
            "Cosine of the class means (× 100)", "diagnosis-cosine",
            "Compared with",
        ),
        "alike": charts.heat_map(
            findings, findings.alike,
            "Heat map of the share of each class's training images that look like another class.",
            "Look like the row's class (% of the column)",
            "diagnosis-alike", "Training images labelled",
        ),
        "classes_shown": len(shown),
        "classes": len(findings.names),
        "examples": class_examples(findings),
        "look_alikes": listed_look_alikes(findings),
        "look_alike_images": findings.look_alike_images,
        "limits": limits,
    }  # fmt: skip


def _headline(findings: Findings) -> str:
    about = findings.evidence.about
    subject = about["source"].rstrip("/").split("/")[-1]
    if findings.evidence.estimated:
        return f"Diagnosis of {subject}, seen through {about['network']}"
    methods = " then ".join(dict.fromkeys(about["method"]))
    return f"Diagnosis of {methods} with {about['network']} on {subject}"


def _summary(findings: Findings, share: Share | None) -> list[str]:
    counts, about = findings.counts, findings.evidence.about
    filled = counts[counts > 0]
    data = (
        f"{len(findings.evidence.train):,} training images of {len(filled):,} classes, the largest "
        f"with {filled.max():,} and the smallest with {filled.min():,}. "
        f"Errors measured on {about['tested_on']}."
    )
    if share is None:
        return [data, "No class has enough wrong images for its error to be divided."]
    sizes = ", ".join(f"{name} {percent_points(value)}" for name, value in _ordered(share))
    return [
        data,
        f"The error of {named_classes(findings, share)} is {percent_points(share.error)} %"
        f"{', a class counting once' * (len(share.classes) > 1)}. Its parts in points: {sizes}.",
    ]


def _ordered(share: Share) -> list[tuple[str, float]]:
    """Return the parts by name, the largest first."""
    parts = {"scarcity": share.scarcity, "similarity": share.similarity, "rest": share.rest}
    return sorted(parts.items(), key=lambda entry: -entry[1])


def _tiles(findings: Findings, share: Share | None) -> list[tuple[str, str, str]]:
    error = findings.parts.error[findings.parts.images > 0]
    tiles = [("Balanced error", f"{100 * error.mean():.1f} %", "mean over classes")]
    if share is not None:
        whose = "Rare classes' error" if share.rare else "Their error"
        number = plural(len(share.classes), "class", "classes")
        remarks = {
            "scarcity": "points, of the decision",
            "similarity": "points, look-alikes",
            "rest": "points, neither",
        }
        tiles.append((whose, f"{100 * share.error:.1f} %", number))
        tiles += [(n.capitalize(), percent_points(v), remarks[n]) for n, v in _ordered(share)]
    tiles.append(("Look-alikes", f"{findings.look_alike_images:,}", "training images"))
    return tiles


def _row(findings: Findings, label: int) -> dict[str, Any]:
    parts, similar = findings.parts, findings.similar_class(label)
    divided = findings.divided(label)
    cells = []
    for row, values in enumerate((parts.error, parts.scarcity, parts.similarity, parts.rest)):
        if row and not divided:
            cells.append(("–", ""))
            continue
        low, high = 100 * parts.intervals[row, label]
        cells.append(
            (percent_points(values[label]), f"{round(low)} to {round(high)}".replace("-", MINUS))
        )
    return {
        "name": findings.names[label],
        "count": f"{findings.counts[label]:,}",
        "tested": f"{parts.images[label]:,}",
        "cells": cells,
        "similar": "–" if similar is None else findings.names[similar],
        "similar_count": "" if similar is None else f"{findings.counts[similar]:,}",
        "alike": "–" if similar is None else f"{100 * findings.alike[label, similar]:.0f} %",
        "cosine": "–" if similar is None else _cosine(findings, label, similar),
        "leakage": "–" if similar is None else _rate(findings, label, similar),
        "verdict": findings.verdict(label),
    }


def percent_points(share: float) -> str:
    """Return a share in percent with one digit, a true minus, and no sign on what rounds to 0."""
    text = f"{abs(100 * share):.1f}"
    return text if share >= 0 or float(text) == 0 else MINUS + text


def _cosine(findings: Findings, label: int, other: int) -> str:
    return f"{findings.cosine[label, other]:.2f}".replace("-", MINUS)


def _rate(findings: Findings, label: int, other: int) -> str:
    tested = max(int(findings.parts.images[label]), 1)
    return f"{100 * findings.confusion[label, other] / tested:.0f} %"


def _scatter_text(findings: Findings) -> str:
    worst = findings.by_error()[:3]
    named = ", ".join(
        f"{findings.names[c]} ({findings.counts[c]:,} images, "
        f"{100 * (1 - findings.parts.error[c]):.0f} % right)"
        for c in worst
    )
    return f"Scatter of training images and similarity of each class. Most error: {named}."
