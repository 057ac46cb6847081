"""A run's directory: whose it is, and whether the data is still what the run began with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from longtailed.checkpoint import read_json, write_json
from longtailed.errors import LongTailedError
from longtailed.recipes import Recipe, load_recipe


def read_recipe(directory: Path) -> Recipe:
    """Return the recipe of a run's directory; raise `LongTailedError` if there is none."""
    path = directory / "recipe.json"
    values = read_json(path)
    try:
        return load_recipe(values)
    except LongTailedError as error:
        raise LongTailedError(
            f"{path} cannot be used: {error} Was it written by another version?"
        ) from None


def check_directory(directory: Path, recipe: Recipe) -> None:
    """Raise `LongTailedError` if the directory holds anything but this recipe's run."""
    if (directory / "recipe.json").exists():
        held = read_recipe(directory)
        if held.identity != recipe.identity:
            raise LongTailedError(
                f"{directory} holds another recipe ({_difference(held, recipe)}); choose another "
                "directory with --out, or remove this one."
            )
    elif directory.exists() and not (directory.is_dir() and _is_free(directory)):
        raise LongTailedError(f"{directory} exists and holds no run; choose another directory.")


def begun_precision(directory: Path, recipe: Recipe) -> str:
    """Return the precision in which the directory's run was begun, else the recipe's.

    A run with `precision=auto` goes on in the same one on another machine.
    """
    path = directory / "manifest.json"
    if recipe.precision != "auto" or not path.exists():
        return recipe.precision
    return str(read_json(path).get("precision", recipe.precision))


def claim_directory(directory: Path, recipe: Recipe, manifest: dict[str, Any]) -> None:
    """Write recipe.json and manifest.json; refuse to go on with a run on data that has changed."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path in filter(_is_leftover, directory.iterdir()):
            path.unlink()
    except OSError as error:
        raise LongTailedError(f"cannot use {directory}: {error.strerror}.") from None
    path = directory / "manifest.json"
    if path.exists() and (directory / "checkpoint.pt").exists():
        held = read_json(path)["splits"]
        changed = [
            name for name in manifest["splits"] if held.get(name) != manifest["splits"][name]
        ]
        if changed:
            raise LongTailedError(
                f"the {changed[0]} images have changed since {directory} was begun; restore them, "
                "or choose another directory with --out."
            )
    write_json(directory / "recipe.json", recipe.model_dump(mode="json"))
    write_json(path, manifest)


def _is_free(directory: Path) -> bool:
    try:
        return all(map(_is_leftover, directory.iterdir()))
    except OSError as error:
        raise LongTailedError(f"cannot use {directory}: {error.strerror}.") from None


def _is_leftover(path: Path) -> bool:
    """Whether a file was being written when a run was killed (see `write_atomically`)."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def _difference(held: Recipe, wanted: Recipe) -> str:
    """Return the first setting in which two recipes differ, as text."""

    def walk(old: Any, new: Any, path: str) -> str:
        if isinstance(old, dict) and isinstance(new, dict):
            pairs = [(key, old.get(key), new.get(key)) for key in {**old, **new}]
        elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            pairs = [(str(i), *pair) for i, pair in enumerate(zip(old, new, strict=True))]
        else:
            return f"{path} is {old!r} there and {new!r} here"
        key, first, second = next(pair for pair in pairs if pair[1] != pair[2])
        return walk(first, second, f"{path}.{key}" if path else key)

    return walk(held.settings(), wanted.settings(), "")
