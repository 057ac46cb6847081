"""The loss terms of an epoch: their sums, and the first step at which one was not finite."""

from __future__ import annotations

from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from longtailed.errors import LongTailedError


class TermSums:
    """Sums of named loss terms, kept on the device; nothing is read from it until asked."""

    def __init__(self, device: torch.device) -> None:
        self.names: list[str] = []
        self.values = torch.zeros(0, device=device)
        self.first_bad = torch.zeros(0, dtype=torch.int64, device=device)
        self.steps = 0

    def add(self, terms: dict[str, Tensor], step: int) -> None:
        """Add the terms of one step (0-based in its epoch)."""
        values = torch.stack([term.detach().float() for term in terms.values()])
        if not self.names:
            self.names = list(terms)
            self.values = torch.zeros_like(values)
            self.first_bad = torch.full_like(values, -1, dtype=torch.int64)
        self.values += values
        bad = ~values.isfinite() & (self.first_bad < 0)
        self.first_bad.masked_fill_(bad, step)
        self.steps += 1

    def share(self, fabric: Fabric) -> None:
        """Replace the sums by the mean over processes; a bad term of one is bad for all."""
        if fabric.world_size > 1 and self.names:
            self.values = cast(Tensor, fabric.all_reduce(self.values, reduce_op="mean"))
            self.first_bad = cast(Tensor, fabric.all_reduce(self.first_bad, reduce_op="max"))

    def check(self, epoch: int) -> None:
        """Raise `LongTailedError` naming the term and step if one was not finite."""
        for name, step in zip(self.names, self.first_bad.tolist(), strict=True):
            if step >= 0:
                raise LongTailedError(
                    f"the loss term '{name}' is not finite in epoch {epoch + 1}, step {step + 1}; "
                    "training stopped and the last good checkpoint is kept. A lower learning rate, "
                    "longer warm-up or gradient clipping (clip=1) may help."
                )

    def means(self) -> dict[str, float]:
        """Return the mean of each term over the steps so far (a read from the device)."""
        return dict(zip(self.names, (self.values / max(self.steps, 1)).tolist(), strict=True))

    def state(self) -> dict[str, Any]:
        """Return what the training state keeps of the sums."""
        return {"names": self.names, "values": self.values.cpu(), "steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self.names, self.steps = list(state["names"]), state["steps"]
        self.values = state["values"].to(self.values.device)
        self.first_bad = torch.full_like(self.values, -1, dtype=torch.int64)
