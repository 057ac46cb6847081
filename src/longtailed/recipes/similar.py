"""The recipe section that asks for virtual similar samples in the training images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Similar(BaseModel):
    """A share of head images mixed with tail images before training (arXiv 2107.03758).

    See `longtailed.data.mix_similar_samples`; the choice comes from the recipe's `subset_seed`.

    Args:
        fraction: share of each head class that is mixed; 0 leaves the images as they are.
        head_weight: weight of the head image in a mixed one; the tail image has the rest.
        head_classes: the classes whose images are mixed, by number.
        tail_class: the class they are mixed with; None: the last; "noise": random pixels.
        mode: "replace" changes images of the head class in place, "append" adds the mixed ones.
        rounding: "trunc" or "round", from the mixed value to a pixel.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fraction: float = Field(default=0.0, ge=0, le=1)
    head_weight: float = Field(default=0.2, ge=0, le=1)
    head_classes: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0,), min_length=1)
    tail_class: Annotated[int, Field(ge=0)] | Literal["noise"] | None = None
    mode: Literal["replace", "append"] = "replace"
    rounding: Literal["trunc", "round"] = "trunc"

    @field_validator("tail_class", mode="before")
    @classmethod
    def _number_or_noise(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "noise" and not value.isdecimal():
            raise ValueError("give the number of a class or noise")
        return value
