"""ConCutMix on images that are files: decoded only where mixed in, with the same weights."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from longtailed.errors import Interrupted
from longtailed.methods import build_method
from longtailed.training.fit import fit
from longtailed.training.job import Job
from longtailed.training.optim import Optimizer
from longtailed.training.options import FitOptions

COUNTS = [24, 12, 6, 3]
EPOCHS, BATCH, STEPS = 3, 6, 7


@pytest.fixture
def train(small_network, fabric):
    """Train ConCutMix on the given splits; return the method."""

    def run(splits, *, capture="never", directory=None, per_sample=False):
        options = FitOptions(epochs=EPOCHS, batch_size=BATCH, optimizer=Optimizer(lr=0.05))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            options_of_method = {"per_sample": per_sample, "semantic_start": 1}
            method = build_method("concutmix", small_network(), COUNTS, **options_of_method)
        job = Job(
            fabric, splits, options, capture=capture, directory=directory, show_progress=False
        )
        fit(method, job)
        return method

    return run


@pytest.fixture
def files(splits, counted):
    return dataclasses.replace(splits, sets={"train": counted(splits.sets["train"])})


def assert_equal_weights(one, other):
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.parametrize("per_sample", [False, True])
def test_files_memory_and_captured_steps_give_the_same_weights(
    train, splits, files, recorded_graphs, per_sample
):
    in_memory = train(splits, per_sample=per_sample)
    stream = in_memory.streams["mix"]
    draws = files.open("0/mix", stream, BATCH, seed=0).endless_draws(EPOCHS)
    used = torch.stack([next(draws).tensors[1] for _ in range(EPOCHS * STEPS)])
    assert 0.2 < used.float().mean() < 0.8
    decoded = files.sets["train"].images.decoded
    for capture in ("never", "always"):
        decoded.clear()
        on_files = train(files, capture=capture, per_sample=per_sample)
        assert_equal_weights(in_memory, on_files)
        examples = bool((~used.any(1)).any())  # one image, for the size of an undecoded batch
        assert len(decoded) == EPOCHS * STEPS * BATCH + int(used.sum()) + examples
    assert recorded_graphs


@pytest.mark.parametrize("done", [3, 8, 9, 10])
def test_a_resumed_run_on_files_ends_with_the_same_weights(
    train, files, tmp_path, monkeypatch, done
):
    whole = train(files)
    asked = iter([0] * done)
    monkeypatch.setattr(
        "longtailed.training.session.Session._asked_to_stop", lambda self: next(asked, 15)
    )
    with pytest.raises(Interrupted):
        train(files, directory=tmp_path)
    monkeypatch.undo()
    assert_equal_weights(whole, train(files, directory=tmp_path))
