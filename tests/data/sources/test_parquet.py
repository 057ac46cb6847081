from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from longtailed.data.sources import available_splits, load_imageset
from longtailed.data.stores import EncodedColumn
from longtailed.errors import LongTailedError


def pixels(seed: int, side: int = 8) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (side, side, 3), np.uint8)


def png(seed: int, side: int = 8) -> bytes:
    stream = BytesIO()
    Image.fromarray(pixels(seed, side)).save(stream, "PNG")
    return stream.getvalue()


def write(
    path: Path,
    images: Sequence[bytes | None],
    labels: Any,
    names: Sequence[str] | None = None,
    *,
    columns: tuple[str, str] = ("img", "label"),
    struct: bool = True,
) -> None:
    column = (
        pa.array(
            [None if data is None else {"bytes": data, "path": "x.png"} for data in images],
            type=pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        )
        if struct
        else pa.array(images, type=pa.binary())
    )
    table = pa.table({columns[0]: column, columns[1]: labels})
    if names is not None:
        feature = {"_type": "ClassLabel", "names": list(names)}
        info = {"info": {"features": {columns[0]: {"_type": "Image"}, columns[1]: feature}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=3)


def test_small_images_are_decoded_with_names_from_the_metadata(tmp_path):
    write(tmp_path / "train.parquet", [png(i) for i in range(7)], [0, 1, 2, 0, 1, 2, 0], "abc")
    write(tmp_path / "test.parquet", [png(9)], [2], "abc")
    assert available_splits(tmp_path) == ("train", "test")
    train = load_imageset(tmp_path)
    assert train.in_memory
    assert train.class_names == ("a", "b", "c")
    assert train.class_counts == [3, 2, 2]
    for i in range(7):
        assert np.array_equal(train.decode(i).permute(1, 2, 0).numpy(), pixels(i))
    test = load_imageset(tmp_path / "train.parquet", "test")
    assert test.labels.tolist() == [2]
    assert np.array_equal(test.decode(0).permute(1, 2, 0).numpy(), pixels(9))


@pytest.mark.parametrize(
    "pattern", ["data/{}-0000{}-of-00002.parquet", "{}-{}.parquet", "{}/000{}.parquet"]
)
def test_shards_are_joined_in_order(tmp_path, pattern):
    for split, first in (("train", 0), ("validation", 10)):
        for shard in (1, 0):
            seeds = [first + 3 * shard + i for i in range(3)]
            target = tmp_path / pattern.format(split, shard)
            write(target, [png(seed) for seed in seeds], [0, 1, 1])
    assert available_splits(tmp_path) == ("train", "val")
    for split, first in (("train", 0), ("valid", 10)):
        imageset = load_imageset(tmp_path, split)
        assert len(imageset) == 6
        for i in range(6):
            assert np.array_equal(imageset.decode(i).permute(1, 2, 0).numpy(), pixels(first + i))
    one = tmp_path / pattern.format("train", 0)
    assert available_splits(one) == ("train", "val")
    assert len(load_imageset(one)) == 6


def test_a_missing_shard_and_a_mixed_folder_are_refused(tmp_path):
    write(tmp_path / "a" / "train-00001-of-00003.parquet", [png(0)], [0])
    with pytest.raises(LongTailedError, match="lacks shard 00000 of 00003"):
        load_imageset(tmp_path / "a")
    write(tmp_path / "b" / "x_train.parquet", [png(0)], [0])
    write(tmp_path / "b" / "y_train.parquet", [png(1)], [0])
    with pytest.raises(LongTailedError, match="more than one data set"):
        load_imageset(tmp_path / "b")
    assert np.array_equal(
        load_imageset(tmp_path / "b" / "y_train.parquet").decode(0).permute(1, 2, 0), pixels(1)
    )


def test_files_without_a_split_are_train(tmp_path):
    write(tmp_path / "0001.parquet", [png(1)], [0])
    write(tmp_path / "0000.parquet", [png(0)], [0])
    assert available_splits(tmp_path) == ("train",)
    assert len(load_imageset(tmp_path)) == 2
    assert len(load_imageset(tmp_path / "0001.parquet")) == 1
    with pytest.raises(LongTailedError, match="no split 'test'; it has 'train'"):
        load_imageset(tmp_path, "test")


def test_columns_and_class_names_can_be_chosen(tmp_path):
    path = tmp_path / "train.parquet"
    write(path, [png(0), png(1)], [0, 1], columns=("image", "fine_label"), struct=False)
    assert load_imageset(path).class_names == ("0", "1")
    assert load_imageset(path, class_names="x,y,z").class_names == ("x", "y", "z")
    write(path, [png(0), png(1)], [1.0, 0.0], columns=("image", "kind"))
    assert load_imageset(path, label_column="kind").labels.tolist() == [1, 0]
    with pytest.raises(LongTailedError, match=r"unknown label column .*Known: image, kind"):
        load_imageset(path)
    with pytest.raises(LongTailedError, match=r"unknown label column 'kinds'.*did you mean 'kind'"):
        load_imageset(path, label_column="kinds")
    write(path, [png(0)], [0], columns=("photo", "label"))
    with pytest.raises(LongTailedError, match="unknown image column"):
        load_imageset(path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, None, 1], "row 1 .*null"),
        ([0, 1, -1], "row 2 .*label -1, outside the 2 classes"),
        ([0, 1, 2], "row 2 .*label 2, outside the 2 classes"),
        ([0.0, 1.5, 1.0], r"row 1 .*1\.5, not a whole number"),
        (["a", "b", "a"], "row 0 .*class 'a' is not among the 2 classes"),
    ],
)
def test_bad_labels_name_their_row(tmp_path, labels, message):
    write(tmp_path / "train.parquet", [png(i) for i in range(3)], labels, "xy")
    with pytest.raises(LongTailedError, match=message):
        load_imageset(tmp_path)


def test_unnamed_classes_come_from_train(tmp_path):
    write(tmp_path / "train.parquet", [png(i) for i in range(3)], [0, 1, 2])
    write(tmp_path / "test.parquet", [png(0)], [0])
    assert load_imageset(tmp_path, "test").num_classes == 3
    write(tmp_path / "test.parquet", [png(0)], [3])
    with pytest.raises(LongTailedError, match=r"row 0 .*'3' is not among the 3 classes"):
        load_imageset(tmp_path, "test")
    write(tmp_path / "train.parquet", [png(0), png(1)], [0, 2])
    with pytest.raises(LongTailedError, match=r"1 empty class .*without 1"):
        load_imageset(tmp_path)


@pytest.mark.parametrize("sides", [(8, 9), (65, 65)])
def test_large_or_uneven_images_stay_encoded(tmp_path, sides):
    write(tmp_path / "train.parquet", [png(i, side) for i, side in enumerate(sides)], [0, 1])
    imageset = load_imageset(tmp_path)
    assert isinstance(imageset.images, EncodedColumn)
    for i, side in enumerate(sides):
        assert np.array_equal(imageset.decode(i).permute(1, 2, 0).numpy(), pixels(i, side))


@pytest.mark.parametrize("side", [8, 70])
def test_bad_images_are_named_or_skipped(tmp_path, side):
    images = [None, png(0, side), b"broken", png(1, side)]
    write(tmp_path / "train.parquet", images, [0, 0, 1, 1])
    kept = load_imageset(tmp_path, on_bad_image="skip")
    assert kept.in_memory == (side == 8)
    assert kept.labels.tolist() == [0, 1]
    assert kept.skipped == ("row 0 of train.parquet", "row 2 of train.parquet")
    assert torch.equal(kept.decode(1).permute(1, 2, 0), torch.from_numpy(pixels(1, side)))
    if side == 8:
        with pytest.raises(LongTailedError, match=r"2 of 4 images .*row 0 of .*null"):
            load_imageset(tmp_path)
    else:
        with pytest.raises(LongTailedError, match=r"row 2 of train\.parquet"):
            load_imageset(tmp_path).decode(2)


def test_unusable_files_are_one_sentence(tmp_path):
    path = tmp_path / "train.parquet"
    write(path, [png(i) for i in range(40)], [0] * 40)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(LongTailedError, match=r"train\.parquet' cannot be read as a parquet file"):
        load_imageset(tmp_path)
    write(path, [], pa.array([], pa.int64()), "ab")
    with pytest.raises(LongTailedError, match="has no rows"):
        load_imageset(tmp_path)
    write(path, [None, b"x"], [0, 0])
    with pytest.raises(LongTailedError, match="2 of 2 images cannot be read"):
        load_imageset(tmp_path)
    pq.write_table(pa.table({"img": ["text"], "label": [0]}), path)
    with pytest.raises(LongTailedError, match="holds string, not encoded images"):
        load_imageset(tmp_path)
