"""The only training loop. It knows streams, optimiser, precision and checkpoints; no method."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from longtailed.losses.inputs import full_precision
from longtailed.methods.base import Method
from longtailed.training.capture import side_stream
from longtailed.training.compiling import compiled_stages
from longtailed.training.job import FitResult, Job, stop_requests
from longtailed.training.session import Session
from longtailed.training.steps import Steps


def fit(method: Method, job: Job) -> FitResult:
    """Train `method` in place as `job` says and return the chosen epochs.

    The caller's global random state is left as it was. If `job.directory` holds a training state
    of this stage, training goes on from there, to the same weights as without the interruption.

    Raises `LongTailedError` (a loss that is not finite, a checkpoint that does not fit or cannot
    be written) and `Interrupted` (Ctrl-C or SIGTERM, after writing the state).
    """
    with _surroundings(job) as stop:
        session = Session(method, job, stop)  # calls method.begin
        if not job.options.epochs:
            return FitResult(0, session.selections)
        steps = session.steps
        with session.shown(), compiled_stages(method) if job.compile else nullcontext():
            for epoch in session.epochs():
                method.train()
                for step in steps.run(train_step, session.first_step):
                    session.after_step(epoch, step)
                session.gather(epoch)
                with torch.no_grad(), job.fabric.autocast():
                    method.end_epoch(session.run_view, steps.progress)
                row = session.figures(epoch)
                session.write(row | session.evaluate(epoch))
        return FitResult(job.options.epochs, session.selections)


def train_step(steps: Steps, drawn: tuple[Tensor, ...]) -> None:
    """Take one step on what the feeds drew: batches, loss terms, backward, update, hook.

    Nothing here reads from the device, so that on a GPU all of it can be recorded as one CUDA graph
    and replayed.
    """
    fabric, options, window = steps.job.fabric, steps.job.options, steps.window()
    batches = steps.prepare(drawn)
    if window.first:
        steps.optimizer.zero_grad(set_to_none=True)
    with fabric.no_backward_sync(steps.module, enabled=not window.last):
        terms: dict[str, Tensor] = steps.module(batches, steps.progress)
        total = torch.stack([full_precision(term) for term in terms.values()]).sum()
        fabric.backward(total / window.steps)
    if window.last:
        if options.clip is not None:
            fabric.clip_gradients(
                steps.module, steps.optimizer, max_norm=options.clip, error_if_nonfinite=False
            )
        steps.optimizer.step()
    with torch.no_grad():
        steps.method.after_step(steps.progress)
        steps.sums.add(terms)


@contextmanager
def _surroundings(job: Job) -> Iterator[list[int]]:
    """Yield the signals that ask to stop; keep the caller's random state and CUDA stream."""
    device = job.fabric.device
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), side_stream(device), stop_requests() as stop:
        yield stop
