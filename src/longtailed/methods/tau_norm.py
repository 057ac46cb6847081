"""tau-normalisation: a trained classifier whose weight vectors are brought nearer to one length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor

from longtailed.data.setting_types import NonNegative, UsedWith
from longtailed.errors import LongTailedError
from longtailed.methods.base import Method, Run
from longtailed.nn import Network

Select = Literal["holdout", "train"]
GRID = tuple(step / 10 for step in range(21))  # what tau is chosen from
ENOUGH = 4  # held-out images a class, on average, to choose from


def tau_normalize(weight: Tensor, tau: float | Tensor) -> Tensor:
    """Return w_c / |w_c|^tau for the rows w_c of a classifier's weight [C, A].

    tau 0 returns the weight, tau 1 rows of norm 1; a row of zeros stays one. arXiv 1910.09217.
    """
    norms = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
    return weight / torch.where(norms > 0, norms, 1) ** tau


class TauNorm(Method):
    """tau-normalisation (arXiv 1910.09217) of a trained linear head; nothing is trained.

    logits = W~ z with w~_c = w_c / |w_c|^tau; the bias is dropped, as in the authors' code, so
    tau 0 is not quite the head as it was. The result is written into the head.

    A tau that is not given is the one of 0, 0.1, ..., 2 with the best balanced accuracy (on a
    balanced split: the accuracy, as theirs) on `select`; the smallest of equals. "train" stands
    for a class-balanced resample of the training images, where a well-fitted head leaves little to
    choose. Never the test split, on which the authors chose for iNaturalist.

    Args:
        network: the network with a trained linear head.
        counts: training images per class [C].
        tau: None chooses it.
        select: "holdout" or "train".
    """

    head = "linear"
    trains = False
    takes_over_head = True
    frozen_backbone = True
    saved_prefixes = ("network.", "tau")
    tau: Tensor

    def __init__(
        self,
        network: Network,
        counts: Sequence[int] | Tensor,
        *,
        tau: NonNegative | None = None,
        select: Annotated[Select, UsedWith(tau=(None,))] = "holdout",
    ) -> None:
        super().__init__(network, counts)
        self.select = None if tau is not None else select
        self.register_buffer("tau", torch.tensor(0.0 if tau is None else tau))

    def check(self, sizes: Mapping[str, Sequence[int]], batch_size: int) -> None:
        """Raise `LongTailedError` unless tau is given or can be chosen."""
        if self.select is not None:
            _check_split(sizes.get(self.select), self.select)

    def begin(self, run: Run) -> None:
        """Choose tau if it is not given, and normalise the head."""
        head = self.network.head
        if self.select is not None:
            _check_split(run.split_counts(self.select), self.select)
            with torch.autocast(run.device.type, enabled=False):
                self.tau.fill_(best_tau(head.weight, *run.features(self.select)))
        head.weight.copy_(tau_normalize(head.weight, self.tau))
        for parameter in head.parameters():
            if parameter is not head.weight:
                parameter.zero_()

    def metrics(self) -> dict[str, Tensor]:
        """Return tau."""
        return {"tau": self.tau}


def best_tau(weight: Tensor, features: Tensor, labels: Tensor) -> float:
    """Return the tau of `GRID` with the best balanced accuracy of W~ z, the smallest of equals.

    Args:
        weight: W [C, A].
        features, labels: z [N, A] and [N].
    """
    images = torch.bincount(labels, minlength=len(weight))
    share = images.clamp_min(1).double().reciprocal()[labels]  # every class weighs the same
    features = features.to(weight)
    scores = [
        ((features @ tau_normalize(weight, tau).T).argmax(1) == labels).double() @ share
        for tau in GRID
    ]
    return GRID[max(range(len(GRID)), key=[score.item() for score in scores].__getitem__)]


def _check_split(counts: Sequence[int] | None, split: str) -> None:
    """Raise `LongTailedError` unless the split is large enough to choose tau on."""
    advice = "set holdout to more images a class, give tau, or set select=train"
    if counts is None:
        raise LongTailedError(f"tau is chosen on the {split} split, but there is none; {advice}.")
    if split == "holdout" and (min(counts) == 0 or sum(counts) < ENOUGH * len(counts)):
        raise LongTailedError(
            f"the {split} split of {sum(counts)} images is too small to choose tau: it needs "
            f"every class, and {ENOUGH} images of each on average; {advice}."
        )
