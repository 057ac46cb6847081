"""The only training loop. It knows streams, optimiser, precision and checkpoints; no method."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from longtailed.checkpoint import load_training_state, save_training_state
from longtailed.data.feed import Feed
from longtailed.data.streams import Batch, Stream, step_seed
from longtailed.errors import LongTailedError
from longtailed.evaluation import evaluate_split
from longtailed.job import FitResult, Interrupted, Job, Selection, stop_requests
from longtailed.journal import Journal, ProgressBar
from longtailed.methods.base import Method, Progress
from longtailed.optim import set_learning_rate
from longtailed.terms import TermSums

ASK_EVERY = 50  # steps after which several processes ask each other whether to stop


def fit(method: Method, job: Job) -> FitResult:
    """Train `method` in place as `job` says and return the chosen epochs.

    The caller's global random state is left as it was. If `job.directory` holds a training state
    of this stage, training goes on from there, to the same weights as without the interruption.

    Raises `LongTailedError` (a loss that is not finite, a checkpoint that does not fit or cannot
    be written) and `Interrupted` (Ctrl-C or SIGTERM, after writing the state).
    """
    devices = [job.fabric.device] if job.fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), stop_requests() as stop:
        training = _Fit(method, job, stop)
        if job.options.epochs:
            training.run()
        return FitResult(job.options.epochs, training.selections)


class _RunView:
    """What a method's hooks may use (see `methods.base.Run`)."""

    def __init__(self, job: Job, method: Method, generator: torch.Generator) -> None:
        self.counts = method.class_counts
        self.num_classes = len(method.class_counts)
        self.device = job.fabric.device
        self.generator = generator
        self._job, self._method = job, method

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


class _Fit:
    """The state of one `fit` call; `run` is the loop."""

    def __init__(self, method: Method, job: Job, stop: list[int]) -> None:
        self.method, self.job, self.stop = method, job, stop
        fabric, options = job.fabric, job.options
        method.to(fabric.device)
        generator = torch.Generator(fabric.device)
        self._seed(generator, "begin")
        self.run_view = _RunView(job, method, generator)
        self.selections = [Selection(split, name) for split, name in job.select_on.items()]
        method.train()
        with torch.no_grad(), fabric.autocast():
            method.begin(self.run_view)
        if not options.epochs:
            return
        optimizer = options.optimizer.build(method, method.parameter_groups())
        self.module, self.optimizer = fabric.setup(method, optimizer)
        self.feeds = {name: self._open(name, stream) for name, stream in method.streams.items()}
        self.progress = Progress(options.epochs, self.feeds["train"].steps, generator)
        self.sums = TermSums(fabric.device)
        self.first_epoch, self.first_step = self._resume()

    def _seed(self, generator: torch.Generator, *purpose: int | str) -> None:
        """Seed the run's generator, and the global ones for dropout inside foreign networks."""
        seed = step_seed(self.job.seed, "step", self.job.stage, *purpose)
        generator.manual_seed(seed)
        # torch.manual_seed would do the same and take half a millisecond.
        torch.default_generator.manual_seed(seed)
        if generator.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _open(self, name: str, stream: Stream) -> Feed:
        fabric, options = self.job.fabric, self.job.options
        feed = self.job.splits.open(
            f"{self.job.stage}/{name}", stream, options.batch_size, self.job.seed,
            fabric.global_rank, fabric.world_size,
        )  # fmt: skip
        wanted = stream.batch_size or options.batch_size
        if feed.batch_size * fabric.world_size < wanted and fabric.is_global_zero:
            images = len(feed.imageset)
            warnings.warn(
                f"a batch of {wanted} is larger than the split '{stream.split}' of {images} "
                f"images; batches have {feed.batch_size * fabric.world_size}.",
                stacklevel=2,
            )
        return feed

    def run(self) -> None:
        """Train from where the training state left off to the last epoch."""
        job, progress, options = self.job, self.progress, self.job.options
        journal = Journal(job.directory if job.fabric.is_global_zero else None)
        journal.begin(job.stage, self.first_epoch, job.tensorboard)
        total, done = options.epochs * progress.steps, self.first_epoch * progress.steps
        show = job.show_progress and job.fabric.is_global_zero
        images = self.feeds["train"].batch_size * job.fabric.world_size
        with ProgressBar(total, done + self.first_step, job.label, show, images) as bar:
            for epoch in range(self.first_epoch, options.epochs):
                lr = options.optimizer.lr * options.schedule.factor(epoch, options.epochs)
                progress.enter(epoch, lr)
                set_learning_rate(self.optimizer, lr)
                row = self._train_epoch(epoch, bar) | self._evaluate(epoch)
                journal.write(row)
                bar.print(_describe(row, options.epochs))
                self.sums, self.first_step = TermSums(job.fabric.device), 0
                last = epoch + 1 == options.epochs
                saved = last or (epoch + 1) % options.checkpoint_every == 0
                if saved:
                    self._save(epoch + 1, 0)
                self._stop_if_asked(epoch + 1, 0, saved)
        journal.close()

    def _train_epoch(self, epoch: int, bar: ProgressBar) -> dict[str, Any]:
        """Train one epoch from `first_step` on and return its figures."""
        progress, options, fabric = self.progress, self.job.options, self.job.fabric
        started, first, images = time.perf_counter(), self.first_step, 0
        self.method.train()
        train = self.feeds["train"].epoch(epoch, options.epochs, first)
        others = {
            name: feed.endless(options.epochs, epoch * progress.steps + first)
            for name, feed in self.feeds.items()
            if name != "train"
        }
        for step, batch in enumerate(train, start=first):
            updated = self._step(
                step, {"train": batch, **{name: next(feed) for name, feed in others.items()}}
            )
            images += len(batch.labels) * fabric.world_size
            if bar.advance():  # the only read from the device within an epoch, twice a second
                means = self.sums.means()
                bar.show(" ".join(f"{name} {value:.3f}" for name, value in means.items()))
            may_stop = fabric.world_size == 1 or (step + 1) % ASK_EVERY == 0
            if updated and may_stop and step + 1 < progress.steps:
                self._stop_if_asked(epoch, step + 1)
        self._share_buffers()
        self.sums.share(fabric)
        self.sums.check(epoch)
        with torch.no_grad(), fabric.autocast():
            self.method.end_epoch(self.run_view, progress)
        self._check_weights(epoch)
        seconds, terms = time.perf_counter() - started, self.sums.means()
        return {
            "stage": self.job.stage,
            "method": self.job.label,
            "epoch": epoch,
            "lr": progress.lr,
            "seconds": round(seconds, 4),
            "images_per_second": round(images / seconds, 1),
            "loss": sum(terms.values()),
            "terms": terms,
            "metrics": {name: value.item() for name, value in self.method.metrics().items()},
        }

    def _step(self, step: int, batches: dict[str, Batch]) -> bool:
        """Take one step; return whether it updated the weights (see `accumulate`)."""
        fabric, progress, options = self.job.fabric, self.progress, self.job.options
        progress.step = step
        self._seed(progress.generator, progress.epoch, step, fabric.global_rank)
        window = step - step % options.accumulate
        shared = min(options.accumulate, progress.steps - window)
        update = step + 1 == window + shared
        with fabric.no_backward_sync(self.module, enabled=not update):
            terms: dict[str, Tensor] = self.module(batches, progress)
            total = torch.stack([term.float() for term in terms.values()]).sum()
            fabric.backward(total / shared)
        if update:
            if options.clip is not None:
                fabric.clip_gradients(
                    self.module, self.optimizer, max_norm=options.clip, error_if_nonfinite=False
                )
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.method.after_step(progress)
            self.sums.add(terms, step)
        if fabric.device.type == "cpu" and fabric.world_size == 1:  # elsewhere once an epoch
            self.sums.check(progress.epoch)
        return update

    def _share_buffers(self) -> None:
        """Give all processes the buffers of the first: each has normalised its own batches."""
        if self.job.fabric.world_size > 1:
            for buffer in self.method.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def _check_weights(self, epoch: int) -> None:
        """Refuse weights that are not finite, which a checkpoint must not hold."""
        finite = torch.stack([p.isfinite().all() for p in self.method.parameters()]).all()
        if not bool(finite):
            raise LongTailedError(
                f"a weight is not finite after epoch {epoch + 1}; training stopped and the last "
                "good checkpoint is kept. A lower learning rate or longer warm-up may help."
            )

    def _evaluate(self, epoch: int) -> dict[str, Any]:
        """Evaluate on the splits that select an epoch; keep the weights of a new best one."""
        options = self.job.options
        if epoch + 1 != options.epochs and (epoch + 1) % options.evaluate_every:
            return {}
        figures: dict[str, Any] = {}
        for selection in self.selections:
            result = evaluate_split(
                self.method, self.job.splits, selection.split, self.job.fabric
            ).figures
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
            self.sums.check(epoch)
            self._save(epoch, step)
        hint = "; run the same command again to go on" if self.job.directory else ""
        where = f"before epoch {epoch + 1}, step {step + 1}"
        if epoch == self.job.options.epochs:
            where = "after the last epoch"
        raise Interrupted(f"Stopped {where}{hint}.", 128 + signal)

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
