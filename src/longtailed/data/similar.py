"""Virtual similar samples: head images mixed with tail images that keep the head's label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import MinLen
from pydantic import BaseModel, ConfigDict, field_validator

from longtailed.data.image_record import fingerprint, record_images
from longtailed.data.imageset import ImageSet, IntArray
from longtailed.data.setting_types import Distinct, Index, Not, Share, UsedWith
from longtailed.errors import LongTailedError, unknown_name

UInt8Array: TypeAlias = npt.NDArray[np.uint8]
ROUNDINGS = ("trunc", "round")
NOISE = "noise"


Changed = UsedWith(fraction=Not(0))


class Similar(BaseModel):
    """A share of head images mixed with tail images before training (arXiv 2107.03758).

    See `mix_similar_samples`; the choice comes from the recipe's `subset_seed`.

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


class SimilarSamples(NamedTuple):
    """Which images [n] of a set are mixed, and what becomes of them: uint8 [n, ...]."""

    rows: IntArray
    images: UInt8Array


def mix_similar_samples(
    images: UInt8Array,
    labels: npt.NDArray[np.integer],
    head_class: int | Sequence[int],
    tail_class: int | Literal["noise"],
    fraction: float,
    head_weight: float = 0.2,
    seed: int = 0,
    rounding: Literal["trunc", "round"] = "trunc",
) -> SimilarSamples:
    """Return n head images mixed with tail images, and their places; nothing is changed.

    image = w * head + (1 - w) * tail in float64 on the raw pixels 0..255, then truncated to
    uint8 (`rounding`: or rounded), with w = `head_weight`. *The weight of the tail image is 1 - w*:
    the default 0.2 gives images that are 0.8 tail. (The published tables count both ways: 0.2 is
    the head's weight where the share is swept, and lambda is the tail's where the weight is.)

    n is the whole part of `fraction` times the size of each head class. Which images those are,
    and the order of the tail images, come from `RandomState(seed)`, which shuffles the positions
    of each head class in the given order and then those of the tail class. The tail images are
    used in turn, again and again, over all head classes.

    Control arms: `tail_class` may be any other class, such as another head class, or "noise":
    uniform random pixels, new ones for each image.

    Raises `LongTailedError` for arrays that do not fit, a class without images, a tail class that
    is a head class, and a fraction or weight outside 0..1.

    Construction of arXiv 2107.03758. Departures: any fraction (there n had to be a multiple of
    the tail's 50 images), several head classes, and a seed of its own (there the generator went
    on from the choice of the long-tailed subset).
    """
    heads = [head_class] if isinstance(head_class, int | np.integer) else list(head_class)
    _check(images, labels, heads, tail_class, fraction, head_weight, rounding)
    random = np.random.RandomState(seed)
    chosen = []
    for head in heads:
        positions = np.flatnonzero(labels == head)
        random.shuffle(positions)
        chosen.append(positions[: int(fraction * len(positions) + 1e-9)])
    rows = np.concatenate(chosen).astype(np.int64)
    if tail_class == NOISE:
        partners = random.randint(0, 256, size=(len(rows), *images.shape[1:]), dtype=np.uint8)
    else:
        positions = np.flatnonzero(labels == tail_class)
        random.shuffle(positions)
        partners = images[positions[np.arange(len(rows)) % len(positions)]]
    mixed = head_weight * images[rows] + (1 - head_weight) * partners
    if rounding == "round":
        mixed = np.rint(mixed)
    return SimilarSamples(rows, mixed.astype(np.uint8))


def make_similar_samples(
    images: UInt8Array,
    labels: npt.NDArray[np.integer],
    head_class: int | Sequence[int],
    tail_class: int | Literal["noise"],
    fraction: float,
    head_weight: float = 0.2,
    seed: int = 0,
    rounding: Literal["trunc", "round"] = "trunc",
) -> UInt8Array:
    """Return a copy of the images in which a share of a head class is mixed with tail images.

    `images` are uint8 [N, ...], `labels` [N] stay what they are: the class counts do not change,
    and the mixed images are labelled as the head class. See `mix_similar_samples`.

    >>> import numpy as np
    >>> images = np.array([[100], [100], [200]], dtype=np.uint8)
    >>> make_similar_samples(images, np.array([0, 0, 1]), 0, 1, fraction=1.0).tolist()
    [[180], [180], [200]]
    """
    rows, mixed = mix_similar_samples(
        images, labels, head_class, tail_class, fraction, head_weight, seed, rounding
    )
    changed = images.copy()
    changed[rows] = mixed
    return changed


def append_similar_samples(
    images: UInt8Array,
    labels: npt.NDArray[np.integer],
    head_class: int | Sequence[int],
    tail_class: int | Literal["noise"],
    fraction: float,
    head_weight: float = 0.2,
    seed: int = 0,
    rounding: Literal["trunc", "round"] = "trunc",
) -> tuple[UInt8Array, npt.NDArray[np.integer]]:
    """Return (images [N + n, ...], labels [N + n]): all of them, and then the mixed images.

    The head class keeps its genuine images, which tells the effect of similar samples from that
    of losing genuine ones. See `mix_similar_samples`.
    """
    rows, mixed = mix_similar_samples(
        images, labels, head_class, tail_class, fraction, head_weight, seed, rounding
    )
    return np.concatenate([images, mixed]), np.concatenate([labels, labels[rows]])


def _check(
    images: UInt8Array,
    labels: npt.NDArray[np.integer],
    heads: Sequence[int],
    tail: int | str,
    fraction: float,
    head_weight: float,
    rounding: str,
) -> None:
    if images.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise LongTailedError(
            f"similar samples need uint8 images and one label for each; there are "
            f"{images.dtype} images {list(images.shape)} and labels {list(labels.shape)}."
        )
    if rounding not in ROUNDINGS:
        raise unknown_name("rounding", rounding, ROUNDINGS)
    for name, value in (("fraction", fraction), ("head_weight", head_weight)):
        if not 0 <= value <= 1:
            raise LongTailedError(f"{name} of similar samples must be in 0..1; it is {value:g}.")
    if not heads or len(set(heads)) < len(heads) or tail in heads:
        raise LongTailedError(
            f"similar samples mix one or more different head classes with another class; "
            f"head {list(heads)} and tail {tail!r} were given."
        )
    if isinstance(tail, str) and tail != NOISE:
        raise LongTailedError(f"the tail class is a number or {NOISE!r}; it is {tail!r}.")
    for wanted in (*heads, *([] if tail == NOISE else [tail])):
        if not (labels == wanted).any():
            raise LongTailedError(
                f"class {wanted} has no images, so no similar samples can be made of it."
            )


def with_similar_samples(
    train: ImageSet, wanted: Similar, seed: int
) -> tuple[ImageSet, dict[str, Any]]:
    """Return the training images with the similar samples that a recipe wants, and a note on it.

    The pixels are copied first, so no other set that shares them changes. The note says how many
    images were mixed and what the fingerprint was before.

    Raises `LongTailedError` unless the images are decoded in memory.
    """
    if not train.in_memory:
        raise LongTailedError(
            f"{train.name}: similar samples are mixed of pixels in memory, but these images are "
            "files that are decoded one at a time; store small images of one size as parquet."
        )
    last = train.num_classes - 1
    tail = last if wanted.tail_class is None else wanted.tail_class
    pixels = train.pixels().numpy()
    rows, mixed = mix_similar_samples(
        pixels, train.labels, wanted.head_classes, tail, wanted.fraction,
        wanted.head_weight, seed, wanted.rounding,
    )  # fmt: skip
    labels = train.labels
    if wanted.mode == "append":
        pixels, labels = np.concatenate([pixels, mixed]), np.concatenate([labels, labels[rows]])
    else:
        pixels[rows] = mixed
    edited = replace(
        train,
        images=torch.from_numpy(pixels),
        labels=labels,
        indices=np.arange(len(labels)),
        groups=None,  # a mixed image comes from two
    )
    note = {
        **wanted.model_dump(mode="json"),
        "tail_class": tail,
        "images": len(rows),
        "sha256_before": fingerprint(record_images({"train": train})),
    }
    return edited, note
