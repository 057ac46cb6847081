"""Positions in a training run, and the learning rate at each of them."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict

from longtailed.data.setting_types import Positive, UsedWith, whole_or_share

Position = Annotated[
    int | float,
    whole_or_share(
        0,
        1,
        "an epoch, a whole number from 0 on, or a part of the run, a fraction from 0.0 to below 1 "
        "(1 is the second epoch; 1.0 would be the end of the run, and so never)",
    ),
]


def is_position(annotation: Any) -> bool:
    """Return whether a setting of this type is a `Position`, or may be one."""
    parts = get_args(annotation)
    return get_args(Position)[1] in parts or any(map(is_position, parts))


def epoch_at(position: float, epochs: int) -> int:
    """Return the 0-based epoch meant by `position`: an int is that epoch, a float a fraction.

    Fractions keep a schedule's shape when a run is shortened: 0.8 is epoch 160 of 200 and epoch
    4 of 5. They round up, so a phase at 0.9 of 5 epochs does not begin within them.
    """
    if isinstance(position, int):
        return position
    return math.ceil(position * epochs - 1e-9)


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
