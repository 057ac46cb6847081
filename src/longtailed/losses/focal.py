"""Focal loss: less weight for samples that are already classified with confidence."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from longtailed.errors import LongTailedError
from longtailed.losses.inputs import check_labels, full_precision, weight_tensor


def focal_loss(
    logits: Tensor,
    labels: Tensor,
    gamma: float = 2.0,
    class_weights: Tensor | None = None,
    ignore_index: int = -100,
) -> Tensor:
    """Return the focal loss, a scalar: mean_i (1 - exp(-l_i))^gamma * l_i.

    l_i = w[y_i] * CE(logits_i, y_i) for logits [N, C], labels [N] and class weights w [C]
    (ones if not given). Without weights exp(-l_i) is the probability of the true class; gamma 0 is
    the cross entropy. With weights it is that probability to the power w[y_i], and the mean is a
    plain one, not divided by the weights: the behaviour of the public LDAM-DRW code, on which the
    field's "focal" and "class-balanced focal" numbers rest. Rows with the label `ignore_index`
    neither add to the sum nor count in the mean, which is nan if there are no others.

    Raises `LongTailedError` for a negative gamma, or shapes or types that do not fit.
    Paper: arXiv 1708.02002. Departure from common code: 1 - exp(-l) is computed without
    cancellation, and its gradient is finite for gamma < 1 where l is exactly 0.
    """
    if gamma < 0:
        raise LongTailedError(f"gamma must not be negative; it is {gamma}.")
    check_labels(logits, labels)
    logits = full_precision(logits)
    losses = F.cross_entropy(logits, labels, reduction="none", ignore_index=ignore_index)
    counted = labels != ignore_index
    weights = weight_tensor(class_weights, logits)
    if weights is not None:
        losses = losses * weights[torch.where(counted, labels, 0)]
    # The floor stops the derivative of x^gamma, infinite at 0, from meeting l = 0 as inf * 0.
    doubt = (-torch.expm1(-losses)).clamp_min(torch.finfo(losses.dtype).tiny)
    return (doubt**gamma * losses).sum() / counted.sum()
