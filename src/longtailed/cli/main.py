"""The command line: runs a command, and says in one sentence what is wrong with bad input."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from typing import TextIO

import typer

from longtailed.cli import bench as bench_command
from longtailed.cli import data as data_command
from longtailed.cli import diagnose as diagnose_command
from longtailed.cli import experiment as experiment_command
from longtailed.cli.commands import app
from longtailed.errors import LongTailedError

COMMANDS = (
    data_command,
    bench_command,
    diagnose_command,
    experiment_command,
)  # modules that add commands of their own


def main() -> None:
    """Run the command line; bad input is one sentence and exit code 2."""
    from longtailed.errors import Interrupted

    # Users of a command see our own warnings, one line each; not what libraries say to developers.
    warnings.simplefilter("ignore")
    warnings.filterwarnings("default", category=UserWarning, module=r"longtailed\.")
    warnings.showwarning = _show_warning
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    speaks = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"
    if not speaks:  # of several processes, the first one does
        sys.stdout = io.StringIO()
        warnings.simplefilter("ignore")
    else:
        _show_notes()
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


def _show_notes() -> None:
    """Show what the library logs of the data: what was taken for what, and what was left out."""
    handler = logging.StreamHandler()
    handler.addFilter(_Once())
    logger = logging.getLogger("longtailed")
    logger.handlers = [handler]  # not one more for each call of main
    logger.setLevel(logging.INFO)


class _Once(logging.Filter):
    """Lets each message through once: every split of a source says what the source is."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        new = message not in self._said
        self._said.add(message)
        return new


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
