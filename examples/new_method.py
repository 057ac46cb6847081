"""Define a method of your own and train it, without changing the library.

    python examples/new_method.py

A method is a module that returns named loss terms; the same loop trains it that trains the methods
of the library, with evaluation, resume and all. To have a method on the command line, add it to
`longtailed.methods.METHODS` (see CONTRIBUTING.md). About 5 seconds on two CPU cores; one seed of a
toy problem shows that it trains, not that it is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from longtailed.data.settings import Data
from longtailed.methods import CrossEntropy
from longtailed.nn import Network, build_network
from longtailed.recipes import Recipe
from longtailed.runs.prepare import prepare
from longtailed.training.engine import make_fabric
from longtailed.training.evaluation import evaluate_split
from longtailed.training.fit import fit
from longtailed.training.job import Job
from longtailed.training.optim import Optimizer
from longtailed.training.options import FitOptions
from longtailed.training.schedules import Schedule


class LabelSmoothing(CrossEntropy):
    """Cross-entropy with smoothed targets (arXiv 1512.00567).

    Class weights, deferred re-weighting and samplers come from `CrossEntropy`.
    """

    term = "label_smoothing"

    def __init__(
        self,
        network: Network,
        counts: Sequence[int] | Tensor,
        *,
        smoothing: float = 0.1,
        **shared: Any,
    ) -> None:
        super().__init__(network, counts, **shared)
        self.smoothing = smoothing

    def criterion(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """Return the smoothed cross-entropy as a scalar."""
        return cross_entropy(logits, labels, weight=weights, label_smoothing=self.smoothing)


def main(epochs: int = 20) -> None:
    """Train two methods on the same long-tailed digits and compare them."""
    fabric = make_fabric("auto")
    data = Data(source="digits", imbalance=50, holdout=0)
    splits, manifest = prepare(Recipe(data=data), fabric.device)
    counts = manifest["splits"]["train"]["counts"]
    options = FitOptions(
        epochs=epochs,
        batch_size=32,
        optimizer=Optimizer(lr=0.05, weight_decay=5e-4),
        schedule=Schedule(kind="cosine", warmup=0.1),
    )
    methods: dict[str, type[CrossEntropy]] = {
        "cross-entropy": CrossEntropy,
        "label smoothing": LabelSmoothing,
    }
    for name, method_class in methods.items():
        torch.manual_seed(0)
        network = build_network("resnet8", len(counts))
        method = method_class(network, counts, weighting="class-balanced")
        fit(method, Job(fabric, splits, options, label=name))
        figures = evaluate_split(method, splits, "test", fabric).figures
        print(f"{name:16} balanced accuracy {figures['balanced_accuracy']:.1%}")


if __name__ == "__main__":
    main()
