"""Image files below folders: what is taken, what is left out, and links."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from longtailed.data.sources import load_imageset
from longtailed.data.sources.finding import LINK, ImageFinder
from longtailed.errors import LongTailedError
from longtailed.runs.prediction import find_images


def make_image(path: Path, form: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path, form)


@pytest.fixture
def photos(tmp_path) -> Path:
    """Two classes with two images each, and what file managers and cameras leave in folders."""
    root = tmp_path / "photos"
    for name in ("ant", "bee"):
        make_image(root / name / "0.png")
    make_image(root / "ant" / "web.jfif", "JPEG")
    make_image(root / "bee" / "noending", "JPEG")
    for junk in ("._0.png", ".DS_Store", "Thumbs.db", "list.txt"):
        (root / "ant" / junk).write_bytes(b"\0")
    for folder in (".ipynb_checkpoints", "ant/@eaDir/0.png", "__MACOSX/ant"):
        make_image(root / folder / "0.png")
    make_image(root / "stray.png")
    return root


def test_training_and_prediction_take_the_same_images(photos, caplog):
    caplog.set_level("INFO", logger="longtailed")
    imageset = load_imageset(photos)
    taken = [str(imageset.images.path(row)) for row in range(len(imageset))]
    found = [str(path) for name in ("ant", "bee") for path in find_images([photos / name])]
    assert taken == found
    assert imageset.class_counts == [2, 2]
    assert imageset.left_out == {
        "hidden or system file": 3,
        "hidden or system folder": 3,
        "image beside the class folders": 1,
        "not readable as an image (.txt)": 1,
    }
    assert "photos (train): left out: hidden or system file (3)" in caplog.text
    assert f"'{photos / 'ant'}': left out: hidden or system file (3)" in caplog.text


def test_a_class_whose_files_are_no_images_is_refused_with_the_reason(photos):
    (photos / "wasp").mkdir()
    for number in range(4):
        (photos / "wasp" / f"{number}.heic").write_bytes(b"unknown to the decoder")
    with pytest.raises(
        LongTailedError, match=r"wasp' \(in the first one: not readable as an image \(.heic\) \(4\)"
    ):
        load_imageset(photos)


def test_links_to_folders_that_are_read_anyway_are_left_out(photos, tmp_path):
    (photos / "ant" / "root").symlink_to(photos)
    (photos / "ant" / "above").symlink_to(tmp_path)
    (photos / "ant" / "other").symlink_to(photos / "bee")
    (photos / "loop").symlink_to(photos)
    (photos / "bees").symlink_to(photos / "bee")
    imageset = load_imageset(photos)
    assert imageset.class_names == ("ant", "bee")
    assert imageset.class_counts == [2, 2]
    assert imageset.left_out[LINK] == 5
    assert any("loop' is a link" in note for note in imageset.notes)
    assert len(find_images([photos])) == 5  # with the stray image


def test_links_to_other_places_are_followed_once(tmp_path):
    for number in range(2):
        make_image(tmp_path / "store" / "deep" / f"{number}.png")
    make_image(tmp_path / "photos" / "ant" / "0.png")
    (tmp_path / "photos" / "bee").symlink_to(tmp_path / "store" / "deep")
    (tmp_path / "photos" / "ant" / "1.png").symlink_to(tmp_path / "photos" / "ant" / "0.png")
    (tmp_path / "photos" / "ant" / "dead.png").symlink_to(tmp_path / "nowhere.png")
    imageset = load_imageset(tmp_path / "photos", on_bad_image="skip")
    assert imageset.class_counts == [2, 2]
    assert [Path(name).name for name in imageset.skipped] == ["dead.png"]
    for name in ("a", "b"):
        (tmp_path / "photos" / "ant" / name).symlink_to(tmp_path / "store")
    finder = ImageFinder()
    assert finder.images(tmp_path / "photos" / "ant") == [
        "0.png", "1.png", "a/deep/0.png", "a/deep/1.png", "dead.png",
    ]  # fmt: skip
    assert finder.left_out == {LINK: 1}


def test_a_link_to_itself_is_a_bad_image(tmp_path):
    (tmp_path / "me.png").symlink_to("me.png")
    assert ImageFinder().images(tmp_path) == ["me.png"]


def test_a_folder_that_cannot_be_read_is_named(photos, monkeypatch):
    def scandir(path: str):
        if str(path).endswith("bee"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    scan = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(LongTailedError, match="bee' cannot be read: Permission denied"):
        load_imageset(photos)
