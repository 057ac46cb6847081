"""The types of settings: their ranges, and which other settings they need to have an effect.

Method options, view operations and the sections of a recipe are annotated with these, and pydantic
checks them all. No number may be true or false, infinite or not a number.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, get_args

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, BeforeValidator, FiniteFloat, TypeAdapter, ValidationError

from longtailed.errors import LongTailedError

_Items = TypeVar("_Items", bound=tuple[Any, ...])


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    return value


Whole = Annotated[int, BeforeValidator(_no_truth_value)]
Real = Annotated[FiniteFloat, BeforeValidator(_no_truth_value)]
Size = Annotated[Whole, Ge(1)]
Index = Annotated[Whole, Ge(0)]
NonNegative = Annotated[Real, Ge(0)]
Positive = Annotated[Real, Gt(0)]
Share = Annotated[Real, Ge(0), Le(1)]
BelowOne = Annotated[Real, Ge(0), Lt(1)]


def whole_or_share(least: int, highest: float, wanted: str) -> BeforeValidator:
    """Mark an `int | float`: a whole number (an int from `least` on) or a share (a float).

    Shares run from 0.0 to `highest`, and are below 1: 1.0 could be meant as either. `wanted` says
    in the error what to give.
    """

    def check(value: Any) -> Any:
        _no_truth_value(value)
        whole = isinstance(value, int) and value >= least
        if not whole and not (isinstance(value, float) and 0 <= value <= highest and value < 1):
            raise ValueError(f"give {wanted}")
        return value

    return BeforeValidator(check)


def _distinct(values: _Items) -> _Items:
    repeated = [value for place, value in enumerate(values) if value in values[:place]]
    if repeated:
        raise ValueError(f"{repeated[0]} stands there more than once")
    return values


Distinct = AfterValidator(_distinct)
"""Marks a tuple whose entries must differ."""


def _ascending(values: tuple[float, float]) -> tuple[float, float]:
    if values[0] > values[1]:
        raise ValueError("the first number must not be above the second")
    return values


Interval = Annotated[tuple[Positive, Positive], AfterValidator(_ascending)]
"""Two numbers (a, b) with 0 < a <= b."""


class Not(tuple[Any, ...]):
    """All values but these, for `UsedWith`."""

    def __new__(cls, *values: Any) -> Not:
        """Return the set of all values but `values`."""
        return super().__new__(cls, values)


class UsedWith:
    """Marks a setting that has an effect only with certain values of settings beside it.

    `UsedWith(kind=("step",))` says that `kind` must be "step"; with several names one of them is
    enough. A user who gives the setting otherwise is told that it would do nothing.
    """

    def __init__(self, **values: tuple[Any, ...]) -> None:
        self.values = values

    def unmet(self, settings: Mapping[str, Any]) -> str | None:
        """Return in words what `settings` lack; None if the setting has an effect."""
        for name, values in self.values.items():
            if (settings[name] in values) is not isinstance(values, Not):
                return None
        name, values = next(iter(self.values.items()))
        if isinstance(values, Not):
            return f"{name} is {settings[name]!r}"
        return f"{name} is {settings[name]!r}, not {' or '.join(map(repr, values))}"


def used_with(annotation: Any) -> UsedWith | None:
    """Return what a setting of this type needs beside it, if anything."""
    return next((part for part in get_args(annotation) if isinstance(part, UsedWith)), None)


@functools.cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def checked(what: str, annotation: Any, value: Any) -> Any:
    """Return the value as a setting of this type; `what` names it in the error.

    Raises `LongTailedError` if the value is of another type or out of range.
    """
    try:
        return _adapter(annotation).validate_python(value)
    except ValidationError as error:
        raise LongTailedError(f"{what} cannot be {value!r}: {reason_of(error)}.") from None


def reason_of(error: ValidationError) -> str:
    """Return why pydantic refuses a value, as a part of a sentence."""
    message = error.errors()[0]["msg"].removeprefix("Value error, ").rstrip(".")
    return message[:1].lower() + message[1:] or "invalid value"
