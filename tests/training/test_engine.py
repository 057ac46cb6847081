"""Which precision a run computes in."""

from __future__ import annotations

import pytest
import torch

from longtailed import train
from longtailed.recipes import compose, override
from longtailed.report.strict_json import read_json
from longtailed.training import engine
from longtailed.training.engine import has_bfloat16, make_fabric, precision_of, resolve_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("able", [True, False])
def test_auto_is_bfloat16_where_the_processor_computes_it(able, monkeypatch):
    monkeypatch.setattr(engine, "has_bfloat16", lambda: able)
    assert resolve_precision("auto", CPU) == ("bf16" if able else "32")
    assert resolve_precision("32", CPU) == "32"
    assert precision_of(make_fabric("cpu", precision="auto")) == ("bf16" if able else "32")


def test_a_processor_that_emulates_bfloat16_does_not_have_it(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert not has_bfloat16()


def recipe(**changes: object):
    settings = {"epochs": 1, "batch_size": 64, "network.options": {"width": 0.5}, "max_count": 40}
    return override(compose("digits", "ce", "resnet8", 4), {**settings, **changes})


@pytest.mark.parametrize("able", [True, False])
def test_the_report_says_which_precision_auto_came_to(able, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "has_bfloat16", lambda: able)
    run = train(recipe(), out=tmp_path / "run", progress=False, device="cpu")
    assert read_json(run.directory / "manifest.json")["precision"] == ("bf16" if able else "32")
    assert ("bfloat16 network" in run.report.read_text()) == able


def test_a_run_goes_on_in_the_precision_in_which_it_began(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "has_bfloat16", lambda: False)
    run = train(recipe(), out=tmp_path / "run", progress=False, device="cpu")
    (run.directory / "results.json").unlink()
    monkeypatch.setattr(engine, "has_bfloat16", lambda: True)
    train(recipe(), out=run.directory, progress=False, device="cpu")
    assert read_json(run.directory / "manifest.json")["precision"] == "32"
