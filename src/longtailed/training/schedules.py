"""The learning rate at each epoch of a training run."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict

from longtailed.data.positions import Position, epoch_at
from longtailed.data.setting_types import Positive, UsedWith


class Schedule(BaseModel):
    """The learning rate over the epochs, constant within one.

    With warm-up W (epochs), the rate in the 0-based epoch e of E is lr * factor(e):

    * e < W: (e + 1) / W
    * "constant": 1
    * "step": the product of `gamma` over the milestones m <= e
    * "cosine": (1 + cos(pi * (e - W + s) / (E - W + s))) / 2, with s = `cosine_shift`: 0 starts at
      the full rate (self-supervised pre-training, decoupled training), 1 as in BCL and ConCutMix.

    `warmup` and `milestones` are epochs (int) or fractions of the run (float).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["constant", "step", "cosine"] = "step"
    warmup: Position = 0
    milestones: Annotated[tuple[Position, ...], UsedWith(kind=("step",))] = (0.8, 0.9)
    gamma: Annotated[Positive, UsedWith(kind=("step",))] = 0.01
    cosine_shift: Annotated[Literal[0, 1], UsedWith(kind=("cosine",))] = 0

    def factor(self, epoch: int, epochs: int) -> float:
        """Return the learning rate of a 0-based epoch as a factor of the base rate."""
        warmup = epoch_at(self.warmup, epochs)
        if epoch < warmup:
            return (epoch + 1) / warmup
        if self.kind == "step":
            passed = sum(epoch >= epoch_at(m, epochs) for m in self.milestones)
            return float(self.gamma**passed)
        if self.kind == "cosine":
            done = epoch - warmup + self.cosine_shift
            return 0.5 * (1 + math.cos(math.pi * done / (epochs - warmup + self.cosine_shift)))
        return 1.0
