"""Errors that a user can act on: one clear sentence, shown without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LongTailedError(ValueError):
    """Bad input from a user; the command line prints its one sentence and exits with code 2."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> LongTailedError:
    """Return the error for a name that does not exist, naming the nearest ones that do.

    >>> str(unknown_name("method", "lda", ["ldam", "ce"]))
    "unknown method 'lda'; did you mean 'ldam'? Known: ce, ldam."
    """
    names, name = sorted(known), str(name)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f" did you mean {' or '.join(repr(match) for match in near)}?" if near else ""
    if near and len(names) > 20:  # a long list would hide the hint
        return LongTailedError(f"unknown {kind} {name!r};{hint}")
    shown = ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
    return LongTailedError(
        f"unknown {kind} {name!r};{hint} {'Known' if near else 'known'}: {shown}."
    )


class Interrupted(Exception):  # noqa: N818  it is no error
    """Training was asked to stop; its state is on disk. `code` is the shell's exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
