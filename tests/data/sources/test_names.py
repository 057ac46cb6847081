from __future__ import annotations

import hashlib
import pickle
import re
import tarfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision import datasets

from longtailed.data import ImageSet
from longtailed.data.class_names import sort_class_names
from longtailed.data.sources import SOURCES, available_splits, load_imageset
from longtailed.data.sources.names import (
    canonical_split,
    find_split_word,
    match_classes,
    read_class_names,
)
from longtailed.errors import LongTailedError


def test_digits_have_a_fixed_stratified_split():
    train, test = load_imageset("digits"), load_imageset("digits", "test")
    assert len(train) + len(test) == 1797
    assert train.images.shape[1:] == (3, 8, 8)
    assert train.images.dtype == torch.uint8
    assert int(train.images.max()) == 255
    assert train.class_names == tuple("0123456789")
    for ours, theirs in zip(train.class_counts, test.class_counts, strict=True):
        assert theirs == round(0.3 * (ours + theirs))
    assert train.fingerprint() == load_imageset("digits").fingerprint()
    rows = {row.numpy().tobytes() for row in train.images}
    assert not rows & {row.numpy().tobytes() for row in test.images}


def test_splits_of_the_named_sources():
    assert set(SOURCES) == {"digits", "cifar10", "cifar100"}
    assert {available_splits(name) for name in SOURCES} == {("train", "test")}
    with pytest.raises(LongTailedError, match="no split 'val'; it has 'train' and 'test'"):
        load_imageset("digits", "val")


def test_unknown_sources_are_explained(tmp_path):
    with pytest.raises(LongTailedError, match=r"did you mean 'cifar10'.*Or give a path"):
        load_imageset("cifar1")
    for missing in ("some/folder", "list.txt", tmp_path / "gone"):
        with pytest.raises(LongTailedError, match="there is no file or folder"):
            load_imageset(missing)
    (tmp_path / "notes.pdf").write_text("text")
    with pytest.raises(LongTailedError, match="no known kind"):
        load_imageset(tmp_path / "notes.pdf")
    with pytest.raises(LongTailedError, match="neither class directories nor parquet"):
        available_splits(tmp_path)


def test_options_of_other_sources_are_refused():
    with pytest.raises(LongTailedError, match="does not take the option label_column"):
        load_imageset("digits", label_column="label")
    with pytest.raises(LongTailedError, match="on_bad_image must be 'error' or 'skip'"):
        load_imageset("digits", on_bad_image="drop")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "archive"),
    [("cifar10", "cifar-10-python.tar.gz"), ("cifar100", "cifar-100-python.tar.gz")],
)
def test_missing_and_damaged_cifar_say_what_to_put_where(name, archive, tmp_path):
    with pytest.raises(LongTailedError, match=rf"put {archive}.*or pass download=True"):
        load_imageset(name, root=tmp_path)
    (tmp_path / archive).write_bytes(b"cut off")
    with pytest.raises(LongTailedError, match=f"{archive}' is incomplete or damaged"):
        load_imageset(name, root=tmp_path, download=True)


def test_failed_download_is_one_sentence(tmp_path, monkeypatch):
    class Offline(datasets.CIFAR10):
        def __init__(self, *_: object, **__: object) -> None:
            raise URLError("no route to host")

    monkeypatch.setattr(datasets, "CIFAR10", Offline)
    with pytest.raises(LongTailedError, match=r"no route to host.*put cifar-10-python\.tar\.gz"):
        load_imageset("cifar10", root=tmp_path, download=True)


def make_archive(folder: Path) -> type[datasets.CIFAR10]:
    """Write an archive in CIFAR-10's layout with 4 + 2 images; return the class that reads it."""
    pixels = np.arange(6 * 3072, dtype=np.int64).astype(np.uint8).reshape(6, 3072)
    contents = {
        "data_batch_1": {"data": pixels[:4], "labels": [1, 0, 1, 1]},
        "test_batch": {"data": pixels[4:], "labels": [0, 1]},
        "batches.meta": {"label_names": ["cat", "dog"]},
    }
    md5 = {}
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz") as archive:
        for name, content in contents.items():
            (folder / name).write_bytes(pickle.dumps(content))
            md5[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
            archive.add(folder / name, f"cifar-10-batches-py/{name}")

    class Tiny(datasets.CIFAR10):
        tgz_md5 = hashlib.md5((folder / "cifar-10-python.tar.gz").read_bytes()).hexdigest()
        train_list = [["data_batch_1", md5["data_batch_1"]]]
        test_list = [["test_batch", md5["test_batch"]]]
        meta = {
            "filename": "batches.meta",
            "key": "label_names",
            "md5": md5["batches.meta"],
        }

    return Tiny


def test_cifar_reads_the_archive_without_a_download(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "CIFAR10", make_archive(tmp_path))
    train = load_imageset("cifar10", root=tmp_path)
    assert train.class_names == ("cat", "dog")
    assert train.labels.tolist() == [1, 0, 1, 1]
    assert train.images.is_contiguous()
    # The archive stores each image as the planes red, green, blue.
    expected = np.arange(6 * 3072, dtype=np.int64).astype(np.uint8).reshape(6, 3, 32, 32)
    assert np.array_equal(train.pixels().numpy(), expected[:4])
    (tmp_path / "cifar-10-python.tar.gz").unlink()  # the extracted folder is enough
    test = load_imageset("cifar10", "test", root=tmp_path)
    assert np.array_equal(test.pixels().numpy(), expected[4:])


def test_class_names_come_as_list_text_or_file(tmp_path):
    (tmp_path / "names.txt").write_text("a dog\n\ncat \n", encoding="utf-8")
    assert read_class_names(None) is None
    assert read_class_names(["a", "b"]) == ("a", "b")
    assert read_class_names("a, b,c") == ("a", "b", "c")
    assert read_class_names(tmp_path / "names.txt") == ("a dog", "cat")
    assert read_class_names(str(tmp_path / "names.txt")) == ("a dog", "cat")
    for bad, message in (
        ("a,b,a", "'a' 2 times"),
        ("a,,b", "empty name"),
        ("nowhere.txt", "no file"),
        ([], "empty name"),
    ):
        with pytest.raises(LongTailedError, match=message):
            read_class_names(bad)


def test_names_that_are_numbers_sort_as_numbers():
    assert sort_class_names(["10", "2", "b", "0", "a1", "01"]) == ["0", "01", "2", "10", "a1", "b"]
    assert sort_class_names(["²", "1"]) == ["1", "²"]
    assert sort_class_names(["7" * 5000, "1"]) == ["1", "7" * 5000]  # longer than int() reads


def test_the_usual_spellings_of_splits_are_known():
    for split, words in {
        "train": ("Training", "TRAIN", "trn"),
        "val": ("dev", "Valid", "validation"),
        "test": ("Testing", "tst"),
    }.items():
        assert {canonical_split(word) for word in words} == {split}
    assert canonical_split("seg_train") is None
    for name in ("seg_train", "Train_images", "train-2017", "my training data", "trainset"):
        assert canonical_split(find_split_word(name)[0]) == "train"
    assert find_split_word("testimony") is find_split_word("contest") is None


def numbered(names: str, *labels: int) -> ImageSet:
    pixels = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].repeat(1, 3, 2, 2)
    return ImageSet(pixels, np.asarray(labels), tuple(names.split()), name="other")


@pytest.mark.parametrize(
    ("names", "labels", "expected", "note"),
    [
        ("ant bee wasp", (0, 1, 2), [0, 1, 2], None),
        ("wasp ant bee", (0, 1, 2), [2, 0, 1], "other numbers its classes otherwise than the run"),
        ("wasp ant", (0, 1, 1), [2, 0, 0], r"other has 2 of the 3 classes .* \(it lacks 'bee'\)"),
        ("wasp fly ant", (0, 0, 2), [2, 2, 0], r"other has 2 of the 3 classes"),
    ],
)
def test_classes_in_another_order_are_matched_by_name(names, labels, expected, note):
    known = ("ant", "bee", "wasp")
    matched, said = match_classes(numbered(names, *labels), known, "the run", "rename them")
    assert matched.class_names == known
    assert matched.labels.tolist() == expected
    assert (said is None) if note is None else re.match(note, said)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("ant bee wasp fly", r"other has 'fly', which is not among the 3 classes of the run; "),
        ("ant fly moth", "other has 'fly', 'moth', which are not among .* and lacks 'bee', 'wasp'"),
        (
            "0 1 2",
            r"classes of other are numbers and those of the run are names \('0', '1', '2' for",
        ),
    ],
)
def test_classes_that_are_not_known_are_refused(names, message):
    labels = range(len(names.split()))
    with pytest.raises(LongTailedError, match=f"{message}.*rename them"):
        match_classes(numbered(names, *labels), ("ant", "bee", "wasp"), "the run", "rename them")
