"""Losses as plain functions: logits and labels in, a scalar out; nothing is remembered.

Those that need class sizes or weights exist as modules, too, which carry them: `LDAMLoss`,
`LogitAdjustedLoss`, `FocalLoss`. `ClassStatistics` are the running statistics that semantic
augmentation needs.
"""

from __future__ import annotations

from longtailed.losses.class_statistics import ClassStatistics
from longtailed.losses.contrastive import (
    balanced_contrastive_loss,
    supervised_contrastive_loss,
)
from longtailed.losses.covariance import reason_covariance
from longtailed.losses.focal import focal_loss
from longtailed.losses.logit_adjustment import log_prior, logit_adjusted_loss, soft_cross_entropy
from longtailed.losses.margin import ldam_loss, ldam_margins, margin_cross_entropy
from longtailed.losses.modules import FocalLoss, LDAMLoss, LogitAdjustedLoss
from longtailed.losses.reweight import class_balanced_weights, inverse_frequency_weights
from longtailed.losses.semantic import isda_logits, risda_logits, semantic_variance
from longtailed.losses.semantic_mix import semantic_mix_labels, semantic_weights

__all__ = [
    "ClassStatistics",
    "FocalLoss",
    "LDAMLoss",
    "LogitAdjustedLoss",
    "balanced_contrastive_loss",
    "class_balanced_weights",
    "focal_loss",
    "inverse_frequency_weights",
    "isda_logits",
    "ldam_loss",
    "ldam_margins",
    "log_prior",
    "logit_adjusted_loss",
    "margin_cross_entropy",
    "reason_covariance",
    "risda_logits",
    "semantic_mix_labels",
    "semantic_variance",
    "semantic_weights",
    "soft_cross_entropy",
    "supervised_contrastive_loss",
]
