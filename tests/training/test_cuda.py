"""What only a GPU can show: real captures, their draws, and that no step waits for the device."""

from __future__ import annotations

import pytest
import torch

from longtailed.methods import METHODS, CrossEntropy, build_method, method_class
from longtailed.training.capture import side_stream
from longtailed.training.engine import make_fabric
from longtailed.training.evaluation import Evaluator
from longtailed.training.fit import fit, train_step
from longtailed.training.job import Job
from longtailed.training.optim import Optimizer
from longtailed.training.options import FitOptions
from longtailed.training.schedules import Schedule
from longtailed.training.steps import Steps

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

COUNTS = [24, 12, 6, 3]
SMALL = {"moco": {"queue_size": 48}}  # a multiple of the batch
OPTIONS = FitOptions(
    epochs=4,
    batch_size=6,
    optimizer=Optimizer(lr=0.02),
    schedule=Schedule(kind="step", warmup=1, milestones=(3,), gamma=0.1),
)


@pytest.fixture(scope="module")
def cuda():
    return make_fabric("cuda")


@pytest.fixture
def job(cuda, splits_of):
    splits = splits_of(COUNTS, device=cuda.device)

    def make(capture: str, **changes) -> Job:
        options = OPTIONS.model_copy(update=changes)
        return Job(cuda, splits, options, capture=capture, show_progress=False)

    return make


@pytest.fixture(autouse=True)
def deterministic(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def build(small_network):
    def make(name="ce", **options):
        network = small_network(4, method_class(name).head or "linear")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # of heads that a method brings itself
            return build_method(name, network, COUNTS, **SMALL.get(name, {}), **options)

    return make


def skip_what_takes_no_captured_steps(method) -> None:
    if not method.static_shapes:
        pytest.skip("this method says that its shapes vary")
    if not method.trains:
        pytest.skip("this method says that it trains nothing")


def state_of(method, job) -> dict[str, torch.Tensor]:
    fit(method, job)
    return {key: value.cpu() for key, value in method.state_dict().items()}


@pytest.mark.filterwarnings("ignore:.*deterministic.*")
@pytest.mark.parametrize("name", sorted(METHODS))
def test_captured_steps_equal_eager_steps_and_themselves(name, build, job):
    skip_what_takes_no_captured_steps(build(name))
    eager, captured, again = (
        state_of(build(name), job(capture)) for capture in ("never", "always", "always")
    )
    for key, tensor in captured.items():
        torch.testing.assert_close(tensor, again[key], rtol=0, atol=0, msg=key)
        torch.testing.assert_close(tensor, eager[key], rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.filterwarnings("ignore:.*deterministic.*")
@pytest.mark.parametrize("name", sorted(METHODS))
def test_no_captured_step_waits_for_the_device(name, build, job):
    method = build(name).to("cuda").train()
    skip_what_takes_no_captured_steps(method)
    fit(method, job("never", epochs=0))  # what happens before the first step
    steps = Steps(method, job("always", epochs=9), torch.Generator("cuda"))
    with side_stream(torch.device("cuda")):
        for epoch in range(3):
            steps.enter(epoch)
            taken = list(steps.run(train_step))
        torch.cuda.set_sync_debug_mode("error")
        try:
            steps.enter(3)
            assert list(steps.run(train_step)) == taken
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert steps.replayed.captures == 1


@pytest.mark.filterwarnings("ignore:.*deterministic.*")
def test_adamw_is_captured(build, job):
    adamw = Optimizer(name="adamw", lr=1e-3)
    states = [state_of(build(), job(capture, optimizer=adamw)) for capture in ("never", "always")]
    for key, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][key], rtol=1e-3, atol=1e-4, msg=key)


def test_a_failed_capture_leaves_eager_training(small_network, job):
    class ReadsTheLoss(CrossEntropy):
        def loss(self, batches, progress):
            terms = super().loss(batches, progress)
            return {name: term if term.item() > 0 else 2 * term for name, term in terms.items()}

    eager = state_of(ReadsTheLoss(small_network(), COUNTS), job("never"))
    with pytest.warns(UserWarning, match="one kernel at a time"):
        fallen_back = state_of(ReadsTheLoss(small_network(), COUNTS), job("auto"))
    for key, tensor in eager.items():
        torch.testing.assert_close(tensor, fallen_back[key], rtol=1e-3, atol=1e-4, msg=key)


def test_captured_evaluation_equals_eager_evaluation(build, job, cuda):
    method, splits = build().to("cuda"), job("auto").splits
    with side_stream(torch.device("cuda")):
        eager, captured = (
            Evaluator(method, splits, "test", cuda, batch_size=5, captured=captured)
            for captured in (False, True)
        )
        for _ in range(2):
            ours, theirs = captured(), eager()
            assert ours.figures["top1"] == theirs.figures["top1"]
            assert ours.confidences == pytest.approx(theirs.confidences, abs=1e-5)
            with torch.no_grad():
                method.network.head.weight.mul_(-1)
    assert captured.replayed.captures == 1
