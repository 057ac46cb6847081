"""Images that look almost the same: found by a perceptual hash, counted within and across splits.

An image is reduced to 32 x 32 pixels. Its hash has the signs of the 8 x 8 lowest coefficients of
the cosine transform of its luminance about their median (the "pHash" of the ImageHash library).
Candidates differ in at most 6 of 64 bits; they are near-duplicates if, at 16 x 16 pixels and apart
from a constant of at most 64 levels, they differ by at most 12 of 255 levels and 0.4 of their
contrast on average. That finds copies that were compressed, resized or brightened (all but a few
of 200 photographs); turned, mirrored or cropped ones and other frames of a film it mostly does not.
Each of the 95 pairs that it finds between the test and training images of CIFAR-10 is right by eye.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from longtailed.data.imageset import ImageSet, IntArray
from longtailed.data.sources.files import map_threads

MOST_BITS = 6  # of 64 in which near-duplicates may differ
MOST_LEVELS = 12.0  # mean difference of their thumbnails, of 255
MOST_SHIFT = 64.0  # of the mean of a channel
MOST_CONTRAST = 0.4  # the same as share of their mean deviation from their mean,
LEAST_LEVELS = 2.0  # but blank images may differ by this
_SIDE, _THUMBNAIL, _BLOCK = 32, 16, 256
_MATRIX = 2**21  # distances computed at a time
_PAIRS = 4096  # pairs of thumbnails compared at a time
_EXAMPLES = 5
_LUMINANCE = torch.tensor([0.299, 0.587, 0.114])
_COSINES = np.cos(np.pi * np.outer(np.arange(8), 2 * np.arange(_SIDE) + 1) / (2 * _SIDE)).astype(
    np.float32
)  # the first 8 rows of the discrete cosine transform


@dataclass(frozen=True)
class _Signatures:
    """Hash bits [N, 64] and colour thumbnails uint8 [N, 768] of images that could be read."""

    bits: npt.NDArray[np.bool_]
    thumbnails: npt.NDArray[np.uint8]
    positions: IntArray  # [N] in the set


@dataclass(frozen=True)
class _Distinct:
    """Images [M] that differ in their signature, split or class, and how many there are of each."""

    bits: npt.NDArray[np.bool_]
    thumbnails: npt.NDArray[np.uint8]
    splits: IntArray
    classes: IntArray
    counts: IntArray
    first: IntArray  # the first and the last such image
    last: IntArray


# Facts of an image, as bits: it looks like another; one of its split and class; one of another
# class; and, from this bit on, one of each earlier split.
_ANY, _WITHIN, _ACROSS, _EARLIER = 1, 2, 4, 8
Wanted = Callable[[IntArray, IntArray], npt.NDArray[np.bool_]]
"""Says which pairs [P] of distinct images are worth comparing."""


def count_near_duplicates(
    sets: Mapping[str, ImageSet], named_by: Mapping[str, ImageSet] | None = None
) -> dict[str, Any]:
    """Return how many images of some splits have a near-duplicate, a JSON-ready value.

    Keys: `images`, those with any; `within_class`, with one of the same split and class;
    `across_classes`, with one of another class in any split; `across_splits`, "B in A" -> images of
    split B with one in the earlier split A; `examples`, up to five pairs of [split, image, class],
    across splits and classes first. Images that cannot be read are left out. Images are named as
    those at the same places of `named_by`, by default the sets themselves, which files that were
    decoded have no names in.

    Memory is about 1 kB an image. One image in 512 is compared with each, so that 10^5 images take
    seconds besides their decoding.
    """
    signatures = [_signatures(imageset) for imageset in sets.values()]
    images = _distinct_images(signatures, list(sets.values()))
    facts, pairs = _compare(images)
    places = [(split, spot) for split, one in zip(sets, signatures, strict=True)
              for spot in one.positions.tolist()]  # fmt: skip

    def shown(image: int) -> list[str]:
        split, position = places[image]
        label = sets[split].class_names[sets[split].labels[position]]
        return [split, _describe((named_by or sets)[split], position), label]

    def count(fact: int, split: int | None = None) -> int:
        true = (facts & fact > 0) & (split is None or images.splits == split)
        return int(images.counts[true].sum())

    return {
        "images": count(_ANY),
        "within_class": count(_WITHIN),
        "across_classes": count(_ACROSS),
        "across_splits": {
            f"{later} in {earlier}": count(_EARLIER << before, number)
            for number, later in enumerate(sets)
            for before, earlier in enumerate(list(sets)[:number])
        },
        "examples": [[shown(one), shown(other)] for one, other in pairs],
    }


def _distinct_images(signatures: Sequence[_Signatures], sets: Sequence[ImageSet]) -> _Distinct:
    bits = np.concatenate([one.bits for one in signatures])
    thumbnails = np.concatenate([one.thumbnails for one in signatures])
    pairs = list(zip(sets, signatures, strict=True))
    names = [np.array(one.class_names)[one.labels[found.positions]] for one, found in pairs]
    classes = np.unique(np.concatenate(names), return_inverse=True)[1]
    splits = np.repeat(np.arange(len(sets)), list(map(len, names)))
    kinds = np.stack((splits, classes), axis=1).astype(np.int64)
    whole = np.concatenate((np.packbits(bits, axis=1), thumbnails, kinds.view(np.uint8)), axis=1)
    keys = np.ascontiguousarray(whole).view(np.dtype((np.void, whole.shape[1]))).ravel()
    _, first, of, counts = np.unique(
        keys, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(of, kind="stable")
    last = order[np.cumsum(counts) - 1] if len(order) else order
    return _Distinct(
        bits[first], thumbnails[first], splits[first], classes[first], counts, first, last
    )


def _compare(images: _Distinct) -> tuple[IntArray, list[tuple[int, int]]]:
    """Return the facts of each distinct image, and a few pairs as examples.

    A pair that would tell nothing new of its two images is not compared: thousands of frames that
    all look alike would be millions of pairs.
    """
    facts = np.where(images.counts > 1, _ANY | _WITHIN, 0)

    def told(one: IntArray, other: IntArray) -> IntArray:
        """Return the facts of images [P] if the `other` ones [P] look like them."""
        split, near = images.splits[one], images.splits[other]
        same = images.classes[one] == images.classes[other]
        kind = np.where(same, _WITHIN * (split == near), _ACROSS)
        return np.asarray(_ANY | kind | np.where(near < split, _EARLIER << near, 0))

    def tells(left: IntArray, right: IntArray) -> npt.NDArray[np.bool_]:
        new = told(left, right) & ~facts[left] | told(right, left) & ~facts[right]
        return np.asarray(new > 0)

    twice = np.flatnonzero(images.counts > 1)[:_EXAMPLES]
    best = [(3, images.first[i], images.last[i]) for i in twice]
    for left, right in _near_pairs(images.bits, images.thumbnails, tells):
        np.bitwise_or.at(facts, left, told(left, right))
        np.bitwise_or.at(facts, right, told(right, left))
        same_split = images.splits[left] == images.splits[right]
        rank = 2 * same_split + (images.classes[left] == images.classes[right])
        chosen = np.argsort(rank, kind="stable")[:_EXAMPLES]
        found = (rank, images.first[left], images.first[right])
        best += zip(*(values[chosen].tolist() for values in found), strict=True)
        best = heapq.nsmallest(_EXAMPLES, best, key=itemgetter(0))
    return facts, [(int(one), int(other)) for _, one, other in best]


def _describe(imageset: ImageSet, position: int) -> str:
    row = int(imageset.indices[position])
    return f"row {row}" if isinstance(imageset.images, Tensor) else imageset.images.describe(row)


def _signatures(imageset: ImageSet) -> _Signatures:
    """Return the signatures of the readable images, a block at a time."""
    blocks = np.array_split(np.arange(len(imageset)), max(1, -(-len(imageset) // _BLOCK)))

    def shrink(block: IntArray) -> tuple[IntArray, Tensor]:
        if imageset.in_memory:
            return block, _resized(imageset.subset(block).pixels())
        read = {int(position): _decoded(imageset, int(position)) for position in block}
        good = {position: image for position, image in read.items() if image is not None}
        small = [_resized(image[None]) for image in good.values()]
        empty = torch.zeros(0, 3, _SIDE, _SIDE)
        return np.array(list(good), dtype=np.int64), torch.cat([empty, *small])

    def sign(block: IntArray) -> _Signatures:
        positions, small = shrink(block)
        gray = torch.einsum("nchw,c->nhw", small, _LUMINANCE).numpy()
        waves = (_COSINES @ gray @ _COSINES.T).reshape(len(gray), 64)
        waves = waves.round()  # of a blank image nothing is left but errors of rounding
        bits = waves > np.median(waves[:, 1:], axis=1, keepdims=True)
        bits[:, 0] = False  # the brightness
        thumbnails = interpolate(small, (_THUMBNAIL, _THUMBNAIL), mode="area")
        return _Signatures(bits, thumbnails.round().byte().flatten(1).numpy(), positions)

    parts = map_threads(sign, blocks)
    return _Signatures(
        np.concatenate([part.bits for part in parts]),
        np.concatenate([part.thumbnails for part in parts]),
        np.concatenate([part.positions for part in parts]),
    )


def _decoded(imageset: ImageSet, position: int) -> Tensor | None:
    try:
        return imageset.decode(position)
    except ValueError:
        return None


def _resized(pixels: Tensor) -> Tensor:
    return interpolate(
        pixels.float(), (_SIDE, _SIDE), mode="bilinear", antialias=True, align_corners=False
    )


def _near_pairs(
    bits: npt.NDArray[np.bool_], thumbnails: npt.NDArray[np.uint8], wanted: Wanted
) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield the pairs of near-duplicates, some at a time, each once, if it is `wanted` then.

    Two hashes that differ in at most d bits agree in one of d + 1 bands of bits, so only images
    that share a band are compared.
    """
    signs = np.where(bits, 1, -1).astype(np.float32)
    bands = np.array_split(np.arange(1, 64), MOST_BITS + 1)  # bit 0 is always the same
    keys = np.stack([bits[:, band] @ (1 << np.arange(len(band))) for band in bands])
    for number, key in enumerate(keys):
        order = np.argsort(key, kind="stable")
        runs = np.split(order, np.flatnonzero(np.diff(key[order])) + 1)
        for run in runs:
            step = max(1, _MATRIX // len(run))
            for start in range(0, len(run) - 1, step):
                part, rest = run[start : start + step], run[start:]
                agreeing = signs[part] @ signs[rest].T >= 64 - 2 * MOST_BITS
                left, right = np.nonzero(np.triu(agreeing, 1))
                left, right = part[left], rest[right]
                useful = wanted(left, right)
                left, right = left[useful], right[useful]
                new = ~(keys[:number, left] == keys[:number, right]).any(axis=0)
                yield from _alike(left[new], right[new], thumbnails, wanted)


def _alike(
    left: IntArray, right: IntArray, thumbnails: npt.NDArray[np.uint8], wanted: Wanted
) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield the pairs whose thumbnails differ by little more than a constant in each channel."""
    for start in range(0, len(left), _PAIRS):
        one, other = left[start : start + _PAIRS], right[start : start + _PAIRS]
        useful = wanted(one, other)  # as the pairs before may have told all
        one, other = one[useful], other[useful]
        same = _look_alike(thumbnails[one], thumbnails[other])
        if same.any():
            yield one[same], other[same]


def _look_alike(left: npt.NDArray[np.uint8], right: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return which pairs [P] of thumbnails [P, 768] look alike."""
    one, other = (
        pixels.reshape(len(pixels), 3, _THUMBNAIL**2).astype(np.float32) for pixels in (left, right)
    )
    means, other_means = (levels.mean(axis=2, keepdims=True) for levels in (one, other))
    shift = np.abs(means - other_means).max(axis=(1, 2))
    one, other = one - means, other - other_means
    contrast = np.minimum(np.abs(one).mean(axis=(1, 2)), np.abs(other).mean(axis=(1, 2)))
    limit = np.clip(MOST_CONTRAST * contrast, LEAST_LEVELS, MOST_LEVELS)
    return np.asarray((np.abs(one - other).mean(axis=(1, 2)) <= limit) & (shift <= MOST_SHIFT))
