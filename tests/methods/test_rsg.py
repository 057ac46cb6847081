"""RSG as a method: where it sits, what it trains when, and that it leaves the network alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from longtailed.data.streams import Batch
from longtailed.errors import LongTailedError
from longtailed.methods import LDAM, RSG, RSGLDAM, CrossEntropy, Progress, RSGFocal, build_method
from longtailed.methods.rare_sample_generator import IGNORED
from longtailed.methods.rsg import largest_classes
from longtailed.nn import Network, build_network
from longtailed.training.checkpoint import load_weights, save_weights
from longtailed.training.fit import fit
from longtailed.training.job import Job
from longtailed.training.optim import Optimizer
from longtailed.training.options import FitOptions
from longtailed.training.schedules import Schedule

COUNTS = [24, 12, 6, 3]
BEFORE, AFTER = 0, 9


def progress(epoch: int) -> Progress:
    here = Progress(10, 4, torch.Generator())
    here.enter(epoch, 0.1)
    return here


def images_and_labels(labels: Any = (0, 1, 0, 2, 0, 3, 0, 0), side: int = 16) -> dict[str, Batch]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(len(labels), 3, side, side, generator=generator)
    return {"train": Batch((images,), torch.tensor(labels), torch.arange(len(labels)))}


def network(name: str = "resnet8", head: str = "linear", **options: Any) -> Network:
    torch.manual_seed(0)
    return build_network(name, 4, head, **options)


def small(method: type[RSG] = RSG, **options: Any) -> RSG:
    head = "cosine" if issubclass(method, LDAM) else "linear"
    net = network(head=head, width=0.5)
    return method(net, COUNTS, num_centers=3, contrastive_dim=8, **options).train()


@pytest.mark.parametrize("stage", [1, 2, 3, None])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet8", {"width": 0.5}),
        ("densenet40", {"width": 0.25}),
        ("resnext29", {"width": 0.125}),
        ("test_resnet", {"image_size": 32}),
    ],
)
def test_works_before_any_stage_of_a_staged_network(name: str, options: Any, stage: Any) -> None:
    net = network(name, **options)
    method = RSG(net, COUNTS, before_stage=stage, contrastive_dim=8, head_ratio=0.5).train()
    assert method.generator.transform.in_channels == net.backbone.stage_channels[method.until]
    terms = method(images_and_labels(side=options.get("image_size", 16)), progress(AFTER))
    sum(terms.values()).backward()
    assert all(torch.isfinite(term) for term in terms.values())
    assert float(terms["mv"].detach()) > 0
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"before_stage": 0}, "cannot work before stage 0; before_stage is one of 1 to 3"),
        ({"before_stage": 4}, "cannot work before stage 4"),
        ({"head_classes": ()}, "head classes are none of the 4"),
        ({"head_classes": (0, 1, 2, 3)}, "head classes are all of the 4"),
        ({"head_classes": (7,)}, "head classes run from 7 to 7"),
        ({"head_ratio": 1.0}, "head classes are all of the 4"),
        ({"head_ratio": 0.0}, "head_ratio 0.0 makes the head classes none of the 4"),
    ],
)
def test_impossible_settings_are_one_sentence(options: Any, message: str) -> None:
    with pytest.raises(LongTailedError, match=message) as caught:
        small(**options)
    assert "\n" not in str(caught.value)


def test_a_network_without_maps_is_refused() -> None:
    with pytest.raises(LongTailedError, match=r"needs maps .* between the network's stages"):
        RSG(network("test_vit"), COUNTS)


def test_head_classes_are_the_largest() -> None:
    counts = torch.tensor([5, 9, 5, 7, 9, 1, 5, 2, 2, 2])
    assert largest_classes(counts, 0.2) == (1, 4)
    assert largest_classes(counts, 0.5) == (1, 4, 3, 0, 2)
    assert largest_classes(counts, 0.01) == (1,)
    assert largest_classes(torch.arange(10), 0.3) == (9, 8, 7)  # 10 * 0.3 is a little below 3
    assert small(head_ratio=0.5).generator.is_head.tolist() == [True, True, False, False]
    assert small(head_classes=(2,)).generator.is_head.tolist() == [False, False, True, False]


@pytest.mark.parametrize("method", [RSG, RSGFocal, RSGLDAM])
@pytest.mark.parametrize("weighting", ["none", "class-balanced"])
def test_padding_does_not_change_the_losses(method: type[RSG], weighting: str) -> None:
    losses = []
    for padded in (True, False):
        torch.manual_seed(1)
        built = small(method, padded=padded, weighting=weighting)
        assert built.static_shapes is padded
        built.network.eval()  # batch normalisation alone sees the rows that fill up
        terms = built(images_and_labels(), progress(AFTER))
        sum(terms.values()).backward()
        losses.append((terms, {n: p.grad for n, p in built.named_parameters()}))
    torch.testing.assert_close(*losses)


def test_the_loss_is_the_weighted_sum_of_the_parts() -> None:
    method = small(padded=False, cesc_weight=0.5, mv_weight=0.25)
    batches = images_and_labels()
    terms = method(batches, progress(AFTER))
    images, labels = batches["train"].images[0], batches["train"].labels
    backbone = method.network.backbone
    maps, labels, cesc, mv = method.generator(backbone.run(images, until=2), labels, True)
    logits = method.network.head(backbone.pool(backbone.run_stage(3, maps)))
    assert len(labels) > 8
    expected = {"cross_entropy": nn.functional.cross_entropy(logits, labels)}
    expected |= {"cesc": 0.5 * cesc, "mv": 0.25 * mv}
    torch.testing.assert_close(terms, expected)


def train(method: RSG, epoch: int, steps: int = 2) -> dict[str, Tensor]:
    """Return how far each parameter moved in a few steps of SGD with weight decay."""
    optimizer = Optimizer(weight_decay=0.1).build(method, method.parameter_groups())
    before = {n: p.detach().clone() for n, p in method.named_parameters()}
    for _ in range(steps):
        sum(method(images_and_labels(), progress(epoch)).values()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return {n: (p.detach() - before[n]).abs().max() for n, p in method.named_parameters()}


def test_each_phase_trains_its_parts_and_leaves_the_others_alone() -> None:
    moved = train(small(), BEFORE)
    assert [n for n, far in moved.items() if not far] == [
        "generator.transform.weight",
        "generator.transform.bias",
    ]
    moved = train(small(), AFTER)
    assert [n for n, far in moved.items() if not far] == [
        f"generator.contrast.{n}.{kind}"
        for n in ("conv1", "conv2", "fc")
        for kind in ("weight", "bias")
    ]
    assert all(train(small(freeze_contrastive=False), AFTER).values())


def test_fused_sgd_takes_the_part_that_begins_late() -> None:
    method = small()
    optimizer = Optimizer().build(method, method.parameter_groups())
    for epoch in (BEFORE, AFTER, BEFORE, AFTER):
        sum(method(images_and_labels(), progress(epoch)).values()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(parameters) == len({id(p) for p in parameters}) == len(list(method.parameters()))


def test_centres_can_be_exempt_from_weight_decay() -> None:
    groups = small(decay_centers=False).parameter_groups()
    (exempt,) = (group for group in groups if group.get("weight_decay") == 0)
    assert [tuple(p.shape) for p in exempt["params"]] == [(4, 16, 3), (4, 3), (4, 3, 16)]


def test_generation_begins_at_its_start() -> None:
    for epoch, start, expected in [(4, 0.5, False), (5, 0.5, True), (3, 3, True), (9, 10, False)]:
        method = small(generate_start=start)
        mv = method(images_and_labels(), progress(epoch))["mv"]
        assert bool(mv > 0) == expected


@pytest.mark.parametrize("labels", [(0, 0, 0, 0), (1, 2, 3, 1), (0, 1, 2), (0,)])
@pytest.mark.parametrize("padded", [True, False])
def test_batches_without_pairs_and_odd_ones_train(labels: Any, padded: bool) -> None:
    for epoch in (BEFORE, AFTER):
        method = small(padded=padded)
        terms = method(images_and_labels(labels), progress(epoch))
        if len(set(labels)) == 1 or 0 not in labels:
            assert float(terms["mv"].detach()) == 0
        total = sum(terms.values())
        total.backward()
        assert torch.isfinite(total)
        assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


@pytest.mark.parametrize("method", [RSG, RSGFocal, RSGLDAM])
@pytest.mark.parametrize("epoch", [BEFORE, AFTER])
def test_padded_steps_read_nothing_on_the_host(method: type[RSG], epoch: int) -> None:
    rows: list[int] = []
    with FakeTensorMode():  # a fake tensor has a shape but no values to read
        built = small(method, padded=True, weighting="class-balanced", head_classes=(0,))
        built.network.head.register_forward_hook(lambda _m, _i, out: rows.append(len(out)))
        sum(built(images_and_labels(), progress(epoch)).values()).backward()
        assert rows == [8 if epoch == BEFORE else 15]
        with pytest.raises(DataDependentOutputException):
            small(method, padded=False, head_classes=(0,))(images_and_labels(), progress(AFTER))


def test_the_deployed_network_is_the_plain_one(splits, fabric, tmp_path) -> None:
    options = FitOptions(
        epochs=2, batch_size=12, optimizer=Optimizer(lr=0.05), schedule=Schedule(kind="constant")
    )
    method = small(RSGLDAM, generate_start=0.5)
    plain = LDAM(copy.deepcopy(method.network), COUNTS)
    before = [(name, p.shape) for name, p in plain.network.named_parameters()]
    fit(method, Job(fabric, splits, options, show_progress=False))
    assert [(name, p.shape) for name, p in method.network.named_parameters()] == before
    path = tmp_path / "model.safetensors"
    save_weights(path, method, method.saved_prefixes)
    load_weights(path, plain, plain.saved_prefixes)  # strict: nothing missing, nothing left over
    images = next(splits.scan("test")).images[0]
    method.eval(), plain.eval()
    with torch.no_grad():
        assert torch.equal(method.predict(images), plain.predict(images))
        assert torch.equal(method.network(images), plain.network(images))


def test_without_tail_samples_the_step_is_the_plain_one() -> None:
    method = small(padded=False)
    plain = CrossEntropy(copy.deepcopy(method.network), COUNTS).train()
    batches = images_and_labels((0, 0, 0, 0))
    terms, expected = (m(batches, progress(AFTER)) for m in (method, plain))
    assert torch.equal(terms["cross_entropy"], expected["cross_entropy"])
    for m, losses in ((method, terms), (plain, expected)):
        sum(losses.values()).backward()
        assert m.network.head.weight.grad is not None
    pairs = zip(method.network.parameters(), plain.network.parameters(), strict=True)
    assert all(torch.equal(ours.grad, theirs.grad) for ours, theirs in pairs)


def test_the_run_decides_the_initial_weights(splits, fabric) -> None:
    states = []
    for seed in (0, 0, 1):
        method = small()
        fit(method, Job(fabric, splits, FitOptions(epochs=0), seed=seed, show_progress=False))
        states.append(method.generator.gate_weight.detach())
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_state_dict_holds_the_generator() -> None:
    keys = [k for k in small().state_dict() if k.startswith("generator.")]
    assert keys[:4] == [
        "generator.gate_weight",
        "generator.gate_bias",
        "generator.centers",
        "generator.is_head",
    ]
    assert len(keys) == 12


def test_presets_defer_together() -> None:
    method = build_method("rsg-ldam-drs", network(head="cosine", width=0.5), COUNTS)
    assert method.streams["train"].sampler == "effective-number"
    assert method.streams["train"].sampler_start == method.generate_start == 0.8


def test_focal_loss_of_filled_batches_ignores_what_fills_them() -> None:
    method = small(RSGFocal, gamma=2.0)
    torch.manual_seed(0)
    logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([1, 3, 0, 2, IGNORED, IGNORED])
    weights = torch.tensor([0.5, 1.0, 1.5, 2.0])
    loss = method.criterion(logits, labels, weights)
    expected = method.criterion(logits[:4], labels[:4], weights)
    torch.testing.assert_close(loss, expected)
    ours, theirs = (torch.autograd.grad(value, logits)[0] for value in (loss, expected))
    torch.testing.assert_close(ours, theirs)
