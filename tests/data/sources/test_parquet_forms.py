"""Forms in which people keep images and labels in parquet files."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from longtailed.data.sources import available_splits, load_imageset
from longtailed.errors import LongTailedError


def pixels(seed: int) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (4, 5, 3), np.uint8)


def png(seed: int) -> bytes:
    stream = BytesIO()
    Image.fromarray(pixels(seed)).save(stream, "PNG")
    return stream.getvalue()


PNGS = [png(seed) for seed in range(3)]


def write(
    path: Path, labels: Any, names: Any = None, images: Any = PNGS, **columns: Sequence[Any]
) -> Path:
    """Write a file with the columns image and label; `names` go into its metadata."""
    table = pa.table({"image": images, "label": labels, **columns})
    if names is not None:
        info = {"info": {"features": {"label": {"_type": "ClassLabel", "names": names}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def test_class_names_of_all_files_are_compared_and_matched_by_name(tmp_path):
    write(tmp_path / "train-00000-of-00002.parquet", [0, 1, 2], ["ant", "bee", "cat"])
    write(tmp_path / "train-00001-of-00002.parquet", [0, 0, 1], ["cat", "ant", "bee"])
    write(tmp_path / "test.parquet", [0, 1, 1], ["bee", "cat"])
    train, test = load_imageset(tmp_path), load_imageset(tmp_path, "test")
    assert train.class_names == test.class_names == ("ant", "bee", "cat")
    assert train.labels.tolist() == [0, 1, 2, 2, 2, 0]
    assert test.labels.tolist() == [1, 2, 2]
    assert any("in different orders; labels are matched by name" in note for note in train.notes)
    write(tmp_path / "test.parquet", [0, 1, 0], ["bee", "dog"])
    with pytest.raises(LongTailedError, match=r"row 1 .*'dog' is not among the 3 classes of train"):
        load_imageset(tmp_path, "test")


def test_a_file_without_class_names_is_read_with_those_of_the_others(tmp_path):
    for named, plain in (("train", "test"), ("test", "train")):
        write(tmp_path / f"{named}.parquet", [0, 1, 2], {"0": "cat", "1": "bee", "2": "ant"})
        write(tmp_path / f"{plain}.parquet", [2, 1, 0])
        imageset = load_imageset(tmp_path, plain)
        assert imageset.class_names == ("cat", "bee", "ant")
        assert imageset.labels.tolist() == [2, 1, 0]
        assert any("without class names are read with those" in note for note in imageset.notes)
    write(tmp_path / "val.parquet", [2, 1, 0], ["ant", "bee", "cat"])
    with pytest.raises(LongTailedError, match=r"train\.parquet' does not name its classes, and"):
        load_imageset(tmp_path)


def test_given_class_names_order_or_rename_the_classes(tmp_path):
    write(tmp_path / "train.parquet", [0, 1, 2], ["ant", "bee", "cat"])
    assert load_imageset(tmp_path, class_names="cat,ant,bee").labels.tolist() == [1, 2, 0]
    renamed = load_imageset(tmp_path, class_names="x,y,z")
    assert renamed.labels.tolist() == [0, 1, 2]
    assert any("'ant' is 'x'" in note for note in renamed.notes)
    for given in ("x,ant,bee", "x,y"):
        with pytest.raises(LongTailedError, match="the same names in the order wanted, or a new"):
            load_imageset(tmp_path, class_names=given)
    write(tmp_path / "train.parquet", [0, 10, 2])
    numbers = load_imageset(tmp_path, class_names=[f"n{i}" for i in range(11)])
    assert numbers.labels.tolist() == [0, 10, 2]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["bee", "ant", "bee"], ("ant", "bee")),
        (pa.array(["bee", "ant", "bee"]).dictionary_encode(), ("ant", "bee")),
        (pa.array(["bee", "ant", "bee"], pa.large_string()), ("ant", "bee")),
        (["1", "0", "1"], ("0", "1")),
        (["010", "007", "010"], ("007", "010")),
        ([1.0, 0.0, 1.0], ("0", "1")),
        (pa.array([1, 0, 1], pa.uint8()), ("0", "1")),
        ([2, 1, 2], ("1", "2")),
        ([7412043, 2435099, 7412043], ("2435099", "7412043")),
        ([True, False, True], ("false", "true")),
    ],
)
def test_labels_are_names_or_numbers(tmp_path, labels, names):
    write(tmp_path / "train.parquet", labels)
    imageset = load_imageset(tmp_path)
    assert imageset.class_names == names
    assert imageset.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, -1], "row 2 .*label '-1'"),
        (["ant", "nan", "ant"], "row 1 .*'nan' stands for a missing value"),
        ([[0], [1], [0]], "row 0 .*type list"),
    ],
)
def test_labels_that_are_none_are_refused(tmp_path, labels, message):
    with pytest.raises(LongTailedError, match=message):
        load_imageset(write(tmp_path / "train.parquet", labels))


def test_secret_labels_are_refused_where_they_are_used(tmp_path):
    write(tmp_path / "train.parquet", [0, 1, 0], ["ant", "bee"])
    write(tmp_path / "test.parquet", [-1, -1, -1], ["ant", "bee"])
    assert load_imageset(tmp_path).labels.tolist() == [0, 1, 0]
    with pytest.raises(LongTailedError, match=r"row 0 .*secret label: evaluate on another split"):
        load_imageset(tmp_path, "test")


def test_classes_with_one_name_stay_apart(tmp_path):
    write(tmp_path / "train.parquet", [0, 1, 2], ["crane", "ant", "crane"])
    assert load_imageset(tmp_path).class_names == ("crane (0)", "ant", "crane (2)")


def encodings() -> dict[str, Any]:
    arrays = [pixels(seed) for seed in range(3)]
    text = [base64.b64encode(data).decode() for data in PNGS]
    return {
        "binary": pa.array(PNGS, pa.binary()),
        "large binary": pa.array(PNGS, pa.large_binary()),
        "list of bytes": [list(data) for data in PNGS],
        "uint8 list": pa.array([list(data) for data in PNGS], pa.large_list(pa.uint8())),
        "base64": text,
        "data URI": [f"data:image/png;base64,{one}" for one in text],
        "pixels": [array.tolist() for array in arrays],
        "channels first": [array.transpose(2, 0, 1).tolist() for array in arrays],
        "fixed pixels": pa.array(
            [array.tolist() for array in arrays], pa.list_(pa.list_(pa.list_(pa.uint8(), 3)), 4)
        ),
    }


@pytest.mark.parametrize("form", encodings())
def test_images_in_any_form_have_the_same_pixels(tmp_path, form):
    write(tmp_path / "train.parquet", [0, 1, 0], images=encodings()[form])
    imageset = load_imageset(tmp_path)
    for seed in range(3):
        assert np.array_equal(imageset.decode(seed).permute(1, 2, 0).numpy(), pixels(seed))


@pytest.mark.parametrize("struct", [True, False])
def test_images_may_be_paths(tmp_path, struct):
    names = [f"im/{seed}.png" for seed in range(3)]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    column = pa.array([{"bytes": None, "path": n} for n in names], kind) if struct else names
    path = write(tmp_path / "train.parquet", [0, 1, 0], images=column)
    imageset = load_imageset(path, on_bad_image="error")
    with pytest.raises(LongTailedError, match=r"im/0\.png' cannot be decoded: there is no such"):
        imageset.decode(0)
    for root in (tmp_path, tmp_path / "else"):
        (root / "im").mkdir(parents=True)
        for name, data in zip(names, PNGS, strict=True):
            (root / name).write_bytes(data)
        imageset = load_imageset(path, root=root)
        assert np.array_equal(imageset.decode(2).permute(1, 2, 0).numpy(), pixels(2))
    write(path, [0, 1, 0])
    with pytest.raises(LongTailedError, match=r"in column 'image' of .*, not below a root"):
        load_imageset(path, root=tmp_path)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (["text", "more", "text"], "holds string, not encoded images; name another"),
        ([1.5, 2.0, 3.0], "holds double, not encoded images"),
        ([[[0.5]], [[0.5]], [[0.5]]], "not encoded images"),
        ([[[1, 2]], [[3, 4], [5]], [[6]]], "row 1 .*is no image .*different lengths"),
        ([[[1]], [[256]], [[1]]], "row 1 .*outside 0 to 255"),
    ],
)
def test_columns_without_images_are_refused(tmp_path, images, message):
    with pytest.raises(LongTailedError, match=message):
        load_imageset(write(tmp_path / "train.parquet", [0, 1, 0], images=images))


def test_columns_have_usual_names_or_are_chosen(tmp_path):
    path = tmp_path / "train.parquet"
    table = pa.table({"pixel_values": PNGS, "labels": [0, 1, 0], "scan": PNGS[::-1]})
    pq.write_table(table, path)
    first = load_imageset(path).decode(0).permute(1, 2, 0).numpy()
    assert np.array_equal(first, pixels(0))
    other = load_imageset(path, image_column="scan").decode(0).permute(1, 2, 0).numpy()
    assert np.array_equal(other, pixels(2))
    with pytest.raises(LongTailedError, match="unknown image column 'scam'; did you mean 'scan'"):
        load_imageset(path, image_column="scam")
    pq.write_table(pa.table({"image": PNGS, "ant": [0, 1, 0], "bee": [1, 0, 1]}), path)
    with pytest.raises(LongTailedError, match=r"unknown label column.*class \('ant', 'bee'\)"):
        load_imageset(path)


@pytest.mark.parametrize(
    "pattern",
    [
        "default/{}/0000.parquet",
        "data/{}-00000-of-00001-{:.0}0123456789abcdef.parquet",
        "{}-0f1e2d3c4b5a6978.parquet",
    ],
)
def test_layouts_of_the_hub(tmp_path, pattern):
    train = write(tmp_path / pattern.format("train", ""), [0, 1, 0])
    write(tmp_path / pattern.format("test", ""), [1, 1, 0])
    for source in (tmp_path, train):
        assert available_splits(source) == ("train", "test")
        assert load_imageset(source, "test").labels.tolist() == [1, 1, 0]


def test_one_file_of_several_says_what_is_read(tmp_path):
    for number in range(2):
        write(tmp_path / f"a/train-{number:05d}-of-00002-0123456789abcdef.parquet", [0, 1, 0])
        write(tmp_path / f"b/{number}.parquet", [0, 1, 0])
    one = load_imageset(tmp_path / "a/train-00001-of-00002-0123456789abcdef.parquet")
    assert len(one) == 6
    assert any("one of 2 files of the split 'train', and all" in note for note in one.notes)
    alone = load_imageset(tmp_path / "b/1.parquet")
    assert len(alone) == 3
    assert any("only this file is read" in note for note in alone.notes)
    write(tmp_path / "a/train-00001-of-00002-fedcba9876543210.parquet", [0, 1, 0])
    with pytest.raises(LongTailedError, match="has the shard 00001 twice"):
        load_imageset(tmp_path / "a")


def test_files_without_labels_are_left_out_beside_train(tmp_path):
    write(tmp_path / "train.parquet", [0, 1, 0])
    test = tmp_path / "test.parquet"
    pq.write_table(pa.table({"image": PNGS, "id": [7, 8, 9]}), test)
    assert available_splits(tmp_path) == ("train",)
    note = f"{tmp_path.name}: 'test.parquet' has no labels and is not used"
    assert load_imageset(tmp_path).notes == (note,)
    (tmp_path / "train.parquet").unlink()
    with pytest.raises(LongTailedError, match=r"unknown label column in .*test\.parquet"):
        load_imageset(tmp_path, "test")


def test_files_left_out_are_said(tmp_path):
    write(tmp_path / "train.parquet", [0, 1, 0])
    write(tmp_path / "extra.parquet", [0, 1, 0])
    assert load_imageset(tmp_path).notes == (
        f"{tmp_path.name}: files without a split in their names are left out: extra.parquet",
    )


def test_a_split_column_is_honoured(tmp_path):
    path = write(tmp_path / "all.parquet", [0, 1, -1], split=["train", "train", "test"])
    assert available_splits(path) == ("train", "test")
    assert load_imageset(path).labels.tolist() == [0, 1]
    write(path, [0, 0, 1], split=["test", "train", "train"])
    for split, seeds in (("train", [1, 2]), ("test", [0])):
        imageset = load_imageset(path, split)
        assert len(imageset) == len(seeds)
        for position, seed in enumerate(seeds):
            image = imageset.decode(position).permute(1, 2, 0).numpy()
            assert np.array_equal(image, pixels(seed))
    write(path, [0, 0, 1], split=["train", "5", "test"])
    with pytest.raises(LongTailedError, match=r"row 1 .*'5', which is none of train, val and test"):
        load_imageset(path)
    write(path, [0, 1, 1], dataset=["vienna", "rosendahl", "vienna"])
    assert len(load_imageset(path)) == 3


@pytest.mark.parametrize("side", [8, 70])
def test_a_split_may_have_rows_of_files_with_one_name(tmp_path, side):
    for number, folder in enumerate(("train", "test")):
        stream = BytesIO()
        Image.new("RGB", (side, side), (number, 0, 0)).save(stream, "PNG")
        images, splits = [stream.getvalue()] * 2, ["train", "val"]
        path = tmp_path / "default" / folder / "0000.parquet"
        write(path, [number, number], images=images, split=splits)
    imageset = load_imageset(tmp_path)
    reds = [int(imageset.decode(position)[0, 0, 0]) for position in range(2)]
    assert reds == imageset.labels.tolist()
    assert sorted(reds) == [0, 1]


def test_bad_images_of_another_split_do_not_count(tmp_path):
    path = tmp_path / "all.parquet"
    write(path, [0, 1, 0], images=[PNGS[0], b"broken", None], split=["train", "test", "train"])
    with pytest.raises(LongTailedError, match=r"1 of 2 images .*row 2 of all\.parquet"):
        load_imageset(path)
    kept = load_imageset(path, on_bad_image="skip")
    assert kept.labels.tolist() == [0]
    assert kept.skipped == ("row 2 of all.parquet",)
