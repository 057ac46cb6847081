"""Features of a frozen backbone: computed once for all stages and passes, and for no other."""

from __future__ import annotations

import pytest
import torch
from lightning_fabric import Fabric

from longtailed.methods import build_method
from longtailed.nn import Network
from longtailed.training.evaluation import evaluate_split
from longtailed.training.features import FeatureStore, pass_batch_size
from longtailed.training.fit import fit
from longtailed.training.job import Job
from longtailed.training.optim import Optimizer
from longtailed.training.options import FitOptions
from longtailed.training.schedules import Schedule

COUNTS = [24, 12, 6, 3]
OPTIONS = FitOptions(
    epochs=2, batch_size=12, optimizer=Optimizer(lr=0.1), schedule=Schedule(kind="constant")
)
NOTHING = OPTIONS.model_copy(update={"epochs": 0})


@pytest.fixture
def seen(monkeypatch) -> list[int]:
    """The number of images of each call of a network's backbone."""
    sizes: list[int] = []
    features = Network.features

    def count(network, images):
        sizes.append(len(images))
        return features(network, images)

    monkeypatch.setattr(Network, "features", count)
    return sizes


def images_of(splits, *names: str) -> int:
    return sum(len(splits.sets[name]) for name in names)


def test_features_are_those_of_an_evaluation(small_network, splits, fabric):
    network = small_network().train()
    features = FeatureStore(splits, fabric).of(network, "train")
    assert network.backbone.training
    with torch.no_grad():
        expected = network.eval().features(next(splits.scan("train")).images[0])
    torch.testing.assert_close(features, expected)
    assert features.dtype == torch.float32


def test_another_state_of_the_backbone_has_other_features(small_network, splits, fabric, seen):
    network, store = small_network(), FeatureStore(splits, fabric)
    first = store.of(network, "train")
    network.head.weight.data.zero_()
    assert store.of(network, "train") is first
    assert sum(seen) == images_of(splits, "train")
    for change in ("conv1.weight", "bn1.running_mean"):
        network.backbone.state_dict()[change].add_(1)
        assert not torch.equal(store.of(network, "train"), first)


def test_stages_and_evaluations_on_one_backbone_share_a_pass(small_network, splits, fabric, seen):
    network, store = small_network(), FeatureStore(splits, fabric)
    selected = {"holdout": "chosen", "test": "best"}
    for name, options in (
        ("crt", OPTIONS),
        ("lws", OPTIONS),
        ("tau-norm", NOTHING),
        ("ncm", NOTHING),
    ):
        method = build_method(name, network, COUNTS)
        fit(
            method,
            Job(fabric, splits, options, select_on=selected, features=store, show_progress=False),
        )
        evaluate_split(method, splits, "test", fabric, features=store)
    assert sum(seen) == images_of(splits, "train", "holdout", "test")


@pytest.mark.parametrize("name", ["crt", "lws", "tau-norm", "ncm", "ldam", "rotation"])
def test_evaluations_are_the_same_with_and_without(name, small_network, splits, fabric):
    method = build_method(
        name, small_network(head="cosine" if name == "ldam" else "linear"), COUNTS
    )
    store = FeatureStore(splits, fabric)
    options = OPTIONS if method.trains else NOTHING
    fit(method, Job(fabric, splits, options, features=store, show_progress=False))
    plain, kept = (
        evaluate_split(method, splits, "test", fabric, features=f) for f in (None, store)
    )
    assert kept.figures == plain.figures
    assert (kept.predictions == plain.predictions).all()
    assert (kept.confidences == plain.confidences).all()


def test_statistics_that_drift_are_not_kept(small_network, splits, fabric, seen):
    method = build_method("crt", small_network(), COUNTS, features="fresh", batch_norm="train")
    store = FeatureStore(splits, fabric)
    for _ in range(2):
        evaluate_split(method, splits, "test", fabric, features=store)
    assert sum(seen) == 2 * images_of(splits, "test")


def test_tau_is_chosen_in_full_precision(small_network, splits, monkeypatch):
    dtypes = []

    def choose(weight, features, labels):
        dtypes.append((features @ weight.T).dtype)
        return 1.0

    monkeypatch.setattr("longtailed.methods.tau_norm.best_tau", choose)
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    fit(build_method("tau-norm", small_network(), COUNTS), Job(fabric, splits, NOTHING))
    assert dtypes == [torch.float32]


def test_batches_of_a_pass_suit_the_device(imageset_of):
    small, large = imageset_of([2, 2]), imageset_of([1, 1], side=96)
    sizes = [pass_batch_size(s, torch.device(d)) for d in ("cpu", "cuda") for s in (small, large)]
    assert sizes == [128, 128, 2048, 512]
