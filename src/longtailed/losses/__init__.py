"""Losses as plain functions: logits and labels in, a scalar out; nothing is remembered."""

from __future__ import annotations

from longtailed.losses.focal import focal_loss
from longtailed.losses.logit_adjustment import log_prior, logit_adjusted_loss, soft_cross_entropy
from longtailed.losses.margin import ldam_loss, ldam_margins, margin_cross_entropy
from longtailed.losses.reweight import class_balanced_weights, inverse_frequency_weights

__all__ = [
    "class_balanced_weights",
    "focal_loss",
    "inverse_frequency_weights",
    "ldam_loss",
    "ldam_margins",
    "log_prior",
    "logit_adjusted_loss",
    "margin_cross_entropy",
    "soft_cross_entropy",
]
