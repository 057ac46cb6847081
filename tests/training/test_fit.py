"""The training loop: schedules reach the optimiser, resume is exact, failures lose nothing."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch

from longtailed.errors import Interrupted, LongTailedError
from longtailed.methods import CrossEntropy
from longtailed.training.fit import fit
from longtailed.training.job import Job
from longtailed.training.optim import Optimizer
from longtailed.training.options import FitOptions
from longtailed.training.schedules import Schedule

COUNTS = [24, 12, 6, 3]


def options(**changes) -> FitOptions:
    settings = {
        "epochs": 3,
        "batch_size": 12,
        "optimizer": Optimizer(lr=0.05),
        "schedule": Schedule(kind="step", warmup=1, milestones=(2,), gamma=0.1),
    }
    return FitOptions(**{**settings, **changes})


@pytest.fixture
def job(fabric, splits, tmp_path):
    def make(directory=tmp_path, **changes):
        return Job(
            fabric,
            changes.pop("splits", splits),
            options(**changes),
            directory=directory,
            select_on={"holdout": "holdout-chosen"},
            show_progress=False,
        )

    return make


@pytest.fixture
def method(small_network):
    return lambda cls=CrossEntropy: cls(small_network(), COUNTS)


def rows(directory):
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def same_weights(one, other):
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(tensor, states[1][key]) for key, tensor in states[0].items())


class StopAfter(CrossEntropy):
    """Sends this process a signal in one step, as a user's Ctrl-C would arrive."""

    number, at = signal.SIGTERM, (1, 1)

    def after_step(self, progress):
        if (progress.epoch, progress.step) == self.at:
            os.kill(os.getpid(), self.number)


def test_metrics_hold_the_schedule_and_the_terms(method, job, tmp_path):
    result = fit(method(), job())
    written = rows(tmp_path)
    assert [row["epoch"] for row in written] == [0, 1, 2]
    assert [row["lr"] for row in written] == pytest.approx([0.05, 0.05, 0.005])
    assert all(row["terms"].keys() == {"cross_entropy"} for row in written)
    assert written[-1]["loss"] < written[0]["loss"]
    best = max(row["holdout"]["balanced_accuracy"] for row in written)
    assert result.selections[0].score == best
    assert result.selections[0].weights.keys() == {
        name for name in method().state_dict() if name.startswith("network.")
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_ends_with_the_same_weights(method, job, tmp_path, number):
    whole = method()
    fit(whole, job(directory=None))

    stopping = type("Stopping", (StopAfter,), {"number": number})
    with pytest.raises(Interrupted, match="run the same command again") as caught:
        fit(method(stopping), job())
    assert caught.value.code == 128 + number
    resumed = method()
    fit(resumed, job())
    assert same_weights(whole, resumed)
    assert [row["epoch"] for row in rows(tmp_path)] == [0, 1, 2]


def test_partial_batches_are_trained_on_where_they_are_wanted(method, job, tmp_path):
    whole, seen = method(), []
    whole.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0]["train"].labels)))
    fit(whole, job(None, drop_last=False))
    assert seen == [12, 12, 12, 9] * 3
    for at in ((1, 2), (2, 0)):  # before and after the second epoch's partial batch
        stopping = type("Stopping", (StopAfter,), {"at": at})
        with pytest.raises(Interrupted):
            fit(method(stopping), job(drop_last=False))
        resumed = method()
        fit(resumed, job(drop_last=False))
        assert same_weights(whole, resumed)
        (tmp_path / "checkpoint.pt").unlink()


def test_loss_means_survive_an_interruption(method, job, tmp_path, fabric):
    fit(method(), job())
    undisturbed = [row["loss"] for row in rows(tmp_path)]
    (tmp_path / "checkpoint.pt").unlink()
    with pytest.raises(Interrupted):
        fit(method(StopAfter), job())
    fit(method(), job())
    assert [row["loss"] for row in rows(tmp_path)] == pytest.approx(undisturbed, rel=1e-6)


def test_global_random_state_is_left_alone(method, job):
    before = torch.get_rng_state()
    fit(method(), job(directory=None, epochs=1))
    assert torch.equal(before, torch.get_rng_state())


def test_accumulation_equals_one_large_batch_without_batch_norm(splits, fabric):
    def linear_network():
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 4))
        for parameter in network.parameters():
            torch.nn.init.zeros_(parameter)
        return network

    weights = []
    for batch_size, accumulate in ((44, 1), (11, 4)):
        one = CrossEntropy(linear_network(), COUNTS)
        settings = options(epochs=1, batch_size=batch_size, accumulate=accumulate)
        fit(one, Job(fabric, splits, settings, show_progress=False))
        weights.append(one.network[1].bias.detach())
    # The augmentation differs between the two, the labels of the 44 images do not.
    assert torch.allclose(weights[0], weights[1], atol=2e-3)
    assert weights[0].abs().sum() > 0


def test_gradient_clipping_bounds_the_update(method, job):
    before = method()
    clipped = method()
    settings = {"epochs": 1, "batch_size": 45, "clip": 1e-3}
    fit(clipped, job(directory=None, **settings, optimizer=Optimizer(lr=1.0, weight_decay=0)))
    pairs = zip(before.parameters(), clipped.parameters(), strict=True)
    moved = sum((a - b).pow(2).sum() for a, b in pairs) ** 0.5
    assert 0.9e-3 < moved <= 1.01e-3


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(method, job, tmp_path):
    class Diverging(CrossEntropy):
        def loss(self, batches, progress):
            terms = super().loss(batches, progress)
            broken = (progress.epoch, progress.step) == (1, 2)
            return {**terms, "extra": torch.tensor(float("nan") if broken else 0.0)}

    with pytest.raises(LongTailedError, match="'extra' is not finite in epoch 2, step 3"):
        fit(method(Diverging), job())
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert (state["epoch"], state["step"]) == (1, 0)


def test_a_truncated_checkpoint_is_one_sentence(method, job, tmp_path):
    fit(method(), job(epochs=1))
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(LongTailedError, match="not a readable checkpoint"):
        fit(method(), job(epochs=1))


def test_a_checkpoint_of_another_network_is_one_sentence(small_network, method, job):
    fit(method(), job(epochs=1))
    with pytest.raises(LongTailedError, match="does not fit this method"):
        fit(CrossEntropy(small_network(5), [*COUNTS, 2]), job(epochs=1))


def test_a_checkpoint_of_another_recipe_is_refused(method, job):
    fit(method(), job(epochs=1))
    other = job(epochs=1)
    other.identity = "another"
    with pytest.raises(LongTailedError, match="belongs to another recipe"):
        fit(method(), other)


def test_batches_do_not_depend_on_the_method(splits):
    stream = CrossEntropy.streams["train"]
    feeds = [splits.open("0/train", stream, 12, seed=5) for _ in range(2)]
    first = [batch.index for batch in feeds[0].epoch(1, 3)]
    resumed = [batch.index for batch in feeds[1].epoch(1, 3, first_step=1)]
    assert all(torch.equal(a, b) for a, b in zip(first[1:], resumed, strict=True))


def test_hooks_can_scan_a_split_in_eval_mode(method, job, splits):
    class Scanning(CrossEntropy):
        def begin(self, run):
            self.modes, self.seen = [], []
            for batch in run.scan(self.streams["train"]):
                self.modes.append(self.training)
                self.seen.append(batch.index)
            assert not torch.is_grad_enabled()
            assert run.counts.tolist() == COUNTS
            assert run.num_classes == 4

    one = method(Scanning)
    fit(one, job(epochs=1))
    assert one.modes == [False]
    assert torch.cat(one.seen).tolist() == list(range(len(splits.sets["train"])))
    assert one.training


def test_no_epochs_only_prepare(method, job):
    class Preparing(CrossEntropy):
        def begin(self, run):
            self.prepared = True

        def parameter_groups(self):
            raise AssertionError("nothing is trained")

    one = method(Preparing)
    result = fit(one, job(epochs=0))
    assert one.prepared
    assert result.selections[0].epoch is None


def test_a_weight_that_is_not_finite_is_not_saved(method, job, tmp_path):
    class Breaking(CrossEntropy):
        def after_step(self, progress):
            if (progress.epoch, progress.step) == (1, progress.steps - 1):
                self.network.head.bias.data[0] = float("inf")

    with pytest.raises(LongTailedError, match="a weight is not finite after epoch 2"):
        fit(method(Breaking), job())
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["epoch"] == 1


def test_a_batch_larger_than_the_set_is_said(method, job):
    with pytest.warns(UserWarning, match="a batch of 128 is larger than the split 'train'"):
        fit(method(), job(directory=None, epochs=1, batch_size=128))


def test_checkpoints_come_after_the_first_epoch_and_then_by_the_clock(method, job, monkeypatch):
    saved, clock = [], [0.0]

    class Slow(CrossEntropy):
        def end_epoch(self, run, progress):
            clock[0] += 4

    monkeypatch.setattr("longtailed.training.session.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(
        "longtailed.training.session.Session._save", lambda self, epoch, step: saved.append(epoch)
    )
    fit(method(Slow), job(epochs=6))
    assert saved == [1, 4, 6]
    saved.clear()
    fit(method(), job(epochs=6, checkpoint_every=4))
    assert saved == [4, 6]
