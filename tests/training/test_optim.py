"""Optimisers: decay where it is wanted, rates by group, and settings that make no sense refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from longtailed.errors import LongTailedError
from longtailed.methods import CrossEntropy
from longtailed.recipes import load_recipe
from longtailed.training.optim import Optimizer, load_optimizer, set_learning_rate


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def groups_of(model: nn.Module, **extra: object):
    return [{"params": list(model.parameters()), **extra}]


def test_sgd_takes_its_settings(model):
    settings = Optimizer(lr=0.2, momentum=0.8, nesterov=True, weight_decay=1e-3)
    built = settings.build(model, groups_of(model))
    assert isinstance(built, torch.optim.SGD)
    (group,) = built.param_groups
    assert len(group["params"]) == len(list(model.parameters()))
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.2, 0.8, 1e-3)
    assert group["nesterov"]


def test_adamw_takes_its_settings(model):
    built = Optimizer(name="adamw", lr=1e-3, weight_decay=0.05).build(model, groups_of(model))
    assert isinstance(built, torch.optim.AdamW)
    (group,) = built.param_groups
    assert (group["lr"], group["weight_decay"]) == (1e-3, 0.05)


def test_a_loaded_state_keeps_to_this_run_s_way_of_stepping(model):
    eager, captured = (
        Optimizer(name="adamw").build(model, groups_of(model), captured=captured)
        for captured in (False, True)
    )
    load_optimizer(captured, eager.state_dict())
    assert captured.param_groups[0]["capturable"] is True
    load_optimizer(eager, captured.state_dict())
    assert eager.param_groups[0]["capturable"] is False


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_norms_and_biases_can_be_spared_from_decay(model, name):
    settings = Optimizer(name=name, weight_decay=0.1, decay_norm_and_bias=False)
    built = settings.build(model, groups_of(model))
    decayed, spared = built.param_groups
    assert decayed["weight_decay"] == 0.1
    assert spared["weight_decay"] == 0.0
    assert {id(p) for p in decayed["params"]} == {id(model[0].weight), id(model[3].weight)}
    assert {id(p) for p in spared["params"]} == {
        id(p) for p in (model[0].bias, *model[1].parameters(), model[3].bias)
    }


def test_what_is_spared_shrinks_by_its_gradient_alone(model):
    settings = Optimizer(lr=1.0, momentum=0, weight_decay=0.1, decay_norm_and_bias=False)
    built = settings.build(model, groups_of(model))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    built.step()
    for name, parameter in model.named_parameters():
        factor = 0.9 if parameter.ndim > 1 else 1.0
        torch.testing.assert_close(parameter.detach(), factor * before[name])


def test_a_group_scales_the_rate_of_the_schedule(model):
    groups = [
        {"params": list(model[0].parameters()), "lr_factor": 0.1},
        {"params": list(model[3].parameters())},
    ]
    built = Optimizer(decay_norm_and_bias=False).build(model, groups)
    set_learning_rate(built, 0.4)
    rates = {id(p): group["lr"] for group in built.param_groups for p in group["params"]}
    assert [rates[id(p)] for p in model[0].parameters()] == pytest.approx([0.04, 0.04])
    assert [rates[id(p)] for p in model[3].parameters()] == pytest.approx([0.4, 0.4])


@pytest.mark.parametrize("until", [6, 0.6])
def test_a_group_that_has_ended_does_not_move(model, until):
    ending, rest = list(model[0].parameters()), list(model[3].parameters())
    groups = [{"params": ending, "until": until}, {"params": rest}]
    built = Optimizer(weight_decay=0.1, nesterov=True).build(model, groups)
    for epoch in (5, 6):
        set_learning_rate(built, 0.4, epoch, epochs=10)
        before = [parameter.detach().clone() for parameter in (*ending, *rest)]
        for parameter in (*ending, *rest):
            parameter.grad = torch.ones_like(parameter)
        built.step()
        now = (*ending, *rest)
        moved = [not torch.equal(old, new) for old, new in zip(before, now, strict=True)]
        assert moved == [epoch < 6] * 2 + [True] * 2


def test_a_group_without_parameters_is_left_out(model):
    groups = [{"params": []}, *groups_of(model)]
    assert len(Optimizer().build(model, groups).param_groups) == 1


def test_nothing_left_to_train_is_refused(small_network):
    method = CrossEntropy(small_network(), [3, 2, 2, 1]).requires_grad_(False)
    with pytest.raises(LongTailedError, match="CrossEntropy has no parameter left to train"):
        Optimizer().build(method, method.parameter_groups())


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(ValueError, match="nesterov needs a momentum above 0"):
        Optimizer(nesterov=True, momentum=0)
    stage = {"optimizer": {"nesterov": True, "momentum": 0.0}}
    with pytest.raises(LongTailedError, match="nesterov needs a momentum above 0"):
        load_recipe({"stages": [stage]})
