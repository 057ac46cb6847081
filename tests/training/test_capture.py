"""Captured steps do what eager steps do, bit for bit, and step aside where they cannot."""

from __future__ import annotations

import gc
import warnings
import weakref

import pytest
import torch

from longtailed.data.augment.views import OPS, parse_view
from longtailed.errors import Interrupted, LongTailedError
from longtailed.methods import METHODS, CrossEntropy, Progress, build_method, method_class
from longtailed.training.capture import Replayed, decide_capture
from longtailed.training.evaluation import Evaluator
from longtailed.training.fit import fit
from longtailed.training.job import Job
from longtailed.training.optim import Optimizer
from longtailed.training.options import FitOptions
from longtailed.training.schedules import Schedule

COUNTS = [24, 12, 6, 3]
OPTIONS = FitOptions(
    epochs=5,
    batch_size=6,  # 7 steps an epoch: the last epoch, in which phases begin, is captured too
    optimizer=Optimizer(lr=0.05),
    schedule=Schedule(kind="step", warmup=1, milestones=(4,), gamma=0.1),
    clip=1.0,
)


@pytest.fixture
def job(fabric, splits):
    def make(capture="always", options=OPTIONS, **changes) -> Job:
        return Job(fabric, splits, options, capture=capture, show_progress=False, **changes)

    return make


@pytest.fixture
def build(small_network):
    def make(name="ce", **options):
        network = small_network(4, method_class(name).head or "linear")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # of heads that a method brings itself
            return build_method(name, network, COUNTS, **options)

    return make


def assert_equal_states(one, other):
    for key, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[key]), key


SMALL = {"moco": {"queue_size": 48}}  # a multiple of the batch
WITH_OPTIONS = [
    ("rsg-ldam-drw", {"padded": True}),
    ("metasaug", {"meta": "normalized"}),
    ("crt", {"features": "fresh"}),
    ("crt", {"features": "fresh", "batch_norm": "train"}),
]


@pytest.mark.parametrize(
    ("name", "options"), [*((name, SMALL.get(name, {})) for name in sorted(METHODS)), *WITH_OPTIONS]
)
def test_captured_and_eager_training_are_equal(name, options, build, job, recorded_graphs):
    eager, captured = build(name, **options), build(name, **options)
    if not eager.static_shapes:
        pytest.skip("this method says that its shapes vary")
    if not eager.trains:
        pytest.skip("this method says that it trains nothing")
    fit(eager, job("never"))
    assert not recorded_graphs
    fit(captured, job("always"))
    assert recorded_graphs
    assert_equal_states(eager, captured)


@pytest.mark.parametrize("name", ["ce", "concutmix"])
def test_a_partial_batch_does_not_disturb_captured_steps(name, build, job, recorded_graphs):
    options = OPTIONS.model_copy(update={"drop_last": False, "batch_size": 7})  # 45 images
    eager, captured = build(name), build(name)
    fit(eager, job("never", options))
    fit(captured, job("always", options))
    assert recorded_graphs
    assert_equal_states(eager, captured)


def test_a_new_phase_is_captured_anew(build, job, recorded_graphs):
    fit(build("ce", weighting="inverse", weighting_start=3), job())
    assert len(recorded_graphs) == 2


def test_a_rate_read_on_the_host_is_captured_anew_in_every_epoch(
    small_network, job, recorded_graphs, splits
):
    class Halved(CrossEntropy):
        def loss(self, batches, progress):
            terms = super().loss(batches, progress)
            return {name: term * progress.lr for name, term in terms.items()}

    eager, captured = Halved(small_network(), COUNTS), Halved(small_network(), COUNTS)
    fit(eager, job("never"))
    fit(captured, job("always"))
    rates = {OPTIONS.schedule.factor(epoch, 5) for epoch in range(5)}
    assert 1 < len(recorded_graphs) == len(rates)
    assert_equal_states(eager, captured)


class ReadsTheLoss(CrossEntropy):
    def loss(self, batches, progress):
        terms = super().loss(batches, progress)
        return {name: term if term.item() > 0 else 2 * term for name, term in terms.items()}


class ReadsTheStep(CrossEntropy):
    def loss(self, batches, progress):
        terms = super().loss(batches, progress)
        return {name: term * (1 + progress.step) for name, term in terms.items()}


class ReadsInBackward(CrossEntropy):
    def loss(self, batches, progress):
        terms = super().loss(batches, progress)
        return {name: _ReadInBackward.apply(term) for name, term in terms.items()}


class _ReadInBackward(torch.autograd.Function):
    @staticmethod
    def forward(_context, term):
        return term.clone()

    @staticmethod
    def backward(_context, gradient):
        return gradient * (1 + 0 * gradient.flatten()[0].item())


class FailsLateInBackward(CrossEntropy):
    """Its images ask for a gradient, which comes last, when weights have theirs already."""

    def loss(self, batches, progress):
        batch = batches["train"]
        images = _ReadInBackward.apply(batch.images[0].requires_grad_())
        return {"loss": torch.nn.functional.cross_entropy(self.network(images), batch.labels)}


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (ReadsTheLoss, "_local_scalar_dense"),
        (ReadsTheStep, "progress.step"),
        (ReadsInBackward, "_local_scalar_dense"),
        (FailsLateInBackward, "_local_scalar_dense"),
    ],
)
def test_a_step_that_cannot_be_captured_runs_eagerly(
    method, reason, small_network, job, recorded_graphs
):
    eager, captured = method(small_network(), COUNTS), method(small_network(), COUNTS)
    fit(eager, job("never"))
    with pytest.warns(UserWarning, match=f"one kernel at a time.*{reason}"):
        fit(captured, job("auto"))
    assert len(recorded_graphs) == 1
    assert_equal_states(eager, captured)
    with pytest.raises(LongTailedError, match=f"cannot be captured: .*{reason}"):
        fit(method(small_network(), COUNTS), job("always"))


def test_an_interrupted_captured_run_ends_with_the_same_weights(
    build, job, recorded_graphs, tmp_path, monkeypatch
):
    whole = build()
    fit(whole, job())

    stopping = build()
    asked = iter([0] * 8)
    monkeypatch.setattr(
        "longtailed.training.session.Session._asked_to_stop", lambda self: next(asked, 15)
    )
    with pytest.raises(Interrupted):
        fit(stopping, job(directory=tmp_path))
    monkeypatch.undo()
    resumed = build()
    fit(resumed, job("never", directory=tmp_path))
    assert_equal_states(whole, resumed)


@pytest.mark.parametrize("batch_size", [5, 20])
def test_captured_evaluation_equals_eager_evaluation(
    build, splits, fabric, recorded_graphs, batch_size
):
    method = build()
    eager, captured = (
        Evaluator(method, splits, "test", fabric, batch_size, captured=captured)
        for captured in (False, True)
    )
    for _ in range(5):
        ours, theirs = captured(), eager()
        assert ours.figures == theirs.figures
        assert (ours.confidences == theirs.confidences).all()
        with torch.no_grad():
            method.network.head.weight.mul_(-1)  # a graph sees weights change in place
    assert len(recorded_graphs) == 1
    assert captured.replayed.inputs[0].shape == (batch_size,)


VIEWS = [
    "pad_crop(2), flip, cutout(6), auto_augment",
    "resized_crop(12), color_jitter(0.4, 0.4, 0.4, 0.1, p=0.8), grayscale(0.2), blur(p=0.5)",
    "resize(14), center_crop(12), rand_augment(2, 10)",
]


def test_the_views_below_hold_every_operation():
    used = {op.name for text in VIEWS for op in parse_view(text).ops}
    assert used == set(OPS)


@pytest.mark.parametrize("text", VIEWS)
def test_augmentation_can_be_captured(text, recorded_graphs):
    view, generator = parse_view(text), torch.Generator()
    replayed = Replayed([generator])
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    seen = torch.zeros_like(view(images, generator))
    for seed in range(6):
        generator.manual_seed(seed)
        replayed(lambda inputs: seen.copy_(view(inputs[0], generator)), (images,))
        assert torch.equal(seen, view(images, torch.Generator().manual_seed(seed)))
    assert replayed.captures == 1


def test_inputs_of_another_shape_are_handled_eagerly(recorded_graphs):
    sums = torch.zeros(2)
    add = Replayed()
    for size in (3, 2, 3, 3, 2, 3, 3):
        add(lambda inputs: sums.add_(inputs[0].sum()), (torch.ones(size),))
    assert sums[0] == 19
    assert add.captures == 1


def test_progress_tells_which_answers_have_changed():
    progress = Progress(10, 5, torch.Generator())
    progress.enter(3, 0.1)
    answers = progress.watch()
    assert progress.reached(4) is False
    assert progress.reached(0.3) is True
    assert progress.agrees(answers)
    progress.enter(4, 0.1)
    assert not progress.agrees(answers)


def test_capture_is_refused_in_one_sentence(build, fabric):
    method = build()
    with pytest.raises(LongTailedError, match=r"only a CUDA device captures steps.*capture=auto"):
        decide_capture("always", method, fabric, OPTIONS)
    with warnings.catch_warnings(action="error"):
        assert not decide_capture("auto", method, fabric, OPTIONS)


@pytest.mark.parametrize(
    ("change", "reason"),
    [("shapes", "vary in shape"), ("processes", "several processes"), ("accumulate", "share an")],
)
def test_on_a_gpu_the_reason_for_eager_steps_is_told(build, fabric_on_cuda, change, reason):
    method, options = build(), OPTIONS
    if change == "shapes":
        method.static_shapes = False
    elif change == "processes":
        fabric_on_cuda.world_size = 2
    else:
        options = OPTIONS.model_copy(update={"accumulate": 2})
    with pytest.warns(UserWarning, match=f"one kernel at a time: .*{reason}"):
        assert not decide_capture("auto", method, fabric_on_cuda, options)
    with pytest.raises(LongTailedError, match=reason):
        decide_capture("always", method, fabric_on_cuda, options)
    with warnings.catch_warnings(action="error"):
        assert not decide_capture("never", method, fabric_on_cuda, options)


def test_on_a_gpu_steps_are_captured_by_default(build, fabric_on_cuda):
    assert decide_capture("auto", build(), fabric_on_cuda, OPTIONS)


def test_a_buffer_put_in_anothers_place_is_noticed(small_network, job, recorded_graphs):
    class Replacing(CrossEntropy):
        def end_epoch(self, run, progress):
            self.weights = self.weights * 0.5

        def current_weights(self, progress):
            return self.weights * torch.arange(1.0, 5.0)

    eager, captured = Replacing(small_network(), COUNTS), Replacing(small_network(), COUNTS)
    fit(eager, job("never"))
    fit(captured, job("always"))
    assert len(recorded_graphs) == OPTIONS.epochs
    assert_equal_states(eager, captured)


def test_nothing_is_kept_alive_by_cycles(build, job, recorded_graphs):
    gc.collect()
    gc.disable()
    try:
        fit(build(), job())
        alive = [weakref.ref(graph) for graph in recorded_graphs]
        recorded_graphs.clear()
        assert not any(graph() for graph in alive)
    finally:
        gc.enable()
