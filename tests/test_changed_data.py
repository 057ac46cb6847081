"""The same command on data that has changed: never the old result in silence."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
from PIL import Image

from longtailed.checkpoint import read_json, read_weights
from longtailed.data import image_record
from longtailed.job import Interrupted

SETTINGS = ["--network", "resnet8", "network.options.width=0.5", "image_size=32", "batch_size=8"]
SETTINGS += ["--method", "ce", "lr=0.02", "epochs=2", "checkpoint_every=1", "workers=0"]


@pytest.fixture(params=["read in full", "told by size and time"])
def reading(request, monkeypatch):
    """Make the images of the tests a small set, or too many to be read at each comparison."""
    if request.param != "read in full":
        monkeypatch.setattr(image_record, "SMALL_BYTES", 0)
    return request.param


@pytest.fixture
def train(run, tmp_path):
    """Run the train command on a folder, always into the same directory."""

    def call(folder, *more: object) -> tuple[int, str, str]:
        return run("train", "--data", folder, *SETTINGS, *more, "--out", tmp_path / "out")

    return call


def change(photos, kind: str) -> None:
    if kind == "add":
        Image.new("RGB", (50, 50)).save(photos / "wasp" / "new.png")
    elif kind == "remove":
        (photos / "wasp" / "000.png").unlink()
    elif kind == "replace":
        path, times = photos / "wasp" / "000.png", (photos / "wasp" / "000.png").stat()
        path.write_bytes((photos / "bee" / "001.png").read_bytes())
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    elif kind == "touch":
        for path in photos.rglob("*.png"):
            os.utime(path)
    elif kind == "move":
        photos.rename(photos.with_name("moved"))
    else:
        shutil.copytree(photos, photos.with_name("moved"), copy_function=shutil.copyfile)


CHANGES = {
    "add": "1 image added",
    "remove": "1 image removed",
    "replace": "1 image replaced by another image",
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_finished_run_says_what_has_changed(kind, train, run, photos, tmp_path, reading):
    assert train(photos)[0] == 0
    before = (tmp_path / "out" / "results.json").read_text()
    change(photos, kind)
    code, printed, errors = train(photos)
    assert (code, printed) == (2, "")
    assert f"holds a run on other data: {CHANGES[kind]} (" in errors
    assert f"'wasp/{'new' if kind == 'add' else '000'}.png'" in errors
    assert "choose another directory with --out" in errors
    assert len(errors.splitlines()) == 1
    assert (tmp_path / "out" / "results.json").read_text() == before


@pytest.mark.parametrize("kind", ["touch", "move", "copy"])
def test_a_finished_run_knows_its_data_wherever_it_lies(kind, train, run, photos, reading):
    code, first, errors = train(photos)
    assert code == 0, errors
    change(photos, kind)
    folder = photos if kind == "touch" else photos.with_name("moved")
    code, again, errors = train(folder)
    assert (code, errors) == (0, "")
    assert again == first
    for workers in ("workers=1", "root=/elsewhere"):
        assert train(folder, workers)[0] == 0


@pytest.mark.parametrize("kind", [*CHANGES, "touch", "move", "copy"])
def test_a_run_is_resumed_on_equal_data_only(kind, train, photos, tmp_path, monkeypatch, reading):
    with monkeypatch.context() as patch:
        patch.setattr("longtailed.fit._Fit._evaluate", interrupt_after_an_epoch())
        assert train(photos)[0] == 143
    change(photos, kind)
    folder = photos if photos.exists() and kind != "copy" else photos.with_name("moved")
    code, _, errors = train(folder, "workers=1")
    if kind in CHANGES:
        assert code == 2
        assert f"holds a run on other data: {CHANGES[kind]} (" in errors
        assert not (tmp_path / "out" / "results.json").exists()
    else:
        assert code == 0, errors
        resumed = read_weights(tmp_path / "out" / "model.safetensors")
        shutil.rmtree(tmp_path / "out")
        assert train(folder)[0] == 0
        whole = read_weights(tmp_path / "out" / "model.safetensors")
        assert all(torch.equal(tensor, whole[name]) for name, tensor in resumed.items())


def interrupt_after_an_epoch():
    asked = []

    def evaluate(self, epoch):
        asked.append(epoch)
        if len(asked) == 2:
            raise Interrupted("Stopped.", 143)
        return {}

    return evaluate


@pytest.mark.parametrize("kind", [*CHANGES, "touch", "move", "copy"])
def test_evaluation_knows_the_test_images_of_the_run(kind, train, run, photos, tmp_path, reading):
    assert train(photos)[0] == 0
    own = read_json(tmp_path / "out" / "results.json")["evaluations"]["last"]
    tested = image_record.images_of(
        image_record.read_record(tmp_path / "out" / "images.parquet"), "test"
    )["name"].to_pylist()
    if kind in {"remove", "replace"}:  # one that is tested on
        (photos / "wasp" / "000.png").rename(photos / "wasp" / "kept.png")
        name = next(name for name in tested if name.startswith("wasp"))
        (photos / name).write_bytes((photos / "bee" / "000.png").read_bytes())
    else:
        change(photos, kind)
    moved = kind in {"move", "copy"}
    if kind == "move":
        code, _, errors = run("evaluate", tmp_path / "out")
        assert code == 2
        assert "photos" in errors
    folder = ["--data", photos.with_name("moved")] if moved else []
    code, printed, errors = run("evaluate", tmp_path / "out", *folder)
    if kind in CHANGES:
        assert code == 2
        assert "the test images have changed since" in errors
    else:
        assert code == 0, errors
        assert f'"top1": {own["top1"]}' in printed
        assert f'"images": {own["images"]}' in printed
        assert ("holds the images that the run was made of" in errors) == moved


def test_evaluation_says_how_many_images_were_trained_on(train, run, photos, tmp_path):
    assert train(photos)[0] == 0
    (photos / "wasp" / "more.png").write_bytes((photos / "wasp" / "000.png").read_bytes())
    Image.new("RGB", (40, 36), (1, 2, 3)).save(photos / "wasp" / "unseen.png")
    code, printed, errors = run("evaluate", tmp_path / "out", "--data", photos)
    assert code == 0, errors
    assert '"images": 50' in printed
    assert "of the 50 images of photos (train) are among those that the run was trained" in errors


def test_verify_content_reads_every_image(train, run, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(image_record, "SMALL_BYTES", 0)
    assert train(photos)[0] == 0
    for path in sorted(photos.rglob("*.png")):  # of one size, and as old as before
        times = path.stat()
        data = bytearray(path.read_bytes())
        data[-20] ^= 1
        path.write_bytes(data)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert train(photos)[0] == 0
    code, _, errors = train(photos, "--verify", "content")
    assert code == 2
    assert "images replaced by another image (train: 'ant/0" in errors


def test_a_run_without_a_record_says_so(train, run, photos, tmp_path):
    assert train(photos)[0] == 0
    (tmp_path / "out" / "images.parquet").unlink()
    for code, _, errors in (train(photos), run("evaluate", tmp_path / "out")):
        assert code == 2
        assert "images.parquet does not exist" in errors
