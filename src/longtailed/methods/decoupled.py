"""Decoupled training: classifiers re-trained on a frozen backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from longtailed.methods.base import Run
from longtailed.methods.frozen import FrozenBackbone
from longtailed.nn import Network


class ClassifierRetraining(FrozenBackbone):
    """Classifier re-training, cRT (arXiv 1910.09217): a new linear classifier, class by class.

    The head gets new weights, as `nn.Linear` has, and is trained with cross-entropy under a sampler
    that shows all classes equally often; the backbone is frozen. See `FrozenBackbone`, whose
    options it has, for what is cached. With `sampler="instance"` and `weighting="class-balanced"`
    it is the classifier stage of arXiv 2107.03758.
    """

    def begin(self, run: Run) -> None:
        """Draw a new head and compute the features."""
        head = self.network.head
        bound = head.in_features**-0.5
        for parameter in head.parameters():
            parameter.uniform_(-bound, bound, generator=run.generator)
        super().begin(run)


class LearnableWeightScaling(FrozenBackbone):
    """Learnable weight scaling, LWS (arXiv 1910.09217): one factor for each class.

    logits = s * (W z + b) with a trained head (W, b), which is frozen, and s [C] learnt from 1 on.
    In the paper s multiplies W alone, in the authors' code the bias too: `scale_bias=False` is the
    paper's form. The options of `FrozenBackbone` say what is cached and how images are drawn.

    Args:
        network: the network with a trained linear head.
        counts: training images per class [C].
        scale_bias: whether the factors apply to the bias.
        shared: the options of `FrozenBackbone`.
    """

    takes_over_head = True
    saved_prefixes = ("network.", "scales")

    def __init__(
        self,
        network: Network,
        counts: Sequence[int] | Tensor,
        *,
        scale_bias: bool = True,
        **shared: Any,
    ) -> None:
        super().__init__(network, counts, **shared)
        self.scale_bias = scale_bias
        self.network.head.requires_grad_(False)
        self.scales = nn.Parameter(torch.ones(len(self.class_counts)))

    def classify(self, features: Tensor) -> Tensor:
        """Return the scaled logits [N, C] of features [N, A]."""
        logits = super().classify(features)
        bias: Tensor | None = self.network.head.bias  # type: ignore[assignment]
        if self.scale_bias or bias is None:
            return self.scales * logits
        return self.scales * (logits - bias) + bias
