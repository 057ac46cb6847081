"""RISDA: semantic augmentation of tail classes reasoned from the classes they are taken for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from annotated_types import Le
from torch import Tensor
from torch.nn.functional import cross_entropy

from longtailed.data.positions import Position, epoch_at
from longtailed.data.setting_types import BelowOne, Index, NonNegative, UsedWith, whole_or_share
from longtailed.data.streams import Batch
from longtailed.errors import LongTailedError
from longtailed.losses import reason_covariance, risda_logits
from longtailed.losses.covariance import without_autocast
from longtailed.losses.gathering import of_all_processes
from longtailed.methods.base import Progress, Run
from longtailed.methods.erm import Weighting
from longtailed.methods.isda import ISDA, Covariance
from longtailed.methods.relations import (
    count_predictions,
    relation_shares,
    tail_classes,
)
from longtailed.nn import Network

HeadClasses = Annotated[
    int | float,
    whole_or_share(
        1, 1, "a number of classes, a whole number from 1 on, or a share of them below 1"
    ),
]
SHIFTS = {"reference": 2.0, "paper": 1.0, "off": 0.0}


class RISDA(ISDA):
    """Reasoning-based implicit semantic data augmentation (arXiv 2112.07928).

    Until `start` plain cross-entropy. Then, with K the class-relation graph, P the class means of
    the features and D = K P - P, all fixed at the end of the epoch before, the features of class y
    are imagined with mean f + alpha D_y and covariance beta S_y; a tail class takes
    S_t = sum_c K_tc S_c. alpha and beta grow with epoch / epochs. See `risda_logits`.

    The defaults are what the authors' CIFAR code does. Departures: K comes from the predictions
    made while training in the last plain epoch, without a further pass over the images after each
    (`graph="best"` is theirs); head classes go by size, whatever their numbers; all is kept in
    buffers, so a resumed run has it. Their freezing of the backbone had no effect on CIFAR;
    `freeze_start` has.

    Args:
        network: the network to train.
        counts: training images per class [C].
        alpha: strength of the shift at the end of the run.
        beta: strength of the covariance at the end of the run.
        start: when augmentation and class weights begin; K and P need an epoch before.
        covariance: "full" (CIFAR) or "diagonal" (ImageNet-LT).
        head_classes: the most frequent classes, which keep their covariance: a number or a share.
        mean_shift: "reference" shifts features and logits, so twice; "paper" once; "off" never.
        rectify: set negative entries of D to 0 (the ImageNet-LT code).
        persist: write the reasoned covariances into the statistics at every step, so that they
            mix more and more; False reasons from the statistics as they were collected. The rows
            of a rounded graph (decimals=2) do not sum to 1, so covariances written back also
            shrink or grow; the recommended alternative is persist=False with decimals=None.
        graph: of the predictions made while training ("running"), of those of the pass that
            collects P ("last") or of an evaluating pass after each plain epoch, of which the one
            with the best accuracy counts ("best").
        decimals: digits of K; None for exact shares, whose rows sum to 1.
        freeze_start: when the backbone stops learning; its batch statistics still move.
        weighting, weighting_beta: class weights from `start` on.
    """

    term = "risda"
    graph: Tensor
    displacement: Tensor
    tail: Tensor
    best_accuracy: Tensor

    def __init__(
        self,
        network: Network,
        counts: Sequence[int] | Tensor,
        *,
        alpha: NonNegative = 1.0,
        beta: NonNegative = 0.5,
        start: Position = 0.8,
        covariance: Covariance = "full",
        head_classes: HeadClasses = 0.2,
        mean_shift: Literal["reference", "paper", "off"] = "reference",
        rectify: bool = False,
        persist: bool = True,
        graph: Literal["running", "last", "best"] = "running",
        decimals: Annotated[Index, Le(15)] | None = 2,
        freeze_start: Position | None = None,
        weighting: Weighting = "class-balanced",
        weighting_beta: Annotated[BelowOne, UsedWith(weighting=("class-balanced",))] = 0.9999,
    ) -> None:
        super().__init__(
            network, counts, strength=beta, start=start, covariance=covariance,
            weighting=weighting, beta=weighting_beta, weighting_start=start,
        )  # fmt: skip
        if start == 0:
            raise LongTailedError(
                "RISDA needs at least one epoch before its start to learn the relations of the "
                "classes; set start above 0."
            )
        self.alpha, self.freeze_start = alpha, freeze_start
        self.shift, self.shifts_features = SHIFTS[mean_shift], mean_shift == "reference"
        self.rectify, self.persist = rectify, persist
        self.source, self.decimals = graph, decimals
        classes, features = self.statistics.mean.shape
        # Before `start` a "running" graph counts predictions; afterwards it holds shares.
        self.register_buffer("graph", torch.zeros(classes, classes))
        self.register_buffer("displacement", torch.zeros(classes, features))
        self.register_buffer("tail", tail_classes(self.class_counts, head_classes))
        self.register_buffer("best_accuracy", torch.full((), -1.0))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the groups: the backbone, if it is to be frozen, until then; and the rest."""
        (group,) = super().parameter_groups()
        if self.freeze_start is None:
            return [group]
        backbone = {id(parameter) for parameter in self.network.backbone.parameters()}
        parts: tuple[list[Tensor], list[Tensor]] = ([], [])
        for parameter in group["params"]:
            parts[id(parameter) in backbone].append(parameter)
        return [{"params": parts[0]}, {"params": parts[1], "until": self.freeze_start}]

    def loss(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Tensor]:
        """Return plain cross-entropy before `start`, then the weighted augmented one."""
        images, labels = batches["train"].images[0], batches["train"].labels
        frozen = self.freeze_start is not None and progress.reached(self.freeze_start)
        features = self._features(images, frozen)
        logits = self.logits(features)
        if not progress.reached(self.start):
            if self.source == "running":
                seen = torch.stack([logits.detach().argmax(1), labels], dim=1)
                count_predictions(self.graph, *of_all_processes(seen).unbind(dim=1))
            return {self.term: cross_entropy(logits, labels)}
        alpha = self.alpha * progress.fraction_tensor
        seen = self.directions(features.detach())
        if self.shifts_features:
            seen = seen + alpha * self.displacement[labels]
        self.statistics.update(seen, labels)
        covariance = reason_covariance(self.statistics.covariance, self.graph, self.tail)
        if self.persist:
            self.statistics.covariance.copy_(covariance)
        adjusted = risda_logits(
            logits, labels, self.effective_weight(self.network.head.weight), covariance,
            self.displacement, self.shift * alpha, self.strength * progress.fraction_tensor,
        )  # fmt: skip
        return {self.term: self.criterion(adjusted, labels, self.current_weights(progress))}

    def _features(self, images: Tensor, frozen: bool) -> Tensor:
        """Return the features, without a gradient for a frozen backbone."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            features: Tensor = self.network.features(images)
        distributed = torch.distributed
        if not (frozen and distributed.is_available() and distributed.is_initialized()):
            return features
        # Several processes exchange the gradients of all parameters, so there they are 0.
        sums = [parameter.sum() for parameter in self.network.backbone.parameters()]
        return features + 0 * torch.stack(sums).sum()

    def end_epoch(self, run: Run, progress: Progress) -> None:
        """Settle the graph and the displacement at the end of the last plain epoch."""
        first = epoch_at(self.start, progress.epochs)
        last = progress.epoch + 1 == first
        if progress.epoch >= first:
            return
        if not last and self.source == "running":
            self.graph.zero_()
        elif last or self.source == "best":
            counts, means = self._scan(run)
            self._settle_graph(counts)
            if last:
                self._settle_displacement(means)

    def _scan(self, run: Run) -> tuple[Tensor, Tensor]:
        """Return the confusion counts [C, C] and class means [C, A] of the training images."""
        counts, means = torch.zeros_like(self.graph), torch.zeros_like(self.displacement)
        for batch in run.scan(self.streams["train"]):
            features = self.directions(self.network.features(batch.images[0]))
            means.index_add_(0, batch.labels, features.to(means))
            count_predictions(counts, self.logits(features).argmax(1), batch.labels)
        return counts, means / counts.sum(dim=1, keepdim=True).clamp_min(1)

    def _settle_graph(self, counts: Tensor) -> None:
        """Take over the graph, given the confusion counts [C, C] of an evaluating pass."""
        if self.source == "running":
            self.graph.copy_(relation_shares(self.graph, self.decimals))
            return
        accuracy = counts.trace() / counts.sum()
        if self.source == "last" or accuracy > self.best_accuracy:
            self.graph.copy_(relation_shares(counts, self.decimals))
            self.best_accuracy.copy_(accuracy)

    def _settle_displacement(self, means: Tensor) -> None:
        """Take over D = K P - P for the class means P."""
        with without_autocast(means):
            displacement = self.graph @ means - means
        self.displacement.copy_(displacement.clamp_min(0) if self.rectify else displacement)
