"""No loss reads a tensor's values on the host: tensors without values ("meta") go through."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from longtailed.losses import (
    balanced_contrastive_loss,
    class_balanced_weights,
    focal_loss,
    inverse_frequency_weights,
    ldam_loss,
    logit_adjusted_loss,
    semantic_mix_labels,
    supervised_contrastive_loss,
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


def test_contrastive_losses_need_no_values() -> None:
    with FakeTensorMode():  # refuses to give values; "meta" tensors know no autocast
        embeddings, prototypes = torch.empty(8, 2, 5, requires_grad=True), torch.empty(3, 5)
        labels, counts = torch.empty(8, dtype=torch.int64), torch.empty(3, dtype=torch.int64)
        area = torch.empty(8, 3)
        for loss in (
            balanced_contrastive_loss(embeddings, labels, prototypes),
            supervised_contrastive_loss(embeddings, labels),
        ):
            loss.backward()
            assert loss.ndim == 0
        mixed = semantic_mix_labels(embeddings[:, 0], prototypes, area, counts, 0.5, 2)
        assert mixed.shape == (8, 3)
