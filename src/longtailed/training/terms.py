"""The loss terms of an epoch: their sums, and the first step at which one was not finite."""

from __future__ import annotations

from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from longtailed.errors import LongTailedError


class TermSums:
    """Sums of named loss terms, kept on the device; nothing is read from it until asked.

    All is updated in place, so that a captured step can do it.
    """

    def __init__(self, device: torch.device) -> None:
        self.names: list[str] = []
        self.values = torch.zeros(0, device=device)
        self.first_bad = torch.zeros(0, dtype=torch.int64, device=device)
        self.steps = torch.zeros((), dtype=torch.int64, device=device)
        self._fresh = True
        self._shown: Tensor | None = None

    def reset(self) -> None:
        """Begin an epoch."""
        self.values.zero_()
        self.first_bad.fill_(-1)
        self.steps.zero_()
        self._fresh = True

    def add(self, terms: dict[str, Tensor]) -> None:
        """Add the terms of the next step of the epoch."""
        values = torch.stack([term.detach().float() for term in terms.values()])
        if self.names != list(terms):
            if not self._fresh:
                raise RuntimeError(f"the loss terms changed within an epoch: {list(terms)}.")
            self._take(list(terms), torch.zeros_like(values))
        self._fresh = False
        self.values += values
        bad = ~values.isfinite() & (self.first_bad < 0)
        self.first_bad.copy_(torch.where(bad, self.steps, self.first_bad))
        self.steps += 1

    def _take(self, names: list[str], values: Tensor) -> None:
        self.names, self.values = names, values
        self.first_bad = torch.full_like(values, -1, dtype=torch.int64)
        self._shown = None

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
        means = self.values / self.steps.clamp(min=1)
        return dict(zip(self.names, means.tolist(), strict=True))

    def glimpse(self) -> dict[str, float]:
        """Return the means without waiting; on a GPU they are about as old as the last call."""
        if not self.values.is_cuda:
            return self.means()
        seen = {}
        if self._shown is None:
            self._shown = torch.zeros(len(self.names), pin_memory=True)
        else:
            seen = dict(zip(self.names, self._shown.tolist(), strict=True))
        self._shown.copy_(self.values / self.steps.clamp(min=1), non_blocking=True)
        return seen

    def state(self) -> dict[str, Any]:
        """Return what the training state keeps of the sums."""
        return {"names": self.names, "values": self.values.cpu(), "steps": int(self.steps)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self._take(list(state["names"]), state["values"].to(self.steps.device))
        self.steps.fill_(state["steps"])
        self._fresh = state["steps"] == 0
