"""What `fit` is asked to do, and how it can be asked to stop."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor

from longtailed.data.splits import Splits
from longtailed.methods.base import Method
from longtailed.training.features import FeatureStore
from longtailed.training.options import Capture, FitOptions


@dataclass
class Selection:
    """The best epoch so far by balanced accuracy on one split, with its weights on the CPU.

    The weights are part of the training state, so that a resumed run never holds the weights of
    one epoch under the number of another.
    """

    split: str
    name: str
    epoch: int | None = None
    score: float = -math.inf
    weights: dict[str, Tensor] = field(default_factory=dict)

    def offer(self, epoch: int, score: float, method: Method) -> None:
        """Take the epoch if it scores at least as well as the best; later epochs win ties."""
        if score < self.score:
            return
        self.epoch, self.score = epoch, score
        self.weights = {
            name: tensor.detach().to("cpu", copy=True)
            for name, tensor in method.state_dict().items()
            if name.startswith(method.saved_prefixes)
        }

    def state(self) -> dict[str, Any]:
        """Return what the training state keeps of it."""
        return {"epoch": self.epoch, "score": self.score, "weights": self.weights}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self.epoch, self.score, self.weights = state["epoch"], state["score"], state["weights"]


@dataclass
class FitResult:
    """What `fit` leaves behind besides the trained method."""

    epochs: int
    selections: list[Selection]


@dataclass
class Job:
    """One stage of a run: everything `fit` needs besides the method.

    Args:
        fabric: launched Fabric (device, precision, processes).
        splits: the image sets; "train" is needed, "holdout" and "test" are used if selected on.
        options: see `FitOptions`.
        seed: the run's seed.
        directory: where checkpoints, metrics and weights go; None writes nothing.
        stage: the stage's number in its recipe.
        label: what the progress bar and metrics call it.
        select_on: split -> the name under which its best epoch is kept.
        capture: whether steps run as CUDA graphs: "auto" (where that is possible), "always"
            (else it is an error) or "never".
        compile: whether the stages of the backbone are compiled for training (torch.compile).
        features: keeps what a frozen backbone computed, for later stages; None: for this one.
        identity: a text that a checkpoint must carry to be resumed (the recipe's hash).
    """

    fabric: Fabric
    splits: Splits
    options: FitOptions
    seed: int = 0
    directory: Path | None = None
    stage: int = 0
    label: str = "train"
    select_on: dict[str, str] = field(default_factory=dict)
    capture: Capture = "auto"
    compile: bool = False
    features: FeatureStore | None = None
    identity: str = ""
    show_progress: bool = True
    tensorboard: bool = False

    @property
    def checkpoint(self) -> Path | None:
        """The training state's file."""
        return self.directory / "checkpoint.pt" if self.directory else None


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM in a list; a second one ends the process as usual."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous: dict[int, Any] = {}

    def take(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    for wanted in (signal.SIGINT, signal.SIGTERM):
        previous[wanted] = signal.getsignal(wanted)
        signal.signal(wanted, take)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
