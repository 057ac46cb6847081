"""The method interface: a module that owns the network and returns named, weighted loss terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from longtailed.data.positions import epoch_at
from longtailed.data.streams import Batch, Stream
from longtailed.errors import LongTailedError
from longtailed.nn import HEADS, Network


class Progress:
    """Where training stands: 0-based `epoch` of `epochs`, 0-based `step` of `steps` in the epoch.

    `lr` is the base learning rate of this epoch. `lr_tensor` and `fraction_tensor` hold the rate
    and epoch / epochs as 0-d float32 tensors on the device. `generator` lives on the device and is
    re-seeded before each step from (seed, epoch, step): whatever a method draws from it is the
    same after a resume.

    A step may be captured in a CUDA graph, in which Python values are fixed. What a step asks here
    on the host is therefore noted, and the step is captured anew when an answer changes: rarely
    for `reached`, every epoch for `epoch`, `fraction` and `lr` (so use the tensors), every step
    for `step` (which makes capture impossible).
    """

    def __init__(self, epochs: int, steps: int, generator: torch.Generator) -> None:
        self.epochs, self.steps, self.generator = epochs, steps, generator
        self._now = {"epoch": 0, "step": 0, "lr": 0.0}
        self._answers: dict[tuple[Any, ...], Any] = {}
        self.lr_tensor = torch.zeros((), device=generator.device)
        self.fraction_tensor = torch.zeros((), device=generator.device)

    def enter(self, epoch: int, lr: float) -> None:
        """Begin an epoch at the base learning rate `lr`."""
        self._now |= {"epoch": epoch, "lr": lr}
        self.lr_tensor.fill_(lr)
        self.fraction_tensor.fill_(epoch / self.epochs)

    def begin_step(self, step: int) -> None:
        """Begin a step of the epoch."""
        self._now["step"] = step

    @property
    def epoch(self) -> int:
        """The epoch, from 0."""
        return int(self._ask("epoch"))

    @property
    def step(self) -> int:
        """The step of the epoch, from 0."""
        return int(self._ask("step"))

    @property
    def lr(self) -> float:
        """The base learning rate of the epoch."""
        return float(self._ask("lr"))

    @property
    def fraction(self) -> float:
        """epoch / epochs: 0 in the first epoch, and never quite 1."""
        return self.epoch / self.epochs

    def reached(self, start: float) -> bool:
        """Return whether the epoch that `start` names has come (see `schedules.epoch_at`)."""
        return bool(self._ask("reached", start))

    def watch(self) -> dict[tuple[Any, ...], Any]:
        """Return a mapping that will hold every value asked for from now on, by question."""
        self._answers = {}
        return self._answers

    def agrees(self, answers: dict[tuple[Any, ...], Any]) -> bool:
        """Return whether the same questions would be answered the same now."""
        return all(self._answer(*question) == answer for question, answer in answers.items())

    def _ask(self, *question: Any) -> float:
        answer = self._answers[question] = self._answer(*question)
        return answer

    def _answer(self, kind: str, start: float = 0.0) -> float:
        if kind == "reached":
            return self._now["epoch"] >= epoch_at(start, self.epochs)
        return self._now[kind]


class Run(Protocol):
    """What a running training offers to a method's hooks."""

    counts: Tensor
    num_classes: int
    device: torch.device
    generator: torch.Generator

    def scan(self, stream: Stream) -> Iterator[Batch]:
        """Yield every image of the stream's split once, in order, in eval mode, without grad."""

    def features(self, split: str) -> tuple[Tensor, Tensor]:
        """Return the features [N, A] and labels [N] of a split, seen as in an evaluation.

        They are computed once for as long as the backbone does not change.
        """

    def split_counts(self, split: str) -> list[int] | None:
        """Return how many images of each class [C] a split has; None if there is no such split."""


class Method(nn.Module):
    """Base of all methods; a subclass overrides what it needs, most often only `loss`.

    Everything that must survive from one step to the next is a parameter, buffer or submodule.
    A method never touches the optimiser, the device, a file or a global random generator.

    Args:
        network: the network to train.
        counts: training images per class [C].
    """

    streams: Mapping[str, Stream] = {"train": Stream()}
    static_shapes: bool = True  # False: a step cannot be captured in a CUDA graph
    # True: in some steps parameters outside the network get no gradient and are not updated.
    idle_parameters: ClassVar[bool] = False
    compilable: ClassVar[bool] = True  # False: the backbone cannot go through torch.compile
    head: ClassVar[str | None] = None  # the kind of head it needs; None: any
    trains: ClassVar[bool] = True  # False: all is done in `begin`, its stage has 0 epochs
    label_free: ClassVar[bool] = False  # True: it trains the backbone alone, and never the head
    takes_over_head: ClassVar[bool] = False  # True: it needs a head that was trained before
    # True: the backbone and its batch statistics are frozen; `predict` classifies its features
    frozen_backbone: bool = False
    saved_prefixes: ClassVar[tuple[str, ...]] = ("network.",)  # the state that `predict` needs

    class_counts: Tensor

    def __init__(self, network: Network, counts: Sequence[int] | Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("class_counts", torch.as_tensor(counts, dtype=torch.int64))
        if self.head is not None and head_kind(network) != self.head:
            raise LongTailedError(
                f"{type(self).__name__} needs a {self.head} head, but the network has a "
                f"{head_kind(network)} one; set network.head={self.head} or leave it at auto."
            )

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the optimiser's parameter groups; a group may set its own `lr` factor etc."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def check(self, sizes: Mapping[str, Sequence[int]], batch_size: int) -> None:
        """Raise `LongTailedError` for splits or a batch with which training would fail.

        `sizes` are images per class [C] by split, the batch is that of all processes together.
        """

    def begin(self, run: Run) -> None:
        """Prepare (without grad) before the first step: freeze, re-initialise, collect."""

    def loss(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Tensor]:
        """Return the weighted loss terms of one step by name; `fit` adds and logs them."""
        raise NotImplementedError

    def after_step(self, progress: Progress) -> None:
        """Update (without grad) what follows the optimiser step: momentum encoders, queues."""

    def end_epoch(self, run: Run, progress: Progress) -> None:
        """Update (without grad) what changes once an epoch: confusion, prototypes."""

    def metrics(self) -> dict[str, Tensor]:
        """Return figures about training besides the loss, 0-d, for the journal once an epoch."""
        return {}

    def predict(self, images: Tensor) -> Tensor:
        """Return logits [N, C] for normalised images [N, 3, H, W]; no side effects."""
        logits: Tensor = self.network(images)
        return logits

    def classify(self, features: Tensor) -> Tensor:
        """Return logits [N, C] for features [N, A], as `predict` does on a frozen backbone."""
        logits: Tensor = self.network.head(features)
        return logits

    def forward(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Tensor]:
        """Return `loss`; the way in for wrappers (several processes, autocast)."""
        return self.loss(batches, progress)


def head_kind(network: Network) -> str:
    """Return the kind of the network's head: 'linear', 'cosine' or its class name."""
    for kind, head_class in HEADS.items():
        if type(network.head) is head_class:
            return kind
    return type(network.head).__name__
