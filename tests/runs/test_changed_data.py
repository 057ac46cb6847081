"""The same command on data that has changed: never the old result in silence."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from longtailed.data import image_record
from longtailed.errors import Interrupted
from longtailed.report.strict_json import read_json
from longtailed.runs.run import train as train_here
from longtailed.training.checkpoint import read_weights

SETTINGS = {
    "network.options.width": 0.5,
    "image_size": 32,
    "batch_size": 8,
    "lr": 0.02,
    "epochs": 2,
    "checkpoint_every": 1,
    "workers": 0,
}
CHANGES = {
    "add": "1 image added (",
    "remove": "1 image removed (",
    "replace": "1 image replaced by another image (",
}
PLACES = ("touch", "move", "copy")


def write_photos(folder) -> None:
    generator = np.random.default_rng(0)
    for number, (name, count) in enumerate([("ant", 20), ("bee", 10), ("wasp", 6)]):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 256, size=(36, 40, 3), dtype=np.uint8)
            pixels[:, :, number] = 200
            Image.fromarray(pixels).save(folder / name / f"{i:03d}.bmp")


def interrupted_in_the_second_epoch(self, epoch):
    if epoch == 1:
        raise Interrupted("Stopped.", 143)
    return {}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Return a folder with photos, a finished run of them, and one that was stopped half-way."""
    home = tmp_path_factory.mktemp("begun")
    write_photos(home / "photos")
    given = {"data": "photos", "network": "resnet8", "overrides": SETTINGS, "device": "cpu"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        train_here(**given, out=home / "finished", progress=False, report=False)
        patch.setattr(
            "longtailed.training.session.Session.evaluate", interrupted_in_the_second_epoch
        )
        with pytest.raises(Interrupted):
            train_here(**given, out=home / "half", progress=False, report=False)
    return home


@pytest.fixture
def home(begun, run, tmp_path, monkeypatch):
    """Return a copy of what was begun, in which times of files are as they were; work in it."""
    monkeypatch.setattr("longtailed.runs.run.write_report", lambda directories: None)
    copy = shutil.copytree(begun, tmp_path / "home")
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def train(run, home):
    """Run the train command into a run's directory; return (code, output, errors)."""

    def call(directory: str, folder: str = "photos", *more: str) -> tuple[int, str, str]:
        given = ["--data", folder, "--network", "resnet8", "--out", home / directory]
        changed = {text.partition("=")[0] for text in more}
        settings = [f"{key}={value}" for key, value in SETTINGS.items() if key not in changed]
        return run("train", *given, *settings, *more)

    return call


def change(photos, kind: str, name: str = "wasp/000.bmp") -> None:
    if kind == "add":
        Image.new("RGB", (50, 50)).save(photos / "wasp" / "new.bmp")
    elif kind == "remove":
        (photos / name).unlink()
    elif kind == "replace":  # by one of the same size
        (photos / name).write_bytes((photos / "bee" / "001.bmp").read_bytes())
    elif kind == "touch":
        for path in photos.rglob("*.bmp"):
            os.utime(path)
    elif kind == "move":
        photos.rename(photos.with_name("moved"))
    else:
        shutil.copytree(photos, photos.with_name("moved"), copy_function=shutil.copyfile)
        shutil.rmtree(photos)


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("small", [True, False])
def test_a_finished_run_says_what_has_changed(kind, small, train, home, monkeypatch):
    if not small:
        monkeypatch.setattr(image_record, "SMALL_BYTES", 0)
    change(home / "photos", kind)
    before = (home / "finished" / "results.json").read_text()
    code, printed, errors = train("finished")
    assert (code, printed) == (2, "")
    assert f"finished holds a run on other data: {CHANGES[kind]}" in errors
    assert f"'wasp/{'new' if kind == 'add' else '000'}.bmp'" in errors
    assert "choose another directory with --out" in errors
    assert len([line for line in errors.splitlines() if line.startswith("error: ")]) == 1
    assert (home / "finished" / "results.json").read_text() == before


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("small", [True, False])
def test_a_finished_run_knows_its_data_wherever_it_lies(kind, small, train, home, monkeypatch):
    if not small:
        monkeypatch.setattr(image_record, "SMALL_BYTES", 0)
    change(home / "photos", kind)
    before = (home / "finished" / "results.json").read_text()
    folder = "photos" if kind == "touch" else "moved"
    for more in ((), ("workers=1",), ("--on-bad-image", "skip")):
        code, printed, errors = train("finished", folder, *more)
        assert code == 0
        assert "error" not in errors
        assert "last, 2" in printed
    assert (home / "finished" / "results.json").read_text() == before


@pytest.mark.parametrize("kind", [*CHANGES, *PLACES])
def test_a_run_is_resumed_on_equal_data_only(kind, train, home):
    change(home / "photos", kind)
    folder = "photos" if (home / "photos").exists() else "moved"
    code, _, errors = train("half", folder, "workers=1")
    if kind in CHANGES:
        assert code == 2
        assert f"half holds a run on other data: {CHANGES[kind]}" in errors
        assert not (home / "half" / "results.json").exists()
    else:
        assert code == 0, errors
        files = (home / name / "model.safetensors" for name in ("half", "finished"))
        resumed, whole = map(read_weights, files)
        assert all(torch.equal(tensor, whole[name]) for name, tensor in resumed.items())


@pytest.mark.parametrize("kind", ["remove", "replace", *PLACES])
def test_evaluation_knows_the_test_images_of_the_run(kind, run, home):
    record = image_record.read_record(home / "finished" / "images.parquet")
    tested = image_record.images_of(record, "test")["name"].to_pylist()
    change(home / "photos", kind, next(name for name in tested if name.startswith("wasp")))
    if not (home / "photos").exists():
        code, _, errors = run("evaluate", home / "finished")
        assert code == 2
        assert "was trained on cannot be opened as it was: " in errors
        assert "Say where it is now with --data" in errors
        folder = ["--data", home / "moved"]
    else:
        folder = []
    code, printed, errors = run("evaluate", home / "finished", *folder)
    if kind in CHANGES:
        assert code == 2
        assert "the test images have changed since" in errors
    else:
        assert code == 0, errors
        own = read_json(home / "finished" / "results.json")["evaluations"]["last"]
        assert f'"top1": {own["top1"]}' in printed
        assert f'"images": {own["images"]},' in printed
        assert '"tested_on": "images held out from train by us (20 % of each class)"' in printed
        assert ("holds the images that the run was made of" in errors) == bool(folder)


def test_evaluation_says_how_many_images_were_trained_on(run, home):
    change(home / "photos", "add")
    code, printed, errors = run("evaluate", home / "finished", "--data", home / "photos")
    assert code == 0, errors
    assert '"images": 37,' in printed
    assert '"tested_on": "all of photos",' in printed
    assert '"split": null,' in printed
    trained = read_json(home / "finished" / "manifest.json")["splits"]["train"]["images"]
    assert f"{trained} of the 37 images of photos are among those that the run" in errors


def test_verify_content_reads_every_image(train, home, monkeypatch):
    monkeypatch.setattr(image_record, "SMALL_BYTES", 0)
    path = home / "photos" / "ant" / "003.bmp"
    times = path.stat()
    change(home / "photos", "replace", "ant/003.bmp")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert train("finished")[0] == 0
    code, _, errors = train("finished", "photos", "--verify", "content")
    assert code == 2
    assert CHANGES["replace"] in errors
    assert "'ant/003.bmp'" in errors


def test_a_run_without_a_record_says_so(train, run, home):
    (home / "finished" / "images.parquet").unlink()
    for code, _, errors in (train("finished"), run("evaluate", home / "finished")):
        assert code == 2
        assert "images.parquet does not exist" in errors
