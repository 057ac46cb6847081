"""Positions in a training run: an epoch, or a fraction of the run."""

from __future__ import annotations

import math
from typing import Annotated, Any, get_args

from longtailed.data.setting_types import whole_or_share

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
