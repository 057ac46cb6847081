from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from longtailed.errors import LongTailedError
from longtailed.losses import (
    FocalLoss,
    LDAMLoss,
    LogitAdjustedLoss,
    class_balanced_weights,
    focal_loss,
    ldam_loss,
    logit_adjusted_loss,
)

COUNTS = [50, 10, 3]
WEIGHTS = class_balanced_weights(COUNTS)
LOGITS = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).tanh()
LABELS = torch.tensor([0, 1, 2, 0, 0, 1, 0, 2])
CASES = {
    "ldam": (LDAMLoss(COUNTS, 0.3, 10.0), ldam_loss(LOGITS, LABELS, COUNTS, 0.3, 10.0)),
    "ldam, weighted": (
        LDAMLoss(COUNTS, class_weights=WEIGHTS),
        ldam_loss(LOGITS, LABELS, COUNTS, class_weights=WEIGHTS),
    ),
    "logit-adjusted": (
        LogitAdjustedLoss(COUNTS, tau=0.7),
        logit_adjusted_loss(LOGITS, LABELS, COUNTS, tau=0.7),
    ),
    "focal": (FocalLoss(1.5), focal_loss(LOGITS, LABELS, 1.5)),
    "focal, weighted": (
        FocalLoss(class_weights=WEIGHTS),
        focal_loss(LOGITS, LABELS, class_weights=WEIGHTS),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_module_equals_its_function(case: str) -> None:
    module, wanted = CASES[case]
    assert torch.equal(module(LOGITS, LABELS), wanted)
    half = copy.deepcopy(module).bfloat16()  # class sizes stay whole numbers
    torch.testing.assert_close(half(LOGITS, LABELS), wanted, rtol=0.02, atol=0)
    assert module.to("meta")(LOGITS.to("meta"), LABELS.to("meta")).shape == ()


def test_soft_targets() -> None:
    targets = nn.functional.one_hot(LABELS, 3).float()
    criterion = LogitAdjustedLoss(torch.tensor(COUNTS))
    torch.testing.assert_close(criterion(LOGITS, targets), criterion(LOGITS, LABELS))


def test_weights_can_come_later_and_are_no_state() -> None:
    criterion = LDAMLoss(COUNTS)
    before = criterion(LOGITS, LABELS)
    criterion.class_weights = WEIGHTS
    assert not torch.equal(criterion(LOGITS, LABELS), before)
    assert criterion.state_dict() == {}
    assert criterion.to("meta").class_weights.is_meta


def test_they_say_what_they_are() -> None:
    assert repr(LDAMLoss(COUNTS)) == "LDAMLoss(3 classes, max_margin=0.5, scale=30.0)"
    assert repr(LogitAdjustedLoss(COUNTS)) == "LogitAdjustedLoss(3 classes, tau=1.0)"
    assert repr(FocalLoss()) == "FocalLoss(gamma=2.0)"


@pytest.mark.parametrize(
    "build",
    [
        lambda: LDAMLoss([0, 0]),
        lambda: LDAMLoss(COUNTS, max_margin=-1),
        lambda: LogitAdjustedLoss([[1, 2]]),
        lambda: LogitAdjustedLoss([3, -1]),
    ],
)
def test_bad_counts_are_refused(build) -> None:
    with pytest.raises(LongTailedError):
        build()
