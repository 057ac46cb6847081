"""No loss reads a tensor's values on the host: tensors without values ("meta") go through."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from longtailed.losses import (
    class_balanced_weights,
    focal_loss,
    inverse_frequency_weights,
    ldam_loss,
    logit_adjusted_loss,
)

LOGITS = torch.empty(8, 3, device="meta")
LABELS = torch.empty(8, dtype=torch.int64, device="meta")
COUNTS = torch.empty(3, dtype=torch.int64, device="meta")
WEIGHTS = torch.empty(3, device="meta")


@pytest.mark.parametrize(
    "loss",
    [
        lambda: focal_loss(LOGITS, LABELS, class_weights=WEIGHTS),
        lambda: ldam_loss(LOGITS, LABELS, COUNTS, class_weights=WEIGHTS),
        lambda: logit_adjusted_loss(LOGITS, LABELS, COUNTS),
        lambda: logit_adjusted_loss(LOGITS, LOGITS, COUNTS),
        lambda: class_balanced_weights(COUNTS),
        lambda: inverse_frequency_weights(COUNTS),
    ],
)
def test_losses_need_no_values(loss: Callable[[], Tensor]) -> None:
    assert loss().is_meta
