"""The optimiser of a stage, declared as a value and built for a method's parameters."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn

from longtailed.data.positions import epoch_at
from longtailed.data.setting_types import BelowOne, NonNegative, Positive, UsedWith
from longtailed.errors import LongTailedError

Name = Literal["sgd", "adamw"]
FROM_SCRATCH: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.1, "weight_decay": 2e-4},
    "adamw": {"lr": 1e-3, "weight_decay": 0.05},
}
FINE_TUNING: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.01, "weight_decay": 1e-4, "nesterov": True},
    "adamw": {"lr": 1e-4, "weight_decay": 0.05},
}
"""The usual settings of each optimiser, for new weights and for weights that are already good.

SGD: arXiv 1906.07413 (ResNet-32 on CIFAR). AdamW: the rate is torch's default, the decay that of
arXiv 2010.11929's successors (2012.12877, 2201.03545). Fine-tuning starts at a tenth of the rate.
"""


class Optimizer(BaseModel):
    """SGD or AdamW with its settings.

    A rate or weight decay that is not given is the optimiser's usual one (`FROM_SCRATCH`).
    `decay_norm_and_bias` False exempts parameters of one dimension or fewer (normalisation
    scales and shifts, biases) from weight decay; the field's CIFAR recipes decay all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = "sgd"
    lr: Positive = 0.1
    momentum: Annotated[BelowOne, UsedWith(name=("sgd",))] = 0.9
    nesterov: Annotated[bool, UsedWith(name=("sgd",))] = False
    weight_decay: NonNegative = 2e-4
    decay_norm_and_bias: bool = True

    @model_validator(mode="before")
    @classmethod
    def _usual(cls, values: Any) -> Any:
        """Fill in the optimiser's usual rate and weight decay where they are not given."""
        if not isinstance(values, dict):
            return values
        return {**FROM_SCRATCH.get(str(values.get("name", "sgd")), {}), **values}

    @model_validator(mode="after")
    def _check(self) -> Optimizer:
        if self.nesterov and self.name != "sgd":
            raise ValueError(f"nesterov is a setting of sgd; {self.name} has none")
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
