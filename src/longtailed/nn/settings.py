"""The section of a recipe that says which network is trained."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator


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
