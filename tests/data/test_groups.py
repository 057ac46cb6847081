"""Groups of images: found in names, tables and parquet files, and kept whole in every cut."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from longtailed.data import ImageSet, load_imageset, long_tail_counts, split_holdout, split_meta
from longtailed.errors import LongTailedError


def grouped(*classes: list[int]) -> ImageSet:
    """Return a set in which class c has groups of these sizes, called c.0, c.1, ..."""
    sizes = [size for groups in classes for size in groups]
    labels = np.repeat([c for c, groups in enumerate(classes) for _ in groups], sizes)
    names = [f"{c}.{g}" for c, groups in enumerate(classes) for g in range(len(groups))]
    pixels = torch.zeros(len(labels), 3, 1, 1, dtype=torch.uint8)
    class_names = tuple(f"class {c}" for c in range(len(classes)))
    return ImageSet(pixels, labels, class_names, groups=np.repeat(names, sizes))


def mixed(counts: list[int], size: int) -> ImageSet:
    """Return a set with groups of about `size` images, of which each fifth has two classes."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(counts)), counts)
    number = np.concatenate([np.arange(n) // random.integers(1, 2 * size) for n in counts])
    keys = [f"{c}.{n}" if n % 5 else f"{c // 2}.{n}" for c, n in zip(labels, number, strict=True)]
    pixels = torch.zeros(len(labels), 3, 1, 1, dtype=torch.uint8)
    return ImageSet(pixels, labels, tuple(map(str, range(len(counts)))), groups=np.array(keys))


def shared(first: ImageSet, second: ImageSet) -> set[str]:
    return set(first.groups.tolist()) & set(second.groups.tolist())


@pytest.mark.parametrize("size", [1, 4, 15])
@pytest.mark.parametrize("per_class", [0.2, 0.1, 8])
def test_groups_stay_whole_and_classes_give_about_what_is_wanted(size, per_class):
    imageset = mixed(long_tail_counts(12, 400, 20), size)
    largest = np.unique(imageset.groups, return_counts=True)[1].max()
    for seed in range(3):
        train, held = split_holdout(imageset, per_class, seed)
        assert not shared(train, held)
        assert len(train) + len(held) == len(imageset)
        counts = np.array(imageset.class_counts)
        wanted = per_class * counts if isinstance(per_class, float) else np.full(12, per_class)
        given = np.array(held.class_counts)
        assert (given <= counts // 2).all()
        assert abs(given - wanted).max() <= largest
        assert given.sum() == pytest.approx(wanted.sum(), rel=0.1 if size < 15 else 0.5)


def test_a_class_of_two_groups_is_held_out_and_one_of_a_single_group_is_not():
    imageset = grouped([10] * 20, [9, 5], [30], [1])
    train, held = split_holdout(imageset, 0.2)
    assert held.class_counts == [40, 5, 0, 0]
    assert train.class_counts == [160, 9, 30, 1]
    train, held = split_holdout(imageset, 10)
    assert held.class_counts == [10, 5, 0, 0]


def test_the_choice_of_groups_follows_its_seed():
    imageset = grouped([3] * 30, [2] * 20)
    first, again, other = (split_holdout(imageset, 0.2, seed)[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.indices, again.indices)
    assert set(first.groups.tolist()) != set(other.groups.tolist())


def test_a_meta_set_keeps_groups_whole_and_names_a_class_that_cannot_give():
    train, meta = split_meta(grouped([5] * 10, [5] * 4), 5)
    assert meta.class_counts == [5, 5]
    assert not shared(train, meta)
    with pytest.raises(LongTailedError, match=r"'class 1' with 20 .* its groups stay whole"):
        split_meta(grouped([5] * 10, [20]), 5)


def test_subsets_keep_their_groups_and_lengths_must_agree():
    imageset = grouped([2, 1], [2])
    assert imageset.subset([4, 2]).groups.tolist() == ["1.0", "0.1"]
    with pytest.raises(LongTailedError, match="2 groups for 5 images"):
        ImageSet(imageset.images, imageset.labels, ("a", "b"), groups=np.array(["x", "y"]))


@pytest.fixture
def tracks(tmp_path):
    """Traffic signs: two classes of two tracks each, whose numbers repeat in each class."""
    for sign in ("00000", "00001"):
        (tmp_path / "signs" / sign).mkdir(parents=True)
        for track in (0, 1):
            for frame in range(3):
                path = tmp_path / "signs" / sign / f"{track:05d}_{frame:05d}.png"
                Image.new("RGB", (8, 8)).save(path)
    return tmp_path / "signs"


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        (r"^(\d+)_", {"00000", "00001"}),
        (r"^\d+", {"00000", "00001"}),
        (r"(nothing)|(\d+)_", {"00000", "00001"}),
        (r"(\d+/\d+)_", {"00000/00000", "00000/00001", "00001/00000", "00001/00001"}),
    ],
)
def test_groups_come_from_file_names_or_paths(tracks, pattern, groups):
    imageset = load_imageset(tracks, split_by_pattern=pattern)
    assert set(imageset.groups.tolist()) == groups
    assert sorted(np.unique(imageset.groups, return_counts=True)[1]) == [12 // len(groups)] * len(
        groups
    )


def test_names_that_a_pattern_does_not_match_are_refused_with_an_example(tracks):
    Image.new("RGB", (8, 8)).save(tracks / "00001" / "sketch.png")
    with pytest.raises(LongTailedError, match=r"nothing in 1 of 13 names, such as 'sketch\.png'"):
        load_imageset(tracks, split_by_pattern=r"^(\d+)_")
    with pytest.raises(LongTailedError, match="nothing in 13 of 13 names"):
        load_imageset(tracks, split_by_pattern=r"z*")  # an empty match names no group
    with pytest.raises(LongTailedError, match="no regular expression: missing"):
        load_imageset(tracks, split_by_pattern="(")
    with pytest.raises(LongTailedError, match="no file names"):
        load_imageset("digits", split_by_pattern=".")
    with pytest.raises(LongTailedError, match=r"does not take the option split_by"):
        load_imageset(tracks, split_by="patient")


def test_groups_come_from_a_column_of_a_table(tmp_path):
    table = tmp_path / "lesions.csv"
    table.write_text("image,dx,lesion\na.png,nv,L1\nb.png,nv,L2\nc.png,mel,L1\n")
    imageset = load_imageset(table, label_column="dx", split_by="lesion")
    assert imageset.groups.tolist() == ["L1", "L2", "L1"]
    assert imageset.labels.tolist() == [1, 1, 0]
    with pytest.raises(LongTailedError, match=r"unknown split_by column.*did you mean 'lesion'"):
        load_imageset(table, label_column="dx", split_by="lesions")
    with pytest.raises(LongTailedError, match="both name the groups"):
        load_imageset(table, label_column="dx", split_by="lesion", split_by_pattern=".")
    table.write_text("image,dx,lesion\na.png,nv,L1\nb.png,nv,\n")
    with pytest.raises(LongTailedError, match=r"line 3: no lesion"):
        load_imageset(table, label_column="dx", split_by="lesion")
    table.write_text("a.png,nv\nb.png,mel\n")
    with pytest.raises(LongTailedError, match="has no header"):
        load_imageset(table, split_by="lesion")
    (tmp_path / "list.txt").write_text("a.png 0\n")
    with pytest.raises(LongTailedError, match="without columns; leave out split_by"):
        load_imageset(tmp_path / "list.txt", split_by="lesion")


@pytest.mark.parametrize("side", [16, 80])
def test_groups_come_from_a_column_of_parquet_files(tmp_path, side):
    stream = io.BytesIO()
    Image.new("RGB", (side, side)).save(stream, "PNG")
    columns = {"image": [stream.getvalue()] * 3, "label": [0, 1, 0], "patient": [7, 7, 9]}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    assert load_imageset(tmp_path, split_by="patient").groups.tolist() == ["7", "7", "9"]
    with pytest.raises(LongTailedError, match="unknown split_by column 'person'"):
        load_imageset(tmp_path, split_by="person")
    pq.write_table(pa.table({**columns, "patient": [7, None, 9]}), tmp_path / "train.parquet")
    with pytest.raises(LongTailedError, match=r"row 1 .* has no patient"):
        load_imageset(tmp_path, split_by="patient")
