"""The diagnosis as a JSON-ready value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from longtailed.analysis.diagnosis.advice import Advice
from longtailed.analysis.diagnosis.attribution import LEVEL, NEIGHBOURS, RESAMPLES
from longtailed.analysis.diagnosis.findings import Findings
from longtailed.analysis.diagnosis.passes import image_name

MOST_MATRIX = 100  # classes up to which whole matrices are written


def to_json(findings: Findings, advice: Sequence[Advice], limits: Sequence[str]) -> dict[str, Any]:
    """Return the diagnosis as a JSON-ready value; shares in 0..1."""
    f = findings
    value: dict[str, Any] = {
        **f.evidence.about,
        "estimated": f.evidence.estimated,
        "images": {"train": len(f.evidence.train), "test": len(f.evidence.test)},
        "training": None if f.evidence.fit is None else f.evidence.fit.to_json(),
        "settings": {"neighbours": NEIGHBOURS, "resamples": RESAMPLES, "level": LEVEL},
        "nearest_mean_accuracy": {"training": f.memorised[0], "test": f.memorised[1]},
        "classes": [_class_json(f, c) for c in range(len(f.names))],
        "look_like_own_class_without_labels": f.neutral_right,
        "look_alike_images": f.look_alike_images,
        "look_alikes": [
            {
                "image": one.name,
                "position": one.position,
                "label": f.names[one.label],
                "looks_like": f.names[one.looks_like],
                "nearest": image_name(f.evidence.train, one.nearest),
                "cosine": round(one.cosine, 4),
                "likely_duplicate": one.duplicate,
            }
            for one in f.look_alikes
        ],
        "try_first": [one.to_json() for one in advice],
        "limits": list(limits),
    }
    if len(f.names) <= MOST_MATRIX:
        value["similarity"] = {
            "mean_cosine": f.cosine.round(4).tolist(),
            "gaussian_overlap": f.overlap.round(4).tolist(),
            "look_alike_share": f.alike.round(4).tolist(),
            "confusion": f.confused.round(4).tolist(),
            "head_leakage": f.leakage.round(4).tolist(),
        }
    return value


def _class_json(f: Findings, label: int) -> dict[str, Any]:
    parts, similar = f.parts, f.similar_class(label)
    tested = int(parts.images[label])
    entry: dict[str, Any] = {
        "class": label,
        "name": f.names[label],
        "count": int(f.counts[label]),
        "test_images": tested,
        "accuracy": float(1 - parts.error[label]) if tested else None,
        "verdict": f.verdict(label),
    }
    values = (parts.error, parts.scarcity, parts.similarity, parts.rest)
    for row, name in enumerate(("error", "scarcity", "similarity", "rest")):
        known = tested and (name == "error" or f.divided(label))
        entry[name] = float(values[row][label]) if known else None
        entry[f"{name}_interval"] = parts.intervals[row, label].tolist() if known else None
    entry["similar_class"] = None if similar is None else _pair_json(f, label, similar)
    towards = np.argsort(-parts.towards[label], kind="stable")[:5]
    entry["similarity_towards"] = {
        f.names[j]: float(parts.towards[label, j])
        for j in towards
        if f.divided(label) and parts.towards[label, j] > 0
    }
    return entry


def _pair_json(f: Findings, label: int, other: int) -> dict[str, Any]:
    return {
        "class": other,
        "name": f.names[other],
        "count": int(f.counts[other]),
        "part": float(f.parts.towards[label, other]) if f.divided(label) else None,
        "mean_cosine": float(f.cosine[label, other]),
        "gaussian_overlap": float(f.overlap[label, other]),
        "look_alike_share": float(f.alike[label, other]),
        "confusion": float(f.confused[label, other]),
        "head_leakage": float(f.leakage[label, other]),
    }
