"""Class names: their order, and the numbers of labels that are names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from longtailed.errors import LongTailedError

_MOST_DIGITS = 30  # of a number: identifiers have fewer


def sort_class_names(names: Iterable[str]) -> list[str]:
    """Return class names in the order of their labels: numbers by value, then words by letters.

    Sorted as words, '10' would come before '2', and a list of names in numeric order would give
    eleven classes the name of another.
    """

    def key(name: str) -> tuple[bool, int, str]:
        return not is_whole(name), int(name) if is_whole(name) else 0, name

    return sorted(names, key=key)


def is_whole(text: str) -> bool:
    """Return whether a text is a whole number from 0 on, with or without leading zeros."""
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS


def labels_as_numbers(
    labels: Any, class_names: Sequence[str] | None, source: str
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Return labels as numbers from 0, int64 [N], and the names of the classes [C].

    `labels` is a sequence, array, tensor or column of whole numbers, which are places in
    `class_names` (default: "0", "1", ... up to the largest), or of text, which is looked up in
    `class_names` (default: the different texts in the order of `sort_class_names`).

    Raises `LongTailedError` naming `source` and the first label that is missing or no class.
    """
    values = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if values.ndim != 1:
        raise LongTailedError(
            f"{source}: one label for each image is needed; the labels have the shape "
            f"{list(values.shape)}."
        )
    if values.dtype.kind == "f":
        values = _whole_numbers(values, source)
    if values.dtype.kind not in "iub":
        return _number_names(values.tolist(), class_names, source)
    numbers = values.astype(np.int64)
    if class_names is None:
        class_names = [str(number) for number in range(int(numbers.max(initial=-1)) + 1)]
    return numbers, tuple(map(str, class_names))


def _whole_numbers(values: npt.NDArray[Any], source: str) -> npt.NDArray[Any]:
    """Return floats as whole numbers: a column of numbers with a missing one holds floats."""
    odd = np.flatnonzero(~(np.isfinite(values) & (values == np.floor(values))))
    if len(odd):
        raise LongTailedError(
            f"{source}: label {odd[0]} is {values[odd[0]]}; a label is a whole number from 0 on, "
            "or the name of a class."
        )
    return values.astype(np.int64)


def _number_names(
    labels: Sequence[Any], class_names: Sequence[str] | None, source: str
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    texts: list[str] = []
    for row, label in enumerate(labels):
        if not isinstance(label, str | int) or not str(label).strip():
            raise LongTailedError(
                f"{source}: label {row} is {label!r}; a label is a whole number from 0 on, or the "
                "name of a class."
            )
        texts.append(str(label))
    names = sort_class_names(set(texts)) if class_names is None else [*map(str, class_names)]
    place = {name: number for number, name in enumerate(names)}
    unknown = next((row for row, text in enumerate(texts) if text not in place), None)
    if unknown is not None:
        raise LongTailedError(
            f"{source}: label {unknown}, {texts[unknown]!r}, is not among the {len(names)} class "
            "names."
        )
    return np.fromiter(map(place.__getitem__, texts), np.int64, len(texts)), tuple(names)
