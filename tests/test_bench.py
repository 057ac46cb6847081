"""The bench: what it counts is exact, what it times is there, what it cannot do it says."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from longtailed.bench import append, bench
from longtailed.errors import LongTailedError
from longtailed.floor import Floor, step_floor
from longtailed.profiling import count_operations

SMALL = {"data": "digits", "network": "resnet8", "overrides": ["batch_size=16"]}


@pytest.fixture(autouse=True)
def quick_floor(monkeypatch):
    monkeypatch.setattr("longtailed.floor.matrix_product_speed", lambda device, dtype: 1e9)
    monkeypatch.setattr("longtailed.floor.copy_speed", lambda device: 0.5e9)


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
    assert result["versions"]["torch"] == torch.__version__


def test_floor_is_the_slower_of_arithmetic_and_traffic():
    network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.Flatten(), nn.Linear(16, 2))
    floor = step_floor(network, torch.zeros(5, 3, 2, 2), torch.zeros(5).long(), torch.float32)
    convolution, linear = 2 * 5 * 4 * 3 * 4, 2 * 5 * 16 * 2
    # Forward and weight gradient of both, and the gradient of the linear layer's input.
    assert floor.operations == 2 * convolution + 3 * linear
    assert floor.traffic == 4 * (5 * 4 * 2 * 2) * 4
    assert floor.seconds == floor.traffic / 0.5e9 > floor.operations / 1e9
    assert Floor(4.0, 1.0, 2.0, 1.0).seconds == 2.0


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
