"""Files are the old one or the new one, never half; what does not fit is one sentence."""

from __future__ import annotations

import resource
import signal

import pytest
import torch
from torch import nn

from longtailed.errors import LongTailedError
from longtailed.report.strict_json import read_json
from longtailed.training.checkpoint import (
    load_training_state,
    load_weights,
    read_weights,
    save_training_state,
    save_weights,
    write_json,
)


@pytest.fixture
def small_disk():
    """Let no file grow beyond 10 kB, as on a disk that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


def test_training_state_round_trip(tmp_path):
    state = {"epoch": 3, "weights": torch.arange(5), "names": ["a"]}
    save_training_state(tmp_path / "state.pt", state)
    loaded = load_training_state(tmp_path / "state.pt")
    assert loaded["epoch"] == 3
    assert torch.equal(loaded["weights"], state["weights"])
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_a_full_disk_keeps_the_previous_state(tmp_path, small_disk):
    path = tmp_path / "state.pt"
    save_training_state(path, {"epoch": 1})
    with pytest.raises(LongTailedError, match=r"cannot write .*the previous one is kept"):
        save_training_state(path, {"epoch": 2, "weights": torch.zeros(100_000)})
    assert load_training_state(path)["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_a_full_disk_for_weights(tmp_path, small_disk):
    with pytest.raises(LongTailedError, match="File too large; nothing was kept"):
        save_weights(tmp_path / "model.safetensors", nn.Linear(100, 100))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_no_file(tmp_path):
    class Stopping:
        def __reduce__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_training_state(tmp_path / "state.pt", {"x": Stopping()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 broken"])
def test_broken_files_are_one_sentence(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    for load in (load_training_state, read_weights, read_json):
        with pytest.raises(LongTailedError, match="file"):
            load(path)


def test_a_state_that_would_run_code_is_refused(tmp_path):
    torch.save({"x": print}, tmp_path / "state.pt")
    with pytest.raises(LongTailedError, match="not a readable checkpoint"):
        load_training_state(tmp_path / "state.pt")


def test_missing_files_are_one_sentence(tmp_path):
    for load in (read_weights, read_json):
        with pytest.raises(LongTailedError, match="does not exist"):
            load(tmp_path / "nothing")


def test_weights_round_trip_by_prefix(tmp_path):
    model = nn.ModuleDict({"network": nn.Linear(3, 2), "critic": nn.Linear(2, 1)})
    save_weights(tmp_path / "model.safetensors", model, ("network.",))
    assert set(read_weights(tmp_path / "model.safetensors")) == {"network.weight", "network.bias"}
    other = nn.ModuleDict({"network": nn.Linear(3, 2), "critic": nn.Linear(2, 1)})
    load_weights(tmp_path / "model.safetensors", other, ("network.",))
    assert torch.equal(other["network"].weight, model["network"].weight)


def test_weights_that_do_not_fit_name_what_is_wrong(tmp_path):
    save_weights(tmp_path / "model.safetensors", nn.Linear(3, 2))
    with pytest.raises(LongTailedError, match=r"weight has shape \[2, 3\] instead of \[2, 4\]"):
        load_weights(tmp_path / "model.safetensors", nn.Linear(4, 2))
    with pytest.raises(LongTailedError, match="bias is not part of the model"):
        load_weights(tmp_path / "model.safetensors", nn.Linear(3, 2, bias=False))
    with pytest.raises(LongTailedError, match="running_mean is missing"):
        load_weights(tmp_path / "model.safetensors", nn.BatchNorm1d(2))


def test_json_round_trip(tmp_path):
    write_json(tmp_path / "value.json", {"größe": [1, None]})
    assert read_json(tmp_path / "value.json") == {"größe": [1, None]}
