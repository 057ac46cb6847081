"""The recipes of semantic augmentation: schedules, stages, and a start from a trained network."""

from __future__ import annotations

import json

import pytest
import torch

from longtailed import train
from longtailed.errors import LongTailedError
from longtailed.methods import check_options, method_options, never_begun
from longtailed.recipes import RECIPES, compose, load_recipe, named_recipe, override
from longtailed.training.checkpoint import read_weights


@pytest.mark.parametrize("name", ["cifar10-lt-metasaug", "cifar100-lt-200-risda"])
def test_cifar_recipes_train_as_the_authors_do(name):
    (stage,) = named_recipe(name).stages
    rates = [stage.optimizer.lr * stage.schedule.factor(e, 200) for e in (0, 158, 159, 178, 179)]
    assert rates == pytest.approx([0.1, 0.1, 1e-3, 1e-3, 1e-5])
    assert (stage.batch_size, stage.optimizer.nesterov, stage.optimizer.weight_decay) == (
        100, True, 5e-4,
    )  # fmt: skip


RESNET50 = {"batch_size": 512, "lr": 0.2, "nesterov": False}
CLASSIFIER = {
    "method": "metasaug", "epochs": 20, "batch_size": 256, "lr": 3e-4, "weight_decay": 5e-4,
    "nesterov": True, "rates": {0: 3e-4, 19: 3e-4},
}  # fmt: skip
CLASSIFIER_OPTIONS = {"start": 0, "covariance": "diagonal", "trainable": "classifier"}
SCRATCH = {
    "method": "risda", "epochs": 100, "batch_size": 128, "lr": 0.1, "weight_decay": 2e-4,
    "nesterov": False,
    "rates": {0: 0.02, 3: 0.08, 4: 0.1, 58: 0.1, 59: 0.01, 78: 0.01, 79: 0.001, 99: 0.001},
}  # fmt: skip
SCRATCH_OPTIONS = {
    "alpha": 0, "beta": 7.5, "covariance": "diagonal", "mean_shift": "off", "graph": "last",
    "freeze_start": 0.9,
}  # fmt: skip
LARGE = {
    "imagenet-lt-metasaug": [
        {
            **RESNET50, "method": "ce", "epochs": 90, "weight_decay": 5e-4, "options": {},
            "rates": {0: 0.2, 45: 0.1},
        },
        {**CLASSIFIER, "options": {**CLASSIFIER_OPTIONS, "meta_view": "test"}},
    ],
    **{
        f"inaturalist{year}-metasaug": [
            {
                **RESNET50, "method": "ce", "epochs": 200, "weight_decay": 1e-4, "options": {},
                "rates": {0: 0.2, 100: 0.1},
            },
            {**CLASSIFIER, "options": CLASSIFIER_OPTIONS},
        ]
        for year in (17, 18)
    },
    "imagenet-lt-risda": [{**SCRATCH, "options": {**SCRATCH_OPTIONS, "head_classes": 385}}],
    "inaturalist18-risda": [{**SCRATCH, "options": {**SCRATCH_OPTIONS, "head_classes": 0.385}}],
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_large_recipes_train_as_the_authors_do(name):
    recipe = named_recipe(name)
    assert (recipe.network.name, recipe.precision) == ("resnet50", "32")
    for stage, expected in zip(recipe.stages, LARGE[name], strict=True):
        settings = {**stage.model_dump(), **stage.optimizer.model_dump(), "method": stage.method}
        rates = {
            epoch: pytest.approx(stage.optimizer.lr * stage.schedule.factor(epoch, stage.epochs))
            for epoch in expected["rates"]
        }
        assert {**settings, "rates": rates} == {**settings, **expected}
        assert stage.optimizer.momentum == 0.9


def test_defaults_that_large_recipes_rely_on():
    defaults = {key: default for key, (_, default) in method_options("metasaug").items()}
    assert (defaults["strength"], defaults["meta_lr"], defaults["weighting"]) == (
        0.25, 0.1, "class-balanced",
    )  # fmt: skip
    defaults = {key: default for key, (_, default) in method_options("risda").items()}
    assert (defaults["start"], defaults["decimals"], defaults["weighting_beta"]) == (0.8, 2, 0.9999)


@pytest.mark.parametrize(
    ("name", "per_class", "source"),
    [
        ("imagenet-lt-metasaug", 10, "val"),
        ("inaturalist17-metasaug", 5, "shared"),
        ("inaturalist18-metasaug", 2, "shared"),
    ],
)
def test_large_recipes_take_the_authors_meta_sets(name, per_class, source):
    data = named_recipe(name).data
    assert (data.meta_per_class, data.meta_source) == (per_class, source)
    assert (data.mean is not None) == name.startswith("inaturalist")


def test_every_row_of_the_two_papers_has_a_recipe():
    for dataset in ("cifar10", "cifar100"):
        for ratio in (10, 20, 50, 100, 200):
            for method in ("metasaug", "metasaug-ldam", "risda"):
                row = method if ratio == 100 else f"{ratio}-{method}"
                recipe = named_recipe(f"{dataset}-lt-{row}")
                assert recipe.name == f"{dataset}-lt-{row}"
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
    assert strength["cifar100-lt-metasaug-ldam"] == {}
    assert strength["cifar100-lt-50-metasaug"] == {}
    assert strength["cifar10-lt-50-metasaug-ldam"] == {}
    assert strength["cifar100-lt-risda"] == {"alpha": 0.5, "beta": 0.75, "graph": "best"}
    assert strength["cifar10-lt-risda"] == {"graph": "best"}


def quick(method: str, **data: object):
    return override(
        compose("digits", method, "resnet8", 20),
        {"epochs": 1, "batch_size": 64, "network.options": {"width": 0.5}, **data},
    )


def test_a_classifier_stage_starts_from_a_trained_network(tmp_path):
    same_images = quick("ce", meta_per_class=10)
    trained = train(same_images, out=tmp_path / "plain", progress=False, device="cpu")
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


def test_a_start_beyond_the_run_is_warned_of_once(tmp_path):
    late = override(quick("risda"), {"start": 5, "freeze_start": 1, "imbalance": 100})
    with pytest.warns(UserWarning, match="start=5, freeze_start=1 of method 'risda'") as caught:
        train(late, out=tmp_path, progress=False, device="cpu")
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("name", "options", "late"),
    [
        ("metasaug", {"start": 1, "weighting": "none"}, []),
        ("metasaug", {"start": 2, "meta_batch_size": 9}, ["start=2"]),
        ("isda", {"start": 1.0, "weighting_start": 7}, ["weighting_start=7"]),
        ("ldam-drs", {"sampler_start": 80, "max_margin": 3}, ["sampler_start=80"]),
        ("rsg", {"generate_start": 2, "num_centers": 15}, ["generate_start=2"]),
        ("risda", {"freeze_start": None, "head_classes": 20, "decimals": 3}, []),
    ],
)
def test_starts_that_never_come_are_found(name, options, late):
    assert never_begun(name, options, 2) == late


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("isda", {"strength": -0.1}),
        ("metasaug", {"strength": -1}),
        ("metasaug", {"meta_batch_size": 0}),
        ("risda", {"alpha": -1}),
        ("risda", {"beta": -0.5}),
    ],
)
def test_negative_strengths_and_empty_meta_batches_are_refused(name, options):
    (key,) = options
    with pytest.raises(LongTailedError, match=f"option '{key}' of method '{name}' cannot be"):
        check_options(name, options)


def test_weights_of_another_network_are_refused(tmp_path):
    trained = train(quick("ce"), out=tmp_path / "plain", progress=False, device="cpu")
    other = override(
        quick("ce"), {"network.options": {"width": 1.0}, "init_from": trained.directory}
    )
    with pytest.raises(LongTailedError, match=r"does not fit the model: .* has shape") as caught:
        train(other, out=tmp_path / "other", progress=False, device="cpu")
    assert "\n" not in str(caught.value)
