"""ConCutMix: whole published steps, what is mixed when, and its options."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from longtailed.data import class_probabilities, cutmix, soft_targets
from longtailed.data.augment.mixing import MixedLabels
from longtailed.data.streams import Batch
from longtailed.errors import LongTailedError
from longtailed.methods import ConCutMix, Progress, build_method
from longtailed.nn import LinearHead, Network
from longtailed.nn.backbone import Backbone

COUNTS = [24, 12, 6, 3]
GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "concutmix_step.npz")
CASES = [case for case in range(9) if f"targets_a_{case}" in GOLDEN.files]


class ToyBackbone(Backbone):
    """relu(flatten(images) W): the reference values' network."""

    num_features, stage_channels = 16, (16,)

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def run_stage(self, stage, maps):
        return (maps.flatten(1) @ self.weight).relu()

    def pool(self, maps):
        return maps


class FreePrototypes(nn.Module):
    """Prototypes that are parameters of their own, as in the reference values."""

    def __init__(self, prototypes):
        super().__init__()
        self.prototypes = nn.Parameter(prototypes)

    def forward(self, weight):
        return self.prototypes


class GivenDraws(ConCutMix):
    """Pastes the given box from the given partners instead of drawing them."""

    def mix(self, batch, foreground, generator):
        images, labels = batch.images[0].clone(), self.partner_labels
        if self.box is not None:
            x1, y1, x2, y2 = self.box
            images[:, :, x1:x2, y1:y2] = foreground.images[0][self.order, :, x1:x2, y1:y2]
        return images, MixedLabels(batch.labels, labels, self.lam)


def golden(name, case):
    return torch.tensor(GOLDEN[f"{name}_{case}"])


def published_step(case):
    """Return the method and batches of a reference step, with its draws."""
    a, b = GOLDEN[f"scaling_factor_{case}"].tolist()
    numbers = {n: float(GOLDEN[f"{n}_{case}"]) for n in ("tau", "temperature", "alpha", "beta")}
    head = LinearHead(16, len(golden("cls_num", case)))
    network = Network(ToyBackbone(golden("param_We", case)), head)
    method = GivenDraws(
        network,
        golden("cls_num", case),
        tau=numbers["tau"],
        temperature=numbers["temperature"],
        classifier_weight=numbers["alpha"],
        contrastive_weight=numbers["beta"],
        semantic_start=int(GOLDEN[f"warm_epoch_{case}"]) + 1,
        omega=a / b,
        top_k=int(GOLDEN[f"topk_{case}"]),
        clamp=False,
    )
    with torch.no_grad():
        head.weight.copy_(golden("param_Wc", case).T)
        head.bias.copy_(golden("param_bc", case))
    method.projection = nn.Linear(16, 16, bias=False)
    method.projection.weight = nn.Parameter(golden("param_Wh", case).T.contiguous())
    method.prototype_head = FreePrototypes(golden("param_P", case))
    method.order, mixed = golden("perm", case), bool(GOLDEN[f"mixed_{case}"])
    method.box = GOLDEN[f"bbox_{case}"].tolist() if mixed else None
    method.lam = golden("lam_area", case).float() if mixed else torch.tensor(1.0)
    method.partner_labels = golden("targets_b", case)[method.order]
    views = [tuple(golden(name, case)) for name in ("views_a", "views_b")]
    labels = [golden(name, case) for name in ("targets_a", "targets_b")]
    index = torch.arange(len(labels[0]))
    return method, {
        "train": Batch(views[0], labels[0], index),
        "mix": Batch(views[1][:1], labels[1], index),
    }


def test_more_look_alikes_than_classes_are_refused(small_network):
    with pytest.raises(LongTailedError, match="top_k=5 is more than the 4 classes"):
        build_method("concutmix", small_network(), [24, 12, 6, 3], top_k=5)


@pytest.mark.parametrize("case", CASES)
def test_whole_steps_equal_the_golden_ones(case):
    method, batches = published_step(case)
    progress = Progress(200, 1, torch.Generator())
    progress.enter(int(GOLDEN[f"epoch_{case}"]), 0.1)
    terms = method(batches, progress)
    total = sum(terms.values())
    total.backward()
    weights = [float(GOLDEN[f"{name}_{case}"]) for name in ("alpha", "beta")]
    losses = [float(GOLDEN[f"{name}_{case}"]) for name in ("ce_loss", "scl_loss")]
    assert terms["logit_adjusted"].item() == pytest.approx(weights[0] * losses[0], rel=1e-4)
    assert terms["contrastive"].item() == pytest.approx(weights[1] * losses[1], rel=1e-4)
    assert total.item() == pytest.approx(float(GOLDEN[f"total_loss_{case}"]), rel=1e-4)
    gradients = {
        "We": method.network.backbone.weight.grad,
        "Wc": method.network.head.weight.grad.T,
        "bc": method.network.head.bias.grad,
        "Wh": method.projection.weight.grad.T,
        "P": method.prototype_head.prototypes.grad,
    }
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, GOLDEN[f"grad_{name}_{case}"], rtol=1e-3, atol=2e-6)


def step(method, splits, epoch=0, seed=0):
    """Return the terms of one step of 12 images in the given of 10 epochs."""
    feeds = {name: splits.open(name, s, 12, seed) for name, s in method.streams.items()}
    progress = Progress(10, 3, torch.Generator().manual_seed(seed))
    progress.enter(epoch, 0.1)
    return method({name: next(feed.epoch(0, 10)) for name, feed in feeds.items()}, progress)


def built(small_network, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_method("concutmix", small_network(), COUNTS, **options).train()


def test_without_mixing_it_is_bcl(small_network, splits):
    method = built(small_network, mix_probability=0)
    assert set(method.streams) == {"train"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        bcl = build_method("bcl", small_network(), COUNTS).train()
    ours, theirs = step(method, splits, epoch=9), step(bcl, splits, epoch=9)
    assert all(torch.equal(ours[term], theirs[term]) for term in theirs)


def test_semantic_labels_begin_after_the_warm_up(small_network, splits):
    options = {"mix_probability": 1.0, "semantic_start": 4}
    for epoch, differs in ((3, False), (4, True)):
        area = step(built(small_network, omega=0, **options), splits, epoch)
        semantic = step(built(small_network, omega=0.5, normalizer="max", **options), splits, epoch)
        assert (area["logit_adjusted"] != semantic["logit_adjusted"]) == differs
        assert torch.equal(area["contrastive"], semantic["contrastive"])


def test_labels_of_images_without_a_box_stay_hard(small_network):
    method = built(small_network, omega=0.5, normalizer="max")
    area = torch.eye(4)[:3]
    prototypes = torch.randn(4, 128, generator=torch.Generator().manual_seed(0))
    embeddings = prototypes[1:]  # each lies at the next class's prototype
    lam = torch.tensor([1.0, 0.5, 1.0])
    targets = method.semantic_targets(area, lam, embeddings, prototypes)
    assert torch.equal(targets[[0, 2]], area[[0, 2]])
    assert not torch.equal(targets[1], area[1])
    for whole_batch, same in ((torch.tensor(1.0), True), (torch.tensor(0.5), False)):
        targets = method.semantic_targets(area, whole_batch, embeddings, prototypes)
        assert torch.equal(targets, area) == same


def test_targets_are_negative_only_without_the_clamp(small_network):
    """omega 2 over the largest log count: the weight of two large classes is above 1."""
    area = torch.tensor([[0.75, 0.25, 0.0, 0.0]])
    prototypes = torch.randn(4, 128, generator=torch.Generator().manual_seed(0))
    lam, looks = torch.tensor(0.75), prototypes[3:]  # like the rarest class alone
    targets = {
        clamp: built(
            small_network, omega=2.0, normalizer="max", top_k=1, clamp=clamp
        ).semantic_targets(area, lam, looks, prototypes)
        for clamp in (True, False)
    }
    weight = 2 * math.log(0.75 * 24 + 0.25 * 12) / math.log(24)
    torch.testing.assert_close(targets[True], torch.tensor([[0.0, 0.0, 0.0, 1.0]]))
    expected = (1 - weight) * area[0] + weight * torch.eye(4)[3]
    torch.testing.assert_close(targets[False][0], expected)
    assert targets[False].min() < 0


def test_normalized_distances_compare_directions(small_network):
    area = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    prototypes = torch.eye(4, 128) * torch.tensor([1.0, 1.0, 1.0, 50.0])[:, None]
    feature = torch.zeros(1, 128)
    feature[0, 2], feature[0, 3] = 1.0, 2.0  # points to the fourth, lies near the third
    for normalized, nearest in ((False, 2), (True, 3)):
        method = built(
            small_network, omega=1.0, normalizer="max", top_k=1, normalized_distances=normalized
        )
        targets = method.semantic_targets(area, torch.tensor(0.5), feature, prototypes)
        assert targets[0].nonzero().flatten().tolist() == [0, 1, nearest]


@pytest.mark.parametrize("per_sample", [False, True])
def test_only_the_classified_view_is_mixed_with_the_foreground(small_network, per_sample):
    method = built(small_network, per_sample=per_sample)
    labels = torch.arange(12) % 4
    views = tuple(torch.zeros(12, 3, 16, 16) for _ in range(3))
    foreground = torch.arange(12.0)[:, None, None, None].expand(12, 3, 16, 16)
    used = torch.arange(12) % 4 != 1 if per_sample else torch.ones(12, dtype=torch.bool)
    batch, other = Batch(views, labels, labels), Batch((foreground,), labels.flip(0), labels, used)
    generator = torch.Generator().manual_seed(2)
    images, mixed = method.mix(batch, other, generator)
    assert mixed.lam.shape == ((12,) if per_sample else ())
    shares = (images == 0).float().mean((1, 2, 3))
    for image, share, lam, label in zip(
        images, shares, mixed.lam.expand(12), mixed.labels_b, strict=True
    ):
        partner = image.max().long()
        if partner > 0:  # image 0 of the foreground is black
            assert used[partner]
            assert share == pytest.approx(lam.item())
            assert label == labels.flip(0)[partner]
    assert all(bool((view == 0).all()) for view in views)


@pytest.mark.parametrize("foreground", ["class-balanced", "reversed", "instance"])
def test_the_foreground_has_a_sampler_of_its_own(small_network, splits, foreground):
    method = built(small_network, foreground=foreground, sampler="square-root")
    assert method.streams["train"].sampler == "square-root"
    assert method.streams["mix"].sampler == foreground
    assert method.streams["mix"].views == ("strong",)
    assert all(bool(term.isfinite()) for term in step(method, splits).values())


@pytest.mark.parametrize("foreground", ["class-balanced", "reversed", "instance"])
def test_the_mixed_prior_is_the_mean_of_the_mixed_labels(small_network, foreground):
    method = built(small_network, foreground=foreground, prior="mixed", mix_probability=0.5)
    shares = np.array(COUNTS) / sum(COUNTS)
    drawn = class_probabilities(foreground, COUNTS)
    rng = np.random.default_rng(0)
    draws = 6_000
    labels = torch.from_numpy(rng.choice(4, draws, p=shares))
    partners = torch.from_numpy(rng.choice(4, draws, p=drawn))
    used = torch.from_numpy(rng.random(draws) < 0.5)
    images = torch.zeros(1, 1, 64, 64, dtype=torch.uint8).expand(draws, 1, 64, 64)
    generator = torch.Generator().manual_seed(0)
    given = (images, partners)
    _, mixed = cutmix(images, labels, 1.0, generator, partners=given, per_sample=True, used=used)
    expected = soft_targets(*mixed, 4).mean(0)
    found = method.adjusted_counts / method.adjusted_counts.sum()
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0)


def test_foregrounds_that_are_drawn_uniformly_leave_the_prior(small_network):
    method = built(small_network, foreground="instance", prior="mixed")
    torch.testing.assert_close(method.adjusted_counts, method.class_counts.double())
    assert built(small_network).adjusted_counts.tolist() == COUNTS


def test_a_prior_that_changes_over_the_epochs_is_refused(small_network):
    with pytest.raises(LongTailedError, match="foreground=progressive changes"):
        built(small_network, foreground="progressive", prior="mixed")


def test_defaults_are_the_published_ones(small_network):
    for num_classes, top_k in ((10, 3), (100, 30), (1000, 30), (2, 1)):
        method = build_method("concutmix", small_network(num_classes), [5] * num_classes)
        assert method.top_k == top_k
        assert method.omega == pytest.approx(0.2 * num_classes / 255)


@pytest.mark.parametrize(
    "options",
    [
        {"omega": 100.0, "top_k": 4},  # the weight is kept at 1
        {"omega": 100.0, "clamp": False},
        {"normalized_distances": True, "normalizer": "mean"},
        {"prototype_source": "feature_rows_tiled", "per_sample": True},
    ],
)
def test_extreme_options_give_finite_losses_and_gradients(small_network, splits, options):
    method = built(small_network, mix_probability=1.0, semantic_start=0, **options)
    terms = step(method, splits)
    sum(terms.values()).backward()
    assert all(bool(term.isfinite()) for term in terms.values())
    assert all(bool(p.grad.isfinite().all()) for p in method.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mix_probability": 1.5}, "option 'mix_probability' of method 'concutmix' cannot be 1.5"),
        ({"omega": -1}, "option 'omega' of method 'concutmix' cannot be -1"),
        ({"omega": float("inf")}, "option 'omega' of method 'concutmix' cannot be inf"),
        ({"top_k": 0}, "option 'top_k' of method 'concutmix' cannot be 0"),
        ({"normalizer": "median"}, "option 'normalizer' .* cannot be 'median'"),
        ({"omega_": 1}, "unknown option of method 'concutmix' 'omega_'; did you mean 'omega'"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(small_network, options, message):
    with pytest.raises(LongTailedError, match=message) as caught:
        build_method("concutmix", small_network(), COUNTS, **options)
    assert "\n" not in str(caught.value)


def test_an_unknown_foreground_names_the_nearest(small_network):
    with pytest.raises(LongTailedError, match="unknown sampler 'reverse'; did you mean 'reversed'"):
        built(small_network, foreground="reverse")


@pytest.mark.parametrize("per_sample", [False, True])
def test_a_step_reads_no_value_on_the_host(small_network, per_sample):
    """So that it can be captured: tensors without values refuse to give one."""
    with FakeTensorMode():
        method = build_method(
            "concutmix", small_network(), COUNTS, per_sample=per_sample, semantic_start=0
        )
        views = tuple(torch.empty(12, 3, 16, 16) for _ in range(3))
        labels = torch.empty(12, dtype=torch.int64)
        batches = {"train": Batch(views, labels, labels), "mix": Batch(views[:1], labels, labels)}
        terms = method.train()(batches, Progress(1, 1, torch.Generator()))
        sum(terms.values()).backward()
