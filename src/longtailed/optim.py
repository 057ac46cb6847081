"""The optimiser of a stage, declared as a value and built for a method's parameters."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from longtailed.errors import LongTailedError
from longtailed.schedules import epoch_at


class Optimizer(BaseModel):
    """SGD or AdamW with its settings.

    `decay_norm_and_bias` False exempts parameters of one dimension or fewer (normalisation
    scales and shifts, biases) from weight decay; the field's CIFAR recipes decay all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=2e-4, ge=0)
    decay_norm_and_bias: bool = True

    @model_validator(mode="after")
    def _check(self) -> Optimizer:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    def build(
        self, method: nn.Module, groups: list[dict[str, Any]], captured: bool = False
    ) -> torch.optim.Optimizer:
        """Return the optimiser over a method's parameter groups.

        `captured` says that its steps are captured in a CUDA graph.

        A group may carry `lr_factor` (default 1), which scales the schedule's rate, and
        `until` (a position), from which on the rate is 0 and nothing in it moves.
        Raises `LongTailedError` if no parameter is left to train.
        """
        groups = [group for group in groups if group["params"]]
        if not groups:
            raise LongTailedError(f"{type(method).__name__} has no parameter left to train.")
        if not self.decay_norm_and_bias:
            groups = [part for group in groups for part in _split_decay(group)]
        for group in groups:
            group.setdefault("lr_factor", 1.0)
        if self.name == "adamw":
            decay = self.weight_decay
            return torch.optim.AdamW(
                groups, lr=self.lr, weight_decay=decay, fused=True, capturable=captured
            )
        return torch.optim.SGD(
            groups,
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            fused=True,
        )


def _split_decay(group: dict[str, Any]) -> list[dict[str, Any]]:
    wide = [p for p in group["params"] if p.ndim > 1]
    narrow = [p for p in group["params"] if p.ndim <= 1]
    parts = [{**group, "params": wide}, {**group, "params": narrow, "weight_decay": 0.0}]
    return [part for part in parts if part["params"]]


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state, but not whether the run that wrote it captured its steps."""
    capturable = [group.get("capturable") for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, capturable, strict=True):
        if own is not None:
            group["capturable"] = own


def set_learning_rate(
    optimizer: torch.optim.Optimizer, lr: float, epoch: int = 0, epochs: int = 1
) -> None:
    """Set the rate of every group to `lr` times the group's factor, or to 0 once it has ended.

    At rate 0 neither momentum nor weight decay moves a weight.

    The rate is a tensor beside the parameters, changed in place: a captured step sees the change.
    """
    for group in optimizer.param_groups:
        rate, device = group["lr"], group["params"][0].device
        if not isinstance(rate, Tensor) or rate.device != device:
            group["lr"] = torch.zeros((), device=device)
        ended = "until" in group and epoch >= epoch_at(group["until"], epochs)
        group["lr"].fill_(0 if ended else lr * group["lr_factor"])
