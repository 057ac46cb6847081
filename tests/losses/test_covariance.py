from __future__ import annotations

import pytest
import torch
from torch import Tensor

from longtailed.errors import LongTailedError
from longtailed.losses import reason_covariance, semantic_variance

CLASSES, FEATURES = 5, 4
FORMS = [("full", 9), ("full", 3), ("diagonal", 9), ("diagonal", 3)]  # more and fewer than classes


def example(samples: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(CLASSES, FEATURES, generator=generator, dtype=torch.float64)
    labels = torch.randint(CLASSES - 1, (samples,), generator=generator)
    gradient = torch.randn(samples, CLASSES, generator=generator, dtype=torch.float64)
    return weight, labels, gradient


def covariances(kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(CLASSES, FEATURES, FEATURES, generator=generator, dtype=torch.float64)
    return root @ root.mT if kind == "full" else root[:, 0].square()


@pytest.mark.parametrize(("kind", "samples"), FORMS)
def test_gradient_by_the_covariance_equals_a_loop(kind: str, samples: int) -> None:
    weight, labels, gradient = example(samples)
    covariance = covariances(kind).requires_grad_()
    variance = semantic_variance(weight, labels, covariance)
    (automatic,) = torch.autograd.grad(variance, covariance, gradient)
    wanted = torch.zeros_like(automatic)
    for i, y in enumerate(labels.tolist()):
        for c in range(CLASSES):
            difference = weight[c] - weight[y]
            outer = torch.outer(difference, difference) if kind == "full" else difference**2
            wanted[y] += gradient[i, c] * outer
    torch.testing.assert_close(automatic, wanted, rtol=1e-11, atol=1e-12)
    absent = sorted(set(range(CLASSES)) - set(labels.tolist()))
    assert automatic[absent].eq(0).all()
    if kind == "full":
        assert automatic.equal(automatic.mT)


@pytest.mark.parametrize("kind", ["full", "diagonal"])
def test_tail_covariances_are_mixed_by_the_graph(kind: str) -> None:
    covariance, tail = covariances(kind), torch.tensor([4, 1])
    graph = torch.rand(CLASSES, CLASSES, dtype=torch.float64)
    wanted = covariance.clone()
    for t in tail.tolist():
        wanted[t] = sum(graph[t, c] * covariance[c] for c in range(CLASSES))
    got = reason_covariance(covariance, graph.float().double(), tail)
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)
    assert got[[0, 2, 3]].equal(covariance[[0, 2, 3]])
    with torch.autocast("cpu", torch.bfloat16):
        assert reason_covariance(covariance, graph, tail).dtype == torch.float64
    assert reason_covariance(covariance, graph, tail[:0]).equal(covariance)


def test_misfits_are_refused_in_words() -> None:
    covariance, graph = covariances("full"), torch.zeros(CLASSES, CLASSES)
    with pytest.raises(LongTailedError, match=r"graph must have the shape \[C, C\]"):
        reason_covariance(covariance, graph[:2], torch.tensor([1]))
    with pytest.raises(LongTailedError, match=r"tail must hold the numbers of the tail classes"):
        reason_covariance(covariance, graph, torch.ones(CLASSES, dtype=torch.bool))
