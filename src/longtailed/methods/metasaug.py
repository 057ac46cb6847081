"""MetaSAug: semantic augmentation whose class covariances a held-out meta set corrects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from longtailed.data.positions import Position
from longtailed.data.setting_types import BelowOne, NonNegative, Not, Positive, Size, UsedWith
from longtailed.data.streams import Batch, Stream
from longtailed.errors import LongTailedError
from longtailed.methods.base import Progress, Run
from longtailed.methods.erm import Weighting
from longtailed.methods.isda import ISDA, Covariance, Criterion, Gamma, MaxMargin
from longtailed.methods.meta_gradient import classifier_meta_gradient, gradient_from_logits
from longtailed.methods.tangents import ConvolutionRecord
from longtailed.nn import LinearHead, Network

MetaStep = Literal["exact", "normalized", "off"]
ByMeta = UsedWith(meta=Not("off"))


class MetaSAug(ISDA):
    """Meta semantic augmentation (arXiv 2103.12579).

    Until `start` plain cross-entropy. Then each step takes a virtual SGD step on the augmented
    loss with the covariances S, measures the plain cross-entropy on a balanced meta batch there,
    and moves S against its gradient: S_meta = S - meta_lr * dL2/dS. The real step uses S_meta,
    which is then dropped; afterwards the statistics take in the batch. See
    `meta_covariance_gradient`; class weights and statistics begin at `start`, too.

    The defaults are what the authors' CIFAR code does. There S_meta differs from S by millionths
    (the figure `covariance_change`), because the virtual rate is 1e-3 and then 1e-5: compare with
    `meta="off"`, and see `meta="normalized"`. Departures: the virtual rate follows the current
    one (theirs drops one epoch later), batches of the meta set are not the same ones at each step
    (theirs in the large-scale code), and several processes share statistics and meta gradients.

    Args:
        network: the network to train.
        counts: training images per class [C].
        strength: lambda_0 of `ISDA`; the authors search 0.25, 0.5, 0.75, 1.
        start: when augmentation and class weights begin.
        covariance: "full" (CIFAR) or "diagonal" (large scale).
        criterion: "ce", "ldam" or "focal"; the last is the paper's, not in its code.
        max_margin, scale, gamma: see `ISDA`. The authors' LDAM has neither a scale nor a cosine
            head (`network.head=cosine`, `scale=30`).
        weighting, beta: class weights from `start` on.
        meta: "exact"; "normalized" scales the step to meta_lr times the norm of S; "off" is ISDA
            with the statistics of the previous step.
        meta_lr: the rate of the step on S.
        inner_lr_factor: the virtual step's rate over the current learning rate.
        persist: write S_meta into the statistics, as in the paper's algorithm.
        clamp: set negative variances of a diagonal S_meta to 0.
        statistics: whether they take in a batch "after" or "before" it is augmented.
        trainable: "network", or "classifier": the backbone is frozen, also its batch statistics.
        meta_batch_size: images of a meta batch; None: as many as of the training batch.
        meta_view: the view of the meta images.
    """

    term = "metasaug"
    compilable = False
    streams: Mapping[str, Stream] = {"train": Stream(), "meta": Stream(split="meta")}
    change: Tensor
    covariance_change: Tensor

    def __init__(
        self,
        network: Network,
        counts: Sequence[int] | Tensor,
        *,
        strength: NonNegative = 0.25,
        start: Position = 0.8,
        covariance: Covariance = "full",
        criterion: Criterion = "ce",
        max_margin: MaxMargin = 0.5,
        scale: Positive = 1.0,
        gamma: Gamma = 2.0,
        weighting: Weighting = "class-balanced",
        beta: Annotated[BelowOne, UsedWith(weighting=("class-balanced",))] = 0.9999,
        meta: MetaStep = "exact",
        meta_lr: Annotated[NonNegative, ByMeta] = 0.1,
        inner_lr_factor: Annotated[NonNegative, ByMeta] = 1.0,
        persist: Annotated[bool, ByMeta] = False,
        clamp: Annotated[bool, ByMeta] = False,
        statistics: Literal["after", "before"] = "after",
        trainable: Literal["network", "classifier"] = "network",
        meta_batch_size: Annotated[Size | None, ByMeta] = None,
        meta_view: Annotated[str, ByMeta] = "standard",
    ) -> None:
        super().__init__(
            network, counts, strength=strength, start=start, covariance=covariance,
            criterion=criterion, max_margin=max_margin, scale=scale, gamma=gamma,
            weighting=weighting, beta=beta, weighting_start=start,
        )  # fmt: skip
        if clamp and covariance == "full":
            raise LongTailedError(
                "clamp works on single variances; set covariance=diagonal or leave clamp out."
            )
        meta_stream = Stream(views=(meta_view,), split="meta", batch_size=meta_batch_size)
        self.streams = {"train": Stream(), "meta": meta_stream}
        self.meta, self.meta_lr, self.inner_lr_factor = meta, meta_lr, inner_lr_factor
        self.persist, self.clamp, self.order = persist, clamp, statistics
        self.frozen = trainable == "classifier"
        self.register_buffer("change", torch.zeros(2))  # sum over steps, and their number
        self.register_buffer("covariance_change", torch.zeros(()))

    def begin(self, run: Run) -> None:
        """Freeze the backbone where only the classifier is trained."""
        if self.frozen:
            self.network.backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> MetaSAug:
        """Return itself in training mode, but for a frozen backbone."""
        super().train(mode)
        if self.frozen:
            self.network.backbone.eval()
        return self

    def loss(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Tensor]:
        """Return plain cross-entropy before `start`, then the loss with S_meta."""
        images, labels = batches["train"].images[0], batches["train"].labels
        record = ConvolutionRecord()
        # The maps are recorded only for a tangent pass through the backbone.
        reused = self.meta != "off" and not self.frozen and progress.reached(self.start)
        with record if reused else nullcontext():
            features = self._features(images)
        logits = self.logits(features)
        if not progress.reached(self.start):
            return {self.term: nn.functional.cross_entropy(logits, labels)}
        directions = self.directions(features.detach())
        if self.order == "before":
            self.statistics.update(directions, labels)
        if self.meta == "off":
            covariance = self.statistics.covariance.clone()  # its update must not reach the graph
        else:
            gradient = self._meta_gradient(batches, features, logits, record, progress)
            covariance = self._meta_step(_mean_over_processes(gradient))
        adjusted = self.augmented(logits, labels, covariance, progress)
        if self.persist:
            self.statistics.covariance.copy_(covariance)
        if self.order == "after":
            self.statistics.update(directions, labels)
        return {self.term: self.criterion(adjusted, labels, self.current_weights(progress))}

    def _features(self, images: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.network.features(images)

    def _meta_gradient(
        self,
        batches: dict[str, Batch],
        features: Tensor,
        logits: Tensor,
        record: ConvolutionRecord,
        progress: Progress,
    ) -> Tensor:
        """Return dL2/dS for the current statistics."""
        train, meta, head = batches["train"], batches["meta"], self.network.head
        weights, covariance = self.current_weights(progress), self.statistics.covariance
        inner_lr = self.inner_lr_factor * progress.lr_tensor
        inputs, meta_inputs = train.images[0], meta.images[0]
        if self.frozen:
            inputs, meta_inputs = features, self._features(meta_inputs)
        batch, meta_batch = (inputs, train.labels), (meta_inputs, meta.labels)
        plain = self.frozen and self.scale == 1 and self.kind != "focal"
        if plain and isinstance(head, LinearHead) and covariance.ndim == 2:
            rho = self.strength * progress.fraction_tensor
            return classifier_meta_gradient(
                batch, meta_batch, head.weight, head.bias, covariance, rho, inner_lr,
                weights, self.margins,
            )  # fmt: skip

        def criterion(z: Tensor, labels: Tensor, weight: Tensor, covariance: Tensor) -> Tensor:
            adjusted = self.augmented(z, labels, covariance, progress, weight)
            return self.criterion(adjusted, labels, weights)

        return gradient_from_logits(
            _Tapped(self), logits, record, criterion, covariance, batch, meta_batch, inner_lr
        )

    @torch.no_grad()
    def _meta_step(self, gradient: Tensor) -> Tensor:
        """Return S_meta and note how far it is from S."""
        covariance = self.statistics.covariance
        norm = covariance.norm()
        if self.meta == "normalized":
            size = gradient.norm()
            gradient = gradient * torch.where(size > 0, norm / size, 0)
        moved = covariance - self.meta_lr * gradient
        if self.clamp:
            moved = moved.clamp_min(0)
        # From empty statistics there is nothing to compare with.
        change = torch.where(norm > 0, (moved - covariance).norm() / norm, 0)
        self.change += torch.stack([change, (norm > 0).to(change)])
        return moved

    def end_epoch(self, run: Run, progress: Progress) -> None:
        """Take the mean of the epoch's changes."""
        self.covariance_change.copy_(self.change[0] / self.change[1].clamp_min(1))
        self.change.zero_()

    def metrics(self) -> dict[str, Tensor]:
        """Return |S_meta - S| / |S| (Frobenius norms), the mean over the last epoch's steps."""
        return {"covariance_change": self.covariance_change}


def _mean_over_processes(gradient: Tensor) -> Tensor:
    """Return the mean of all processes' gradients: they must hold the same covariances."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(gradient)
        gradient /= distributed.get_world_size()
    return gradient


class _Tapped(nn.Module):
    """The part of a method's network that is trained, with its features and its own scale."""

    def __init__(self, method: MetaSAug) -> None:
        super().__init__()
        self.backbone = nn.Identity() if method.frozen else method.network.backbone
        self.head = method.network.head
        self.scale = method.scale

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return (features, logits)."""
        features = self.backbone(inputs)
        return features, self.scale * self.head(features)
