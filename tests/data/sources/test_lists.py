from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from longtailed.data.imageset import ImageSet
from longtailed.data.sources import available_splits, load_imageset
from longtailed.errors import LongTailedError


def paths_of(imageset: ImageSet) -> list[str]:
    return [imageset.images.paths[int(row)] for row in imageset.indices]


def write(path: Path, *lines: str, end: str = "\n") -> Path:
    path.write_bytes((end.join(lines) + end).encode())
    return path


def test_lines_split_at_the_last_blank(tmp_path):
    lines = ["# paths", "", "a b/ c.jpg 1", "  d.jpg\t0 ", "é.jpg  2", "   ", "last one.jpg 1"]
    expected = ["a b/ c.jpg", "d.jpg", "é.jpg", "last one.jpg"]
    for end in ("\n", "\r\n"):
        imageset = load_imageset(write(tmp_path / "list.txt", *lines, end=end))
        assert paths_of(imageset) == expected
        assert imageset.labels.tolist() == [1, 0, 2, 1]
        assert imageset.class_names == ("0", "1", "2")
    (tmp_path / "list.lst").write_bytes(b"\xef\xbb\xbfa.jpg 0\nb.jpg 1")
    assert paths_of(load_imageset(tmp_path / "list.lst")) == ["a.jpg", "b.jpg"]


def test_paths_are_relative_to_the_list_or_to_root(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (3, 2), (9, 9, 9)).save(tmp_path / "images" / "a.png")
    near = load_imageset(write(tmp_path / "near.txt", "images/a.png 0"))
    far = load_imageset(write(tmp_path / "far.txt", "a.png 0"), root=tmp_path / "images")
    assert near.decode(0).shape == far.decode(0).shape == (3, 2, 3)
    gone = load_imageset(write(tmp_path / "gone.txt", "no.png 0", "images/a.png 0"))
    with pytest.raises(LongTailedError, match=r"no\.png' cannot be decoded: there is no such file"):
        gone.decode(0)
    kept = load_imageset(tmp_path / "gone.txt", on_bad_image="skip")
    assert paths_of(kept) == ["images/a.png"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("alone.jpg", "line 3: 'alone.jpg' is not 'relative/path label'"),
        ("a.jpg x", "line 3: the label 'x' is not a whole number"),
        ("a.jpg -1", "line 3: the label '-1'"),
        ("a.jpg 1.0", r"line 3: the label '1\.0'"),
        ("a.jpg 12345678901", "line 3: the label '12345678901'"),
    ],
)
def test_a_line_that_does_not_parse_gives_its_number(tmp_path, line, message):
    source = write(tmp_path / "list.txt", "a.jpg 0", "# comment", line, "b.jpg 1")
    with pytest.raises(LongTailedError, match=message):
        load_imageset(source)


def test_gaps_need_class_names(tmp_path):
    source = write(tmp_path / "list.txt", "a.jpg 0", "b.jpg 2")
    with pytest.raises(LongTailedError, match=r"1 empty class .*without 1.*class_names"):
        load_imageset(source)
    assert load_imageset(source, class_names="x,y,z").class_counts == [1, 0, 1]
    with pytest.raises(LongTailedError, match="line 2: the class '2' is not among the 2 classes"):
        load_imageset(source, class_names="x,y")
    with pytest.raises(LongTailedError, match="lists no images"):
        load_imageset(write(tmp_path / "empty.txt", "# nothing"))


def test_other_splits_lie_beside_the_list(tmp_path):
    train = write(tmp_path / "Set_LT_train.txt", "a.jpg 0", "b.jpg 1", "c.jpg 2")
    write(tmp_path / "Set_LT_test.txt", "d.jpg 1")
    assert available_splits(train) == ("train", "test")
    test = load_imageset(train, "test")
    assert paths_of(test) == ["d.jpg"]
    assert test.num_classes == 3
    assert load_imageset(tmp_path / "Set_LT_test.txt", "train").num_classes == 3
    with pytest.raises(LongTailedError, match="no split 'val'; it has 'train' and 'test'"):
        load_imageset(train, "val")
    write(tmp_path / "Set_LT_test.txt", "d.jpg 1", "e.jpg 3")
    with pytest.raises(LongTailedError, match=r"line 2: the class '3' is not among the 3 .*train"):
        load_imageset(train, "test")


def test_lists_of_other_splits_can_be_named(tmp_path):
    train = write(tmp_path / "mine.txt", "a.jpg 0", "b.jpg 1")
    held_out = write(tmp_path / "held_out.txt", "c.jpg 1")
    assert available_splits(train) == ("train",)
    assert available_splits(train, val_list=held_out) == ("train", "val")
    assert paths_of(load_imageset(train, "val", val_list=held_out)) == ["c.jpg"]
    with pytest.raises(LongTailedError, match="test_list: there is no file"):
        load_imageset(train, "test", test_list=tmp_path / "gone.txt")


def test_a_list_without_train_stands_alone(tmp_path):
    val = write(tmp_path / "VAL.txt", "a.jpg 0", "b.jpg 1")
    assert load_imageset(val, "val").num_classes == 2
    with pytest.raises(LongTailedError, match="no split 'train'; it has 'val'"):
        load_imageset(val)
    write(tmp_path / "TRAIN.txt", "c.jpg 0", "d.jpg 1", "e.jpg 2")
    assert load_imageset(val, "val").num_classes == 3


def test_tables_with_and_without_header(tmp_path):
    table = write(
        tmp_path / "a.csv", "id,label,image", "# note", '7,dog,"x, y.jpg"', "", "8,ant,z.jpg"
    )
    imageset = load_imageset(table)
    assert imageset.class_names == ("ant", "dog")
    assert imageset.labels.tolist() == [1, 0]
    assert paths_of(imageset) == ["x, y.jpg", "z.jpg"]
    assert load_imageset(table, class_names=["dog", "ant"]).labels.tolist() == [0, 1]
    plain = load_imageset(write(tmp_path / "b.csv", "a.jpg,1", "b.png,0"))
    assert plain.labels.tolist() == [1, 0]
    tabs = write(tmp_path / "c.tsv", "Path\tgenus\tlabel", "a.jpg\tcanis\t0", "b.jpg\tfelis\t1")
    assert load_imageset(tabs).class_names == ("0", "1")
    assert load_imageset(tabs, label_column="genus").class_names == ("canis", "felis")
    with pytest.raises(LongTailedError, match="'genera'; did you mean 'genus'"):
        load_imageset(tabs, label_column="genera")
    with pytest.raises(LongTailedError, match="without columns; leave out label_column"):
        load_imageset(write(tmp_path / "d.txt", "a.jpg 0"), label_column="x")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["photograph,kind", "a.jpg,0"], "line 1: it is neither 'path,label' nor a header"),
        (["path,label", "a.jpg,0", "b.jpg"], "line 3: no label"),
        (["path,label", ",0"], "line 2: no path"),
        (["path,label", "a.jpg,0", "b.jpg,dog"], "line 3: the label 'dog' is not a whole number"),
        (["path,label", "a.jpg,0", "b.jpg,-2"], "line 3: the label '-2'"),
        (["path,label", "a.jpg,0.5", "b.jpg,1"], r"line 2: the label '0\.5'"),
    ],
)
def test_a_row_that_does_not_parse_gives_its_number(tmp_path, lines, message):
    with pytest.raises(LongTailedError, match=message):
        load_imageset(write(tmp_path / "list.csv", *lines))


def test_table_classes_of_test_must_be_in_train(tmp_path):
    train = write(tmp_path / "train.csv", "path,class", "a.jpg,dog", "b.jpg,ant", "c.jpg,cat")
    write(tmp_path / "test.csv", "path,class", "d.jpg,dog")
    assert load_imageset(train, "test").labels.tolist() == [2]
    write(tmp_path / "test.csv", "path,class", "d.jpg,dog", "e.jpg,elk")
    with pytest.raises(LongTailedError, match="line 3: the class 'elk' is not among the 3 classes"):
        load_imageset(train, "test")


def test_two_spellings_of_a_path_are_one_image(tmp_path):
    again = write(tmp_path / "again.csv", "path,label", "im/0.png,a", "./im/0.png,a", "im//1.png,b")
    assert load_imageset(again).class_counts == [1, 1]
    again.write_text(again.read_text().replace("./im/0.png,a", "./im/0.png,b"))
    with pytest.raises(
        LongTailedError, match=r"line 3: '\./im/0.png' has the label 'b', but 'a' in"
    ):
        load_imageset(again)


def test_a_long_list_opens_fast(tmp_path):
    labels = np.random.RandomState(0).permutation(np.arange(40_000) % 2_000)
    lines = [f"train/{label}/{i:032x}.jpg {label}" for i, label in enumerate(labels)]
    source = write(tmp_path / "list.txt", *lines)
    start = time.perf_counter()
    imageset = load_imageset(source)
    assert time.perf_counter() - start < 1
    assert np.array_equal(imageset.labels, labels)
    assert imageset.images.paths[39_999] == lines[-1].rsplit(" ", 1)[0]
