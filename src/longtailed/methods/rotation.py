"""Rotation prediction: features learnt from images alone, before any label is used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from longtailed.data.streams import Batch, Stream
from longtailed.errors import LongTailedError
from longtailed.losses.inputs import full_precision
from longtailed.methods.base import Method, Progress, Run
from longtailed.nn import LinearHead, Network

Images = Literal["train", "unlabelled"]
TURNS = 4


def rotate_batch(images: Tensor, quarter_turns: Tensor) -> Tensor:
    """Return square images [N, C, S, S], each turned counter-clockwise by its quarter turns [N].

    Raises `LongTailedError` if the images are not square.
    """
    if images.shape[-1] != images.shape[-2]:
        raise LongTailedError(
            f"only square images can be turned by a quarter, not {images.shape[-2]} x "
            f"{images.shape[-1]}; add a crop to the view."
        )
    turns = quarter_turns.view(-1, 1, 1, 1) % TURNS
    once = torch.where(turns % 2 == 1, images.rot90(1, (2, 3)), images)
    return torch.where(turns >= 2, once.flip(2, 3), once)


class Rotation(Method):
    """Self-supervised pre-training: by how many quarter turns has an image been rotated?

    Each image of the batch is turned once, by 0 to 3 quarters in nearly equal numbers, and a
    linear head of its own is trained on the answer with cross-entropy (arXiv 1803.07728, as used
    in 2006.07529). Labels are not used; the classifier is left as it is, so predictions mean
    nothing until another stage trains it.

    Args:
        network: the network whose backbone is trained.
        counts: training images per class [C].
        images: the split whose images are used: "train" or "unlabelled".
        view: the augmentation before an image is turned.
    """

    label_free = True
    sums: Tensor
    rotation_accuracy: Tensor

    def __init__(
        self,
        network: Network,
        counts: Sequence[int] | Tensor,
        *,
        images: Images = "train",
        view: str = "standard",
    ) -> None:
        super().__init__(network, counts)
        self.streams = {"train": Stream(views=(view,), split=images)}
        self.network.head.requires_grad_(False)
        self.turn_head = LinearHead(network.backbone.num_features, TURNS)
        self.register_buffer("sums", torch.zeros(2))  # right answers, and answers
        self.register_buffer("rotation_accuracy", torch.zeros(()))

    def loss(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Tensor]:
        """Return the cross-entropy of the predicted quarter turns."""
        images = batches["train"].images[0]
        turns = draw_turns(len(images), progress.generator)
        logits = full_precision(self.turn_head(self.network.features(rotate_batch(images, turns))))
        right = (logits.detach().argmax(1) == turns).sum()
        self.sums += torch.stack([right, torch.ones_like(right) * len(images)])
        return {"rotation": cross_entropy(logits, turns)}

    def end_epoch(self, run: Run, progress: Progress) -> None:
        """Take the share of right answers in the epoch."""
        self.rotation_accuracy.copy_(self.sums[0] / self.sums[1].clamp_min(1))
        self.sums.zero_()

    def metrics(self) -> dict[str, Tensor]:
        """Return the share of turns that were predicted in the last epoch's steps."""
        return {"rotation_accuracy": self.rotation_accuracy}


def draw_turns(number: int, generator: torch.Generator) -> Tensor:
    """Return quarter turns 0..3 [number] in random order, nearly equally many of each.

    They are the first entries of a permutation of 0..3 repeated number // 4 + 1 times.
    """
    places = TURNS * (number // TURNS + 1)
    shuffled = torch.rand(places, generator=generator, device=generator.device).argsort()
    return shuffled[:number] % TURNS
