"""The section of a recipe that says which images there are and how they are used."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge, Lt, MinLen
from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from longtailed.data.augment.views import parse_view
from longtailed.data.image_record import Verify
from longtailed.data.setting_types import (
    Index,
    Not,
    Positive,
    Real,
    Size,
    UsedWith,
    Whole,
    whole_or_share,
)
from longtailed.data.similar import Similar
from longtailed.data.sources.grouping import compile_pattern

REST = "rest"  # unlabelled images: those that subsampling left out

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
        verify: how the images of a resumed run are compared: "content" reads every
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
