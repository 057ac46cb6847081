"""Losses that carry class sizes or weights, as modules; each calls the function of the same idea.

Class sizes and weights are buffers, which follow the module to a device. They come from the
constructor, and so they are not part of the state dict.

Balanced softmax has no module of its own: it is `LogitAdjustedLoss(class_counts, tau=1)`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from longtailed.losses.focal import focal_loss
from longtailed.losses.inputs import ClassCounts, count_tensor
from longtailed.losses.logit_adjustment import logit_adjusted_loss
from longtailed.losses.margin import ldam_loss, ldam_margins


class LDAMLoss(nn.Module):
    """`ldam_loss` with its class counts: logits that are cosines [N, C], labels [N] -> a scalar.

    For deferred re-weighting assign `class_weights` [C] (such as `class_balanced_weights`) when it
    begins.

    Args:
        class_counts: training images per class [C].
        max_margin: the margin of the rarest class.
        scale: what the cosines are multiplied by.
        class_weights: weight of each class [C]; None: all alike.

    Raises `LongTailedError` for counts or a margin out of range. Paper: arXiv 1906.07413.

    >>> criterion = LDAMLoss([100, 10])
    >>> criterion(torch.tensor([[0.5, 0.5]]), torch.tensor([1])).item() > 1
    True
    """

    class_counts: Tensor
    class_weights: Tensor | None

    def __init__(
        self,
        class_counts: ClassCounts,
        max_margin: float = 0.5,
        scale: float = 30.0,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        ldam_margins(class_counts, max_margin)  # what is out of range is refused here
        self.max_margin, self.scale = max_margin, scale
        self.register_buffer("class_counts", _whole(class_counts), persistent=False)
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        return ldam_loss(
            logits, labels, self.class_counts, self.max_margin, self.scale, self.class_weights
        )

    def extra_repr(self) -> str:
        """Return the settings, for printing the module."""
        return f"{len(self.class_counts)} classes, max_margin={self.max_margin}, scale={self.scale}"


class LogitAdjustedLoss(nn.Module):
    """`logit_adjusted_loss` with its class counts: logits [N, C], labels [N] or soft [N, C].

    Returns a scalar. tau 1 is balanced softmax (arXiv 2007.10740), tau 0 the plain cross entropy.
    For training only: predictions come from the logits as they are.

    Args:
        class_counts: training images per class [C].
        tau: what the log of the class prior is multiplied by.

    Raises `LongTailedError` for counts out of range. Paper: arXiv 2007.07314.

    >>> criterion = LogitAdjustedLoss([30, 10])
    >>> criterion(torch.zeros(1, 2), torch.tensor([1]))  # log 4: the rare class is a quarter
    tensor(1.3863)
    """

    class_counts: Tensor

    def __init__(self, class_counts: ClassCounts, tau: float = 1.0) -> None:
        super().__init__()
        self.tau = tau
        self.register_buffer("class_counts", _whole(class_counts), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        return logit_adjusted_loss(logits, targets, self.class_counts, self.tau)

    def extra_repr(self) -> str:
        """Return the settings, for printing the module."""
        return f"{len(self.class_counts)} classes, tau={self.tau}"


class FocalLoss(nn.Module):
    """`focal_loss` with its class weights: logits [N, C], labels [N] -> a scalar.

    Args:
        gamma: not negative; 0 is the cross entropy.
        class_weights: weight of each class [C], such as `class_balanced_weights`; None: all alike.
            They can be assigned later, too.
        ignore_index: the label of rows that do not count.

    `forward` raises `LongTailedError` for what is out of range. Paper: arXiv 1708.02002.
    """

    class_weights: Tensor | None

    def __init__(
        self, gamma: float = 2.0, class_weights: Tensor | None = None, ignore_index: int = -100
    ) -> None:
        super().__init__()
        self.gamma, self.ignore_index = gamma, ignore_index
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        return focal_loss(logits, labels, self.gamma, self.class_weights, self.ignore_index)

    def extra_repr(self) -> str:
        """Return the settings, for printing the module."""
        return f"gamma={self.gamma}"


def _whole(class_counts: ClassCounts) -> Tensor:
    """Return checked class counts as int64 [C], which `half` and `bfloat16` leave as they are."""
    return count_tensor(class_counts).to(torch.int64)
