"""The bench: what it counts is exact, what it times is there, what it cannot do it says."""

from __future__ import annotations

import json
import time

import pytest
import torch
from torch import nn

from longtailed.analysis.bench.floor import large_copy, least_work, matrix_product
from longtailed.analysis.bench.profiling import count_operations
from longtailed.analysis.bench.steps import append, bench
from longtailed.errors import LongTailedError

SMALL = {"data": "digits", "network": "resnet8", "overrides": ["batch_size=16"]}


@pytest.fixture(autouse=True)
def small_references(monkeypatch):
    product = (lambda: time.sleep(1e-3)), 1e6
    monkeypatch.setattr(
        "longtailed.analysis.bench.steps.matrix_product", lambda device, dtype: product
    )
    monkeypatch.setattr("longtailed.analysis.bench.steps.large_copy", lambda device: product)


def test_variants_are_compared_with_a_bare_loop(recorded_graphs):
    result = bench(**SMALL, variants=["bare", "eager", "captured"], rounds=2)
    assert list(result["variants"]) == ["bare", "eager", "captured"]
    assert result["batch_size"] == 16
    for name, row in result["variants"].items():
        assert row["ms_per_step"] > 0
        assert row["images_per_second"] == pytest.approx(16e3 / row["ms_per_step"], rel=0.01)
        floor = result["floor"]["ms_per_step"]
        assert row["fraction_of_floor"] == pytest.approx(floor / row["ms_per_step"], rel=0.05)
        assert ("ratio_to_bare" in row) == ("data_share" in row) == (name != "bare")
    bare, eager = (result["variants"][name]["operations_per_step"] for name in ("bare", "eager"))
    assert 50 < bare < eager < 2 * bare
    assert len(recorded_graphs) == 2  # the step, and its data alone
    assert result["ms_per_step_of"].keys() == {"data", "data, captured"}
    assert result["recipe"]["network"] == {"name": "resnet8"}
    assert result["versions"]["torch"] == torch.__version__


def test_random_images_serve_methods_with_a_meta_set():
    small = {"network": "resnet8", "overrides": ["batch_size=4", "start=0"]}
    result = bench(method="metasaug", **small, variants=["eager"], rounds=1)
    assert result["variants"]["eager"]["operations_per_step"] > 300


def test_floor_is_the_slower_of_arithmetic_and_traffic():
    network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.Flatten(), nn.Linear(16, 2))
    work = least_work(network, torch.zeros(5, 3, 2, 2), torch.zeros(5).long(), torch.float32)
    convolution, linear = 2 * 5 * 4 * 3 * 4, 2 * 5 * 16 * 2
    # Forward and weight gradient of both, and the gradient of the linear layer's input.
    assert work.operations == 2 * convolution + 3 * linear
    assert work.traffic == 4 * (5 * 4 * 2 * 2) * 4
    assert work.seconds(work.operations, 2 * work.traffic) == 1
    assert work.seconds(work.operations, work.traffic / 2) == 2


@pytest.mark.parametrize("make", [lambda d: matrix_product(d, torch.float32), large_copy])
def test_references_do_what_they_count(make):
    work, amount = make(torch.device("cpu"))
    assert amount > 1e8
    assert isinstance(work(), torch.Tensor)


def test_operations_are_counted_without_views():
    one = torch.zeros(4, 4)
    assert count_operations(lambda: (one + 1).t().relu_()) == 2
    assert count_operations(lambda: one.t()) == 0


def test_results_are_appended_as_lines(tmp_path):
    path = tmp_path / "results" / "step.jsonl"
    append({"a": 1}, path)
    append({"a": 2}, path)
    assert [json.loads(line)["a"] for line in path.read_text().splitlines()] == [1, 2]
    with pytest.raises(LongTailedError, match="cannot write"):
        append({"a": 3}, path / "below-a-file")


def test_a_variant_that_cannot_run_is_one_sentence():
    with pytest.raises(LongTailedError, match="only a CUDA device captures steps"):
        bench(**SMALL, variants=["captured"], rounds=1)
    with pytest.raises(LongTailedError, match="unknown variant 'fast'"):
        bench(**SMALL, variants=["fast"], rounds=1)


@pytest.mark.parametrize("method", ["crt", "ncm"])
def test_a_method_without_steps_on_images_is_one_sentence(method):
    with pytest.raises(LongTailedError, match=f"{method} takes no steps on images"):
        bench(**SMALL, method=method, rounds=1)
