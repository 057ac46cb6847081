"""Compiled stages: the same training, taken back afterwards, refused where they cannot be."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch

from longtailed.errors import LongTailedError
from longtailed.methods import CrossEntropy
from longtailed.training.compiling import compiled_stages
from longtailed.training.fit import fit
from longtailed.training.job import Job
from longtailed.training.optim import Optimizer
from longtailed.training.options import FitOptions

COUNTS = [24, 12, 6, 3]


@pytest.mark.filterwarnings("ignore")  # what the compiler warns of is not ours
def test_compiled_training_equals_eager_training(small_network, splits, fabric, monkeypatch):
    # Without code generation, which needs a C++ compiler and a minute.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    options = FitOptions(epochs=2, batch_size=12, optimizer=Optimizer(lr=0.05))
    states = []
    for compiled in (False, True):
        method = CrossEntropy(small_network(), COUNTS)
        fit(method, Job(fabric, splits, options, compile=compiled, show_progress=False))
        assert "run_stage" not in vars(method.network.backbone)
        states.append(method.state_dict())
    for key, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][key], rtol=1e-4, atol=1e-5)


def test_each_stage_is_compiled_and_used_only_with_gradients(small_network, monkeypatch):
    used = []

    def note(function, **_options):
        def call(maps):
            used.append(function.args[0])
            return function(maps)

        return call

    monkeypatch.setattr(torch, "compile", note)
    method, images = CrossEntropy(small_network(), COUNTS), torch.zeros(2, 3, 16, 16)
    with compiled_stages(method):
        method.network(images)
        with torch.no_grad():
            method.predict(images)
    assert used == [0, 1, 2, 3]


def test_a_method_that_cannot_be_compiled_says_so(small_network):
    class Forward(CrossEntropy):
        compilable = False

    with pytest.raises(LongTailedError, match="Forward cannot be compiled"):
        compiled_stages(Forward(small_network(), COUNTS)).__enter__()


def test_a_compiler_that_fails_is_one_sentence(small_network, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=_fail))
    method = CrossEntropy(small_network(), COUNTS)
    refused = pytest.raises(LongTailedError, match=r"stage 0 .* cannot be compiled: .*no compiler")
    with compiled_stages(method), warnings.catch_warnings(action="ignore"), refused:
        method.network(torch.zeros(2, 3, 16, 16))


def _fail(_graph, _inputs):
    raise RuntimeError("no compiler here")
