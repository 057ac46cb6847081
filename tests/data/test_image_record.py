"""Records of images: what counts as a change, and when a file is read to find out."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from longtailed.data import ImageFiles, ImageSet, image_record
from longtailed.data.image_record import (
    changes,
    fingerprint,
    images_of,
    read_record,
    record_images,
    shared_images,
    write_record,
)
from longtailed.errors import LongTailedError

NAMES = ["ant/0.png", "ant/1.png", "bee/2.png", "bee/3.png"]


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(NAMES):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"image {number}".encode())
        os.utime(path, (1000, 1000))
    return tmp_path / "photos"


@pytest.fixture
def read(monkeypatch):
    """Return the list of files that are read, whatever their number is."""
    seen: list[str] = []
    encoded = ImageFiles.encoded

    def counted(store, row):
        seen.append(store.paths[row])
        return encoded(store, row)

    monkeypatch.setattr(ImageFiles, "encoded", counted)
    monkeypatch.setattr(image_record, "SMALL_BYTES", 0)
    return seen


def sets(root, names=NAMES, test: int = 1) -> dict[str, ImageSet]:
    labels = np.array(["bee" in name for name in names], dtype=np.int64)
    whole = ImageSet(ImageFiles(root, names), labels, ("ant", "bee"))
    cut = len(names) - test
    return {"train": whole.subset(range(cut)), "test": whole.subset(range(cut, len(names)))}


def test_a_record_names_every_image_and_is_read_back(folder, tmp_path):
    record = record_images(sets(folder))
    assert record["name"].to_pylist() == NAMES
    assert record["split"].to_pylist() == ["train"] * 3 + ["test"]
    assert record["class"].to_pylist() == ["ant", "ant", "bee", "bee"]
    assert record["size"].to_pylist() == [7] * 4
    with (tmp_path / "record").open("wb") as file:
        write_record(file, record)
    assert read_record(tmp_path / "record").equals(record)
    assert images_of(record, "test")["name"].to_pylist() == NAMES[3:]
    (tmp_path / "record").write_bytes(b"no parquet")
    for path, message in (("record", "no readable record"), ("none", "does not exist")):
        with pytest.raises(LongTailedError, match=message):
            read_record(tmp_path / path)


def test_a_moved_copied_or_touched_folder_is_no_change(folder, tmp_path):
    before = record_images(sets(folder))
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    os.utime(folder / NAMES[1])
    for root in (folder, tmp_path / "copy", tmp_path / "moved"):
        if root.name == "moved":
            folder.rename(root)
        now = record_images(sets(root), before)
        assert changes(before, now) is None
        assert fingerprint(now) == fingerprint(before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("add", "1 image added (train: 'ant/new.png')"),
        ("remove", "1 image removed (train: 'ant/0.png')"),
        ("replace", "1 image replaced by another image (train: 'ant/1.png')"),
        ("miss", "1 image missing or unreadable (train: 'ant/1.png')"),
        ("relabel", "1 image removed (train: 'ant/1.png'), 1 image added"),
        ("resplit", "1 image put into another split (test: 'bee/2.png')"),
        ("reorder", "the same images stand in another order"),
    ],
)
def test_each_kind_of_change_is_named(folder, change, message):
    before = record_images(sets(folder))
    names, test = list(NAMES), 1
    if change == "add":
        (folder / "ant/new.png").write_bytes(b"another")
        names.insert(0, "ant/new.png")
    elif change == "remove":
        names.pop(0)
    elif change == "replace":
        (folder / NAMES[1]).write_bytes(b"IMAGE 1")
        os.utime(folder / NAMES[1], (1000, 1000))
    elif change == "miss":
        (folder / NAMES[1]).unlink()
    elif change == "relabel":
        (folder / NAMES[1]).rename(folder / "bee/1.png")
        names[1] = "bee/1.png"
    elif change == "resplit":
        test = 2
    else:
        names[:2] = names[1::-1]
    now = record_images(sets(folder, names, test), before)
    found = changes(before, now)
    assert found is not None
    assert (changes(before, now, ordered=False) is None) == (change == "reorder")
    for part in message.split(", "):
        assert part in found


def test_of_many_files_only_those_with_another_time_are_read(folder, read):
    before = record_images(sets(folder))
    assert sorted(read) == NAMES
    read.clear()
    os.utime(folder / NAMES[1])
    assert changes(before, record_images(sets(folder), before)) is None
    assert read == [NAMES[1]]
    (folder / NAMES[2]).write_bytes(b"another size")
    found = changes(before, record_images(sets(folder), before))
    assert found == "1 image replaced by another image (train: 'bee/2.png')"


def test_a_change_that_hides_its_time_is_found_by_content(folder, read):
    before = record_images(sets(folder))
    (folder / NAMES[0]).write_bytes(b"IMAGE 0")
    os.utime(folder / NAMES[0], (1000, 1000))
    assert changes(before, record_images(sets(folder), before)) is None
    found = changes(before, record_images(sets(folder), before, "content"))
    assert found == "1 image replaced by another image (train: 'ant/0.png')"


def test_files_of_one_name_size_and_time_in_two_splits_are_told_apart(tmp_path, read):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "0.png").write_bytes(split[:4].encode())
        os.utime(tmp_path / split / "0.png", (1000, 1000))
    both = {
        split: ImageSet(ImageFiles(tmp_path / split, ["0.png"]), np.zeros(1), ("ant",))
        for split in ("train", "test")
    }
    before = record_images(both)
    assert changes(before, record_images(both, before)) is None


def test_images_that_two_sets_share_are_counted_by_content(folder, tmp_path):
    record = record_images(sets(folder))
    shutil.copy(folder / NAMES[0], tmp_path / "same.png")
    (tmp_path / "other.png").write_bytes(b"other")
    files = ImageFiles(tmp_path, ["same.png", "other.png", "missing.png"])
    other = record_images({"test": ImageSet(files, np.zeros(3), ("ant",))})
    assert other["digest"][2].as_py() is None
    assert shared_images(other, record) == 1
