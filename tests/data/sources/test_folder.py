from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from longtailed.data.sources import available_splits, load_imageset
from longtailed.errors import LongTailedError


def make_image(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 4), (shade, shade, shade)).save(path)


def test_classes_are_the_sorted_directories(tmp_path):
    make_image(tmp_path / "dog" / "2.PNG", 2)
    make_image(tmp_path / "dog" / "1.png", 1)
    make_image(tmp_path / "dog" / "more" / "3.bmp", 3)
    make_image(tmp_path / "ant" / "0.Jpeg", 0)
    make_image(tmp_path / "dog" / ".hidden.png")
    make_image(tmp_path / ".cache" / "x.png")
    (tmp_path / "dog" / "notes.txt").write_text("not an image")
    (tmp_path / "readme.md").write_text("not a class")
    imageset = load_imageset(tmp_path)
    assert available_splits(str(tmp_path)) == ("train",)
    assert imageset.class_names == ("ant", "dog")
    assert imageset.labels.tolist() == [0, 1, 1, 1]
    assert [imageset.images.paths[i] for i in range(4)] == [
        "ant/0.Jpeg",
        "dog/1.png",
        "dog/2.PNG",
        "dog/more/3.bmp",
    ]
    assert [int(imageset.decode(i)[0, 0, 0]) for i in range(4)] == [0, 1, 2, 3]
    assert imageset.decode(0).shape == (3, 4, 5)


def test_a_relative_folder_works(tmp_path, monkeypatch):
    make_image(tmp_path / "a" / "0.png", 7)
    monkeypatch.chdir(tmp_path)
    assert int(load_imageset(".").decode(0)[0, 0, 0]) == 7
    assert int(load_imageset(Path("../") / tmp_path.name).decode(0)[0, 0, 0]) == 7


def test_split_folders_share_the_classes_of_train(tmp_path):
    for split in ("train", "validation", "test"):
        make_image(tmp_path / split / "a" / "0.png")
        make_image(tmp_path / split / "c" / "1.png")
    make_image(tmp_path / "train" / "b" / "2.png")
    assert available_splits(tmp_path) == ("train", "val", "test")
    assert load_imageset(tmp_path).labels.tolist() == [0, 1, 2]
    for split in ("val", "valid", "test"):
        imageset = load_imageset(tmp_path, split)
        assert imageset.class_names == ("a", "b", "c")
        assert imageset.labels.tolist() == [0, 2]
    make_image(tmp_path / "test" / "zebra" / "3.png")
    with pytest.raises(LongTailedError, match=r"class 'zebra', which .*train' lacks"):
        load_imageset(tmp_path, "test")


def test_missing_splits_and_empty_classes_are_named(tmp_path):
    make_image(tmp_path / "train" / "a" / "0.png")
    make_image(tmp_path / "val" / "a" / "0.png")
    with pytest.raises(LongTailedError, match="no split 'test'; it has 'train' and 'val'"):
        load_imageset(tmp_path, "test")
    (tmp_path / "train" / "empty").mkdir()
    with pytest.raises(LongTailedError, match=r"without an image: .*train/empty'; add"):
        load_imageset(tmp_path)
    (tmp_path / "valid" / "a").mkdir(parents=True)
    with pytest.raises(LongTailedError, match="two folders for the split 'val'"):
        load_imageset(tmp_path, "val")


def test_a_class_may_be_called_train(tmp_path):
    for name in ("bus", "train"):
        make_image(tmp_path / name / "0.png")
    assert load_imageset(tmp_path).class_names == ("bus", "train")


def test_class_names_reorder_or_rename(tmp_path):
    for shade, name in enumerate(("n01", "n02", "n03")):
        make_image(tmp_path / name / "0.png", shade)
    reordered = load_imageset(tmp_path, class_names=["n03", "n01", "n02"])
    assert reordered.class_names == ("n03", "n01", "n02")
    assert [int(reordered.decode(i)[0, 0, 0]) for i in np.argsort(reordered.labels)] == [2, 0, 1]
    renamed = load_imageset(tmp_path, class_names="tench,goldfish,shark")
    assert renamed.class_names == ("tench", "goldfish", "shark")
    assert renamed.images.paths[2] == "n03/0.png"
    for names in ("a,b", "n01,n02,other"):
        with pytest.raises(LongTailedError, match="class_names has"):
            load_imageset(tmp_path, class_names=names)


def test_bad_files_are_skipped_on_request(tmp_path):
    make_image(tmp_path / "a" / "0.png")
    (tmp_path / "a" / "1.png").write_bytes(b"")
    imageset = load_imageset(tmp_path, on_bad_image="skip")
    assert len(imageset) == 1
    assert imageset.skipped == (str(tmp_path / "a" / "1.png"),)
    with pytest.raises(LongTailedError, match=r"1\.png' cannot be decoded: it is empty"):
        load_imageset(tmp_path).decode(1)
