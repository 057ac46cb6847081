"""Which folders are splits, which are classes, and which neither."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from longtailed.data.sources import available_splits, load_imageset
from longtailed.errors import LongTailedError


def make_classes(folder: Path, names: str = "ant bee", images: int = 2) -> Path:
    for name in names.split():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(images):
            Image.new("RGB", (4, 4)).save(folder / name / f"{number}.png")
    return folder


def make_images(folder: Path) -> None:
    folder.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / "0.png")


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("Training", "Testing", "test"),
        ("TRAIN", "Test", "test"),
        ("train", "dev", "val"),
        ("trn", "Valid", "val"),
        ("seg_train/seg_train", "seg_test/seg_test", "test"),
        ("train_images", "test_images", "test"),
        ("train", "val2017", "val"),
        ("data/train", "data/test", "test"),
        ("data/seg_train", "data/seg_test", "test"),
    ],
)
def test_split_folders_are_found_under_the_names_people_use(train, other, split, tmp_path):
    make_classes(tmp_path / train, images=3)
    make_classes(tmp_path / other)
    assert available_splits(tmp_path) == ("train", split)
    imageset = load_imageset(tmp_path)
    assert (imageset.class_names, len(imageset)) == (("ant", "bee"), 6)
    assert f"train is '{train}', {split} is '{other}'" in imageset.notes[0]
    assert "2 classes ('ant', 'bee')" in imageset.notes[0]
    assert len(load_imageset(tmp_path, split)) == 4


def test_a_folder_around_the_classes_is_looked_through(tmp_path):
    make_classes(tmp_path / "photos")
    imageset = load_imageset(tmp_path)
    assert imageset.class_names == ("ant", "bee")
    assert "the folders in 'photos' are 2 classes" in imageset.notes[0]


def test_folders_beside_the_splits_are_named_as_not_used(tmp_path):
    make_classes(tmp_path / "train", "ant bee fly")
    make_classes(tmp_path / "test")
    make_classes(tmp_path / "new_photos", "ant")
    (tmp_path / "val").symlink_to(tmp_path / "test")
    Image.new("RGB", (4, 4)).save(tmp_path / "stray.png")
    imageset = load_imageset(tmp_path)
    assert len(imageset) == 6
    for unused in ("'new_photos'", "'val' (a link to", "1 image(s) outside the splits"):
        assert unused in imageset.notes[1]


@pytest.mark.parametrize("inner", ["", "images"])
def test_test_images_without_labels_are_not_used_and_that_is_said(inner, tmp_path):
    make_classes(tmp_path / "train")
    (tmp_path / "test" / inner).mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "test" / inner / "0.png")
    imageset = load_imageset(tmp_path)
    assert available_splits(tmp_path) == ("train",)
    assert any(
        "not used, as no splits: 'test' (its images have no labels)" in n for n in imageset.notes
    )


def test_what_looks_like_a_split_but_cannot_be_one_is_refused(tmp_path):
    make_classes(tmp_path / "train")
    for number, (name, classes, reason) in enumerate(
        [
            ("train_extra", None, "holds images itself instead of class folders"),
            ("validation", "", "has no class folders"),
            ("train_more", "ant bee", "another folder is that split"),
            ("my_test", "cat dog", "has none of the classes of train"),
            ("evaluation", "ant bee", "is called neither train, val nor test"),
        ]
    ):
        source = tmp_path / str(number)
        make_classes(source / "train")
        (source / name).mkdir()
        if classes is None:
            Image.new("RGB", (4, 4)).save(source / name / "0.png")
        else:
            make_classes(source / name, classes)
        with pytest.raises(LongTailedError, match=f"{name}' looks like a split but.*{reason}"):
            load_imageset(source)


def test_a_split_with_stray_images_is_no_class(tmp_path):
    make_classes(tmp_path / "train")
    make_classes(tmp_path / "test")
    Image.new("RGB", (4, 4)).save(tmp_path / "train" / "stray.png")
    with pytest.raises(LongTailedError, match="train' holds images beside folders, so it is uncl"):
        available_splits(tmp_path)


def test_splits_without_class_folders_are_no_classes(tmp_path):
    for name in ("train", "test"):
        make_images(tmp_path / name)
    with pytest.raises(LongTailedError, match=r"split folders \('test', 'train'\) that hold no cl"):
        load_imageset(tmp_path)


def test_a_class_may_have_the_word_of_a_split_in_its_name(tmp_path):
    make_classes(tmp_path, "airport train_station test_tube")
    assert load_imageset(tmp_path).class_names == ("airport", "test_tube", "train_station")
    make_images(tmp_path / "dev")
    notes = load_imageset(tmp_path).notes
    assert "'dev' holds images, so it is a class and no split" in notes[1]


def test_classes_in_classes_are_told_or_refused(tmp_path):
    for name in ("cats", "dogs"):
        make_classes(tmp_path / "alike" / name, "north south")
        make_classes(tmp_path / "wrapped" / name, "images")  # as Tiny ImageNet has it
        make_classes(tmp_path / "tree" / name, f"{name}1 {name}2 {name}3")
    with pytest.raises(LongTailedError, match=r"\('cats', 'dogs'\) all hold the same .*'north'"):
        load_imageset(tmp_path / "alike")
    assert len(load_imageset(tmp_path / "wrapped").notes) == 1
    tree = load_imageset(tmp_path / "tree")
    assert tree.num_classes == 2
    assert (
        "the folders in it are the classes; the 6 folders in them are not told apart"
        in tree.notes[1]
    )


def test_numbers_as_class_names_are_in_numeric_order(tmp_path):
    make_classes(tmp_path, " ".join(map(str, range(12))), images=1)
    words = [f"word {number}" for number in range(12)]
    imageset = load_imageset(tmp_path, class_names=words)
    assert imageset.images.paths[10] == "10/0.png"
    assert imageset.class_names[10] == "word 10"
    assert "'10' is 'word 10'" in imageset.notes[-1]


def test_empty_folders_of_a_test_split_are_named(tmp_path):
    make_classes(tmp_path / "train", "ant bee fly")
    make_classes(tmp_path / "test", "ant bee")
    for name in ("fly", "wasp"):
        (tmp_path / "test" / name).mkdir()
    imageset = load_imageset(tmp_path, "test")
    assert imageset.class_counts == [2, 2, 0]
    assert "no classes, as they are empty: 'wasp'" in imageset.notes[-2]
    assert "has no image of 1 of 3 classes: 'fly'" in imageset.notes[-1]


def test_a_class_spelled_in_other_case_is_pointed_out(tmp_path):
    make_classes(tmp_path / "train")
    make_classes(tmp_path / "test", "Ant bee")
    with pytest.raises(LongTailedError, match=r"'Ant', which .* lacks .it has 'ant': rename one"):
        load_imageset(tmp_path, "test")


def test_images_without_class_folders_are_explained(tmp_path):
    make_images(tmp_path / "flat")
    with pytest.raises(LongTailedError, match="holds images but no class folders"):
        load_imageset(tmp_path / "flat")


def test_split_words_may_be_grown_together_with_another_word(tmp_path):
    make_classes(tmp_path / "TrainImages")
    make_classes(tmp_path / "testset", "ant")
    assert available_splits(tmp_path) == ("train", "test")
    assert load_imageset(tmp_path, "test").class_counts == [2, 0]
