"""The command line that trains a given recipe, every setting of it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from longtailed.errors import LongTailedError
from longtailed.recipes import RECIPES, Recipe
from longtailed.recipes.override import Path, assignment
from longtailed.runs.run import as_recipe

ROUNDS = 4  # of comparing: a setting may change the defaults of others, such as `pretrained` does


def train_command(recipe: Recipe, out: str | None = None) -> str:
    """Return the `longtailed train` command whose recipe equals `recipe`.

    It begins with a named recipe whose name the recipe's own begins with, or with data, method and
    network, whichever is shorter; what differs from that follows as key=value. `out` is the run's
    directory.

    Raises `LongTailedError` for a recipe that no command line can say.
    """
    starts: list[tuple[list[str], dict[str, Any]]] = [
        ([name], {"recipe": name}) for name in RECIPES if f"{recipe.name}-".startswith(f"{name}-")
    ]
    lines = list[str]()
    for words, options in [*reversed(starts), _composed(recipe)]:
        assignments = _assignments(recipe, options)
        if assignments is not None:
            lines.append(shlex.join(["longtailed", "train", *words, *assignments]))
        if assignments == []:
            break  # a named recipe says it all
    if not lines:
        raise LongTailedError(f"the settings of {recipe.name} cannot be given on a command line.")
    return min(lines, key=len) + (f" --out {shlex.quote(out)}" if out else "")


def _composed(recipe: Recipe) -> tuple[list[str], dict[str, Any]]:
    """Return the words that name data, method and network, and what `as_recipe` makes of them."""
    options: dict[str, Any] = {"data": recipe.data.source, "network": recipe.network.name}
    if len(recipe.stages) == 1:  # several are said as a list, which holds their methods
        options["method"] = recipe.stages[0].method
    if recipe.data.imbalance is not None:
        options["imbalance"] = recipe.data.imbalance
    words = [word for key, value in options.items() for word in (f"--{key}", _text(value))]
    return words, options


def _text(value: str | float) -> str:
    return str(value).removesuffix(".0") if isinstance(value, float) else value


def _assignments(recipe: Recipe, options: dict[str, Any]) -> list[str] | None:
    """Return the key=value texts that turn what the options mean into the recipe; None: none do."""
    texts = list[str]()
    for number in range(ROUNDS):
        try:
            reached = as_recipe(**options, overrides=texts)
        except LongTailedError:
            return None
        missing = dict(_differences(reached, recipe))
        if not missing:
            return texts if number < 2 else _needed(recipe, options, texts)
        if ("stages",) in missing:  # of another number: all of them, as short as they can be said
            stages = [s.model_dump(mode="json", exclude_defaults=True) for s in recipe.stages]
            missing["stages",] = stages
        more = [assignment(recipe, path, value) for path, value in missing.items()]
        if set(more) <= set(texts):
            return None
        keys = {text.partition("=")[0] for text in more}
        texts = [text for text in texts if text.partition("=")[0] not in keys] + more
    return None


def _needed(recipe: Recipe, options: dict[str, Any], texts: list[str]) -> list[str]:
    """Return the texts without those that another one implies, as `pretrained` implies a rate."""
    for text in tuple(texts):
        fewer = [other for other in texts if other != text]
        try:
            if not any(_differences(as_recipe(**options, overrides=fewer), recipe)):
                texts = fewer
        except LongTailedError:
            continue
    return texts


def _differences(old: Recipe, new: Recipe) -> Iterator[tuple[Path, Any]]:
    """Yield the path and the new value of every setting in which two recipes differ."""
    yield from _walk(old.model_dump(mode="json"), new.model_dump(mode="json"), ())


def _walk(old: Any, new: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if repr(old) == repr(new):  # 1 and 1.0 are not the same: an epoch and a fraction
        return
    if _has_keys(old, new, path):
        for key in new:
            yield from _walk(old.get(key), new[key], (*path, key))
    elif path == ("stages",) and len(old) == len(new):
        for number, stages in enumerate(zip(old, new, strict=True)):
            yield from _walk(*stages, (*path, number))
    else:
        yield path, new


def _has_keys(old: Any, new: Any, path: Path) -> bool:
    """Whether the entries of a setting can be set one by one."""
    if not (isinstance(old, dict) and isinstance(new, dict)) or {"views", "options"} & {*path[:-1]}:
        return False
    return set(old) <= set(new) and all(key.isidentifier() for key in new)
