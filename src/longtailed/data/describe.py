"""What a set of images holds: class counts, imbalance, image sizes, duplicates, thumbnails."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from longtailed.data.groups import describe_groups
from longtailed.data.imageset import ImageSet, IntArray
from longtailed.data.sources.files import Inspected, inspect_images, map_threads
from longtailed.data.stores import EncodedStore
from longtailed.errors import LongTailedError

MAX_HASHED_FILES = 20_000
_SIDE, _GAP, _CAPTION = 64, 4, 18  # of a thumbnail cell, in pixels


def describe_imageset(
    imageset: ImageSet, *, full: bool = False, inspected: Inspected | None = None
) -> dict[str, Any]:
    """Return a JSON-ready summary of a set.

    Keys: `images`, `classes`, `counts` [C], `empty_classes`; `imbalance_ratio` = largest over
    smallest count and `gini` in 0..1 (0: all classes equal), both over the classes that have
    images; `largest_class`, `smallest_class` (names); `classes_below_20`, `classes_20_to_100`,
    `classes_above_100`; `smallest_image`, `largest_image` as [height, width]; `checked`: what of
    each image was read, its header or, if `full`, all of it; `unreadable_images` and, in
    `unreadable_examples`, up to five of them with the reason; `duplicates` (see
    `count_duplicates`), None for more than 20,000 files unless `full`; `skipped` images; `read_as`
    and `left_out`: what the source was taken for, and the files that are not in the set; and, if
    the set has groups, `groups` (see `describe_groups`). `inspected` is what `inspect_images` has
    found, if it was called.

    Raises `LongTailedError` if the set is empty.
    """
    if not len(imageset):
        raise LongTailedError(f"{imageset.name} has no images to describe.")
    counts = np.array(imageset.class_counts)
    filled = np.flatnonzero(counts)
    largest = int(filled[counts[filled].argmax()])
    smallest = int(filled[counts[filled].argmin()])
    return {
        "images": len(imageset),
        "classes": imageset.num_classes,
        "counts": counts.tolist(),
        "empty_classes": imageset.num_classes - len(filled),
        "imbalance_ratio": float(counts[largest] / counts[smallest]),
        "gini": gini_coefficient(counts[filled]),
        "largest_class": imageset.class_names[largest],
        "smallest_class": imageset.class_names[smallest],
        "classes_below_20": int((counts < 20).sum()),
        "classes_20_to_100": int(((counts >= 20) & (counts <= 100)).sum()),
        "classes_above_100": int((counts > 100).sum()),
        **_describe_files(imageset, full, inspected or inspect_images(imageset, full)),
        "duplicates": count_duplicates(imageset, full=full),
        "skipped": len(imageset.skipped),
        "read_as": list(imageset.notes),
        "left_out": dict(imageset.left_out),
        **({} if imageset.groups is None else {"groups": describe_groups(imageset)}),
    }


def gini_coefficient(counts: IntArray) -> float:
    """Return the Gini coefficient of the class sizes, in 0..1.

    With sizes n_1 <= ... <= n_C: G = sum_i (2i - C - 1) n_i / (C sum_i n_i).
    """
    ordered = np.sort(counts)
    num_classes = len(ordered)
    weights = 2 * np.arange(1, num_classes + 1) - num_classes - 1
    return float((weights * ordered).sum() / (num_classes * ordered.sum()))


def _describe_files(imageset: ImageSet, full: bool, inspected: Inspected) -> dict[str, Any]:
    sizes, bad = inspected
    by_area = sorted(set(sizes), key=lambda size: (size[0] * size[1], size))
    decoded = full or imageset.in_memory
    return {
        "smallest_image": list(by_area[0]) if by_area else None,
        "largest_image": list(by_area[-1]) if by_area else None,
        "checked": "every image" if decoded else "the header of every image",
        "unreadable_images": len(bad),
        "unreadable_examples": [list(problem) for problem in list(bad.values())[:5]],
    }


def count_duplicates(imageset: ImageSet, *, full: bool = False) -> dict[str, Any] | None:
    """Return the number of pairs of exact duplicates; None for over 20,000 files unless `full`.

    Equal are images with the same pixels (decoded sets) or the same bytes (files). Keys:
    `within_class`, `across_classes` (pairs whose labels differ: at least one label is wrong) and
    `examples`, up to five groups across classes as lists of position and class name.
    """
    if not full and not imageset.in_memory and len(imageset) > MAX_HASHED_FILES:
        return None
    # A row that a set holds twice on purpose is no duplicate.
    positions = np.unique(imageset.indices, return_index=True)[1]
    blocks = np.array_split(positions, max(1, len(positions) // 256))
    digests = map_threads(lambda block: [_digest(imageset, int(spot)) for spot in block], blocks)
    groups: dict[bytes, list[int]] = defaultdict(list)
    for block, keys in zip(blocks, digests, strict=True):
        for position, key in zip(block, keys, strict=True):
            if key is not None:
                groups[key].append(int(position))
    return _count_pairs(imageset, [group for group in groups.values() if len(group) > 1])


def _digest(imageset: ImageSet, position: int) -> bytes | None:
    images = imageset.images
    try:
        if isinstance(images, EncodedStore):
            data = images.encoded(int(imageset.indices[position]))
        else:
            data = imageset.decode(position).numpy()
    except ValueError:
        return None
    if not data.size:  # empty files are bad, but no duplicates
        return None
    return hashlib.blake2b(data.tobytes(), digest_size=16).digest()


def _count_pairs(imageset: ImageSet, groups: list[list[int]]) -> dict[str, Any]:
    within = across = 0
    examples: list[list[list[Any]]] = []
    for group in groups:
        sizes = np.bincount(imageset.labels[group])
        same = int((sizes * (sizes - 1) // 2).sum())
        within += same
        across += len(group) * (len(group) - 1) // 2 - same
        if np.count_nonzero(sizes) > 1 and len(examples) < 5:
            names = [imageset.class_names[imageset.labels[spot]] for spot in group]
            examples.append([list(pair) for pair in zip(group, names, strict=True)])
    return {"within_class": within, "across_classes": across, "examples": examples}


def thumbnail_grid(
    imageset: ImageSet, path: str | Path, classes: int = 12, per_class: int = 8
) -> Path:
    """Return the path of a PNG with images of head, middle and tail classes, one class a row.

    Each row is headed by the class name and count; classes are sorted by count. Small images are
    enlarged without smoothing, an image that cannot be read is left grey.

    Raises `LongTailedError` if the set is empty or the file cannot be written.
    """
    chosen = _choose_classes(np.array(imageset.class_counts), classes)
    if not len(chosen) or per_class < 1:
        raise LongTailedError(f"{imageset.name} has no images to show.")
    row_height = _CAPTION + _SIDE + _GAP
    size = (_GAP + per_class * (_SIDE + _GAP), _GAP + len(chosen) * row_height)
    grid = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(grid)
    font = ImageFont.load_default()
    for row, label in enumerate(chosen):
        top = _GAP + row * row_height
        members = np.flatnonzero(imageset.labels == label)
        caption = f"{imageset.class_names[label]}: {len(members)}"
        draw.text((_GAP, top + 2), caption, fill="black", font=font)
        shown = np.unique(np.linspace(0, len(members) - 1, per_class).astype(int))
        for column, position in enumerate(members[shown]):
            corner = (_GAP + column * (_SIDE + _GAP), top + _CAPTION)
            grid.paste(_thumbnail(imageset, int(position)), corner)
    try:
        grid.save(path, format="PNG")
    except OSError as error:
        raise LongTailedError(f"'{path}' cannot be written: {error.strerror}.") from error
    return Path(path)


def _choose_classes(counts: IntArray, number: int) -> IntArray:
    """Return about a third of `number` classes each from head, middle and tail, largest first."""
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    if len(order) <= number:
        return order
    head, tail = -(-number // 3), number // 3
    middle = number - head - tail
    start = (len(order) - middle) // 2
    return np.concatenate((order[:head], order[start : start + middle], order[len(order) - tail :]))


def _thumbnail(imageset: ImageSet, position: int) -> Image.Image:
    cell = Image.new("RGB", (_SIDE, _SIDE), "lightgrey")
    try:
        pixels = imageset.decode(position).permute(1, 2, 0).contiguous().numpy()
    except LongTailedError:
        return cell
    image = Image.fromarray(pixels)
    scale = _SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
    image = image.resize(size, method)
    cell.paste(image, ((_SIDE - image.width) // 2, (_SIDE - image.height) // 2))
    return cell
