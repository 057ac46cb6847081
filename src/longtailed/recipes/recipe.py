"""Recipe: a frozen, validated value that says everything about a run except where it runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Lt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from longtailed.data import SOURCES
from longtailed.data.setting_types import (
    Index,
    reason_of,
)
from longtailed.data.settings import REST, Data
from longtailed.errors import LongTailedError
from longtailed.methods import check_options, method_class
from longtailed.metrics.shots import Grouping
from longtailed.nn.settings import NetworkSpec
from longtailed.training.options import Capture, FitOptions

# Settings that change no result: how a recipe is called and executed, and where its files lie. What
# the files hold is compared when a run is resumed (see `longtailed.runs.directory`).
EXECUTION = ("name", "capture", "compile")
STAGE_EXECUTION = ("checkpoint_every",)
ACCESS = ("root", "val_list", "test_list", "download", "workers", "on_bad_image", "verify")
FILES = "files"  # in place of a path, wherever it leads
_Section = TypeVar("_Section", bound=BaseModel)


class Stage(FitOptions):
    """One method with its options, trained as `FitOptions` say."""

    method: str = "ce"
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _check(cls, values: Any) -> Any:
        if isinstance(values, dict):
            method = values.get("method", "ce")
            values = {**values, "options": check_options(method, values.get("options", {}))}
        return values


class Recipe(BaseModel):
    """Data, network and a list of stages.

    `precision` "bf16" computes the network in bfloat16 (losses stay float32), "auto" does so where
    the processor or GPU has bfloat16 arithmetic. `capture` says
    whether training steps run as CUDA graphs: "auto" (wherever possible), "always" (else it is an
    error) or "never"; `compile` whether the backbone's stages are compiled (torch.compile), which
    takes minutes once and pays in long runs only. `protocol` "published" also reports the best
    epoch on the test split, labelled as such. `groups` says how classes are grouped by size in the
    figures: "counts", "terciles", or "auto" (counts, but terciles if a group would be empty).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    name: str = "run"
    data: Data = Data()
    network: NetworkSpec = NetworkSpec()
    stages: tuple[Stage, ...] = Field(default=(Stage(),), min_length=1)
    seed: Annotated[Index, Lt(2**63)] = 0
    precision: Literal["auto", "32", "bf16"] = "auto"
    channels_last: bool = True
    capture: Capture = "auto"
    compile: bool = False
    protocol: Literal["honest", "published"] = "honest"
    groups: Grouping = "auto"

    @field_validator("precision", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, int) else value

    @property
    def heads(self) -> tuple[str, ...]:
        """The kind of head that the network has in each stage.

        A stage that trains any kind of head has a linear one, for cosines alone cannot tell
        classes apart by much. A stage that trains none leaves the head as it is; before any is
        trained, it is the one that comes first.
        """
        if self.network.head != "auto":
            return (self.network.head,) * len(self.stages)
        classes = [method_class(stage.method) for stage in self.stages]
        trained = [None if cls.label_free or not cls.trains else "linear" for cls in classes]
        needed = [cls.head or kind for cls, kind in zip(classes, trained, strict=True)]
        kinds = [next(filter(None, needed), "linear")]
        for kind in needed:
            kinds.append(kind or kinds[-1])
        return tuple(kinds[1:])

    @property
    def head(self) -> str:
        """The kind of head that the network begins with."""
        return self.heads[0]

    @model_validator(mode="after")
    def _trained_head(self) -> Recipe:
        heads, classes = self.heads, [method_class(stage.method) for stage in self.stages]
        for number, cls in enumerate(classes):
            if number and cls.takes_over_head and heads[number] != heads[number - 1]:
                raise ValueError(
                    f"{self.stages[number].method} takes over a trained {heads[number]} head, but "
                    f"the stage before it trains a {heads[number - 1]} one"
                )
        return self

    @property
    def identity(self) -> str:
        """The SHA-256 of what changes a run's result: on equal files, runs that share it are equal.

        Left out are names, paths and how the run is executed, and defaults, so that a setting that
        a later version adds changes nothing. `storage` belongs to it: it changes what is cropped.
        """
        text = json.dumps(self.settings(exclude_defaults=True), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def paths(self) -> dict[str, str]:
        """The files that the recipe names, by setting; they stand in its identity as `FILES`."""
        data, network = self.data, self.network
        named = {
            "source": None if data.source in SOURCES else data.source,
            "val_list": data.val_list,
            "test_list": data.test_list,
            "unlabelled": None if data.unlabelled in (*SOURCES, REST) else data.unlabelled,
            "init_from": network.init_from,
            "weights": network.options.get("weights"),
        }
        return {name: str(path) for name, path in named.items() if path is not None}

    def settings(self, exclude_defaults: bool = False) -> dict[str, Any]:
        """Return all settings that change a run's result, as JSON values."""
        paths = self.paths

        def hidden(*names: str) -> dict[str, Any]:
            return {name: FILES for name in names if name in paths}

        data = _default(self.data, ACCESS).model_copy(update=hidden("source", "unlabelled"))
        options = self.network.options | hidden("weights")
        network = self.network.model_copy(update={"options": options, **hidden("init_from")})
        stages = tuple(_default(stage, STAGE_EXECUTION) for stage in self.stages)
        update = {"data": data, "network": network, "stages": stages}
        same = _default(self, EXECUTION).model_copy(update=update)
        return same.model_dump(mode="json", exclude_defaults=exclude_defaults)


def _default(section: _Section, names: Sequence[str]) -> _Section:
    """Return the section with the default of each named setting."""
    fields = type(section).model_fields
    return section.model_copy(update={name: fields[name].default for name in names})


def load_recipe(values: Mapping[str, Any]) -> Recipe:
    """Return the recipe in `values`; a key or value that does not fit is one sentence."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise LongTailedError(_first_problem(error)) from None


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, LongTailedError):
        return str(cause)
    where = ".".join(str(part) for part in first["loc"]) or "the recipe"
    if first["type"] == "extra_forbidden":
        return f"the recipe has no key {where!r}."
    if isinstance(first["input"], dict):  # the whole section would hide the reason
        return f"{where}: {reason_of(error)}."
    return f"{where} cannot be {first['input']!r}: {reason_of(error)}."
