"""ConCutMix: balanced contrastive learning with CutMix of class-balanced images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from longtailed.data import class_probabilities
from longtailed.data.augment.mixing import MixedLabels, cutmix, soft_targets
from longtailed.data.positions import Position
from longtailed.data.samplers import SamplerName
from longtailed.data.setting_types import NonNegative, Not, Share, Size, UsedWith
from longtailed.data.streams import Batch, Stream
from longtailed.errors import LongTailedError
from longtailed.losses import semantic_mix_labels
from longtailed.losses.semantic_mix import Normalizer
from longtailed.methods.base import Progress
from longtailed.methods.bcl import BalancedContrastive
from longtailed.nn import Network

Prior = Literal["train", "mixed"]
Mixed = UsedWith(mix_probability=Not(0))
Semantic = UsedWith(omega=Not(0))
PASTED = 77 / 240  # mean share of an image under the box: E[(w - w^2 / 4)^2], w^2 uniform in 0..1


class ConCutMix(BalancedContrastive):
    """BCL whose classified view is mixed with class-balanced images (arXiv 2407.04911).

    With probability `mix_probability` a box of the classified view is replaced from an image of the
    stream "mix", drawn by the `foreground` sampler. The target has both classes by area; from
    `semantic_start` on a part of it follows which prototypes the mixed image is nearest to (see
    `losses.semantic_mix_labels`). The contrasted views are never mixed.

    As published one decision, box and area serve the batch, and distances are between embeddings
    that are not normalised. (Each of several processes draws decision, box and area for its own
    part of the batch; the authors draw them once.) `foreground="instance"` draws the mixed-in
    images uniformly, "reversed" prefers rare classes. The other options are those of
    `BalancedContrastive`.

    Departures from the authors' code: the weight of the semantic part is kept in 0..1 unless
    `clamp` is off; where the box is empty the label stays as it is. Whether to mix is drawn before
    the images are read, so that files are decoded only where they are mixed in (the authors read
    them for every batch); the device does the same work at every step.

    Args:
        network: the network to train.
        counts: training images per class [C].
        foreground: how the mixed-in images are drawn (see `longtailed.data.SAMPLERS`).
        mix_probability: of a batch (or image) being mixed; 0 leaves BCL without a "mix" stream.
        prior: what the logits are adjusted for: the sizes of the classes ("train", as published),
            or the shares that classes have in the mixed labels ("mixed", ours): with class-balanced
            foregrounds these are much flatter, and adjusting for the sizes corrects rare classes
            twice.
        per_sample: draw decision, box and area for each image.
        semantic_start: when the semantic part begins (an epoch or a fraction of the run).
        omega: strength of the semantic part, 0 for none; None: 0.2 C / 255 as published for CIFAR
            and ImageNet-LT (iNaturalist: 1628 / 255, rounded; a fork's Places-LT: 200 / 255, 2.7
            times that), which with the normaliser "sum" moves a thousandth of a label.
        normalizer: what the weight's log count is divided by: "sum", "mean" or "max" of the log
            counts. With "max" the weight is at most omega.
        top_k: prototypes that an image may look like; None: 0.3 C but at most 30, as published.
        normalized_distances: compare directions of embeddings.
        clamp: keep the weight of the semantic part in 0..1.
    """

    def __init__(
        self,
        network: Network,
        counts: Sequence[int] | Tensor,
        *,
        foreground: Annotated[SamplerName, Mixed] = "class-balanced",
        mix_probability: Share = 0.5,
        prior: Annotated[Prior, Mixed] = "train",
        per_sample: Annotated[bool, Mixed] = False,
        semantic_start: Annotated[Position, Semantic] = 0.505,
        omega: Annotated[NonNegative | None, Mixed] = None,
        normalizer: Annotated[Normalizer, Semantic] = "sum",
        top_k: Annotated[Size | None, Semantic] = None,
        normalized_distances: Annotated[bool, Semantic] = False,
        clamp: Annotated[bool, Semantic] = True,
        **shared: Any,
    ) -> None:
        super().__init__(network, counts, **shared)
        self.num_classes = len(self.class_counts)
        if top_k is not None and top_k > self.num_classes:
            raise LongTailedError(
                f"top_k={top_k} is more than the {self.num_classes} classes that an image may look "
                "like; give at most as many, or leave it out."
            )
        self.mix_probability, self.per_sample = mix_probability, per_sample
        if mix_probability > 0:
            first = self.streams["train"].views[0]
            mix = Stream(
                (first,),
                sampler=foreground,
                share=mix_probability,
                share_of="images" if per_sample else "batches",
            )
            self.streams = {**self.streams, "mix": mix}
        if prior == "mixed":
            self.adjusted_counts.copy_(self.mixed_counts(foreground))
        self.semantic_start = semantic_start
        self.omega = 0.2 * self.num_classes / 255 if omega is None else omega
        self.top_k = max(1, min(30, round(0.3 * self.num_classes))) if top_k is None else top_k
        self.normalizer, self.clamp = normalizer, clamp
        self.normalized_distances = normalized_distances

    def mixed_counts(self, foreground: str) -> Tensor:
        """Return class sizes [C], float64, in proportion to the expected labels by area.

        (1 - s) n_c + s N q_c for sizes n of N images, foregrounds drawn with probabilities q and
        the share s of all pixels that is pasted: `mix_probability` times 77/240. lam is uniform; a
        box of side w = sqrt(1 - lam) loses w^2 / 4 of it at the border, on average, along each
        axis. (Pixels make boxes a little smaller.)
        """
        if foreground == "progressive":
            raise LongTailedError(
                "prior=mixed needs foregrounds that are drawn alike in all epochs; "
                "foreground=progressive changes."
            )
        counts = self.class_counts.double()
        drawn = torch.from_numpy(class_probabilities(foreground, self.class_counts.tolist()))
        pasted = self.mix_probability * PASTED
        return (1 - pasted) * counts + pasted * counts.sum() * drawn.to(counts)

    def loss(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Tensor]:
        """Return both terms, the classifier's on the mixed view."""
        if self.mix_probability == 0:
            return super().loss(batches, progress)
        batch = batches["train"]
        mixed, labels = self.mix(batch, batches["mix"], progress.generator)
        logits, embeddings = self.embed((mixed, *batch.images[1:]))
        prototypes = self.prototypes()
        targets = soft_targets(*labels, self.num_classes)
        if self.omega > 0 and progress.reached(self.semantic_start):
            targets = self.semantic_targets(targets, labels.lam, embeddings[0], prototypes)
        return self.terms(logits, targets, embeddings[1:], prototypes, batch.labels)

    def mix(
        self, batch: Batch, foreground: Batch, generator: torch.Generator
    ) -> tuple[Tensor, MixedLabels]:
        """Return the classified view with boxes from the foreground, and both labels."""
        images = len(batch.labels)  # of an epoch's last batch fewer than there are foregrounds
        return cutmix(
            batch.images[0],
            batch.labels,
            alpha=1.0,
            generator=generator,
            partners=(foreground.images[0][:images], foreground.labels[:images]),
            per_sample=self.per_sample,
            used=None if foreground.used is None else foreground.used[:images],
        )

    def semantic_targets(
        self, area_labels: Tensor, lam: Tensor, embeddings: Tensor, prototypes: Tensor
    ) -> Tensor:
        """Return the targets [N, C]: semantic where something was pasted, else as they are."""
        semantic = semantic_mix_labels(
            embeddings,
            prototypes,
            area_labels,
            self.class_counts,
            self.omega,
            self.top_k,
            normalizer=self.normalizer,
            normalized=self.normalized_distances,
            clamp=self.clamp,
        )
        return torch.where((lam < 1)[..., None], semantic, area_labels)
