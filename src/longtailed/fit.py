"""The only training loop. It knows streams, optimiser, precision and checkpoints; no method."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from longtailed.checkpoint import load_training_state, save_training_state
from longtailed.data.feed import Feed
from longtailed.data.streams import Batch, Stream, step_seed
from longtailed.errors import LongTailedError
from longtailed.evaluation import Evaluation, evaluate_split
from longtailed.job import FitResult, Interrupted, Job, Selection, stop_requests
from longtailed.journal import Journal, ProgressBar
from longtailed.methods.base import Method, Progress
from longtailed.optim import set_learning_rate


class _Run:
    """What hooks may use (see `methods.base.Run`)."""

    def __init__(self, job: Job, method: Method, generator: torch.Generator) -> None:
        self.counts = method.class_counts
        self.num_classes = len(method.class_counts)
        self.device = job.fabric.device
        self.generator = generator
        self._job, self._method = job, method

    def scan(self, stream: Stream) -> Iterator[Batch]:
        """Yield every image of the stream's split once, in order, in eval mode, without grad."""
        was_training = self._method.training
        self._method.eval()
        try:
            with torch.no_grad(), self._job.fabric.autocast():
                for view in stream.views[:1]:
                    yield from self._job.splits.scan(
                        stream.split, stream.batch_size or 512, view, seed=self._job.seed
                    )
        finally:
            self._method.train(was_training)


class _TermSums:
    """Sums of the loss terms and the first step at which each was not finite, on the device."""

    def __init__(self, device: torch.device) -> None:
        self.names: list[str] = []
        self.values = torch.zeros(0, device=device)
        self.first_bad = torch.zeros(0, dtype=torch.int64, device=device)
        self.steps = 0

    def add(self, terms: dict[str, Tensor], step: int) -> None:
        values = torch.stack([term.detach().float() for term in terms.values()])
        if not self.names:
            self.names = list(terms)
            self.values = torch.zeros_like(values)
            self.first_bad = torch.full_like(values, -1, dtype=torch.int64)
        self.values += values
        bad = ~values.isfinite() & (self.first_bad < 0)
        self.first_bad.masked_fill_(bad, step)
        self.steps += 1

    def check(self, epoch: int) -> None:
        for name, step in zip(self.names, self.first_bad.tolist(), strict=True):
            if step >= 0:
                raise LongTailedError(
                    f"the loss term '{name}' is not finite at epoch {epoch}, step {step}; training "
                    "stopped and the last good checkpoint is kept. A lower learning rate, longer "
                    "warm-up or gradient clipping (clip=1) may help."
                )

    def means(self) -> dict[str, float]:
        return dict(zip(self.names, (self.values / max(self.steps, 1)).tolist(), strict=True))

    def state(self) -> dict[str, Any]:
        return {"names": self.names, "values": self.values.cpu(), "steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        self.names, self.steps = list(state["names"]), state["steps"]
        self.values = state["values"].to(self.values.device)
        self.first_bad = torch.full_like(self.values, -1, dtype=torch.int64)


def fit(method: Method, job: Job) -> FitResult:
    """Train `method` in place as `job` says and return the chosen epochs.

    The caller's global random state is left as it was. If `job.directory` holds a training state
    of this stage, training goes on from there, to the same weights as without the interruption.

    Raises `LongTailedError` (a loss that is not finite, a checkpoint that does not fit or cannot
    be written) and `Interrupted` (Ctrl-C or SIGTERM, after writing the state).
    """
    devices = [job.fabric.device] if job.fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), stop_requests() as stop:
        return _Fit(method, job, stop).run()


class _Fit:
    """The state of one `fit` call; `run` is the loop."""

    def __init__(self, method: Method, job: Job, stop: list[int]) -> None:
        self.method, self.job, self.stop = method, job, stop
        fabric, options = job.fabric, job.options
        method.to(fabric.device)
        generator = torch.Generator(fabric.device).manual_seed(step_seed(job.seed, "begin"))
        torch.manual_seed(step_seed(job.seed, "begin", job.stage))
        self.run_view = _Run(job, method, generator)
        method.train()
        with torch.no_grad():
            method.begin(self.run_view)
        optimizer = options.optimizer.build(method, method.parameter_groups())
        self.module, self.optimizer = fabric.setup(method, optimizer)
        self.feeds = {name: self._open(name, stream) for name, stream in method.streams.items()}
        steps = self.feeds["train"].steps
        self.progress = Progress(options.epochs, steps, generator)
        self.sums = _TermSums(fabric.device)
        self.selections = [Selection(split, name) for split, name in job.select_on.items()]
        self.seconds = 0.0
        self.first_epoch, self.first_step = self._resume()

    def _open(self, name: str, stream: Stream) -> Feed:
        fabric = self.job.fabric
        if self.job.options.batch_size % fabric.world_size:
            raise LongTailedError(
                f"batch_size {self.job.options.batch_size} cannot be shared equally by "
                f"{fabric.world_size} processes."
            )
        batch = self.job.options.batch_size // fabric.world_size
        return self.job.splits.open(
            f"{self.job.stage}/{name}", stream, batch, self.job.seed,
            fabric.global_rank, fabric.world_size,
        )  # fmt: skip

    def run(self) -> FitResult:
        job, progress, options = self.job, self.progress, self.job.options
        journal = Journal(job.directory if job.fabric.is_global_zero else None, job.tensorboard)
        if job.fabric.is_global_zero:
            journal.rewind(job.stage, self.first_epoch)
        total, done = options.epochs * progress.steps, self.first_epoch * progress.steps
        show = job.show_progress and job.fabric.is_global_zero
        images = self.feeds["train"].batch_size * job.fabric.world_size
        with ProgressBar(total, done + self.first_step, job.label, show, images) as bar:
            for epoch in range(self.first_epoch, options.epochs):
                lr = options.optimizer.lr * options.schedule.factor(epoch, options.epochs)
                progress.enter(epoch, lr)
                set_learning_rate(self.optimizer, lr)
                started = time.perf_counter()
                images = self._train_epoch(epoch, bar)
                self.sums.check(epoch)
                with torch.no_grad():
                    self.method.end_epoch(self.run_view, progress)
                seconds = time.perf_counter() - started
                self.seconds += seconds
                row = self._row(epoch, seconds, images) | self._evaluate(epoch)
                journal.write(row)
                bar.print(_describe(row, options.epochs))
                self.sums = _TermSums(job.fabric.device)
                self.first_step = 0
                last = epoch + 1 == options.epochs
                if last or (epoch + 1) % options.checkpoint_every == 0:
                    self._save(epoch + 1, 0)
                self._stop_if_asked(epoch + 1, 0, saved=True)
        journal.close()
        return FitResult(options.epochs, self.selections, self.seconds)

    def _train_epoch(self, epoch: int, bar: ProgressBar) -> int:
        """Train one epoch from `first_step` on; return the images seen by all processes."""
        progress, options, first = self.progress, self.job.options, self.first_step
        self.method.train()
        train = self.feeds["train"].epoch(epoch, options.epochs, first)
        others = {
            name: feed.endless(options.epochs, epoch * progress.steps + first)
            for name, feed in self.feeds.items()
            if name != "train"
        }
        images = 0
        for step, batch in enumerate(train, start=first):
            batches = {"train": batch, **{name: next(feed) for name, feed in others.items()}}
            self._step(step, batches)
            images += len(batch.labels) * self.job.fabric.world_size
            if bar.advance():  # the only read from the device within an epoch, twice a second
                means = self.sums.means()
                bar.show(" ".join(f"{name} {value:.3f}" for name, value in means.items()))
            if self.stop and self.job.fabric.world_size == 1:
                self._stop_if_asked(epoch, step + 1)
        return images

    def _step(self, step: int, batches: dict[str, Batch]) -> None:
        job, progress, options = self.job, self.progress, self.job.options
        progress.step = step
        seed = step_seed(job.seed, "step", job.stage, progress.epoch, step, job.fabric.global_rank)
        torch.manual_seed(seed)  # dropout and the like inside third-party networks
        progress.generator.manual_seed(seed)
        terms: dict[str, Tensor] = self.module(batches, progress)
        total = torch.stack([term.float() for term in terms.values()]).sum()
        update = (step + 1) % options.accumulate == 0 or step + 1 == progress.steps
        with job.fabric.no_backward_sync(self.module, enabled=not update):
            job.fabric.backward(total / options.accumulate)
        if update:
            if options.clip is not None:
                job.fabric.clip_gradients(self.module, self.optimizer, max_norm=options.clip)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.method.after_step(progress)
            self.sums.add(terms, step)
        if job.fabric.device.type == "cpu":
            self.sums.check(progress.epoch)

    def _row(self, epoch: int, seconds: float, images: int) -> dict[str, Any]:
        terms = self.sums.means()
        return {
            "stage": self.job.stage,
            "method": self.job.label,
            "epoch": epoch,
            "lr": self.progress.lr,
            "seconds": round(seconds, 4),
            "images_per_second": round(images / seconds, 1),
            "loss": sum(terms.values()),
            "terms": terms,
        }

    def _evaluate(self, epoch: int) -> dict[str, Any]:
        """Evaluate on the splits that select an epoch; keep the weights of a new best one."""
        options = self.job.options
        last = epoch + 1 == options.epochs
        if not last and (epoch + 1) % options.evaluate_every:
            return {}
        figures: dict[str, Any] = {}
        for selection in self.selections:
            result = self.evaluate(selection.split)
            score = result.figures["balanced_accuracy"]
            figures[selection.split] = {"top1": result.figures["top1"], "balanced_accuracy": score}
            selection.offer(epoch, score, self.method)
        return figures

    def evaluate(self, split: str) -> Evaluation:
        """Return the evaluation of the method as it stands on a split."""
        return evaluate_split(self.method, self.job.splits, split, self.job.fabric)

    def _stop_if_asked(self, epoch: int, step: int, saved: bool = False) -> None:
        """Save and raise `Interrupted` if a signal came; processes agree at the end of an epoch."""
        if self.job.fabric.world_size > 1:
            flag = torch.tensor(max(self.stop, default=0), device=self.job.fabric.device)
            asked = int(cast(Tensor, self.job.fabric.all_reduce(flag, reduce_op="max")))
            self.stop = [asked] if asked else []
        if not self.stop or epoch == self.job.options.epochs:
            return
        if not saved or epoch % self.job.options.checkpoint_every:
            self._save(epoch, step)
        where = f"epoch {epoch}, step {step}"
        hint = "; run the same command again to go on" if self.job.directory else ""
        raise Interrupted(f"Stopped before {where}{hint}.", 128 + self.stop[0])

    def _save(self, epoch: int, step: int) -> None:
        if self.job.checkpoint is None or not self.job.fabric.is_global_zero:
            return
        state = {
            "identity": self.job.identity,
            "stage": self.job.stage,
            "epoch": epoch,
            "step": step,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sums": self.sums.state(),
            "seconds": self.seconds,
            "selections": [selection.state() for selection in self.selections],
        }
        save_training_state(self.job.checkpoint, state)

    def _resume(self) -> tuple[int, int]:
        """Load the training state of this stage, if there is one; return (epoch, step)."""
        path = self.job.checkpoint
        if path is None or not path.exists():
            return 0, 0
        state = load_training_state(path)
        if state.get("identity") != self.job.identity or "stage" not in state:
            raise LongTailedError(f"{path} belongs to another recipe; choose another directory.")
        if state["stage"] != self.job.stage:
            return 0, 0
        try:
            self.method.load_state_dict(state["method"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise LongTailedError(f"{path} does not fit this method: {reason}.") from None
        self.sums.restore(state["sums"])
        self.seconds = state["seconds"]
        for selection, kept in zip(self.selections, state["selections"], strict=True):
            selection.restore(kept)
        return state["epoch"], state["step"]


def _describe(row: dict[str, Any], epochs: int) -> str:
    parts = [f"epoch {row['epoch'] + 1}/{epochs}", f"loss {row['loss']:.4f}", f"lr {row['lr']:.4g}"]
    parts += [
        f"{split} balanced accuracy {figures['balanced_accuracy']:.3f}"
        for split, figures in row.items()
        if isinstance(figures, dict) and "balanced_accuracy" in figures
    ]
    return "  ".join([*parts, f"{row['images_per_second']:,.0f} images/s"])
