"""Recipes of pre-training and decoupled classifiers against the published settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from longtailed.data import parse_view
from longtailed.methods import method_class
from longtailed.recipes import RECIPES, named_recipe, override

GOLDEN = Path(__file__).parents[1] / "golden" / "ssp_schedule.npz"
CHAINS = sorted(name for name in RECIPES if len(named_recipe(name).stages) > 1)


@pytest.mark.parametrize("name", ["cifar10-lt-rotation-ce", "cifar100-lt-50-rotation-ldam-drw"])
def test_learning_rates_of_both_stages_are_the_published_ones(name):
    for stage in named_recipe(name).stages:
        rates = [
            stage.optimizer.lr * stage.schedule.factor(epoch, stage.epochs)
            for epoch in range(stage.epochs)
        ]
        assert rates == pytest.approx(np.load(GOLDEN)["lr_ssp"].tolist())
        assert (stage.batch_size, stage.optimizer.weight_decay) == (128, 2e-4)


@pytest.mark.parametrize("name", CHAINS)
def test_stages_fit_together(name):
    recipe = named_recipe(name)
    assert not method_class(recipe.stages[-1].method).label_free
    for stage in recipe.stages:
        if stage.method == "moco":
            assert stage.options["queue_size"] % stage.batch_size == 0
            parse_view(recipe.data.views["sim"])
        assert (stage.epochs > 0) == method_class(stage.method).trains


@pytest.mark.parametrize("name", CHAINS)
def test_the_documented_keys_name_the_data(name):
    changed = override(named_recipe(name), ["source=list.txt", "root=/images", "0.epochs=0"])
    assert (changed.data.source, changed.data.root) == ("list.txt", "/images")
    assert changed.stages[0].epochs == 0


def test_the_published_rows_are_there():
    for dataset in ("cifar10", "cifar100"):
        for ratio in ("", "-50", "-20", "-10"):
            for row in ("ce", "resampling", "class-balanced", "ce-drw", "ldam", "ldam-drw"):
                recipe = named_recipe(f"{dataset}-lt{ratio}-rotation-{row}")
                assert recipe.data.imbalance == int(ratio.removeprefix("-") or 100)
    for dataset in ("imagenet-lt", "places-lt", "inaturalist18"):
        for method in ("crt", "lws", "tau-norm", "ncm"):
            assert named_recipe(f"{dataset}-{method}").stages[1].method == method
    crt = named_recipe("imagenet-lt-crt").stages[1]
    assert (crt.epochs, crt.batch_size, crt.optimizer.lr) == (10, 512, 0.2)
    lws = named_recipe("places-lt-lws").stages[1]
    assert (lws.epochs, lws.batch_size, lws.optimizer.lr) == (5, 256, 0.1)
    moco = named_recipe("imagenet-lt-moco-crt").stages
    assert [stage.method for stage in moco] == ["moco", "ce", "crt"]
    assert (moco[0].optimizer.lr, moco[0].batch_size, moco[0].epochs) == (0.015, 128, 200)
    assert moco[0].options == {"queue_size": 65536, "momentum": 0.999, "temperature": 0.2}
