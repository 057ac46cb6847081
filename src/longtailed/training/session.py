"""What surrounds the training loop: resume, journal, evaluation, checkpoints, requests to stop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from longtailed.data.streams import Batch, Stream
from longtailed.errors import Interrupted, LongTailedError
from longtailed.methods.base import Method
from longtailed.training.checkpoint import load_training_state, save_training_state
from longtailed.training.evaluation import Evaluator
from longtailed.training.features import FeatureStore
from longtailed.training.job import Job, Selection
from longtailed.training.journal import Journal, ProgressBar
from longtailed.training.optim import load_optimizer
from longtailed.training.steps import Steps, seed_generators

_log = logging.getLogger(__name__)
SAVE_SECONDS = 10.0  # between checkpoints, at the ends of epochs
ASK_EVERY = 50  # steps after which several processes ask each other whether to stop


class RunView:
    """What a method's hooks may use (see `methods.base.Run`)."""

    def __init__(
        self, job: Job, method: Method, generator: torch.Generator, features: FeatureStore
    ) -> None:
        self.counts = method.class_counts
        self.num_classes = len(method.class_counts)
        self.device = job.fabric.device
        self.generator = generator
        self._job, self._method, self._features = job, method, features

    def scan(self, stream: Stream) -> Iterator[Batch]:
        """Yield every image of the stream's split once, in order, with the method in eval mode."""
        was_training = self._method.training
        self._method.eval()
        try:
            yield from self._job.splits.scan(
                stream.split, stream.batch_size or 512, stream.views[0], seed=self._job.seed
            )
        finally:
            self._method.train(was_training)

    def features(self, split: str) -> tuple[Tensor, Tensor]:
        """Return the features [N, A] and labels [N] of a split, seen as in an evaluation."""
        features = self._features.of(self._method.network, split)
        labels = torch.from_numpy(self._job.splits.imageset(split).labels)
        return features, labels.to(features.device)

    def split_counts(self, split: str) -> list[int] | None:
        """Return how many images of each class [C] a split has; None if there is no such split."""
        imageset = self._job.splits.sets.get(split)
        return None if imageset is None else imageset.class_counts


class Session:
    """What surrounds the loop: resume, journal, evaluation, checkpoints, requests to stop."""

    def __init__(self, method: Method, job: Job, stop: list[int]) -> None:
        self.method, self.job, self.stop = method, job, stop
        fabric = job.fabric
        method.to(fabric.device)
        generator = torch.Generator(fabric.device)
        seed_generators(generator, job, "begin")
        features = job.features or FeatureStore(job.splits, fabric)
        self.run_view = RunView(job, method, generator, features)
        self.selections = [Selection(split, name) for split, name in job.select_on.items()]
        if job.options.epochs and not method.trains:
            raise LongTailedError(f"{job.label} trains nothing; give its stage epochs=0.")
        state = self._saved_state()
        if state:  # what `begin` derives from frozen weights it must derive from the saved ones
            self._load_method(state)
        method.train()
        with torch.no_grad(), fabric.autocast():
            method.begin(self.run_view)
        if not job.options.epochs:
            return
        self.steps = Steps(method, job, generator)
        self.first_epoch, self.first_step = self._resume(state)
        self.evaluators = {
            split: Evaluator(
                method,
                job.splits,
                split,
                fabric,
                captured=self.steps.captured,
                features=features,
            )
            for split in job.select_on
        }
        self.saved_at = -math.inf
        self.journal = Journal(job.directory if fabric.is_global_zero else None)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the journal and the progress bar while training goes on."""
        job, steps = self.job, self.steps
        self.journal.begin(job.stage, self.first_epoch, job.tensorboard)
        total = job.options.epochs * steps.progress.steps
        done = self.first_epoch * steps.progress.steps + self.first_step
        show = job.show_progress and job.fabric.is_global_zero
        with ProgressBar(total, done, job.label, show, steps.images_per_step) as self.bar:
            yield
        self.journal.close()

    def epochs(self) -> Iterator[int]:
        """Yield the epochs from where the training state left off to the last one.

        The state is saved in time after each of them, and a request to stop is obeyed.
        """
        for epoch in range(self.first_epoch, self.job.options.epochs):
            self.steps.enter(epoch)
            self.started = time.perf_counter()
            yield epoch
            self.first_step = 0
            self.steps.sums.reset()
            saved = self._save_in_time(epoch + 1)
            self._stop_if_asked(epoch + 1, 0, saved)

    def after_step(self, epoch: int, step: int) -> None:
        """Check that the loss is finite, show figures if it is time, and obey a request to stop."""
        steps, fabric = self.steps, self.job.fabric
        if fabric.device.type == "cpu" and fabric.world_size == 1:
            steps.sums.check(epoch)  # elsewhere once an epoch: it reads from the device
        if self.bar.advance():
            means = steps.sums.glimpse()
            self.bar.show(" ".join(f"{name} {value:.3f}" for name, value in means.items()))
        may_stop = fabric.world_size == 1 or (step + 1) % ASK_EVERY == 0
        if may_stop and step + 1 < steps.progress.steps and steps.window().last:
            self._stop_if_asked(epoch, step + 1)

    def gather(self, epoch: int) -> None:
        """Give all processes the same buffers and loss terms; check that these are finite."""
        self._share_buffers()
        self.steps.sums.share(self.job.fabric)
        self.steps.sums.check(epoch)

    def figures(self, epoch: int) -> dict[str, Any]:
        """Return an epoch's row of the journal; refuse weights that are not finite."""
        self._check_weights(epoch)
        steps, count = self.steps, self.steps.progress.steps
        images = steps.images_until(count) - steps.images_until(self.first_step)
        seconds, terms = time.perf_counter() - self.started, steps.sums.means()
        return {
            "stage": self.job.stage,
            "method": self.job.label,
            "epoch": epoch,
            "lr": steps.progress.lr,
            "seconds": round(seconds, 4),
            "images_per_second": round(images / seconds, 1),
            "loss": sum(terms.values()),
            "terms": terms,
            "metrics": {name: value.item() for name, value in self.method.metrics().items()},
        }

    def write(self, row: dict[str, Any]) -> None:
        """Write an epoch's figures to the journal, and show them."""
        self.journal.write(row)
        self.bar.print(_describe(row, self.job.options.epochs))

    def _share_buffers(self) -> None:
        """Give all processes the buffers of the first: each has normalised its own batches."""
        if self.job.fabric.world_size > 1:
            for buffer in self.method.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def _check_weights(self, epoch: int) -> None:
        """Refuse weights that are not finite, which a checkpoint must not hold."""
        weights = [parameter.detach() for parameter in self.method.parameters()]
        if not torch.nn.utils.get_total_norm(weights, math.inf).isfinite():
            raise LongTailedError(
                f"a weight is not finite after epoch {epoch + 1}; training stopped and the last "
                "good checkpoint is kept. A lower learning rate or longer warm-up may help."
            )

    def evaluate(self, epoch: int) -> dict[str, Any]:
        """Evaluate on the splits that select an epoch; keep the weights of a new best one."""
        options = self.job.options
        if epoch + 1 != options.epochs and (epoch + 1) % options.evaluate_every:
            return {}
        figures: dict[str, Any] = {}
        for selection in self.selections:
            result = self.evaluators[selection.split]().figures
            score = result["balanced_accuracy"]
            figures[selection.split] = {"top1": result["top1"], "balanced_accuracy": score}
            selection.offer(epoch, score, self.method)
        return figures

    def _asked_to_stop(self) -> int:
        """Return the signal that this process, or any of several, has received; 0 for none."""
        received = max(self.stop, default=0)
        if self.job.fabric.world_size == 1:
            return received
        flag = torch.tensor(received, device=self.job.fabric.device)
        return int(cast(Tensor, self.job.fabric.all_reduce(flag, reduce_op="max")))

    def _stop_if_asked(self, epoch: int, step: int, saved: bool = False) -> None:
        """Save and raise `Interrupted` if a signal came."""
        signal = self._asked_to_stop()
        if not signal:
            return
        if not saved:
            self.steps.sums.check(epoch)
            self._save(epoch, step)
        hint = "; run the same command again to go on" if self.job.directory else ""
        where = f"before epoch {epoch + 1}, step {step + 1}"
        if epoch == self.job.options.epochs:
            where = "after the last epoch"
        raise Interrupted(f"Stopped {where}{hint}.", 128 + signal)

    def _save_in_time(self, epoch: int) -> bool:
        """Save before `epoch` if it is time or training is over; return whether it was."""
        options = self.job.options
        due = time.monotonic() - self.saved_at >= SAVE_SECONDS
        if options.checkpoint_every is not None:
            due = epoch % options.checkpoint_every == 0
        if due or epoch == options.epochs:
            self._save(epoch, 0)
            self.saved_at = time.monotonic()
            return True
        return False

    def _save(self, epoch: int, step: int) -> None:
        if self.job.checkpoint is None or not self.job.fabric.is_global_zero:
            return
        state = {
            "identity": self.job.identity,
            "stage": self.job.stage,
            "epoch": epoch,
            "step": step,
            "method": self.method.state_dict(),
            "optimizer": self.steps.optimizer.state_dict(),
            "sums": self.steps.sums.state(),
            "selections": [selection.state() for selection in self.selections],
        }
        save_training_state(self.job.checkpoint, state)

    def _saved_state(self) -> dict[str, Any]:
        """Return the training state of this stage; empty if there is none."""
        path = self.job.checkpoint
        if path is None or not path.exists() or not self.job.options.epochs:
            return {}
        state = load_training_state(path)
        if state.get("identity") != self.job.identity or "stage" not in state:
            raise LongTailedError(f"{path} belongs to another recipe; choose another directory.")
        return state if state["stage"] == self.job.stage else {}

    def _load_method(self, state: dict[str, Any]) -> None:
        with self._fitting():
            self.method.load_state_dict(state["method"])

    def _resume(self, state: dict[str, Any]) -> tuple[int, int]:
        """Take over a training state, if there is one; return (epoch, step)."""
        if not state:
            return 0, 0
        self._load_method(state)
        with self._fitting():
            load_optimizer(self.steps.optimizer, state["optimizer"])
        self.steps.sums.restore(state["sums"])
        for selection, kept in zip(self.selections, state["selections"], strict=True):
            selection.restore(kept)
        epoch, epochs = state["epoch"], self.job.options.epochs
        if self.job.show_progress and self.job.fabric.is_global_zero and epoch < epochs:
            directory = self.job.directory
            _log.info("%s goes on from epoch %d of %d.", directory, epoch + 1, epochs)
        return epoch, state["step"]

    @contextmanager
    def _fitting(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise LongTailedError(
                f"{self.job.checkpoint} does not fit this method: {reason}."
            ) from None


def _describe(row: dict[str, Any], epochs: int) -> str:
    parts = [f"epoch {row['epoch'] + 1}/{epochs}", f"loss {row['loss']:.4f}", f"lr {row['lr']:.4g}"]
    parts += [
        f"{split} balanced accuracy {figures['balanced_accuracy']:.3f}"
        for split, figures in row.items()
        if isinstance(figures, dict) and "balanced_accuracy" in figures
    ]
    return "  ".join([*parts, f"{row['images_per_second']:,.0f} images/s"])
