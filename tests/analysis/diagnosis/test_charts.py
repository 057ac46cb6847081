"""The heat maps draw something for every number of classes."""

from __future__ import annotations

import base64
import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from longtailed.analysis.diagnosis.charts import heat_map


def drawn(values: np.ndarray) -> str:
    classes = len(values)
    findings = SimpleNamespace(names=[f"c{i}" for i in range(classes)], counts=np.arange(classes))
    return str(heat_map(findings, values, "alt", "title", "name", "x"))


def shades(svg: str) -> np.ndarray:
    """Return the pixels of the map itself."""
    largest = max(re.findall(r"data:image/png;base64,\s*([A-Za-z0-9+/=\s]+)", svg), key=len)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(largest))).convert("RGBA"))


@pytest.mark.parametrize("classes", [2, 3, 4, 10, 30])
def test_classes_that_are_all_equally_alike_are_drawn(classes):
    """Means at the corners of a simplex: every cosine is -1 / (classes - 1)."""
    equal = np.full((classes, classes), -1 / (classes - 1))
    np.fill_diagonal(equal, 1)
    svg = drawn(equal)
    assert shades(svg)[..., 3].max() > 100
    numbers = svg.count(f">\N{MINUS SIGN}{round(100 / (classes - 1))}<")
    assert numbers >= (classes * (classes - 1) if classes <= 12 else 0)


def test_alike_and_unlike_have_different_colours_and_nothing_has_none():
    values = np.array([[1, 0.9, -0.9], [0.9, 1, 0], [-0.9, 0, 1]])
    found = shades(drawn(values))
    visible = found[found[..., 3] > 100].astype(int)
    assert (visible[:, 2] > visible[:, 0] + 50).any()  # blue
    assert (visible[:, 0] > visible[:, 2] + 50).any()  # orange
    assert (found[..., 3] == 0).any()


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_shares_of_nothing_are_written_as_0(classes):
    svg = drawn(np.eye(classes))
    assert svg.count(">0<") >= classes * (classes - 1)
