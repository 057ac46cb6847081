"""Balanced contrastive learning (BCL): logit adjustment beside a contrastive loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from longtailed.data.samplers import SamplerName
from longtailed.data.setting_types import NonNegative, Positive, Real, Size
from longtailed.data.streams import Batch, Stream
from longtailed.errors import LongTailedError
from longtailed.losses import balanced_contrastive_loss, logit_adjusted_loss
from longtailed.losses.contrastive import MIN_TEMPERATURE
from longtailed.losses.gathering import of_all_processes
from longtailed.losses.inputs import full_precision
from longtailed.methods.base import Method, Progress, head_kind
from longtailed.methods.erm import SamplerBeta, SamplerStart, SamplesPerClass
from longtailed.nn import Network, ProjectionHead

PrototypeSource = Literal["class", "feature_rows_tiled"]
Temperature = Annotated[Real, Ge(MIN_TEMPERATURE)]


class BalancedContrastive(Method):
    """Logit-adjusted cross-entropy and balanced contrastive loss on three views (arXiv 2207.09052).

    The three views of an image pass through the network in one batch. The first is classified; a
    projection head maps the other two to the contrastive loss, whose class prototypes are another
    head's image of the classifier's weight vectors.

    loss = classifier_weight * CE(logits + tau log prior) + contrastive_weight * BCL

    The defaults are the published ones for CIFAR and ResNet-32. Departures from the authors' code:
    each head runs once a step, not twice (only running statistics, which nothing uses, differ);
    batch statistics are over all three views of the process's batch.

    Several processes contrast the whole batch, as published: each gathers the embeddings of all
    and computes the same contrastive loss. With `gather=False` each contrasts its own images alone
    (with all prototypes), and the classes' sizes in the loss are those of its own images.

    Args:
        network: the network to train, with a linear or a cosine head.
        counts: training images per class [C], at least two classes.
        tau: strength of the logit adjustment.
        temperature: of the contrastive loss.
        classifier_weight, contrastive_weight: of the two terms (alpha and beta).
        hidden_dim, embedding_dim: sizes of both heads.
        prototype_source: "class" makes the prototype of a class from its weight vector.
            "feature_rows_tiled" repeats what the published CIFAR runs did by mistake: one prototype
            for each *feature* from the transposed weights, repeated until there are C of them, so
            that classes k and k + A share one.
        scale: multiplies the logits of a cosine head.
        gather: contrast the images of all processes.
        views: the classified view and the two contrasted ones.
        sampler, sampler_start, beta, samples_per_class: how training images are drawn, and from
            when on (see `CrossEntropy`).
    """

    adjusted_counts: Tensor

    def __init__(
        self,
        network: Network,
        counts: Sequence[int] | Tensor,
        *,
        tau: Real = 1.0,
        temperature: Temperature = 0.1,
        classifier_weight: NonNegative = 2.0,
        contrastive_weight: NonNegative = 0.6,
        hidden_dim: Size = 512,
        embedding_dim: Size = 128,
        prototype_source: PrototypeSource = "class",
        scale: Positive = 30.0,
        gather: bool = True,
        views: tuple[str, str, str] = ("strong", "sim", "sim"),
        sampler: SamplerName = "instance",
        sampler_start: SamplerStart = 0,
        beta: SamplerBeta = 0.9999,
        samples_per_class: SamplesPerClass = 4,
    ) -> None:
        super().__init__(network, counts)
        num_features, num_classes = network.backbone.num_features, len(self.class_counts)
        if num_classes < 2:
            raise LongTailedError(f"{type(self).__name__} needs at least two classes.")
        train = Stream(
            views, sampler=sampler, sampler_start=sampler_start, beta=beta,
            samples_per_class=samples_per_class,
        )  # fmt: skip
        self.streams = {"train": train}
        self.tau, self.temperature = tau, temperature
        self.classifier_weight, self.contrastive_weight = classifier_weight, contrastive_weight
        self.scale = scale if head_kind(network) == "cosine" else 1.0
        self.gather = gather
        # What the logits are adjusted for; float64, proportional to the prior.
        self.register_buffer("adjusted_counts", self.class_counts.double(), persistent=False)
        self.tiled = prototype_source == "feature_rows_tiled"
        self.projection = ProjectionHead(num_features, hidden_dim, embedding_dim)
        self.prototype_head = ProjectionHead(
            num_classes if self.tiled else num_features, hidden_dim, embedding_dim
        )

    def loss(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Tensor]:
        """Return both terms for the batch."""
        batch = batches["train"]
        logits, embeddings = self.embed(batch.images)
        return self.terms(logits, batch.labels, embeddings[1:], self.prototypes(), batch.labels)

    def embed(self, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the first view's logits [N, C] and all views' embeddings [V, N, d], float32."""
        features = self.network.features(torch.cat(tuple(views)))
        logits = self.scale * full_precision(self.network.head(features[: len(views[0])]))
        embeddings = full_precision(self.projection(features))
        return logits, embeddings.view(len(views), -1, embeddings.shape[1])

    def prototypes(self) -> Tensor:
        """Return the class prototypes [C, d], float32, not normalised."""
        weight = self.network.head.weight
        if not self.tiled:
            return full_precision(self.prototype_head(weight))
        rows = full_precision(self.prototype_head(weight.T))
        tiled: Tensor = rows[torch.arange(len(weight), device=rows.device) % len(rows)]
        return tiled

    def terms(
        self,
        logits: Tensor,
        targets: Tensor,
        embeddings: Tensor,
        prototypes: Tensor,
        labels: Tensor,
    ) -> dict[str, Tensor]:
        """Return the weighted terms: logits to targets, embeddings [V, N, d] among themselves."""
        contrasted = F.normalize(embeddings, dim=-1).transpose(0, 1)
        if self.gather:
            contrasted, labels = of_all_processes(contrasted), of_all_processes(labels)
        contrastive = balanced_contrastive_loss(
            contrasted, labels, F.normalize(prototypes, dim=-1), self.temperature
        )
        adjusted = logit_adjusted_loss(logits, targets, self.adjusted_counts, self.tau)
        return {
            "logit_adjusted": self.classifier_weight * adjusted,
            "contrastive": self.contrastive_weight * contrastive,
        }

    def predict(self, images: Tensor) -> Tensor:
        """Return the logits; the heads of the contrastive loss take no part."""
        return self.scale * super().predict(images)
