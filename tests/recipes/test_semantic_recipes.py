"""The recipes of semantic augmentation: schedules, stages, and a start from a trained network."""

from __future__ import annotations

import json

import pytest
import torch

from longtailed import train
from longtailed.checkpoint import read_weights
from longtailed.errors import LongTailedError
from longtailed.recipes import RECIPES, compose, load_recipe, named_recipe, override


@pytest.mark.parametrize("name", ["cifar10-lt-100-metasaug", "cifar100-lt-200-risda"])
def test_the_rate_falls_one_epoch_before_the_authors_count(name):
    (stage,) = named_recipe(name).stages
    rates = [stage.optimizer.lr * stage.schedule.factor(e, 200) for e in (0, 158, 159, 178, 179)]
    assert rates == pytest.approx([0.1, 0.1, 1e-3, 1e-3, 1e-5])
    assert (stage.batch_size, stage.optimizer.nesterov, stage.optimizer.weight_decay) == (
        100, True, 5e-4,
    )  # fmt: skip


def test_every_row_of_the_two_papers_has_a_recipe():
    for dataset in ("cifar10", "cifar100"):
        for ratio in (10, 20, 50, 100, 200):
            for method in ("metasaug", "metasaug-ldam", "risda"):
                recipe = named_recipe(f"{dataset}-lt-{ratio}-{method}")
                assert recipe.data.imbalance == ratio
                assert recipe.stages[0].method == method
                assert recipe.data.meta_per_class == (None if method == "risda" else 10)
    assert {"imagenet-lt-metasaug", "inaturalist17-metasaug", "inaturalist18-metasaug"} <= {
        *RECIPES
    }
    assert {"imagenet-lt-risda", "inaturalist18-risda"} <= {*RECIPES}


def test_strengths_are_the_published_ones():
    strength = {name: named_recipe(name).stages[0].options for name in RECIPES if "-lt-" in name}
    assert strength["cifar100-lt-50-metasaug-ldam"] == {"strength": 0.75}
    assert strength["cifar100-lt-100-metasaug-ldam"] == {}
    assert strength["cifar100-lt-100-risda"] == {"alpha": 0.5, "beta": 0.75}
    assert strength["cifar10-lt-100-risda"] == {}


def quick(method: str, **data: object):
    return override(
        compose("digits", method, "resnet8", 20),
        {"epochs": 1, "batch_size": 64, "network.options": {"width": 0.5}, **data},
    )


def test_a_classifier_stage_starts_from_a_trained_network(tmp_path):
    trained = train(quick("ce"), out=tmp_path / "plain", progress=False, device="cpu")
    large = named_recipe("inaturalist18-metasaug").model_dump(mode="json")["stages"]
    values = quick("ce").model_dump(mode="json")
    first = {**values["stages"][0], "epochs": 0}
    second = {**large[1], "epochs": 2, "batch_size": 64}
    network = {**values["network"], "init_from": str(trained.directory)}
    recipe = load_recipe({**values, "network": network, "stages": [first, second]})
    run = train(recipe, out=tmp_path / "classifier", progress=False, device="cpu")
    before = read_weights(trained.directory / "model.safetensors")
    after = read_weights(run.directory / "model.safetensors")
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) == name.startswith("network.backbone"), name
    rows = [json.loads(x) for x in (run.directory / "metrics.jsonl").read_text().splitlines()]
    assert [row["metrics"]["covariance_change"] > 0 for row in rows] == [False, True]


def test_weights_of_another_network_are_refused(tmp_path):
    trained = train(quick("ce"), out=tmp_path / "plain", progress=False, device="cpu")
    other = override(
        quick("ce"), {"network.options": {"width": 1.0}, "init_from": trained.directory}
    )
    with pytest.raises(LongTailedError, match=r"does not fit the model: .* has shape") as caught:
        train(other, out=tmp_path / "other", progress=False, device="cpu")
    assert "\n" not in str(caught.value)
