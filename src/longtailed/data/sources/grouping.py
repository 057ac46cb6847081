"""Groups of images that the names of their files tell."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePath

import numpy as np

from longtailed.data.imageset import ImageSet
from longtailed.data.stores import ImageFiles
from longtailed.errors import LongTailedError


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return the compiled pattern; raise `LongTailedError` if it is no regular expression."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise LongTailedError(
            f"split_by_pattern {pattern!r} is no regular expression: {error}."
        ) from None


def group_by_name(imageset: ImageSet, pattern: str) -> ImageSet:
    """Return the set with `groups` taken from the names of its files.

    `pattern` is searched for in the file's name, or in its path below the source's folder if the
    pattern contains a `/`. The group is the first capture group that took part in the match, or
    else the whole match.

    Raises `LongTailedError` if the images are no files, and with an example if a name does not
    match: an image in a group of its own by mistake would be a leak that nobody sees.
    """
    expression, images = compile_pattern(pattern), imageset.images
    if not isinstance(images, ImageFiles):
        raise LongTailedError(
            f"{imageset.name}: the images have no file names that split_by_pattern could be "
            "searched in; use split_by with a column, if there is one."
        )
    paths = [PurePath(images.paths[int(row)]) for row in imageset.indices]
    names = [path.as_posix() if "/" in pattern else path.name for path in paths]
    keys = [_key(expression.search(name)) for name in names]
    unmatched = [name for name, key in zip(names, keys, strict=True) if not key]
    if unmatched:
        raise LongTailedError(
            f"{imageset.name}: split_by_pattern {pattern!r} matches nothing in {len(unmatched)} of "
            f"{len(names)} names, such as {unmatched[0]!r}; widen it until each image has a group."
        )
    return replace(imageset, groups=np.array(keys))


def _key(match: re.Match[str] | None) -> str:
    if match is None:
        return ""
    return next((part for part in match.groups() if part), match[0])
