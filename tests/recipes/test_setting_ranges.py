"""Every number that a user can set: out of range, not a number or a truth value is one sentence.

The table is read off the annotations, so that a new option cannot be forgotten.
"""

from __future__ import annotations

import math
import types
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel

from longtailed.data.augment.views import OPS
from longtailed.errors import LongTailedError
from longtailed.methods import METHODS, check_options, method_options
from longtailed.recipes import Recipe, override


def numbers_in(annotation: Any) -> Iterator[tuple[type, tuple[Any, ...], int]]:
    """Yield (int, float or int | float; the metadata; how many of them a tuple takes or 0)."""
    base, metadata = annotation, ()
    if get_origin(annotation) is Annotated:
        base, *metadata = get_args(annotation)
    if base in (int, float) or set(get_args(base)) == {int, float}:
        yield base, tuple(metadata), 0
    elif get_origin(base) is tuple:
        parts = get_args(base)
        for kind, inner, _ in numbers_in(parts[0]):
            yield kind, inner, 1 if parts[-1] is ... else len(parts)
    elif get_origin(base) in (Union, types.UnionType):
        for part in get_args(base):
            yield from numbers_in(part)


def cases(kind: Any, metadata: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
    """Return values that must be refused, and values that must be taken."""
    if kind not in (int, float):  # a whole number or a share
        return [-1, -0.5, 1.0, 1.5, 1e30, math.nan, math.inf, True, "some"], [1, 0.25]
    step = 1 if kind is int else 0.125
    bad: list[Any] = [True, False, math.nan, math.inf, "some"] + [1.5] * (kind is int)
    low, high = [], []
    for bound in metadata:
        if isinstance(bound, Ge | Gt):
            low.append(bound.ge if isinstance(bound, Ge) else bound.gt + step)
            bad.append(bound.ge - step if isinstance(bound, Ge) else bound.gt)
        if isinstance(bound, Le | Lt):
            high.append(bound.le if isinstance(bound, Le) else bound.lt - step)
            bad.append(bound.le + step if isinstance(bound, Le) else bound.lt)
    good = [max(low)] if low else [1]
    return bad, good + high


def options() -> Iterator[Any]:
    for name in METHODS:
        for option, (annotation, _) in method_options(name).items():
            for kind, metadata, size in numbers_in(annotation):
                yield pytest.param(
                    lambda value, name=name, option=option: check_options(name, {option: value}),
                    option, kind, metadata, size, id=f"{name}-{option}",
                )  # fmt: skip


def operations() -> Iterator[Any]:
    for name, op in OPS.items():
        needed = {field.name: 0.25 for field in fields(op) if field.default is MISSING}
        needed = {key: 4 if key == "size" else value for key, value in needed.items()}
        hints = get_type_hints(op, include_extras=True)
        for field in fields(op):
            for kind, metadata, size in numbers_in(hints[field.name]):
                yield pytest.param(
                    lambda value, op=op, needed=needed, key=field.name: op(
                        **{**needed, key: value}
                    ),
                    field.name, kind, metadata, size, id=f"{name}-{field.name}",
                )  # fmt: skip


BESIDE: dict[str, dict[str, Any]] = {
    "mean": {"std": (1, 1, 1)},
    "std": {"mean": (0, 0, 0)},
    "max_count": {"imbalance": 2},
    "unlabelled_imbalance": {"unlabelled": "rest"},
    "cosine_shift": {"schedule.kind": "cosine"},
    "head_weight": {"fraction": 0.5},
    "head_classes": {"fraction": 0.5},
    "tail_class": {"fraction": 0.5},
}
"""What a setting needs beside it to have an effect."""


def sections(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[Any]:
    hints = get_type_hints(model, include_extras=True)
    for name in model.model_fields:
        annotation = hints[name]
        if name == "stages":
            yield from sections(get_args(annotation)[0])
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from sections(annotation, f"{name}.")
        for kind, metadata, size in numbers_in(annotation):
            yield pytest.param(
                lambda value, key=f"{prefix}{name}": override(
                    Recipe(), {key: value, **BESIDE.get(key.split(".")[-1], {})}
                ),
                name, kind, metadata, size, id=f"{prefix}{name}",
            )  # fmt: skip


SETTINGS = [*options(), *operations(), *sections()]


def test_the_table_is_not_empty():
    names = {setting.id for setting in SETTINGS}
    assert len(names) > 250
    assert {"ldam-scale", "cutout-size", "optimizer.lr", "data.holdout", "seed"} <= names


@pytest.mark.parametrize(("take", "name", "kind", "metadata", "size"), SETTINGS)
def test_numbers_out_of_range_are_refused_and_others_taken(take, name, kind, metadata, size):
    bad, good = cases(kind, metadata)
    for value in bad:
        with pytest.raises(LongTailedError, match=name.split(".")[-1]) as caught:
            take((value,) * size if size else value)
        assert "\n" not in str(caught.value)
        assert str(caught.value).endswith(".")
    for value in good:
        take(tuple(value for _ in range(size)) if size else value)


def test_every_number_has_bounds():
    without = {
        name
        for _, name, kind, metadata, _ in (setting.values for setting in SETTINGS)
        if kind in (int, float) and not any(isinstance(m, Ge | Gt | Le | Lt) for m in metadata)
    }
    assert without == {"tau", "mean"}  # of the logit adjustment, and of pixels
