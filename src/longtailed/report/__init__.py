"""Reports: finished runs as one self-contained HTML page."""

from __future__ import annotations

from longtailed.report.html import write_report
from longtailed.report.load import Evaluation, RunRecord, load_run

__all__ = ["Evaluation", "RunRecord", "load_run", "write_report"]
