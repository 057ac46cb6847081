"""Logit adjustment (balanced softmax): logits shifted by the log of the class prior."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from longtailed.errors import LongTailedError
from longtailed.losses.inputs import ClassCounts, check_labels, count_tensor, full_precision


def log_prior(class_counts: ClassCounts, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the log of each class's share of the samples, [C]: log(n_c / sum_j n_j).

    A class without samples counts as if it had one: its log would be minus infinity, which turns
    into NaN as soon as the loss multiplies it by a target of 0.

    >>> log_prior([3, 1]).exp()
    tensor([0.7500, 0.2500])
    """
    counts = count_tensor(class_counts).clamp_min(1)
    return (counts / counts.sum()).log().to(dtype)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross entropy to soft targets, a scalar: -(1/N) sum_ic t_ic log softmax(z_i)_c.

    For logits z [N, C] and targets t [N, C], taken as they are: rows need not sum to 1 and may have
    negative entries. Raises `LongTailedError` if the shapes differ.
    """
    if logits.ndim != 2 or targets.shape != logits.shape:
        raise LongTailedError(
            f"logits and soft targets must both have the shape [N, C]; they are "
            f"{list(logits.shape)} and {list(targets.shape)}."
        )
    logits = full_precision(logits)
    return -(targets.to(logits) * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def logit_adjusted_loss(
    logits: Tensor, targets: Tensor, class_counts: ClassCounts, tau: float = 1.0
) -> Tensor:
    """Return the logit-adjusted cross entropy, a scalar: CE(z + tau * log pi, targets).

    For logits z [N, C], the class prior pi [C] of `log_prior`, and targets that are labels (int64
    [N]) or soft (floating point [N, C]). tau 1 is balanced softmax, tau 0 the plain cross entropy.
    Only for training: predictions come from the logits without the shift.

    `class_counts` may be a tensor on the logits' device, which is neither copied nor read on the
    host. Raises `LongTailedError` for shapes or types that do not fit.
    Papers: arXiv 2007.07314, 2007.10740. Departure from the ConCutMix code: log_softmax instead of
    the log of a softmax, which underflows.
    """
    logits = full_precision(logits)
    is_soft = targets.is_floating_point()
    if not is_soft:
        check_labels(logits, targets)
    counts = count_tensor(class_counts, logits.shape[-1], logits.device)
    adjusted = logits + tau * log_prior(counts, logits.dtype)
    return soft_cross_entropy(adjusted, targets) if is_soft else F.cross_entropy(adjusted, targets)
