"""RSG's recipes against the published settings."""

from __future__ import annotations

import pytest

from longtailed.methods import method_options
from longtailed.recipes import RECIPES, named_recipe
from longtailed.schedules import epoch_at

RSG = sorted(name for name in RECIPES if "-rsg" in name)


def published_rate(name: str, epoch: int) -> float:
    """The learning rate by the published tables, as factor of the base rate."""
    drops = {
        "cifar": {159: 0.01, 179: 0.0001},
        "imagenet": {59: 0.1, 79: 0.01, 94: 0.001},
        "places": {9: 0.1, 19: 0.01},
        "inaturalist18": {99: 0.1, 139: 0.01, 169: 0.001},
    }
    (drop,) = (values for key, values in drops.items() if name.startswith(key))
    if epoch < 5 and not name.startswith("places"):
        return (epoch + 1) / 5
    return next((drop[e] for e in sorted(drop, reverse=True) if epoch >= e), 1.0)


@pytest.mark.parametrize("name", RSG)
def test_learning_rates_are_the_published_ones(name: str) -> None:
    (stage,) = named_recipe(name).stages
    rates = [stage.schedule.factor(epoch, stage.epochs) for epoch in range(stage.epochs)]
    assert rates == pytest.approx([published_rate(name, e) for e in range(stage.epochs)])


@pytest.mark.parametrize("name", RSG)
def test_generation_begins_with_the_balancing_one_epoch_after_a_drop(name: str) -> None:
    (stage,) = named_recipe(name).stages
    options = {key: default for key, (_, default) in method_options(stage.method).items()}
    options |= stage.options
    start = epoch_at(options["generate_start"], stage.epochs)
    assert start - 1 in [epoch_at(m, stage.epochs) for m in stage.schedule.milestones]
    if stage.method.endswith("drw"):
        assert epoch_at(options["weighting_start"], stage.epochs) == start
    if stage.method.endswith("drs"):
        assert epoch_at(options["sampler_start"], stage.epochs) == start


def test_the_rows_of_the_original_are_there() -> None:
    long_tail = named_recipe("cifar10-lt-rsg-ldam-drw")
    assert (long_tail.data.profile, long_tail.data.imbalance) == ("exp", 100)
    step = named_recipe("cifar10-step-rsg-focal")
    assert (step.data.profile, step.data.imbalance) == ("step", 50)
    assert step.data.selection == long_tail.data.selection == "first"
    assert (step.head, long_tail.head) == ("linear", "cosine")
    inaturalist = named_recipe("inaturalist18-rsg-ldam-drs")
    assert (inaturalist.head, inaturalist.stages[0].options["scale"]) == ("cosine", 50)
    assert inaturalist.stages[0].optimizer.weight_decay == 5e-5
