"""Reports: finished runs as one self-contained HTML page."""

from __future__ import annotations

from longtailed.report.html import write_report
from longtailed.report.load import Evaluation, RunRecord, load_run
from longtailed.report.run_directory import RunDirectory

__all__ = ["Evaluation", "RunDirectory", "RunRecord", "load_run", "write_report"]
