"""Classifiers on a frozen backbone: published values, frozen statistics, cached features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from longtailed.errors import LongTailedError
from longtailed.methods import NearestClassMean, build_method, tau_normalize
from longtailed.methods.tau_norm import GRID, best_tau
from longtailed.nn import LinearHead
from longtailed.training.fit import fit
from longtailed.training.job import Job
from longtailed.training.optim import Optimizer
from longtailed.training.options import FitOptions
from longtailed.training.schedules import Schedule

GOLDEN = Path(__file__).parents[1] / "golden"
COUNTS = [24, 12, 6, 3]
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
OPTIONS = FitOptions(
    epochs=3, batch_size=12, optimizer=Optimizer(lr=0.1), schedule=Schedule(kind="constant")
)
NOTHING = OPTIONS.model_copy(update={"epochs": 0})


def golden(name: str, array: str) -> torch.Tensor:
    return torch.from_numpy(np.array(np.load(GOLDEN / f"{name}.npz")[array]))


def cases(name: str, array: str) -> list[str]:
    keys = np.load(GOLDEN / f"{name}.npz").files
    return [key.removeprefix(f"{array}_") for key in keys if key.startswith(f"{array}_")]


@pytest.mark.parametrize("case", cases("lws", "scales"))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scaled_logits_are_the_published_ones(case, dtype, small_network):
    weight = golden("lws", f"weight_{case}").to(dtype)
    method = build_method("lws", small_network(), COUNTS)
    head = LinearHead(weight.shape[1], len(weight)).to(dtype)
    method.network.head = head.requires_grad_(False)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(golden("lws", f"bias_{case}"))
    method.scales = torch.nn.Parameter(golden("lws", f"scales_{case}").to(dtype))
    features = golden("lws", f"feats_{case}").to(dtype)
    logits = method.classify(features)
    torch.testing.assert_close(logits.float(), golden("lws", f"logits_{case}"), **CLOSE)
    loss = cross_entropy(logits, golden("lws", f"labels_{case}").long())
    loss.backward()
    torch.testing.assert_close(loss.float(), golden("lws", f"loss_{case}"), **CLOSE)
    gradient = golden("lws", f"grad_scales_{case}")
    torch.testing.assert_close(method.scales.grad.float(), gradient, **CLOSE)
    assert head.weight.grad is None
    method.scale_bias = False  # the paper's form
    for n, z in enumerate(features):
        for c, w in enumerate(weight):
            expected = method.scales[c] * (w @ z) + head.bias[c]
            assert method.classify(features)[n, c].item() == pytest.approx(
                expected.item(), rel=1e-4, abs=1e-5
            )


@pytest.mark.parametrize("case", cases("tau_norm", "feats"))
def test_normalised_weights_are_the_published_ones(case):
    weight, features = golden("tau_norm", f"weight_{case}"), golden("tau_norm", f"feats_{case}")
    for number, tau in enumerate(golden("tau_norm", "taus").tolist()):
        scaled = tau_normalize(weight, tau)
        expected = golden("tau_norm", f"scaled_weight_{case}")[number]
        torch.testing.assert_close(scaled, expected, **CLOSE)
        logits = features @ scaled.T
        torch.testing.assert_close(logits, golden("tau_norm", f"logits_{case}")[number], **CLOSE)


def test_tau_is_the_smallest_of_the_best():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 6, dtype=torch.float64, generator=generator)
    weight *= torch.tensor([8.0, 4.0, 2.0, 1.0])[:, None]
    labels = torch.arange(4).repeat_interleave(torch.tensor([20, 15, 10, 5]))
    features = weight[labels] / weight[labels].norm(dim=1, keepdim=True)
    features += 0.4 * torch.randn(50, 6, dtype=torch.float64, generator=generator)
    scores = []
    for tau in GRID:
        scaled = torch.stack([w / w.norm() ** tau for w in weight])
        right = [(scaled @ z).argmax() == label for z, label in zip(features, labels, strict=True)]
        shares = [
            np.mean([r for r, y in zip(right, labels, strict=True) if y == c]) for c in range(4)
        ]
        scores.append(np.mean(shares))
    best = max(scores)
    expected = next(tau for tau, score in zip(GRID, scores, strict=True) if score > best - 1e-9)
    assert best_tau(weight, features, labels) == expected
    assert 0 < expected < 2


def test_tau_0_and_1_and_gradients():
    weight = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(tau_normalize(weight, 0), weight)
    norms = tau_normalize(weight, 1).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda w: tau_normalize(w, 0.7), (weight,))
    zero = torch.zeros(2, 3)
    assert torch.equal(tau_normalize(zero, 1.5), zero)


@pytest.mark.parametrize("case", cases("ncm", "feat_mean"))
@pytest.mark.parametrize("transform", ["un", "l2n", "cl2n"])
@pytest.mark.parametrize("distance", ["l2", "cos"])
def test_class_means_are_the_published_ones(case, transform, distance):
    ours = NearestClassMean(transform, distance)
    train, labels, test = (
        golden("ncm", f"{name}_{case}") for name in ("train_feats", "train_labels", "test_feats")
    )
    expected = golden("ncm", f"logits_{transform}_{distance}_{case}")
    ours.fit(train, labels.long(), expected.shape[1])
    torch.testing.assert_close(ours.mean, golden("ncm", f"feat_mean_{case}"), **CLOSE)
    means = golden("ncm", f"centroids_{transform}_{case}")
    torch.testing.assert_close(ours.centroids, means, **CLOSE)
    logits = ours.logits(test)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    predictions = golden("ncm", f"preds_{transform}_{distance}_{case}")
    assert torch.equal(logits.argmax(1), predictions.long())


def test_class_means_equal_an_explicit_loop():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(9, 4, dtype=torch.float64, generator=generator)
    labels = torch.tensor([0, 0, 0, 1, 1, 3, 3, 3, 3])  # none of class 2
    for distance in ("l2", "cosine"):
        ours = NearestClassMean("cl2n", distance).fit(features, labels, 4)
        mean = features.mean(0)
        turned = [(x - mean) / (x - mean).norm() for x in features]
        for n, a in enumerate(turned):
            for c in (0, 1, 3):
                members = [turned[i] for i in range(9) if labels[i] == c]
                centre = sum(members) / len(members)
                expected = -((a - centre) ** 2).sum()
                if distance == "cosine":
                    expected = a @ centre / (a.norm() * centre.norm())
                got = ours.logits(features)[n, c].item()
                assert got == pytest.approx(expected.item(), rel=1e-9, abs=1e-12)
        assert (ours.logits(features)[:, 2] == -torch.inf).all()
        assert ours.logits(features).dtype == torch.float64


def test_bad_class_means_are_refused():
    with pytest.raises(LongTailedError, match="unknown transform 'l2'"):
        NearestClassMean("l2")
    with pytest.raises(LongTailedError, match="unknown distance 'dot'"):
        NearestClassMean("un", "dot")
    with pytest.raises(LongTailedError, match="at least one sample"):
        NearestClassMean().fit(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), 2)
    with pytest.raises(LongTailedError, match=r"labels must be in 0\.\.1"):
        NearestClassMean().fit(torch.zeros(1, 3), torch.tensor([2]), 2)


@pytest.mark.parametrize("features", ["cached", "fresh"])
@pytest.mark.parametrize("name", ["crt", "lws"])
def test_the_backbone_and_its_statistics_stand_still(name, features, small_network, splits, fabric):
    network = small_network()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    method = build_method(name, network, COUNTS, features=features)
    fit(method, Job(fabric, splits, OPTIONS, show_progress=False))
    for key, value in network.state_dict().items():
        still = key.startswith("backbone.") or name == "lws"
        assert torch.equal(value, before[key]) == still, key


def test_statistics_drift_only_where_asked(small_network, splits, fabric):
    method = build_method("crt", small_network(), COUNTS, features="fresh", batch_norm="train")
    before = method.network.backbone.bn1.running_mean.clone()
    weight = method.network.backbone.conv1.weight.clone()
    fit(method, Job(fabric, splits, OPTIONS, show_progress=False))
    assert not torch.equal(method.network.backbone.bn1.running_mean, before)
    assert torch.equal(method.network.backbone.conv1.weight, weight)
    with pytest.raises(LongTailedError, match=r"cannot be cached; set features=fresh"):
        build_method("crt", small_network(), COUNTS, batch_norm="train")


def test_cached_features_give_the_steps_of_unaugmented_images(small_network, splits, fabric):
    splits.views["standard"] = splits.views["test"]
    states = []
    for features in ("cached", "fresh"):
        method = build_method("crt", small_network(), COUNTS, features=features)
        fit(method, Job(fabric, splits, OPTIONS, show_progress=False))
        states.append(method.state_dict())
    assert "cached" not in states[0]
    for key, value in states[0].items():
        torch.testing.assert_close(value, states[1][key], rtol=1e-4, atol=1e-5)


def test_images_on_disk_are_decoded_once(small_network, splits, fabric):
    class Encoded:
        """Images that count how often they are decoded."""

        decoded = 0

        def __init__(self, pixels):
            self.pixels = pixels

        def __len__(self):
            return len(self.pixels)

        def decode(self, row):
            Encoded.decoded += 1
            return self.pixels[row]

    states = []
    for on_disk in (False, True):
        if on_disk:
            train = splits.sets["train"]
            splits.sets["train"] = replace(train, images=Encoded(train.images))
        method = build_method("crt", small_network(), COUNTS)
        fit(method, Job(fabric, splits, OPTIONS, show_progress=False))
        states.append(method.state_dict())
    assert Encoded.decoded == sum(COUNTS)
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


def test_a_new_head_is_drawn_for_retraining(small_network, splits, fabric):
    network = small_network()
    with torch.no_grad():
        network.head.weight.fill_(7)
    method = build_method("crt", network, COUNTS)
    fit(method, Job(fabric, splits, NOTHING, show_progress=False))
    assert network.head.weight.abs().max() <= network.head.in_features**-0.5
    assert network.head.weight.unique().numel() > 100


def test_tau_comes_from_the_split_that_is_named(small_network, splits, fabric):
    for options, tau in (({"tau": 0.5}, 0.5), ({}, None), ({"select": "train"}, None)):
        network = small_network()
        weight = network.head.weight.detach().clone()
        with torch.no_grad():
            network.head.bias.fill_(1)
        method = build_method("tau-norm", network, COUNTS, **options)
        fit(method, Job(fabric, splits, NOTHING, show_progress=False))
        chosen = method.metrics()["tau"].item()
        assert chosen == pytest.approx(tau if tau is not None else chosen)
        assert min(abs(chosen - step) for step in GRID) < 1e-6
        torch.testing.assert_close(network.head.weight, tau_normalize(weight, chosen))
        assert (network.head.bias == 0).all()


def test_a_split_too_small_for_tau_is_refused(small_network, splits, imageset_of, fabric):
    method = build_method("tau-norm", small_network(), COUNTS)
    job = Job(fabric, splits, NOTHING, show_progress=False)
    for counts in ([3, 3, 3, 3], [20, 20, 20, 0]):
        splits.sets["holdout"] = imageset_of(counts)
        with pytest.raises(LongTailedError, match=r"too small to choose tau.*holdout") as caught:
            fit(method, job)
        assert "\n" not in str(caught.value)
    del splits.sets["holdout"]
    with pytest.raises(LongTailedError, match="there is none"):
        fit(method, job)


@pytest.mark.parametrize("name", ["tau-norm", "ncm"])
def test_what_trains_nothing_is_given_no_epochs(name, small_network, splits, fabric):
    job = Job(fabric, splits, OPTIONS, label=name, show_progress=False)
    with pytest.raises(LongTailedError, match=f"{name} trains nothing; give its stage epochs=0"):
        fit(build_method(name, small_network(), COUNTS), job)


def test_nearest_means_tell_colours_apart_untrained(small_network, splits, fabric):
    method = build_method("ncm", small_network(), COUNTS)
    fit(method, Job(fabric, splits, NOTHING, show_progress=False))
    batch = next(splits.scan("test"))
    with torch.no_grad():
        right = (method.eval().predict(batch.images[0]).argmax(1) == batch.labels).float().mean()
    assert right > 0.9
