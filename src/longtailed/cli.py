"""The command line: runs a command, and says in one sentence what is wrong with bad input."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from typing import TextIO

import typer

from longtailed import bench_command, diagnose_command, experiment_command
from longtailed.commands import app
from longtailed.errors import LongTailedError

COMMANDS = (
    bench_command,
    diagnose_command,
    experiment_command,
)  # modules that add commands of their own


def main() -> None:
    """Run the command line; bad input is one sentence and exit code 2."""
    from longtailed.job import Interrupted

    # Users of a command see our own warnings, one line each; not what libraries say to developers.
    warnings.simplefilter("ignore")
    warnings.filterwarnings("default", category=UserWarning, module=r"longtailed\.")
    warnings.showwarning = _show_warning
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    speaks = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"
    if speaks:
        _show_notes()
    else:  # of several processes, the first one does
        sys.stdout = io.StringIO()
        warnings.simplefilter("ignore")
    try:
        app(standalone_mode=True)
    except LongTailedError as error:
        if speaks:
            typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except Interrupted as stop:
        if speaks:
            typer.echo(str(stop), err=True)
        sys.exit(stop.code)


class _NoteHandler(logging.Handler):
    """Shows what the library says about the data, each sentence once."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        note = record.getMessage()
        if note not in self._shown:
            self._shown.add(note)
            typer.echo(f"data: {note}", err=True)


def _show_notes() -> None:
    logger = logging.getLogger("longtailed.data")
    logger.setLevel(logging.INFO)
    logger.handlers = [_NoteHandler()]


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning as one line without the place in the code that it came from."""
    typer.echo(f"warning: {message}", err=True)
