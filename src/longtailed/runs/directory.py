"""A run's directory: which recipe it belongs to, and whether the data has changed since."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from torch import nn

from longtailed.data import ImageSet
from longtailed.data.given import Given
from longtailed.data.image_record import (
    Verify,
    changes,
    fingerprint,
    images_of,
    read_record,
    record_images,
    shared_images,
    write_record,
)
from longtailed.data.preparation import Opened
from longtailed.errors import LongTailedError
from longtailed.nn.given import module_digest
from longtailed.recipes import Recipe, load_recipe
from longtailed.report.run_directory import RunDirectory
from longtailed.runs.prepare import open_images
from longtailed.training.checkpoint import file_digest, write_atomically, write_json

WEIGHT_SETTINGS = ("init_from", "weights")
RECORD = "images.parquet"  # which images the run is made of; see `record_images`
LEARNT = ("train", "meta", "unlabelled")  # the splits that weights learn from
JUDGED = ("holdout", "test")  # the splits that an epoch is chosen and figures are on


def default_directory(recipe: Recipe) -> Path:
    """Return runs/<name>-<hash>: a directory for this recipe on files at these places.

    The hash is the recipe's identity if it names no files. A place below the working directory
    counts from there, however it is spelt.
    """
    key = recipe.identity
    if recipe.paths:
        places = json.dumps({name: _place(path) for name, path in recipe.paths.items()})
        key = hashlib.sha256(f"{key} {places}".encode()).hexdigest()
    return Path("runs") / f"{recipe.name}-{key[:8]}"


def _place(path: str) -> str:
    here, place = Path.cwd(), Path(path).expanduser().resolve()
    return str(place.relative_to(here) if place.is_relative_to(here) else place)


def read_recipe(directory: Path) -> Recipe:
    """Return the recipe of a run's directory; raise `LongTailedError` if there is none."""
    values = RunDirectory(directory).recipe
    try:
        return load_recipe(values)
    except LongTailedError as error:
        raise LongTailedError(
            f"{directory / 'recipe.json'} cannot be used: {error} Was it written by another "
            "version?"
        ) from None


def check_directory(directory: Path, recipe: Recipe) -> None:
    """Raise `LongTailedError` if the directory holds anything but this recipe's run."""
    if RunDirectory(directory).holds_run:
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
    run = RunDirectory(directory)
    if recipe.precision != "auto" or not run.is_begun:
        return recipe.precision
    return str(run.manifest.get("precision", recipe.precision))


def record_run(
    directory: Path, recipe: Recipe, opened: Opened, module: nn.Module | None = None
) -> tuple[pa.Table, dict[str, Any]]:
    """Return the record of a run's images and what the manifest says of its files.

    A `module` that was given as the network is known by its initial weights.

    Raises `LongTailedError`, saying what has changed, if the directory holds a finished or begun
    run on other images or from other initial weights.
    """
    begun = any((directory / name).exists() for name in ("checkpoint.pt", "results.json"))
    before = read_record(directory / RECORD) if begun else None
    record = record_images(opened.sets, before, recipe.data.verify)
    files: dict[str, Any] = {
        "class_names": list(opened.sets["train"].class_names),
        "sha256": {name: fingerprint(images_of(record, name)) for name in opened.sets},
        "initial_weights": _initial_weights(recipe),
    }
    if module is not None:
        files["initial_weights"]["network"] = module_digest(module)
    if before is not None:
        held = RunDirectory(directory).manifest
        changed = changes(before, record)
        if changed is None and held["class_names"] != files["class_names"]:
            changed = "the classes stand in another order"
        if changed is None and held.get("initial_weights") != files["initial_weights"]:
            changed = "the weights that it began from are others"
        if changed is not None:
            raise LongTailedError(
                f"{directory} holds a run on other data: {changed}. Restore the data, choose "
                "another directory with --out, or remove this one."
            )
    return record, files


def check_unchanged(
    directory: Path, recipe: Recipe, given: Given | None = None, module: nn.Module | None = None
) -> None:
    """Raise `LongTailedError`, saying what has changed, unless a run's data is unchanged."""
    record_run(directory, recipe, open_images(recipe, scan=False, given=given), module)


def changes_since(
    directory: Path,
    sets: Mapping[str, ImageSet],
    splits: Sequence[str],
    verify: Verify = "auto",
) -> str | None:
    """Return what has changed of a run's images (`sets`: all of them as they are now), as text.

    None if those of `splits` are what they were, in whatever order.
    """
    held = read_record(directory / RECORD)
    before = pa.concat_tables([images_of(held, name) for name in splits])
    now = record_images({name: sets[name] for name in splits}, held, verify)
    if changes(before, now, ordered=False) is None:
        return None
    return changes(held, record_images(sets, held, verify))


def learnt_images(directory: Path) -> pa.Table | None:
    """Return the images that a run, and the runs that it began from, have learnt from.

    None if nothing is known of them.
    """
    found, homes = [], [directory.resolve()]
    for home in homes:
        if (home / RECORD).exists():
            record = read_record(home / RECORD)
            found += [images_of(record, split) for split in LEARNT]
            begun = [_home(path).resolve() for path in _weight_paths(read_recipe(home)).values()]
            homes += [earlier for earlier in begun if earlier not in homes]
    return pa.concat_tables(found) if found else None


def seen_before(recipe: Recipe, record: pa.Table) -> dict[str, int]:
    """Return, and warn, how many held-out and test images the initial weights have learnt from.

    Known of weights of runs, by the contents of the images; splits without such images are left
    out.
    """
    homes = map(_home, _weight_paths(recipe).values())
    learnt = [images for images in map(learnt_images, homes) if images is not None]
    if not learnt:
        return {}
    held = {split: images_of(record, split) for split in JUDGED}
    seen = {name: shared_images(images, pa.concat_tables(learnt)) for name, images in held.items()}
    seen = {name: images for name, images in seen.items() if images}
    if seen:
        parts = [f"{images} of {len(held[name])} {name} images" for name, images in seen.items()]
        warnings.warn(
            f"the run that the initial weights come from was trained on {' and '.join(parts)} of "
            "this one, so figures and choices on them are too good; begin from a run with the same "
            "splits (holdout, subset_seed), or train both stages in one run.",
            stacklevel=3,
        )
    return seen


def claim_directory(
    directory: Path, recipe: Recipe, manifest: dict[str, Any], record: pa.Table
) -> None:
    """Write recipe.json, manifest.json and the record of the run's images."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path in filter(_is_leftover, directory.iterdir()):
            path.unlink()
    except OSError as error:
        raise LongTailedError(f"cannot use {directory}: {error.strerror}.") from None
    write_json(directory / "recipe.json", recipe.model_dump(mode="json"))
    write_atomically(directory / RECORD, lambda file: write_record(file, record))
    write_json(directory / "manifest.json", manifest)


def _initial_weights(recipe: Recipe) -> dict[str, str]:
    """Return the SHA-256 of each file of weights that a recipe begins from, by setting."""
    files = {
        key: path / "model.safetensors" if path.is_dir() else path
        for key, path in _weight_paths(recipe).items()
    }
    for key, path in files.items():
        if not path.is_file():
            raise LongTailedError(f"there are no weights at {path}, which {key} names.")
    return {key: file_digest(path) for key, path in files.items()}


def _weight_paths(recipe: Recipe) -> dict[str, Path]:
    return {key: Path(path) for key, path in recipe.paths.items() if key in WEIGHT_SETTINGS}


def _home(path: Path) -> Path:
    """Return the directory of the run, if it is one, that a path to weights names."""
    return path if path.is_dir() else path.parent


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
