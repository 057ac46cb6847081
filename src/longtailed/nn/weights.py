"""Weights in files that training programs leave: found by name, and every key accounted for."""

from __future__ import annotations

import argparse
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from longtailed.errors import LongTailedError

SHOWN = 3  # names that a message lists
CLASSIFIERS = ("head", "fc", "linear", "classifier")
# What a second copy of the weights is called that follows the first one slowly.
AVERAGED = re.compile(r"(?:^|[._])(?:ema|swa|averaged|momentum|teacher|encoder_k)(?:[._]|$)")
COUNTER = "num_batches_tracked"  # of a batch norm; files written before 2018 lack it
# What training programs put beside weights; none of it runs code when it is read.
_NUMBER = np.float64(0).__reduce__()[0]  # what makes a NumPy number again
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *{type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "b1")},
    *((_NUMBER, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
Statistics = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class FoundWeights:
    """A module's tensors found in a file.

    Args:
        tensors: by the module's own names.
        others: the tensors that stood beside them, by their names in the file.
        note: what was taken and what was left out, as text.
        statistics: mean and standard deviation of the images that they were trained on, if the
            file, or a timm `config.json` beside it, says.
    """

    tensors: dict[str, Tensor]
    others: dict[str, Tensor]
    note: str
    statistics: Statistics | None


@dataclass(frozen=True)
class _Candidate:
    """One place in a file where tensors lie, and what stands before the names there."""

    place: str
    prefix: str
    state: Mapping[str, Tensor]
    found: dict[str, Tensor]

    @property
    def label(self) -> str:
        return " ".join(f"'{part}'" for part in (self.place, self.prefix) if part) or "the file"

    @property
    def averaged(self) -> bool:
        return AVERAGED.search(f"{self.place}.{self.prefix}".lower()) is not None


def find_weights(
    path: Path,
    own: Mapping[str, Tensor],
    classifiers: Sequence[str] = (),
    used: str | None = None,
) -> FoundWeights:
    """Return the weights of a module, whose state is `own`, from a file of any program.

    The file is safetensors, or torch's, which is read without running code from it. Its tensors
    may lie under any key, as in "state_dict", and any words may stand before their names, such as
    "module." or "model.", as long as all of the module's names follow. Of several such places the
    first one counts that is not called a moving average; the note says what else there was.
    Classifiers, called as in `CLASSIFIERS` or `classifiers`, are left out. The note is silent on
    names that begin with `used`, which the caller speaks of.

    Raises `LongTailedError` that says what the file is instead, or lists the first names that are
    missing, of another shape, or neither the module's nor a classifier's.
    """
    content = _read(path)
    candidates = [one for place, state in _states(content) for one in _prefixes(place, state, own)]
    if not candidates:
        raise LongTailedError(f"{path} holds no weights.")
    needed = {name for name in own if not name.endswith(COUNTER)}
    whole = [one for one in candidates if needed <= one.found.keys()]
    plain = [one for one in whole if not one.averaged] or whole
    chosen = plain[0] if plain else max(candidates, key=lambda one: len(one.found))
    taken = {chosen.prefix + name for name in chosen.found}
    others = {name: tensor for name, tensor in chosen.state.items() if name not in taken}
    heads = tuple(f"{chosen.prefix}{name}." for name in (*CLASSIFIERS, *classifiers))
    beside = [name for name in others if name.startswith(chosen.prefix)]
    foreign = [name.removeprefix(chosen.prefix) for name in beside if not name.startswith(heads)]
    _refuse(path, own, chosen.found, foreign)
    unused = {name: t for name, t in others.items() if used is None or not name.startswith(used)}
    left = _left_out(content, chosen, [one for one in whole if one is not chosen], unused)
    count = f"{len(chosen.found)} tensors of {path.name}" + (
        "" if chosen.label == "the file" else f", under {chosen.label}"
    )
    note = f"{count}; left out: {', '.join(left)}" if left else count
    return FoundWeights(chosen.found, others, note, _statistics(path, content))


def _refuse(
    path: Path, own: Mapping[str, Tensor], found: Mapping[str, Tensor], foreign: list[str]
) -> None:
    problems = [f"{name} is missing" for name in own if name not in found and COUNTER not in name]
    problems += [f"{name} is not part of the backbone" for name in foreign]
    problems += [
        f"{name} has shape {list(found[name].shape)} instead of {list(own[name].shape)}"
        for name in own
        if name in found and found[name].shape != own[name].shape
    ]
    problems += [
        f"{name} holds NaN or infinite values"
        for name, tensor in found.items()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise LongTailedError(
            f"{path} does not fit the model: {'; '.join(problems[:SHOWN])}{more}."
        )


def _states(content: Any, place: str = "") -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Yield every mapping of names to tensors in a file, and the keys that lead to it."""
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        return
    state = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if state:
        yield place, state
    for key, value in content.items():
        yield from _states(value, f"{place}.{key}" if place else key)


def _prefixes(
    place: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> Iterator[_Candidate]:
    """Yield what may stand before the module's names in a state, the most frequent first."""
    votes: Counter[str] = Counter()
    for key in state:
        parts = key.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in own:
                votes["".join(f"{part}." for part in parts[:start])] += 1
    for prefix in sorted(votes or {"": 0}, key=lambda one: -votes[one]):
        found = {name: state[prefix + name] for name in own if prefix + name in state}
        yield _Candidate(place, prefix, state, found)


def _left_out(
    content: Any, chosen: _Candidate, rivals: list[_Candidate], others: Mapping[str, Tensor]
) -> list[str]:
    """Return what of a file was not taken: tensors beside, other copies, and other keys."""
    heads = {name: tensor for name, tensor in others.items() if name.startswith(chosen.prefix)}
    parts = list(heads) if len(heads) <= SHOWN else [*list(heads)[:SHOWN], "..."]
    outside = Counter(
        ".".join(name.split(".")[: chosen.prefix.count(".") or 1])
        for name in others
        if name not in heads
    )
    parts += [f"{name} ({count} tensors)" for name, count in outside.items()]
    copies = [one for one in rivals if one.place != chosen.place]
    parts += [
        f"{one.label} ({'a moving average of the weights' if one.averaged else 'another copy'})"
        for one in copies
    ]
    if chosen.place:
        seen = {one.place.split(".")[0] for one in (chosen, *copies)}
        parts += [key for key in content if key not in seen]
        inside = chosen.place.split(".")
        if len(inside) > 1:
            parts += [f"{inside[0]}.{key}" for key in content[inside[0]] if key != inside[1]]
    return parts


def _statistics(path: Path, content: Any) -> Statistics | None:
    """Return what the file's training arguments, or a timm config beside it, say of the images."""
    arguments = content.get("args") if isinstance(content, Mapping) else None
    said = vars(arguments) if isinstance(arguments, argparse.Namespace) else {}
    config = path.parent / "config.json"
    if not said.get("mean") and path.suffix == ".safetensors" and config.is_file():
        try:
            said = json.loads(config.read_text(encoding="utf-8")).get("pretrained_cfg", {})
        except (ValueError, AttributeError):
            said = {}
    mean, std = said.get("mean"), said.get("std")
    if not mean or not std or len(mean) != 3 or len(std) != 3:
        return None
    return tuple(map(float, mean)), tuple(map(float, std))


def _read(path: Path) -> Any:
    """Return what a file holds; say in one sentence why it holds no weights."""
    if not path.is_file():
        raise LongTailedError(f"there is no file of weights at {path}: it does not exist.")
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise LongTailedError(f"{path} is empty; copy or download it again.")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file can raise nearly anything
        raise LongTailedError(f"{path} {_reason(path, start, error)}") from None


def _reason(path: Path, start: bytes, error: Exception) -> str:
    if start.isascii() and all(byte >= 32 or chr(byte).isspace() for byte in start):
        first = (start.decode().strip().splitlines() or [""])[0][:40]
        return (
            f"is a text that begins with {first!r}, not a file of weights: perhaps a web page or a "
            "pointer to the file; download it again."
        )
    if zipfile.is_zipfile(path):
        with torch.serialization.safe_globals(HARMLESS):
            needed = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        if needed:
            return (
                f"is not read, because it holds Python objects ({', '.join(sorted(needed)[:SHOWN])}"
                f"{', ...' if len(needed) > SHOWN else ''}) that could run code of the file; where "
                "it was made, save model.state_dict() instead."
            )
    line = " ".join(str(error).split())[:120].rstrip(".")
    return f"cannot be read safely as a file of weights ({type(error).__name__}: {line})."
