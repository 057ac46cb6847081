from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from longtailed.report import write_report


def test_page_of_1000_classes_is_small_and_binned(
    runs: dict[str, Path], read_page: Callable[[Path], Any], tmp_path: Path
) -> None:
    page = read_page(write_report([runs["large"]], tmp_path / "r.html"))
    assert len(page.html.encode()) < 1_500_000
    assert "Confusion matrix, 50 by 50" in page.html
    assert "Neighbours in that order share a cell" in page.text
    assert "No split was held out" in page.text
    assert "many 459 classes, medium 295 classes, few 246 classes" in page.text
    assert "class 0999" in page.text
