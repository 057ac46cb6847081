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
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
_MATRIX = 2**23  # distances computed at a time
_EXAMPLES = 5
_LUMINANCE = torch.tensor([0.299, 0.587, 0.114])
_COSINES = np.cos(np.pi * np.outer(np.arange(8), 2 * np.arange(_SIDE) + 1) / (2 * _SIDE)).astype(
    np.float32
)  # the first 8 rows of the discrete cosine transform

Kind = tuple[str, str]  # split and class of an image


@dataclass(frozen=True)
class _Signatures:
    """Hash bits [N, 64] and colour thumbnails uint8 [N, 768] of images that could be read."""

    bits: npt.NDArray[np.bool_]
    thumbnails: npt.NDArray[np.uint8]
    positions: IntArray  # [N] in the set


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
    signatures = {split: _signatures(imageset) for split, imageset in sets.items()}
    places = [(split, spot) for split, one in signatures.items() for spot in one.positions.tolist()]
    members, near = _nodes(list(signatures.values()))

    def kind(image: int) -> Kind:
        split, position = places[image]
        return split, sets[split].class_names[sets[split].labels[position]]

    def shown(image: int) -> list[str]:
        split, position = places[image]
        return [split, _describe((named_by or sets)[split], position), kind(image)[1]]

    kinds = {node: Counter(map(kind, images)) for node, images in members.items()}
    pairs = _example_pairs(members, near, kind)
    return {
        **_count(kinds, near, list(sets)),
        "examples": [[shown(one), shown(other)] for one, other in pairs],
    }


def _nodes(
    signatures: Sequence[_Signatures],
) -> tuple[dict[int, list[int]], dict[int, set[int]]]:
    """Return the images of each node that has near-duplicates, and the nodes near each.

    Equal images are one node, so that a thousand black ones do not make half a million pairs.
    """
    bits = np.concatenate([one.bits for one in signatures])
    thumbnails = np.concatenate([one.thumbnails for one in signatures])
    whole = np.concatenate((np.packbits(bits, axis=1), thumbnails), axis=1)
    keys = np.ascontiguousarray(whole).view(np.dtype((np.void, whole.shape[1]))).ravel()
    _, first, node_of = np.unique(keys, return_index=True, return_inverse=True)
    near: dict[int, set[int]] = defaultdict(set)
    for left, right in _near_pairs(bits[first], thumbnails[first]):
        near[left].add(right)
        near[right].add(left)
    members: dict[int, list[int]] = defaultdict(list)
    crowded = np.bincount(node_of) > 1
    for image in np.flatnonzero(crowded[node_of] | np.isin(node_of, list(near))):
        members[int(node_of[image])].append(int(image))
    return members, near


def _count(
    kinds: Mapping[int, Counter[Kind]], near: Mapping[int, set[int]], splits: list[str]
) -> dict[str, Any]:
    """Return the counts over nodes of equal images, each joined with the nodes near it."""
    found = {"images": 0, "within_class": 0, "across_classes": 0}
    pairs = [(later, one) for i, later in enumerate(splits) for one in splits[:i]]
    across = {f"{later} in {earlier}": 0 for later, earlier in pairs}
    for node, own in kinds.items():
        around = Counter(own)
        for other in near.get(node, ()):
            around += kinds[other]
        for (split, label), images in own.items():
            others = around - Counter({(split, label): 1})
            found["images"] += images if others else 0
            found["within_class"] += images if others[split, label] else 0
            found["across_classes"] += images if any(c != label for _, c in others) else 0
            for earlier in splits[: splits.index(split)]:
                if any(one == earlier for one, _ in others):
                    across[f"{split} in {earlier}"] += images
    return {**found, "across_splits": across}


def _example_pairs(
    members: Mapping[int, list[int]], near: Mapping[int, set[int]], kind: Callable[[int], Kind]
) -> list[tuple[int, int]]:
    """Return a few pairs of images, those of different splits, then of different classes first."""

    def pairs() -> Iterator[tuple[int, int]]:
        for images in members.values():
            yield from ((images[0], one) for one in images[1:])
        for node, others in near.items():
            yield from ((members[node][0], members[other][0]) for other in others if other > node)

    def order(pair: tuple[int, int]) -> tuple[bool, bool]:
        (split, label), (other_split, other_label) = map(kind, pair)
        return split == other_split, label == other_label

    return heapq.nsmallest(_EXAMPLES, pairs(), key=order)


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
    bits: npt.NDArray[np.bool_], thumbnails: npt.NDArray[np.uint8]
) -> Iterator[tuple[int, int]]:
    """Yield each pair of near-duplicates once.

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
                new = ~(keys[:number, left] == keys[:number, right]).any(axis=0)
                yield from _alike(left[new], right[new], thumbnails)


def _alike(
    left: IntArray, right: IntArray, thumbnails: npt.NDArray[np.uint8]
) -> Iterator[tuple[int, int]]:
    """Yield the pairs whose thumbnails differ by little more than a constant in each channel."""
    for start in range(0, len(left), 4096):
        pair = slice(start, start + 4096)
        shown = (thumbnails[rows[pair]] for rows in (left, right))
        one, other = (levels.reshape(len(levels), 3, -1).astype(np.float32) for levels in shown)
        means, other_means = (levels.mean(axis=2, keepdims=True) for levels in (one, other))
        shift = np.abs(means - other_means).max(axis=(1, 2))
        one, other = one - means, other - other_means
        contrast = np.minimum(np.abs(one).mean(axis=(1, 2)), np.abs(other).mean(axis=(1, 2)))
        limit = np.clip(MOST_CONTRAST * contrast, LEAST_LEVELS, MOST_LEVELS)
        same = (np.abs(one - other).mean(axis=(1, 2)) <= limit) & (shift <= MOST_SHIFT)
        yield from zip(left[pair][same].tolist(), right[pair][same].tolist(), strict=True)
