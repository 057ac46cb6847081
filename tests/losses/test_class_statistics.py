from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from longtailed.errors import LongTailedError
from longtailed.losses import ClassStatistics

GOLDEN = Path(__file__).parents[1] / "golden"
KINDS = [("full", "full"), ("diagonal", "diag")]
SIZES = [(6, 40), (30, 8)]  # fewer and more classes than samples


def batches(classes: int, samples: int, count: int = 4) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(samples, 3, generator=generator, dtype=torch.float64) + 2,
            torch.randint(classes - 1, (samples,), generator=generator),
        )
        for _ in range(count)
    ]


def pooled(classes: int, given: list[tuple[Tensor, Tensor]], kind: str) -> tuple[Tensor, ...]:
    """Return mean, population covariance and number of all features, class by class."""
    features, labels = (torch.cat(parts) for parts in zip(*given, strict=True))
    size = features.shape[1]
    mean = torch.zeros(classes, size, dtype=torch.float64)
    covariance = torch.zeros(classes, size, size, dtype=torch.float64)
    count = torch.zeros(classes, dtype=torch.float64)
    for c in labels.unique().tolist():
        own = features[labels == c]
        mean[c], count[c] = own.mean(dim=0), len(own)
        for row in own:
            covariance[c] += torch.outer(row - mean[c], row - mean[c]) / len(own)
    if kind == "diagonal":
        covariance = covariance.diagonal(dim1=1, dim2=2)
    return mean, covariance, count


def assert_holds(
    statistics: ClassStatistics, wanted: tuple[Tensor, ...], **tolerance: float
) -> None:
    for buffer, value in zip(
        (statistics.mean, statistics.covariance, statistics.count), wanted, strict=True
    ):
        torch.testing.assert_close(buffer, value.to(buffer.dtype), **tolerance)


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_equals_the_golden_values(kind: str, name: str) -> None:
    golden = np.load(GOLDEN / f"estimator_{name}.npz")
    features = torch.tensor(golden["features_0"])
    statistics = ClassStatistics(7, features.shape[2], kind).double()
    for t, labels in enumerate(torch.tensor(golden["labels_0"])):
        statistics.update(features[t], labels)
        wanted = tuple(
            torch.tensor(golden[f"{quantity}_0"][t]) for quantity in ("mean", "cov", "count")
        )
        assert_holds(statistics, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["full", "diagonal"])
@pytest.mark.parametrize(("classes", "samples"), SIZES)
def test_batches_pool_to_the_statistics_of_all_features(
    kind: str, classes: int, samples: int
) -> None:
    given = batches(classes, samples)
    statistics = ClassStatistics(classes, 3, kind).double()
    for features, labels in given:
        statistics.update(features, labels)
    assert_holds(statistics, pooled(classes, given, kind), rtol=1e-11, atol=1e-12)
    if kind == "full":
        assert statistics.covariance.equal(statistics.covariance.mT)


@pytest.mark.parametrize("kind", ["full", "diagonal"])
@pytest.mark.parametrize(("classes", "samples"), SIZES)
def test_absent_classes_are_untouched_and_one_sample_is_finite(
    kind: str, classes: int, samples: int
) -> None:
    statistics = ClassStatistics(classes, 3, kind)
    for features, labels in batches(classes, samples):
        statistics.update(features, labels)
    buffers = dict(statistics.named_buffers())
    before = {name: (buffer, buffer.clone()) for name, buffer in buffers.items()}
    last = classes - 1
    statistics.update(torch.tensor([[5.0, 6.0, 7.0]]), torch.tensor([last]))
    for name, (buffer, old) in before.items():
        assert getattr(statistics, name) is buffer  # in place: a captured graph sees it
        assert buffer[:last].equal(old[:last])
    assert statistics.mean[last].tolist() == [5, 6, 7]
    assert statistics.count[last] == 1
    assert statistics.covariance[last].eq(0).all()


@pytest.mark.parametrize("kind", ["full", "diagonal"])
def test_a_large_mean_does_not_cost_the_digits_of_the_covariance(kind: str) -> None:
    given = [(features + 1000, labels) for features, labels in batches(4, 50)]
    given = [(features.float().double(), labels) for features, labels in given]
    statistics = ClassStatistics(4, 3, kind)
    for features, labels in given:
        statistics.update(features.float(), labels)
    assert_holds(statistics, pooled(4, given, kind), rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["full", "diagonal"])
def test_features_are_detached_and_half_precision_is_widened(kind: str) -> None:
    features, labels = batches(6, 40)[0]
    half = features.bfloat16().requires_grad_()
    statistics, same = ClassStatistics(6, 3, kind), ClassStatistics(6, 3, kind)
    with torch.autocast("cpu", torch.bfloat16):
        statistics.update(half, labels)
    same.update(half.detach().float(), labels)
    for name, buffer in statistics.named_buffers():
        assert buffer.dtype == torch.float32
        assert not buffer.requires_grad
        assert buffer.equal(same.get_buffer(name))


def test_the_state_is_saved_and_loaded() -> None:
    statistics, other = ClassStatistics(6, 3), ClassStatistics(6, 3)
    statistics.update(*batches(6, 40)[0])
    other.load_state_dict(statistics.state_dict())
    assert sorted(other.state_dict()) == ["count", "covariance", "mean"]
    for seen in (statistics, other):
        seen.update(*batches(6, 40)[1])
    assert other.covariance.equal(statistics.covariance)


def test_misfits_are_refused_in_words() -> None:
    statistics = ClassStatistics(6, 3)
    labels = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(LongTailedError, match="unknown kind of covariance 'diag'; did you mean"):
        ClassStatistics(6, 3, "diag")
    with pytest.raises(LongTailedError, match="at least one class and one feature, not 0 and 3"):
        ClassStatistics(0, 3)
    with pytest.raises(LongTailedError, match=r"features must be floating point \[N, 3\]"):
        statistics.update(torch.zeros(2, 4), labels)
    with pytest.raises(
        LongTailedError, match=r"labels must be int64 .2., one for each row of features"
    ):
        statistics.update(torch.zeros(2, 3), labels[:1])


SCRIPT = """
import sys
import torch
from longtailed.losses import ClassStatistics

torch.set_num_threads(1)
home, rank = sys.argv[1], int(sys.argv[2])
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{home}/meeting", rank=rank, world_size=2
)
given = torch.load(f"{home}/given.pt")
for kind in ("full", "diagonal"):
    statistics = ClassStatistics(6, 3, kind).double()
    for features, labels in given:
        statistics.update(features.chunk(2)[rank], labels.chunk(2)[rank])
    torch.save(statistics.state_dict(), f"{home}/{kind}-{rank}.pt")
torch.distributed.destroy_process_group()
"""


def test_two_processes_hold_the_statistics_of_all_features(tmp_path: Path) -> None:
    given = batches(6, 40, count=2)
    torch.save(given, tmp_path / "given.pt")
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path), str(rank)],
            env={**os.environ, **threads},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    messages = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], messages
    for kind in ("full", "diagonal"):
        states = [torch.load(tmp_path / f"{kind}-{rank}.pt") for rank in (0, 1)]
        assert all(states[0][name].equal(states[1][name]) for name in states[0])
        statistics = ClassStatistics(6, 3, kind).double()
        statistics.load_state_dict(states[0])
        assert_holds(statistics, pooled(6, given, kind), rtol=1e-11, atol=1e-12)
