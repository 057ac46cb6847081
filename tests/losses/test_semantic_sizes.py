"""What semantic augmentation holds in memory, and that it reads no values on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from longtailed.losses import (
    ClassStatistics,
    isda_logits,
    reason_covariance,
    risda_logits,
)

SIZES = [(41, 6, 9), (5, 23, 13)]  # N, C, A: more and fewer samples than classes
KINDS = ["full", "diagonal"]


class Sizes(TorchDispatchMode):
    """Notes the shape of everything that is computed, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        owned = [x for x in tree_leaves(result) if isinstance(x, Tensor) and 0 not in x.stride()]
        self.shapes |= {tuple(tensor.shape) for tensor in owned}  # expanded ones hold nothing
        return result


def numbers(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def loss_and_backward(
    samples: int, classes: int, features: int, kind: str, device: str = "cpu"
) -> Tensor:
    given = torch.randn(samples, features, device=device, requires_grad=True)
    weight = torch.randn(classes, features, device=device, requires_grad=True)
    labels = torch.zeros(samples, dtype=torch.int64, device=device)
    size = (classes, features, features) if kind == "full" else (classes, features)
    covariance = torch.ones(size, device=device, requires_grad=True)
    displacement = torch.ones(classes, features, device=device)
    strength = torch.ones((), device=device)
    logits = linear(given, weight)
    rest = (logits, labels, weight, covariance)
    loss = cross_entropy(isda_logits(*rest, strength), labels)
    loss = loss + cross_entropy(risda_logits(*rest, displacement, strength, strength), labels)
    loss.backward()
    assert weight.grad is not None
    return loss


def statistics_update(
    samples: int, classes: int, features: int, kind: str, device: str = "cpu"
) -> Tensor:
    statistics = ClassStatistics(classes, features, kind).to(device)
    labels = torch.zeros(samples, dtype=torch.int64, device=device)
    statistics.update(torch.randn(samples, features, device=device), labels)
    return statistics.covariance


@pytest.mark.parametrize(("samples", "classes", "features"), SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_losses_hold_nothing_of_samples_times_classes_times_features(
    samples: int, classes: int, features: int, kind: str
) -> None:
    with Sizes() as sizes:
        loss_and_backward(samples, classes, features, kind)
    rows = min(samples, classes)
    allowed = [(samples, classes), (samples, features), (classes, features), (rows, classes)]
    if kind == "full":
        allowed += [(classes, features, features), (classes, classes)]
        allowed += [(classes, classes, features)] if classes <= samples else []
    largest = max(sizes.shapes, key=numbers)
    assert numbers(largest) <= max(map(numbers, allowed)), largest
    n, c, a = samples, classes, features
    assert not {n * c * a, n * c * c, n * a * a} & set(map(numbers, sizes.shapes))


@pytest.mark.parametrize(("samples", "classes", "features"), SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_updates_hold_a_covariance_a_sample_at_most(
    samples: int, classes: int, features: int, kind: str
) -> None:
    with Sizes() as sizes:
        statistics_update(samples, classes, features, kind)
    power = 2 if kind == "full" else 1
    largest = max(sizes.shapes, key=numbers)
    assert numbers(largest) <= max(samples, classes) * features**power, largest


@pytest.mark.parametrize(("samples", "classes", "features"), SIZES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("computed", [loss_and_backward, statistics_update])
def test_no_values_are_needed(
    samples: int, classes: int, features: int, kind: str, computed: Callable[..., Tensor]
) -> None:
    assert computed(samples, classes, features, kind, device="meta").is_meta


@pytest.mark.parametrize("shape", [(6, 9, 9), (6, 9)])
def test_reasoning_needs_no_values(shape: tuple[int, ...]) -> None:
    covariance, graph = torch.empty(shape, device="meta"), torch.empty(6, 6, device="meta")
    tail = torch.empty(2, dtype=torch.int64, device="meta")
    assert reason_covariance(covariance, graph, tail).shape == shape
