"""The recipe section that asks for virtual similar samples in the training images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import MinLen
from pydantic import BaseModel, ConfigDict, field_validator

from longtailed.data.setting_types import Distinct, Index, Not, Share, UsedWith

Changed = UsedWith(fraction=Not(0))


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

    fraction: Share = 0.0
    head_weight: Annotated[Share, Changed] = 0.2
    head_classes: Annotated[tuple[Index, ...], MinLen(1), Distinct, Changed] = (0,)
    tail_class: Annotated[Index | Literal["noise"] | None, Changed] = None
    mode: Annotated[Literal["replace", "append"], Changed] = "replace"
    rounding: Annotated[Literal["trunc", "round"], Changed] = "trunc"

    @field_validator("tail_class", mode="before")
    @classmethod
    def _number_or_noise(cls, value: Any) -> Any:
        named = isinstance(value, str) and value != "noise" and not value.isdecimal()
        if named or isinstance(value, bool | float) or (isinstance(value, int) and value < 0):
            raise ValueError("give the number of a class, counted from 0, or noise")
        return value
