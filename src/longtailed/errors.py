"""Errors that a user can act on: one clear sentence, shown without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

FEW = 8  # so many names can be read in one sentence


class LongTailedError(ValueError):
    """Bad input from a user; the command line prints its one sentence and exits with code 2."""


def unknown_name(
    kind: str, name: str, known: Iterable[str], listing: str | None = None
) -> LongTailedError:
    """Return the error for a name that does not exist.

    It asks whether a similar name was meant, and then gives all names that exist if they are few,
    else the five nearest. `listing` is the word after `longtailed list` that shows them all.

    >>> str(unknown_name("head", "cosin", ["linear", "cosine"]))
    "unknown head 'cosin'; did you mean 'cosine'? Known: cosine, linear."
    """
    names, name = sorted(set(known)), str(name)
    near = _nearest(name, names)
    if len(names) <= FEW:
        shown = f"known: {', '.join(names)}"
    else:
        shown = f"the nearest of {len(names):,}: {', '.join(near)}"
    if listing is not None:
        shown += f" (`longtailed list {listing}` shows all)"
    if near and _likeness(name, near[0]) >= 0.5:
        shown = f"did you mean '{near[0]}'? {shown[0].upper()}{shown[1:]}"
    return LongTailedError(f"unknown {kind} {name!r}; {shown}.")


def _nearest(name: str, names: Iterable[str]) -> list[str]:
    """Return the five names most like `name`, the most like first."""
    return sorted(names, key=lambda one: (-_likeness(name, one), one))[:5]


def _likeness(name: str, other: str) -> float:
    """Return how alike two names are, from 0 to 1; upper and lower case are the same."""
    return difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio()


class Interrupted(Exception):  # noqa: N818  it is no error
    """Training was asked to stop; its state is on disk. `code` is the shell's exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
