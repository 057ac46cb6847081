"""key=value overrides of a recipe, with short keys where they are unambiguous."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from longtailed.data.setting_types import UsedWith, used_with
from longtailed.errors import LongTailedError, unknown_name
from longtailed.methods import method_options
from longtailed.nn.settings import NetworkSpec
from longtailed.recipes.recipe import Recipe, Stage, load_recipe
from longtailed.training.optim import FINE_TUNING, FROM_SCRATCH

Path = tuple[str | int, ...]

SHORT: dict[str, Path] = {"data": ("data", "source"), "stages": ("stages",)}
NAMES = ("name", "kind")  # what a part of a recipe is called by: network=resnet18, schedule=cosine


def override(
    recipe: Recipe, *assignments: Sequence[str] | Mapping[str, Any], complete: bool = True
) -> Recipe:
    """Return the recipe with `key=value` texts, or mappings of keys to values, applied.

    A key is a full path ("data.imbalance", "stages.0.optimizer.lr") or its last part where only
    one place has it ("imbalance", "lr"); in a recipe of several stages a stage's key needs its
    number ("stages.1.epochs", or "1.epochs"). Options of a stage's method ("gamma", "1.gamma") need
    no prefix. "stages" takes the list of all stages. Values are Python literals; anything else is
    text; "none" is None. A stage that gets another optimiser gets that one's usual settings, but
    for those that are given, too.

    Raises `LongTailedError` for an unknown or ambiguous key (naming the nearest), a bad value, a
    setting given twice with different values, and one that has no effect beside the others
    (unless more will be set: `complete` False).
    """
    values = recipe.model_dump(mode="json")
    given: dict[Path, Any] = {}
    # The stages and then their methods come first: they decide which other keys exist.
    pairs = [pair for group in assignments for pair in _pairs(group)]
    for key, value in sorted(pairs, key=lambda p: (p[0] != "stages", not p[0].endswith("method"))):
        path = _resolve(key, values)
        first = given.setdefault(path, value)
        if first != value and str(first) != str(value):
            place = ".".join(map(str, path))
            raise LongTailedError(
                f"{place} is given twice, as {first!r} and as {value!r}; give it once."
            )
        if path[::2] == ("stages", "method") and value != _get(values, path):
            _set(values, (*path[:-1], "options"), {})
        _set(values, path, value)
        if path == ("stages",):
            values = load_recipe(values).model_dump(mode="json")
    for number, stage in enumerate(recipe.stages if ("stages",) not in given else ()):
        _follow_optimizer(stage.optimizer.name, number, values, given)
    changed = load_recipe(values)
    for path in given if complete else ():
        _check_effect(path, changed)
    return changed


def _follow_optimizer(before: str, number: int, values: Any, given: Mapping[Path, Any]) -> None:
    """Give a stage whose optimiser is another one its usual settings, where none are given."""
    place: Path = ("stages", number, "optimizer")
    optimizer = _get(values, place)
    if optimizer["name"] == before:
        return
    try:
        fine_tuning = NetworkSpec.model_validate(values["network"]).brings_weights
    except ValidationError:
        return  # the whole recipe will be refused
    usual = (FINE_TUNING if fine_tuning else FROM_SCRATCH).get(str(optimizer["name"]), {})
    kept = ("name", "decay_norm_and_bias")
    own = {key: v for key, v in optimizer.items() if key in kept or (*place, key) in given}
    _set(values, place, {**usual, **own})


def _check_effect(path: Path, recipe: Recipe) -> None:
    """Raise `LongTailedError` if a given setting has no effect beside the others of the recipe."""
    parents, name = path[:-1], str(path[-1])
    section: Any = recipe
    for part in parents:
        section = section[part] if isinstance(part, int) else getattr(section, part, None)
    if isinstance(section, BaseModel):
        field = type(section).model_fields[name]
        needs = next((part for part in field.metadata if isinstance(part, UsedWith)), None)
        settings, default = dict(section), field.default
    elif parents[0] == "stages":  # its method's options
        options = method_options(recipe.stages[int(parents[1])].method)
        annotation, default = options[name]
        needs = used_with(annotation)
        settings = {key: preset for key, (_, preset) in options.items()} | section
    else:
        return
    unmet = needs.unmet(settings) if needs and settings[name] != default else None
    if unmet:
        place = ".".join(map(str, path))
        raise LongTailedError(f"{place} has no effect, because {unmet} there; leave it out.")


def _pairs(assignments: Sequence[str] | Mapping[str, Any]) -> list[tuple[str, Any]]:
    if isinstance(assignments, str):  # a single text
        assignments = [assignments]
    if isinstance(assignments, Mapping):
        return [(str(key).replace("-", "_"), _plain(v)) for key, v in assignments.items()]
    return [_split(text) for text in assignments]


def _split(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise LongTailedError(f"{text!r} is not an override; write key=value.")
    return key.strip().replace("-", "_"), parse_value(value.strip())


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def parse_value(text: str) -> Any:
    """Return the value that a text means: a Python literal, a boolean, None, or the text."""
    words = {"none": None, "null": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def assignment(recipe: Recipe, path: Path, value: Any) -> str:
    """Return the `key=value` text that sets a path to a value, with the shortest clear key.

    "pretrained" alone would not say what is, nor "fraction" of what: the network's keys stay whole,
    and data's lose "data" only. `recipe` decides which short keys mean one thing alone.
    """
    values = recipe.model_dump(mode="json")
    first = {"network": 0, "data": 1}.get(str(path[0]), len(path) - 1)
    keys = (".".join(map(str, path[start:])) for start in range(first, -1, -1))
    key = next(key for key in keys if _means(key, path, values))
    return f"{key}={value_text(value)}"


def _means(key: str, path: Path, values: Mapping[str, Any]) -> bool:
    try:
        return _resolve(key, values) == path
    except LongTailedError:
        return False


def value_text(value: Any) -> str:
    """Return a text from which `parse_value` makes the value again."""
    if isinstance(value, str):
        return value if parse_value(value.strip()) == value else repr(value)
    if value is None or isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    plain = text.replace(", ", ",").replace("'", '"')  # easier to quote in a shell
    return plain if parse_value(plain) == value else text


def recipe_keys(recipe: Recipe) -> list[Path]:
    """Return the path of every setting that `override` can change in a recipe."""
    return list(_places(recipe.model_dump(mode="json")))


def _places(values: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the path of every setting of a recipe."""
    for name in Recipe.model_fields:
        if name != "stages":
            yield from _model_places(Recipe.model_fields[name].annotation, (name,))
    for number, stage in enumerate(values["stages"]):
        yield from _model_places(Stage, ("stages", number))
        for option in method_options(stage["method"]):
            yield ("stages", number, "options", option)


def _model_places(annotation: Any, path: Path) -> Iterator[Path]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, info in annotation.model_fields.items():
            yield from _model_places(info.annotation, (*path, name))
    else:
        yield path


def _resolve(key: str, values: Mapping[str, Any]) -> Path:
    if key in SHORT:
        return SHORT[key]
    wanted = tuple(int(part) if part.isdigit() else part for part in key.split("."))
    places = list(_places(values))
    if wanted in places:
        return wanted
    if isinstance(wanted[0], int):
        wanted = ("stages", *wanted)
    if wanted[0] == "stages" and len(wanted) > 1 and isinstance(wanted[1], int):
        stages = len(values["stages"])
        if wanted[1] >= stages:
            raise LongTailedError(
                f"{key!r} is about stage {wanted[1]}, but the recipe has {stages}, numbered from 0."
            )
    if wanted[0] == "stages" and len(wanted) > 2:  # the rest of the key is about one stage
        places = [place for place in places if place[:2] == wanted[:2]]
        wanted = wanted[2:]
    for place in places:  # an entry of a dictionary-valued setting: data.views.standard
        if place[-1] in {"views", "options"} and place[-len(wanted) + 1 :] == wanted[:-1]:
            return (*place, wanted[-1])
    matches = [place for place in places if place[-len(wanted) :] == wanted]
    for name in NAMES:
        matches = matches or [p for p in places if p[-len(wanted) - 1 :] == (*wanted, name)]
    if len(matches) > 1:
        # A method's option may share its name with a deeper setting (focal's and a schedule's
        # gamma): the option is meant.
        options = [place for place in matches if place[-2:-1] == ("options",)]
        matches = options if len(options) == 1 else matches
    if len(matches) == 1:
        return matches[0]
    if matches:
        shown = ", ".join(".".join(map(str, place)) for place in matches[:4])
        raise LongTailedError(f"{key!r} is ambiguous; say which: {shown}.")
    names = {".".join(map(str, place)) for place in places} | {str(p[-1]) for p in places}
    near = names if "." in key else {name for name in names if "." not in name}
    raise unknown_name("key", key, near, listing="keys")


def _get(values: Any, path: Path) -> Any:
    for part in path:
        values = values[part]
    return values


def _set(values: Any, path: Path, value: Any) -> None:
    for part in path[:-1]:
        values = values[part]
    values[path[-1]] = value
