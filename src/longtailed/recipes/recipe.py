"""Recipe: a frozen, validated value that says everything about a run except where it runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Lt, MinLen
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from longtailed.capture import Capture
from longtailed.data import SOURCES
from longtailed.data.groups import compile_pattern
from longtailed.data.image_record import Verify
from longtailed.data.views import parse_view
from longtailed.errors import LongTailedError
from longtailed.job import FitOptions
from longtailed.methods import check_options, method_class
from longtailed.metrics import Grouping
from longtailed.recipes.similar import Similar
from longtailed.setting_types import (
    Index,
    Not,
    Positive,
    Real,
    Size,
    UsedWith,
    Whole,
    reason_of,
    whole_or_share,
)

# Settings that change no result: how a recipe is called and executed, and where its files lie. What
# the files hold is compared when a run is taken up again (see `longtailed.rundir`).
EXECUTION = ("name", "capture", "compile")
STAGE_EXECUTION = ("checkpoint_every",)
ACCESS = ("root", "val_list", "test_list", "download", "workers", "on_bad_image", "verify")
FILES = "files"  # in place of a path, wherever it leads
REST = "rest"  # unlabelled images: those that subsampling left out
_Section = TypeVar("_Section", bound=BaseModel)

Ratio = Annotated[Real, Ge(1)]
HeldOut = Annotated[
    int | float,
    whole_or_share(
        0, 0.5, "images of each class, a whole number from 0 on, or a share of it from 0.0 to 0.5"
    ),
]


class Data(BaseModel):
    """Which images, how they are made long-tailed, split, viewed and stored.

    Args:
        source: the name of a source or a path.
        root: where a source's files lie (image root of a list, folder of the CIFAR archives).
        val_list, test_list: the lists of other splits, where they are not found beside the source.
        download: allow the CIFAR archives to be downloaded to `root`.
        label_column, image_column, class_names: see `longtailed.data.load_imageset`.
        split_by, split_by_pattern: a column of the source, or a regular expression on its file
            names, that says which images of train come from one thing (a patient, a track). Groups
            stay whole in every split that is cut from train.
        imbalance: ratio of the largest to the smallest class after subsampling; None keeps the
            source as it is.
        profile: "exp" or "step".
        max_count: size of the largest class; None takes what the source allows.
        counts: images of each class in label order, instead of imbalance and max_count.
        similar: similar samples that are put into the training images, if any.
        subset_seed: chooses the images of each class.
        selection: "shuffle" (the LDAM-DRW lineage) or "first" (file order, as RSG does).
        holdout: images per class (int) or part of each class (float) set aside from train before
            subsampling, for choosing an epoch; 0 for none; None: 10 images of each class if the
            source is subsampled, else a tenth of each class.
        meta_per_class: images per class of a balanced set beside train for methods that learn
            from one; None: 10 if the recipe has such a method. Each class must give one, and none
            gives more than half of its images unless they are shared.
        meta_source: where the meta images come from: "train" sets them aside before anything else
            is taken, "shared" takes them from the images that are trained on and leaves them
            there, "val" takes them from the source's "val" split, whose rest is held out for
            choosing an epoch.
        unlabelled: images for stages that need no labels (`images=unlabelled`): "rest", the
            training images that subsampling left out, or another source, with any classes (a list
            or a CIFAR archive lies in `root`, too).
        unlabelled_imbalance: their own ratio of the largest to the smallest class; None: all.
        eval_split: the split of the final figures; None: "test", or else "val".
        image_size: side of the crops when images are files; None: 224.
        views: view name -> text, over the defaults (see `longtailed.data.view_preset`).
        mean, std: normalisation; None: the network's (if pretrained), the source's, or computed.
        storage: "memory" (decoded uint8), "disk" (decode in workers) or "auto" (by size). Results
            depend on it: in memory images are kept resized, so random crops differ.
        workers: decoding processes; None: one per core, at most 8.
        on_bad_image: "error" stops at an unreadable image, "skip" leaves it out and counts it.
        exif: "apply" turns images as their EXIF orientation says, "ignore" leaves them as stored
            (as runs of earlier versions did).
        verify: how the images of a run that is taken up again are compared: "content" reads every
            file, "auto" (where they are many) those whose modification time has changed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    source: str = "digits"
    root: str | None = None
    val_list: str | None = None
    test_list: str | None = None
    download: bool = False
    label_column: str | None = None
    image_column: str | None = None
    class_names: tuple[str, ...] | str | None = None
    split_by: str | None = None
    split_by_pattern: str | None = None
    imbalance: Ratio | None = None
    profile: Annotated[Literal["exp", "step"], UsedWith(imbalance=Not(None))] = "exp"
    max_count: Annotated[Size | None, UsedWith(imbalance=Not(None))] = None
    counts: Annotated[tuple[Size, ...], MinLen(1)] | None = None
    similar: Similar = Similar()
    subset_seed: Annotated[Index, Lt(2**32)] = 0
    selection: Literal["shuffle", "first"] = "shuffle"
    holdout: HeldOut | None = None
    meta_per_class: Size | None = None
    meta_source: Literal["train", "shared", "val"] = "train"
    unlabelled: str | None = None
    unlabelled_imbalance: Annotated[Ratio | None, UsedWith(unlabelled=Not(None))] = None
    eval_split: str | None = None
    image_size: Annotated[Whole, Ge(8)] | None = None
    views: dict[str, str] = {}
    mean: tuple[Real, Real, Real] | None = None
    std: tuple[Positive, Positive, Positive] | None = None
    storage: Literal["auto", "memory", "disk"] = "auto"
    workers: Index | None = None
    on_bad_image: Literal["error", "skip"] = "error"
    exif: Literal["apply", "ignore"] = "apply"
    verify: Verify = "auto"

    @field_validator("split_by_pattern")
    @classmethod
    def _regular(cls, value: str | None) -> str | None:
        if value is not None:
            compile_pattern(value)
        return value

    @model_validator(mode="after")
    def _one_kind_of_group(self) -> Data:
        if self.split_by is not None and self.split_by_pattern is not None:
            raise ValueError("split_by and split_by_pattern both name the groups; give one")
        return self

    @model_validator(mode="after")
    def _one_way(self) -> Data:
        given = [name for name in ("imbalance", "max_count") if getattr(self, name) is not None]
        if self.counts is not None and given:
            raise ValueError(
                f"counts say how many images each class has, and so does {given[0]}; give one of "
                f"them ({given[0]}=none drops the other)"
            )
        return self

    @model_validator(mode="after")
    def _statistics(self) -> Data:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together; give both or neither")
        return self

    @field_validator("views", mode="before")
    @classmethod
    def _without_none(cls, value: Any) -> Any:
        """Leave out a view that is none, so that `views.sim=none` takes it out of a recipe."""
        if not isinstance(value, dict):
            return value
        return {name: text for name, text in value.items() if text is not None}

    @field_validator("views")
    @classmethod
    def _parse(cls, value: dict[str, str]) -> dict[str, str]:
        for text in value.values():
            parse_view(text)
        return value


class NetworkSpec(BaseModel):
    """Which network: a name, the kind of head ("auto": what the method needs) and options.

    `options` are `build_network`'s, such as `head_init` and `head_options`, and the backbone's.
    `init_from` is an earlier run's directory or a file of weights (see `initial_weights`): the
    backbone starts from there, and the head if it fits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    name: str = "resnet32"
    head: Literal["auto", "linear", "cosine"] = "auto"
    pretrained: bool = False
    init_from: str | None = None
    options: dict[str, Any] = {}

    @property
    def brings_weights(self) -> bool:
        """Whether the backbone starts from trained weights."""
        return self.pretrained or self.init_from is not None or "weights" in self.options

    @field_validator("options")
    @classmethod
    def _reserved(cls, value: dict[str, Any]) -> dict[str, Any]:
        taken = {"name", "num_classes", "head", "pretrained", "image_size"} & value.keys()
        if taken:
            raise ValueError(f"{taken.pop()!r} is not an option of a network but set elsewhere")
        none = "weights" in value and value["weights"] is None  # takes it out of a recipe
        return {key: v for key, v in value.items() if key != "weights"} if none else value


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
