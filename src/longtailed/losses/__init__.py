"""Losses as plain functions: logits and labels in, a scalar out; nothing is remembered."""

from __future__ import annotations

from longtailed.losses.contrastive import (
    balanced_contrastive_loss,
    supervised_contrastive_loss,
)
from longtailed.losses.focal import focal_loss
from longtailed.losses.logit_adjustment import log_prior, logit_adjusted_loss, soft_cross_entropy
from longtailed.losses.margin import ldam_loss, ldam_margins, margin_cross_entropy
from longtailed.losses.reweight import class_balanced_weights, inverse_frequency_weights
from longtailed.losses.semantic_mix import semantic_mix_labels, semantic_weights

__all__ = [
    "balanced_contrastive_loss",
    "class_balanced_weights",
    "focal_loss",
    "inverse_frequency_weights",
    "ldam_loss",
    "ldam_margins",
    "log_prior",
    "logit_adjusted_loss",
    "margin_cross_entropy",
    "semantic_mix_labels",
    "semantic_weights",
    "soft_cross_entropy",
    "supervised_contrastive_loss",
]
