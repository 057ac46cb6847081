"""LDAM: a margin for each class, larger for rarer classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from longtailed.errors import LongTailedError
from longtailed.losses.inputs import (
    ClassCounts,
    check_labels,
    count_tensor,
    full_precision,
    weight_tensor,
)


def ldam_margins(
    class_counts: ClassCounts, max_margin: float = 0.5, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return the margin of each class [C]: m_c = max_margin * n_c^(-1/4) / max_j n_j^(-1/4).

    The rarest class has `max_margin`. A class without samples has it too, and does not change the
    margins of the others. Raises `LongTailedError` for a negative `max_margin`.
    Paper: arXiv 1906.07413.
    """
    if max_margin < 0:
        raise LongTailedError(f"max_margin must not be negative; it is {max_margin}.")
    counts = count_tensor(class_counts)
    present = counts > 0
    rarest = torch.where(present, counts, torch.inf).min()
    return (max_margin * torch.where(present, rarest / counts, 1) ** 0.25).to(dtype)


def margin_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    margins: Tensor,
    scale: float = 30.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Return the cross entropy with the true class's logit lowered by its margin, a scalar.

    z_ic = logits_ic - m_c * [c = y_i]; loss = sum_i w[y_i] CE(scale * z_i, y_i) / sum_i w[y_i],
    with logits [N, C] that are cosines in [-1, 1], labels [N], margins m [C] and class weights
    w [C] (ones if not given). Zero margins give the cross entropy of the scaled logits.

    Raises `LongTailedError` for shapes or types that do not fit.
    """
    check_labels(logits, labels)
    logits = full_precision(logits)
    if margins.shape != logits.shape[1:]:
        raise LongTailedError(
            f"margins must have the shape [{logits.shape[1]}], one for each column of logits; "
            f"they are {list(margins.shape)}."
        )
    is_target = labels[:, None] == torch.arange(logits.shape[1], device=logits.device)
    adjusted = scale * (logits - margins.to(logits) * is_target)
    return F.cross_entropy(adjusted, labels, weight=weight_tensor(class_weights, logits))


def ldam_loss(
    logits: Tensor,
    labels: Tensor,
    class_counts: ClassCounts,
    max_margin: float = 0.5,
    scale: float = 30.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Return the label-distribution-aware margin loss, a scalar.

    `margin_cross_entropy` with the margins of `ldam_margins`. The logits [N, C] must be cosines
    (use a cosine head): with unbounded logits the factor `scale` makes training diverge. Deferred
    re-weighting gives `class_weights` late in training.

    `class_counts` may be a tensor on the logits' device, which is neither copied nor read on the
    host. Raises `LongTailedError` for shapes or types that do not fit. Paper: arXiv 1906.07413.
    """
    counts = count_tensor(class_counts, logits.shape[-1], logits.device)
    margins = ldam_margins(counts, max_margin, full_precision(logits).dtype)
    return margin_cross_entropy(logits, labels, margins, scale, class_weights)
