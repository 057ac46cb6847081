from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image

from longtailed.data import describe
from longtailed.data.describe import describe_imageset, gini_coefficient, thumbnail_grid
from longtailed.data.imageset import ImageSet
from longtailed.data.stores import ImageFiles
from longtailed.errors import LongTailedError


def make_set(counts: list[int]) -> ImageSet:
    labels = np.repeat(np.arange(len(counts)), counts)
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (len(labels), 3, 4, 5), dtype=torch.uint8, generator=random)
    return ImageSet(images, labels, tuple(f"class {i}" for i in range(len(counts))), name="toy")


def test_summary_counts_classes():
    summary = describe_imageset(make_set([150, 100, 20, 19, 0]))
    assert summary["images"] == 289
    assert summary["classes"] == 5
    assert summary["counts"] == [150, 100, 20, 19, 0]
    assert summary["empty_classes"] == 1
    assert summary["imbalance_ratio"] == pytest.approx(150 / 19)
    assert (summary["largest_class"], summary["smallest_class"]) == ("class 0", "class 3")
    assert summary["classes_below_20"] == 2
    assert summary["classes_20_to_100"] == 2
    assert summary["classes_above_100"] == 1
    assert summary["smallest_image"] == summary["largest_image"] == [4, 5]
    assert summary["duplicates"] == {"within_class": 0, "across_classes": 0, "examples": []}
    json.dumps(summary)
    with pytest.raises(LongTailedError, match="no images"):
        describe_imageset(make_set([2]).subset([]))


def test_gini_is_half_the_relative_mean_difference():
    counts = np.array([3, 50, 7, 7, 120])
    differences = sum(abs(a - b) for a in counts for b in counts)
    assert gini_coefficient(counts) == pytest.approx(differences / (2 * 5 * counts.sum()))
    assert gini_coefficient(np.array([4, 4, 4])) == 0


def test_duplicate_pairs_are_counted_by_label():
    imageset = make_set([4, 3, 3])
    imageset.images[[1, 2, 5, 7]] = imageset.images[0].clone()
    imageset.images[9] = imageset.images[8]
    twice = imageset.subset([*range(10), 3, 3])  # a row drawn again is no duplicate
    found = describe.count_duplicates(twice)
    pairs = [
        (a, b)
        for a, b in combinations(range(10), 2)
        if torch.equal(imageset.images[a], imageset.images[b])
    ]
    within = sum(imageset.labels[a] == imageset.labels[b] for a, b in pairs)
    assert found is not None
    assert found["within_class"] == within == 4
    assert found["across_classes"] == len(pairs) - within == 7
    assert [position for position, _ in found["examples"][0]] == [0, 1, 2, 5, 7]
    assert found["examples"][0][3] == [5, "class 1"]


def test_files_are_described_with_missing_ones(tmp_path, monkeypatch):
    sides = [(4, 5), (30, 20), (6, 6), (4, 5)]
    for i, (height, width) in enumerate(sides):
        Image.new("RGB", (width, height), (i % 3, 0, 0)).save(tmp_path / f"{i}.png")
    names = [f"{i}.png" for i in range(5)]
    imageset = ImageSet(ImageFiles(tmp_path, names), np.array([0, 0, 1, 1, 1]), ("a", "b"))
    summary = describe_imageset(imageset)
    assert summary["smallest_image"] == [4, 5]
    assert summary["largest_image"] == [30, 20]
    assert (summary["checked"], summary["unreadable_images"]) == ("the header of every image", 1)
    assert summary["unreadable_examples"] == [[str(tmp_path / "4.png"), "there is no such file"]]
    assert summary["duplicates"]["across_classes"] == 1
    monkeypatch.setattr(describe, "MAX_HASHED_FILES", 3)
    assert describe_imageset(imageset)["duplicates"] is None
    assert describe_imageset(imageset, full=True)["duplicates"]["across_classes"] == 1
    with Image.open(thumbnail_grid(imageset, tmp_path / "grid.png")) as grid:
        assert grid.format == "PNG"


def test_every_header_is_read_and_with_full_every_image(tmp_path):
    names = [f"{i}.bmp" for i in range(400)]
    for i, name in enumerate(names):
        Image.new("RGB", (4, 4), (i % 256, i // 256, 0)).save(tmp_path / name)
    (tmp_path / "301.bmp").write_bytes(b"")
    (tmp_path / "303.bmp").write_bytes(b"")
    (tmp_path / "205.bmp").write_bytes((tmp_path / "205.bmp").read_bytes()[:-20])
    imageset = ImageSet(ImageFiles(tmp_path, names), np.zeros(400, int), ("a",))
    summary = describe_imageset(imageset)
    assert summary["unreadable_images"] == 2
    assert summary["duplicates"]["within_class"] == 0  # two empty files are no duplicates
    summary = describe_imageset(imageset, full=True)
    assert (summary["checked"], summary["unreadable_images"]) == ("every image", 3)


def test_thumbnails_show_head_middle_and_tail(tmp_path):
    counts = [40, 3, 30, 0, 20, 10, 9, 8, 1, 2]
    labels = np.repeat(np.arange(10), counts)
    images = torch.zeros(len(labels), 3, 4, 4, dtype=torch.uint8)
    images[:] = torch.from_numpy(labels * 20).to(torch.uint8)[:, None, None, None]
    imageset = ImageSet(images, labels, tuple("abcdefghij"))
    path = thumbnail_grid(imageset, tmp_path / "grid.png", classes=4, per_class=3)
    with Image.open(path) as grid:
        shades = [
            [grid.getpixel((36 + 68 * column, 54 + 86 * row))[0] for column in range(3)]
            for row in range(4)
        ]
    # Sorted by count the classes are 0 2 4 5 6 7 1 9 8; a row is filled as far as images go.
    assert shades[0] == [0, 0, 0]
    assert shades[1] == [40, 40, 40]
    assert shades[2] == [120, 120, 120]
    assert shades[3] == [160, 255, 255]
    with pytest.raises(LongTailedError, match="cannot be written"):
        thumbnail_grid(imageset, tmp_path / "no" / "grid.png")
    with pytest.raises(LongTailedError, match="no images to show"):
        thumbnail_grid(imageset.subset([]), tmp_path / "grid.png")
