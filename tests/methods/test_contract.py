"""What every entry of METHODS must do; a new method passes this without a line of its own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from longtailed.errors import LongTailedError
from longtailed.methods import METHODS, Progress, build_method, method_class
from longtailed.training.fit import fit
from longtailed.training.job import Job
from longtailed.training.optim import Optimizer
from longtailed.training.options import FitOptions
from longtailed.training.schedules import Schedule

COUNTS = [24, 12, 6, 3]
SMALL = {"moco": {"queue_size": 48}}  # sizes that suit the batches of this file
QUICK = FitOptions(
    epochs=2,
    batch_size=12,
    optimizer=Optimizer(lr=0.05),
    schedule=Schedule(kind="constant"),
)


@pytest.fixture(params=sorted(METHODS))
def name(request) -> str:
    return request.param


@pytest.fixture
def build(small_network, name):
    def make(counts=COUNTS, **options: Any):
        head = method_class(name).head or "linear"
        network = small_network(len(counts), head)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # parts of a method beside its network have weights too
            return build_method(name, network, counts, **SMALL.get(name, {}), **options)

    return make


def trained(method, splits, fabric, options=QUICK, **settings: Any):
    """Return the method after `fit`; one that trains nothing is given no epochs."""
    options = options if method.trains else options.model_copy(update={"epochs": 0})
    fit(method, Job(fabric, splits, options, show_progress=False, **settings))
    return method


def begun(method, splits, fabric):
    """Return the method as `fit` finds it before the first step, in training mode."""
    if not method.trains:
        pytest.skip("this method says that it trains nothing")
    return trained(method, splits, fabric, QUICK.model_copy(update={"epochs": 0})).train()


def one_step(method, splits, epoch: int = 0, seed: int = 0):
    """Return the loss terms of the first step of an epoch, as `fit` would ask for them."""
    feeds = {n: splits.open(n, s, 12, seed) for n, s in method.streams.items()}
    progress = Progress(10, feeds["train"].steps, torch.Generator().manual_seed(seed))
    progress.enter(epoch, 0.1)
    batches = {n: next(feed.epoch(epoch, 10)) for n, feed in feeds.items()}
    return method(batches, progress)


def test_loss_is_finite_and_every_parameter_learns(build, splits, fabric):
    idle: list[set[str]] = []
    for epoch in (0, 9):
        method = begun(build(), splits, fabric)
        terms = one_step(method, splits, epoch)
        assert terms
        total = sum(terms.values())
        assert total.ndim == 0
        assert torch.isfinite(total)
        total.backward()
        trained = {n: p for n, p in method.named_parameters() if p.requires_grad}
        idle.append({n for n, p in trained.items() if p.grad is None})
        for parameter_name in trained.keys() - idle[-1]:
            gradient = trained[parameter_name].grad
            assert torch.isfinite(gradient).all(), parameter_name
            assert gradient.abs().sum() > 0, parameter_name
    # What rests early learns late, or the other way round; the network never rests.
    assert not idle[0] & idle[1]
    assert not any(n.startswith("network.") for n in idle[0] | idle[1])
    assert method.idle_parameters == bool(idle[0] | idle[1])


def test_remembers_a_small_set(build, splits_of, fabric):
    splits = splits_of([8, 8, 8, 8])
    method = build([8, 8, 8, 8])
    if method.label_free or method.takes_over_head:
        pytest.skip("this method says that it trains no classifier, or takes over a trained one")
    trained(method, splits, fabric, QUICK.model_copy(update={"epochs": 50, "batch_size": 16}))
    batch = next(splits.scan("train"))
    with torch.no_grad():
        accuracy = (method.eval().predict(batch.images[0]).argmax(1) == batch.labels).float().mean()
    assert accuracy > 0.9


def test_saved_and_loaded_state_gives_an_equal_next_step(build, splits, fabric):
    method = trained(build(), splits, fabric)
    twin = build()
    twin.load_state_dict(copy.deepcopy(method.state_dict()))
    begun(twin, splits, fabric)  # as `fit` resumes: `begin` sees the saved weights
    twin.load_state_dict(copy.deepcopy(method.state_dict()))
    ours, theirs = (one_step(m.train(), splits, epoch=1) for m in (method, twin))
    assert ours.keys() == theirs.keys()
    for term in ours:
        assert torch.equal(ours[term], theirs[term])


def test_same_seed_same_trajectory(build, splits, fabric):
    states = []
    for _ in range(2):
        method = trained(build(), splits, fabric, seed=3)
        states.append(method.state_dict())
    for key, tensor in states[0].items():
        assert torch.equal(tensor, states[1][key]), key


@pytest.mark.parametrize("counts", [[24, 12, 6, 0], [24, 12, 6, 1]])
def test_survives_an_absent_class_and_a_single_sample(build, splits_of, fabric, counts):
    splits = splits_of(counts)
    method = trained(build(counts), splits, fabric)
    for key, tensor in method.state_dict().items():
        assert torch.isfinite(tensor.float()).all(), key


def test_predict_has_no_side_effects(build, splits, fabric):
    method = trained(build(), splits, fabric).eval()
    before = copy.deepcopy(method.state_dict())
    images = next(splits.scan("test")).images[0]
    random_state = torch.get_rng_state()
    with torch.no_grad():
        first, second = method.predict(images), method.predict(images)
    assert first.shape == (len(images), len(COUNTS))
    assert torch.equal(first, second)
    assert torch.equal(random_state, torch.get_rng_state())
    for key, tensor in method.state_dict().items():
        assert torch.equal(tensor, before[key]), key


def test_bfloat16_stays_close_to_float32(build, splits, fabric):
    method = begun(build(), splits, fabric)
    exact = {k: v.detach() for k, v in one_step(method, splits).items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = one_step(method, splits)
    for term, value in rough.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[term].item(), rel=0.1)


def test_a_method_that_claims_static_shapes_keeps_them(build, splits, fabric):
    method = begun(build(), splits, fabric)
    if not method.static_shapes:
        pytest.skip("this method says that its shapes vary")
    shapes: list[list[torch.Size]] = []
    seen: list[torch.Size] = []
    hooks = [
        module.register_forward_hook(lambda _m, _i, out: seen.append(out.shape))
        for module in method.network.modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
    ]
    for seed in range(3):
        seen.clear()
        one_step(method, splits, seed=seed)
        shapes.append(list(seen))
    for hook in hooks:
        hook.remove()
    assert shapes[0] == shapes[1] == shapes[2]


def test_a_head_that_does_not_suit_is_refused(name, small_network):
    needed = method_class(name).head
    if needed is None:
        pytest.skip("this method takes any head")
    wrong = "linear" if needed == "cosine" else "cosine"
    with pytest.raises(LongTailedError, match=f"needs a {needed} head"):
        build_method(name, small_network(4, wrong), COUNTS)
