"""What a run writes down as it goes: metrics.jsonl, TensorBoard, and the progress bar."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from longtailed.errors import LongTailedError
from longtailed.report.strict_json import to_json
from longtailed.training.checkpoint import write_atomically


class Journal:
    """One line of JSON per epoch, optionally mirrored to TensorBoard.

    Lines of epochs that are about to be trained again (a resumed run) are dropped first, so the
    file reads as if the run had never stopped.
    """

    def __init__(self, directory: Path | None) -> None:
        self.path = directory / "metrics.jsonl" if directory else None
        self._board: Any = None

    def begin(self, stage: int, epoch: int, tensorboard: bool = False) -> None:
        """Forget what was written about (stage, epoch) and all that follows it, and go on there."""
        if self.path is None:
            return
        kept = []
        for line in self._lines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # a line that was being written when the run was killed
                continue
            if (row["stage"], row["epoch"]) < (stage, epoch):
                kept.append(f"{line}\n")
        write_atomically(self.path, lambda file: file.write("".join(kept).encode()))
        if tensorboard:
            self._board = _open_board(self.path.parent, stage, epoch)

    def _lines(self) -> list[str]:
        if self.path is None or not self.path.exists():
            return []
        return self.path.read_text(encoding="utf-8").splitlines()

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one epoch."""
        if self.path is not None:
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(to_json(row) + "\n")
            except OSError as error:
                raise LongTailedError(f"cannot write {self.path}: {error.strerror}.") from None
        if self._board is not None:
            for name, value in _flatten(row):
                self._board.add_scalar(name, value, row["epoch"])

    def close(self) -> None:
        """Close the TensorBoard file, if there is one."""
        if self._board is not None:
            self._board.close()


def _open_board(directory: Path, stage: int, epoch: int) -> Any:
    """Return a writer for one stage that hides what was written from `epoch` on."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise LongTailedError(
            "TensorBoard is not installed; run: pip install 'longtailed[tensorboard]'."
        ) from None
    return SummaryWriter(str(directory / "tensorboard" / f"stage-{stage}"), purge_step=epoch)


def _flatten(row: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    flat: list[tuple[str, float]] = []
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat += _flatten(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and key not in {"stage", "epoch"}:
            flat.append((prefix + key, float(value)))
    return flat


class ProgressBar:
    """Epochs and steps, loss terms, rate and time left; says nothing where there is no terminal."""

    refresh_seconds = 0.5

    def __init__(
        self, total_steps: int, done: int, label: str, enabled: bool, images_per_step: int = 1
    ) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            disable=not (enabled and console.is_terminal),
        )
        self._task: TaskID = self._bar.add_task(label, total=total_steps, completed=done, note="")
        self._images_per_step = images_per_step
        self._next = 0.0

    def __enter__(self) -> ProgressBar:
        if not self._bar.disable:  # some versions of rich print an empty line all the same
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._bar.disable:
            self._bar.stop()

    def advance(self) -> bool:
        """Count one step; return whether it is time to show fresh figures."""
        if self._bar.disable:
            return False
        self._bar.advance(self._task)
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self.refresh_seconds
        return True

    def show(self, note: str) -> None:
        """Show the figures, and the images per second, beside the bar."""
        speed = self._bar.tasks[self._task].speed or 0.0
        rate = f"{speed * self._images_per_step:,.0f} images/s"
        self._bar.update(self._task, note=f"{note}  {rate}")

    def print(self, line: str) -> None:
        """Print a line above the bar, on a terminal only."""
        if not self._bar.disable:
            self._bar.console.print(line, highlight=False)
