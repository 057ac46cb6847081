"""What stands beside a figure."""

from __future__ import annotations

import platform

import torch

from longtailed.training import provenance
from longtailed.training.engine import make_fabric


def test_runs_and_benchmarks_record_the_same_versions_and_processor(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    run = provenance.run_provenance(make_fabric("cpu", precision="32"))
    benchmark = provenance.benchmark_provenance(torch.device("cpu"))
    assert run["versions"] == benchmark["versions"]
    assert run["versions"]["torch"] == torch.__version__
    assert run["versions"]["python"] == platform.python_version()
    assert run["hardware"] == f"{benchmark['hardware']['cpu']}, 7 cores"
    assert (run["precision"], run["processes"]) == ("32", 1)
    assert benchmark["hardware"]["gpu"] is None
    assert benchmark["threads"] == torch.get_num_threads()


def test_a_commit_is_marked_when_files_differ_from_it(monkeypatch):
    answers = {"rev-parse": "abc1234", "status": " M a.py", "ls-files": "__init__.py"}
    monkeypatch.setattr(provenance, "_git", lambda command, *rest: answers[command])
    assert provenance.commit() == "abc1234+changes"
    answers["status"] = ""
    assert provenance.commit() == "abc1234"
    answers["ls-files"] = ""  # installed inside another repository
    assert provenance.commit() is None
