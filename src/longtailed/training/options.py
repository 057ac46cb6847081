"""How long and how a method is trained: the settings of a stage."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge
from pydantic import BaseModel, ConfigDict

from longtailed.data.setting_types import Index, Positive, Size, Whole
from longtailed.training.optim import Optimizer
from longtailed.training.schedules import Schedule

Capture = Literal["auto", "always", "never"]


class FitOptions(BaseModel):
    """How long and how a method is trained.

    `batch_size` counts images over all processes; with `drop_last` the images of an epoch that do
    not fill a batch are left out, else they make a smaller one. `accumulate` steps share one
    update; `clip` limits the gradient's norm. Evaluation on the held-out split comes every
    `evaluate_every` epochs, the checkpoint every `checkpoint_every` epochs (None: after the
    first, and then at the first end of an epoch after ten seconds), and both after the last one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: Index = 200
    batch_size: Annotated[Whole, Ge(2)] = 128
    drop_last: bool = True
    accumulate: Size = 1
    clip: Positive | None = None
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    evaluate_every: Size = 1
    checkpoint_every: Size | None = None
