"""RSG: train with samples of rare classes that are made between two stages of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import Gt, MinLen
from torch import Tensor

from longtailed.data.positions import Position
from longtailed.data.setting_types import (
    BelowOne,
    Distinct,
    Index,
    NonNegative,
    Positive,
    Size,
    UsedWith,
)
from longtailed.data.streams import Batch
from longtailed.errors import LongTailedError
from longtailed.losses.inputs import full_precision
from longtailed.methods.base import Progress, Run
from longtailed.methods.erm import LDAM, CrossEntropy, Focal
from longtailed.methods.rare_sample_generator import (
    IGNORED,
    Layout,
    RareSampleGenerator,
    Reduction,
)
from longtailed.methods.rare_sample_pairs import same_class_pairs
from longtailed.nn import Network

HeadClasses = Annotated[tuple[Index, ...], MinLen(1), Distinct]
HeadRatio = Annotated[BelowOne, Gt(0), UsedWith(head_classes=(None,))]


class RSG(CrossEntropy):
    """Cross-entropy with a rare-class sample generator before one stage (arXiv 2106.09859).

    The map before that stage goes through `RareSampleGenerator`, the enlarged batch through the
    rest: loss = criterion(logits, labels) + cesc_weight * CESC + mv_weight * MV. Samples are
    generated from `generate_start` on; before, centres, gates and critic are trained. The network
    itself is unchanged: what is deployed is the plain one.

    Args:
        network: the network to train; each of its stages must give maps [N, C, H, W].
        counts: training images per class [K].
        before_stage: the stage that gets the enlarged batch; None: the last.
        head_ratio: the int(K * head_ratio) largest classes, but at least one, are head classes.
        head_classes: the head classes themselves, in place of `head_ratio`.
        generate_start: when generation begins (an epoch or a fraction of the run). It should be
            when `weighting_start` or `sampler_start` come, one epoch after a drop of the rate to a
            hundredth: `transform` is untrained then, and at a tenth (0.01) training diverged.
        num_centers, contrastive_dim, strength, layout, reduction, freeze_contrastive: see
            `RareSampleGenerator`.
        cesc_weight, mv_weight: weights of the generator's losses.
        decay_centers: whether weight decay applies to centres and gates, which are decayed in
            every step, also those of classes that the batch lacks.
        padded: False enlarges a batch by the generated samples alone, as the authors do, and reads
            their number in each step, so that a step cannot be captured. True enlarges every batch
            to the same length, 2 B - 1 at strength 1: the rows beyond the generated ones repeat
            others and no loss counts them, but batch normalisation does. Measured on a CPU, a step
            of ResNet-32 takes 1.0 times the plain one before generation begins, then 1.1 times,
            padded 1.3 times; with maps of 1024 channels the generator alone takes four times
            longer padded.

    Departures from the authors' code, beside those of the generator: parts that a phase does not
    train get no gradient, and so no weight decay, instead of flags that are set once and stay.
    With several processes pairs are formed within each one's share of the batch, as they were on
    each of the authors' GPUs; `fit` needs Fabric from `make_fabric(..., idle_parameters=True)`,
    which `train` makes.

    Raises `LongTailedError` for a network or stage that does not suit, and for head classes that
    are none or all of the classes.
    """

    idle_parameters = True
    tallies: Tensor
    rates: Tensor

    def __init__(
        self,
        network: Network,
        counts: Sequence[int] | Tensor,
        *,
        before_stage: Size | None = None,
        head_ratio: HeadRatio = 0.2,
        head_classes: HeadClasses | None = None,
        generate_start: Position = 0.8,
        num_centers: Size = 15,
        contrastive_dim: Size = 256,
        strength: Positive = 1.0,
        layout: Layout = "channels",
        reduction: Reduction = "sum",
        freeze_contrastive: bool = True,
        cesc_weight: NonNegative = 0.1,
        mv_weight: NonNegative = 0.01,
        decay_centers: bool = True,
        padded: bool = False,
        **shared: Any,
    ) -> None:
        super().__init__(network, counts, **shared)
        self.until = _stage_before(network, before_stage)
        self.generate_start = generate_start
        self.cesc_weight, self.mv_weight = cesc_weight, mv_weight
        self.decay_centers, self.padded, self.static_shapes = decay_centers, padded, padded
        if head_classes is None:
            head_classes = largest_classes(self.class_counts, head_ratio)
        self.generator = RareSampleGenerator(
            len(self.class_counts),
            network.backbone.stage_channels[self.until],
            head_classes,
            num_centers,
            contrastive_dim,
            strength,
            layout,
            reduction=reduction,
            freeze_contrastive=freeze_contrastive,
        )
        # Of the epoch, hits and trials of each of the three figures of `metrics`.
        self.register_buffer("tallies", torch.zeros(3, 2, dtype=torch.int64))
        self.register_buffer("rates", torch.zeros(3))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the groups: `transform`, centres and gates if they are exempt, and the rest.

        `transform` gets its first gradient in the middle of training; the fused SGD wants the
        parameters of one group to begin together.
        """
        late = list(self.generator.transform.parameters())
        exempt = [] if self.decay_centers else list(self.generator.parameters(recurse=False))
        apart = {id(parameter) for parameter in (*late, *exempt)}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in apart]
        exempted = {"params": exempt, "weight_decay": 0.0}
        groups: list[dict[str, Any]] = [{"params": rest}, {"params": late}, exempted]
        return [group for group in groups if group["params"]]

    def begin(self, run: Run) -> None:
        """Draw the generator's weights from the run's generator."""
        self.generator.reset_parameters(run.generator)

    def loss(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Tensor]:
        """Return the criterion on the enlarged batch, and CESC and MV."""
        batch, backbone = batches["train"], self.network.backbone
        generate = progress.reached(self.generate_start)
        maps = backbone.run(batch.images[0], until=self.until)
        maps, labels, cesc, mv = self.generator(maps, batch.labels, generate, padded=self.padded)
        features = backbone.pool(backbone.run(maps, after=self.until))
        logits = full_precision(self.network.head(features))
        self._tally(logits, labels, batch.labels)
        return {
            self.term: self.criterion(logits, labels, self.current_weights(progress)),
            "cesc": self.cesc_weight * cesc,
            "mv": self.mv_weight * mv,
        }

    @torch.no_grad()
    def _tally(self, logits: Tensor, labels: Tensor, own: Tensor) -> None:
        """Count same-class pairs, and right answers among the `own` images and all rows."""
        same, right = same_class_pairs(own), logits.argmax(dim=1) == labels
        counted = labels != IGNORED  # never right either
        first = slice(len(own))
        hits, trials = (same, right[first], right), (torch.ones_like(same), counted[first], counted)
        sums = [torch.stack([row.sum() for row in rows]) for rows in (hits, trials)]
        self.tallies += torch.stack(sums, dim=1)

    def end_epoch(self, run: Run, progress: Progress) -> None:
        """Take the epoch's rates."""
        self.rates.copy_(self.tallies[:, 0] / self.tallies[:, 1].clamp_min(1))
        self.tallies.zero_()

    def metrics(self) -> dict[str, Tensor]:
        """Return three rates over the last epoch; with several processes, of the first's share.

        `same_class_pairs` is the positive rate of the critic's pairs (i, i + B/2), which it learns
        from until generation begins. `train_accuracy` is top-1 on the training images, before
        the update of each step; `train_accuracy_enlarged` counts the generated samples too, as
        the authors' training accuracy does.
        """
        names = "same_class_pairs", "train_accuracy", "train_accuracy_enlarged"
        return dict(zip(names, self.rates, strict=True))


class RSGFocal(RSG, Focal):
    """Focal loss with a rare-class sample generator before one stage; options of both."""


class RSGLDAM(RSG, LDAM):
    """LDAM with a rare-class sample generator before one stage; options of both."""


def largest_classes(counts: Tensor, ratio: float) -> tuple[int, ...]:
    """Return the int(K * ratio) classes, but at least one, with the largest counts [K].

    Among equal counts the lower class comes first. Raises `LongTailedError` if the ratio is not
    above 0. Departure from the authors' code: with fewer than 1 / ratio classes it has no head.
    """
    if not ratio > 0:
        raise LongTailedError(
            f"head_ratio {ratio} makes the head classes none of the {len(counts)} classes; choose "
            "it above 0 and below 1."
        )
    number = max(1, int(len(counts) * ratio + 1e-9))
    order = torch.argsort(counts, descending=True, stable=True)
    return tuple(order[:number].tolist())


def _stage_before(network: Network, before_stage: int | None) -> int:
    """Return the stage after which the generator works."""
    stages = network.backbone.num_stages
    if not network.backbone.spatial:
        raise LongTailedError(
            "RSG needs maps [N, C, H, W] between the network's stages, and this network does not "
            "give them; use a convolutional network in stages, such as resnet32 or resnet50."
        )
    before = stages if before_stage is None else before_stage
    if not 1 <= before <= stages:
        raise LongTailedError(
            f"RSG cannot work before stage {before}; before_stage is one of 1 to {stages}."
        )
    return before - 1
