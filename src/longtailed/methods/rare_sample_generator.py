"""RSG: new samples of rare classes, from the variation of frequent ones, within a network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from longtailed.errors import LongTailedError
from longtailed.methods.contrastive_critic import DIFFERENT, ContrastiveCritic
from longtailed.methods.rare_sample_pairs import (
    Pairs,
    pad_pairs,
    pair_samples,
    same_class_pairs,
    trim_pairs,
)

Layout = Literal["channels", "legacy"]
Reduction = Literal["sum", "mean"]

IGNORED = -100  # the label of a row that no loss counts, as in `torch.nn.functional.cross_entropy`


class RareSampleGenerator(nn.Module):
    """Feature maps and labels -> both with rare-class samples appended, and two losses.

    Every class c has n centres c_k [C] and a gate: sample x with mean m over the pixels belongs to
    centre k with probability gamma_k = softmax_k(m A[y] + b[y]). Two losses train this module:

    * centre and contrastive loss (CESC): mean_i sum_k gamma_ik sum_chw (x_i - c[y_i, k])^2 and,
      while nothing is generated, the critic's cross entropy on the pairs (i, i + B/2): same class
      or not. No gradient reaches the features.
    * maximised vector loss (MV), while samples are generated. Head sample h and tail sample t are
      paired (see `pair_samples`); v = h - its most probable centre, u = transform(v) and
      r = t - its most probable centre. The new sample is t + u, with t's label; the loss is the
      mean over pairs of CE(critic(h, u), "different") + sum over pixels of
      (| |u| - |v| | + 1 - cos(u, r)). Its gradients reach `transform` alone.

    Args:
        num_classes: K.
        channels: C of the maps.
        head_classes: the frequent classes; all others are rare.
        num_centers: n, centres of each class.
        contrastive_dim: D, channels within the critic.
        strength: at most 1 in the paper: scales the number of pairs where one side is larger.
        layout: whose norm and direction MV compares: "channels", the vector of channels at each
            pixel, or "legacy", what the authors' code does: C consecutive numbers of a map in
            memory order N, C, H, W (which mixes pixels), and C - cos in place of 1 - cos.
        reduction: over pixels: "sum" as in the authors' code (so the losses grow with the map),
            or "mean", which also divides the centre loss by H W.
        freeze_contrastive: keep MV from training the critic. The authors' code freezes it on one
            GPU, and by an accident not on several.

    Parameters: `gate_weight` A [K, C, n], standard normal; `gate_bias` b [K, n], ones; `centers`
    [K, n, C], zeros; `contrast`, `transform` (3x3, Kaiming normal). Weights are drawn from torch's
    default generator until `reset_parameters` is given another.

    Paper: arXiv 2106.09859. Departures from the authors' code, beside `layout`: distances come from
    H W |m - c|^2 + sum (x - m)^2 and centres from an index, with equal values; gates are computed
    once; nothing reads the epoch; an odd batch leaves its last sample out of the contrastive pairs;
    pairs are formed within the batch of one process.
    Raises `LongTailedError` if the head classes are none or all of the classes, or a size is not
    positive.
    """

    is_head: Tensor

    def __init__(
        self,
        num_classes: int,
        channels: int,
        head_classes: Iterable[int],
        num_centers: int = 15,
        contrastive_dim: int = 256,
        strength: float = 1.0,
        layout: Layout = "channels",
        *,
        reduction: Reduction = "sum",
        freeze_contrastive: bool = True,
    ) -> None:
        super().__init__()
        if min(channels, num_centers, contrastive_dim) < 1 or not strength > 0:
            raise LongTailedError(
                "channels, num_centers, contrastive_dim and strength must be above 0; they are "
                f"{channels}, {num_centers}, {contrastive_dim} and {strength}."
            )
        self.strength, self.layout, self.reduction = strength, layout, reduction
        self.freeze_contrastive = freeze_contrastive
        is_head = _head_table(num_classes, head_classes)
        self.register_buffer("is_head", is_head)
        self.gate_weight = nn.Parameter(torch.empty(num_classes, channels, num_centers))
        self.gate_bias = nn.Parameter(torch.empty(num_classes, num_centers))
        self.centers = nn.Parameter(torch.empty(num_classes, num_centers, channels))
        self.contrast = ContrastiveCritic(channels, contrastive_dim)
        self.transform = nn.Conv2d(channels, channels, 3, padding=1)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the initial weights anew; None means torch's default generator."""
        self.gate_weight.normal_(generator=generator)
        self.gate_bias.fill_(1)
        self.centers.zero_()
        self.contrast.reset_parameters(generator)
        nn.init.kaiming_normal_(self.transform.weight, nonlinearity="relu", generator=generator)
        self.transform.bias.zero_()  # type: ignore[union-attr]

    def forward(
        self, features: Tensor, labels: Tensor, generate: bool, padded: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return (features [B + P, C, H, W], labels [B + P], CESC, MV) for maps and labels [B].

        P is 0 unless `generate`, and if the batch lacks head or tail samples; MV is then 0. With
        `padded` P is `most_pairs(B, strength)` in every batch: the rows beyond the generated ones
        repeat rows of the enlarged batch under the label `IGNORED`. Nothing is read on the host
        then; without `padded` the number of pairs is.
        """
        maps = features.detach().permute(0, 2, 3, 1)  # channels last, a view
        with torch.autocast(features.device.type, enabled=False):
            exact = maps.to(torch.promote_types(maps.dtype, torch.float32))
            gates, cesc = self._centre_loss(exact, labels)
        nothing = torch.zeros_like(cesc)
        if not generate:
            return features, labels, cesc + self._contrastive_loss(maps, labels), nothing
        pairs = pair_samples(self.is_head[labels], self.strength)
        pairs = pad_pairs(pairs, len(labels)) if padded else trim_pairs(pairs)
        if len(pairs.tail) == 0:
            return features, labels, cesc, nothing
        nearest = self.centers.detach()[labels, gates.detach().argmax(dim=1)]
        displacements = exact - nearest[:, None, None]
        # A head sample's displacement does not depend on the tail sample: computed once for each.
        heads = displacements[pairs.head].permute(0, 3, 1, 2)
        transformed = self.transform(heads).permute(0, 2, 3, 1)
        mv = self._vector_loss(maps, displacements, transformed, pairs)
        added = _repeat(transformed.to(exact.dtype), len(pairs.tail))
        added = torch.where(pairs.generated[:, None, None, None], added, 0)
        new = (exact[pairs.tail] + added).to(features.dtype).permute(0, 3, 1, 2)
        new_labels = torch.where(pairs.valid, labels[pairs.tail], IGNORED)
        return torch.cat((features, new)), torch.cat((labels, new_labels)), cesc, mv

    def _centre_loss(self, maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return gates gamma [B, n] and the centre loss of maps [B, H, W, C]."""
        classes, channels, count = self.gate_weight.shape
        pixels = maps.shape[1] * maps.shape[2]
        means = maps.mean(dim=(1, 2))
        spread = (maps - means[:, None, None]).square().sum(dim=(1, 2, 3))
        # The gradient of an embedding is cheaper than that of indexing.
        rows = functional.embedding(labels, self.gate_weight.reshape(classes, -1))
        bias = functional.embedding(labels, self.gate_bias)
        centers = functional.embedding(labels, self.centers.reshape(classes, -1))
        scores = torch.bmm(means[:, None], rows.view(-1, channels, count)).squeeze(1) + bias
        gates = scores.softmax(dim=1)
        offsets = means[:, None] - centers.view(-1, count, channels)
        distances = pixels * offsets.square().sum(dim=2) + spread[:, None]
        loss = (gates * distances).sum(dim=1).mean()
        return gates, loss / pixels if self.reduction == "mean" else loss

    def _contrastive_loss(self, maps: Tensor, labels: Tensor) -> Tensor | float:
        """Return the critic's cross entropy on the pairs (i, i + B // 2)."""
        half = len(labels) // 2
        if half == 0:
            return 0.0
        logits = self.contrast(maps[:half], maps[half : 2 * half])
        same = same_class_pairs(labels).long()  # SAME is 1, DIFFERENT is 0
        return functional.cross_entropy(_full_precision(logits), same)

    def _vector_loss(
        self, maps: Tensor, displacements: Tensor, transformed: Tensor, pairs: Pairs
    ) -> Tensor:
        """Return MV; maps and displacements are [B, H, W, C], `transformed` [D, H, W, C]."""
        logits = self.contrast(maps[pairs.head], transformed, frozen=self.freeze_contrastive)
        target = torch.full_like(pairs.head, DIFFERENT)
        losses = functional.cross_entropy(_full_precision(logits), target, reduction="none")
        rows, new = self._rows(displacements), self._rows(transformed.to(displacements.dtype))
        norms, new_norms = (torch.linalg.vector_norm(vectors, dim=2) for vectors in (rows, new))
        losses = losses + self._over_pixels((new_norms - norms[pairs.head]).abs())
        tails, count = rows[pairs.tail], len(pairs.tail)
        products = _repeat(new_norms.clamp_min(1e-12), count) * norms[pairs.tail].clamp_min(1e-12)
        cosines = (_repeat(new, count) * tails).sum(dim=2) / products
        largest = 1 if self.layout == "channels" else rows.shape[2]
        losses = _repeat(losses, count) + self._over_pixels(largest - cosines)
        return torch.where(pairs.valid, losses, 0).sum() / pairs.number.clamp_min(1)

    def _over_pixels(self, terms: Tensor) -> Tensor:
        return terms.mean(dim=1) if self.reduction == "mean" else terms.sum(dim=1)

    def _rows(self, maps: Tensor) -> Tensor:
        """Return the vectors that MV compares, [N, H * W, C], of maps [N, H, W, C]."""
        if self.layout == "legacy":
            maps = maps.permute(0, 3, 1, 2)
        return maps.reshape(len(maps), -1, self.transform.in_channels)


def _repeat(rows: Tensor, count: int) -> Tensor:
    """Return `count` rows: row p mod D of the D rows for each p."""
    times = -(-count // len(rows))
    return rows.expand(times, *rows.shape).flatten(0, 1)[:count]


def _full_precision(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _head_table(num_classes: int, head_classes: Iterable[int]) -> Tensor:
    """Return which classes are head classes, bool [K]."""
    chosen = sorted({int(c) for c in head_classes})
    if chosen and not 0 <= chosen[0] <= chosen[-1] < num_classes:
        raise LongTailedError(
            f"the head classes run from {chosen[0]} to {chosen[-1]}, but there are {num_classes} "
            "classes, numbered from 0."
        )
    if len(chosen) in (0, num_classes):
        raise LongTailedError(
            f"the head classes are {'all' if chosen else 'none'} of the {num_classes} classes; "
            "rare samples are made from frequent ones, so some classes must be head classes and "
            "some must not."
        )
    table = torch.zeros(num_classes, dtype=torch.bool)
    table[chosen] = True
    return table
