"""The command line on real (small) input: each command works, bad input is one sentence, code 2."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image

from longtailed import train
from longtailed.data import stores
from longtailed.errors import Interrupted, LongTailedError
from longtailed.training.checkpoint import read_weights

QUICK = ["epochs=2", "network.options.width=0.5", "batch_size=32", "holdout=4"]


def test_a_run_without_labels_says_that_its_figures_mean_nothing(run, photos, tmp_path):
    given = ["--data", photos, "--network", "resnet8", "image_size=32", "batch_size=8", "epochs=1"]
    code, printed, errors = run("train", *given, "--method", "rotation", "--out", tmp_path / "pre")
    assert code == 0, errors
    assert "trains a classifier: these are the accuracies of the one" in printed
    assert f"network.init_from={tmp_path / 'pre'}" in printed
    code, printed, _ = run("train", *given, "--method", "ce", "--out", tmp_path / "ce")
    assert code == 0
    assert "trains a classifier" not in printed


def test_train_evaluate_predict_and_report(run, photos, tmp_path):
    out = tmp_path / "out"
    given = ["--data", photos, "--method", "ldam-drw", "--network", "resnet8", "--out", out]
    given += ["image_size=32", "batch_size=8", "lr=0.02"]
    code, printed, errors = run("train", *given, "epochs=3")
    assert code == 0, errors
    assert "few" in printed
    for name in ("recipe.json", "manifest.json", "metrics.jsonl", "model.safetensors"):
        assert (out / name).exists(), name
    assert "<html" in (out / "report.html").read_text()

    again = run("train", *given, "epochs=3")
    assert again[:2] == (0, printed)
    assert f"{out} is finished: nothing is trained, these are its figures." in again[2]
    assert "is finished" not in errors

    code, printed, _ = run("evaluate", out)
    assert code == 0
    assert (
        json.loads(printed)["top1"]
        == json.loads((out / "results.json").read_text())["evaluations"]["last"]["top1"]
    )

    code, printed, _ = run("predict", out, photos / "ant", "--top", "2")
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert code == 0
    assert len(rows) == 60
    assert {row["class"] for row in rows} <= {"ant", "bee", "wasp"}

    code, printed, _ = run("report", out, "--out", "again.html")
    assert code == 0
    assert (tmp_path / "again.html").exists()

    again = run("train", *given, "epochs=3")
    assert again[0] == 0, again[2]
    Image.new("RGB", (50, 50)).save(photos / "wasp" / "new.png")
    code, _, errors = run("evaluate", out)
    assert code == 2
    assert "the test images have changed" in errors
    assert "'wasp/new.png'" in errors
    other = run("train", *given, "epochs=4")
    assert other[0] == 2
    assert "holds another recipe (stages.0.epochs is 3 there and 4 here)" in other[2]


def test_figures_say_what_they_are_on_and_what_chose_the_epoch(run, photos, tmp_path):
    home = tmp_path / "flat"
    given = ["--data", photos, "--network", "resnet8", "image_size=32", "batch_size=8", "epochs=1"]
    code, printed, errors = run("train", *given, "holdout=0", "--out", home)
    assert code == 0
    by_us = "images held out from train by us (20 % of each class)"
    assert f"Percent on {by_us}." in printed
    assert "Epoch chosen on nothing: no images were held out" in printed
    assert "of these 9 images look almost the same as a training image" in printed
    assert "9 of 9 test images look almost the same" in errors  # five shades of one colour
    results = json.loads((home / "results.json").read_text())
    assert results["evaluations"]["last"]["tested_on"] == by_us
    assert results["chosen_on"].startswith("nothing: no images were held out")
    assert json.loads(run("evaluate", home)[1])["tested_on"] == by_us
    other = json.loads(run("evaluate", home, "--data", photos)[1])
    assert other["tested_on"] == by_us  # the same images, so those that were held out
    page = (home / "report.html").read_text()
    assert f"Results on {by_us}, in %" in page.replace("\N{NO-BREAK SPACE}", " ")
    assert "nothing: no images were held out" in page
    assert "The figures are too good." in page
    diagnosis = run("diagnose", home, "--out", tmp_path / "diagnosis")[1]
    assert by_us in " ".join(diagnosis.split())
    assert by_us in (tmp_path / "diagnosis" / "diagnosis.html").read_text()


def test_groups_are_kept_whole_by_a_pattern_or_a_column(run, photos, tmp_path):
    names = sorted(path.relative_to(photos) for path in photos.glob("*/*.png"))
    rows = [f"{name},{name.parent},{name.parent}{int(name.stem) % 5}" for name in names]
    (photos / "list.csv").write_text("\n".join(["path,label,shade", *rows]))
    given = ["--network", "resnet8", "image_size=32", "batch_size=8", "epochs=1"]
    for data, option, value in (
        (photos / "list.csv", "--split-by", "shade"),
        (photos, "--split-by-pattern", r"(\w+/\d\d)"),
    ):
        home = tmp_path / option
        code, printed, _ = run("train", "--data", data, option, value, *given, "--out", home)
        assert code == 0
        assert "Percent on images held out from train by us (about 20 % of each class" in printed
        manifest = json.loads((home / "manifest.json").read_text())
        assert manifest["groups"]["by"] == value
        number = sum(split["groups"] for split in manifest["splits"].values())
        assert number == manifest["groups"]["number"]
        assert f"by {value}, the largest" in (home / "report.html").read_text()
    code, printed, errors = run("train", "--data", photos, "--split-by-pattern", "x", *given)
    assert (code, printed) == (2, "")
    assert errors.startswith("error: photos (train): split_by_pattern 'x' matches nothing")


def test_demo_compares_two_methods(run, monkeypatch, tmp_path):
    from longtailed.recipes import RECIPES, demo, override

    for method in ("ce", "ldam-drw"):
        short = override(demo.digits(method), ["epochs=1", *QUICK[1:], "network=resnet8"])
        monkeypatch.setitem(RECIPES, f"digits-{method}", lambda short=short: short)
    code, printed, _ = run("demo", "--out", tmp_path / "demo")
    assert code == 0
    assert "digits-ce" in printed
    assert "digits-ldam-drw" in printed
    assert (tmp_path / "demo" / "report.html").exists()


def test_several_seeds_print_mean_and_deviation(run, tmp_path):
    given = ["train", "digits-ce", *QUICK, "network=resnet8", "--seeds", "0,1"]
    code, printed, errors = run(*given, "--out", tmp_path / "seeds")
    assert code == 0, errors
    assert "Mean ± standard deviation of 2 runs" in printed
    for seed in (0, 1):
        assert f"digits-ce, seed {seed}" in printed
    assert (tmp_path / "seeds" / "report.html").exists()


def test_several_seeds_keep_the_other_options(run, monkeypatch):
    given = {}

    def noted(_recipe, seeds, **options):
        given.update(options, seeds=seeds)
        raise LongTailedError("that is enough.")

    monkeypatch.setattr("longtailed.runs.seeds.train_seeds", noted)
    options = ["--devices", 2, "--tensorboard", "--device", "cpu", "--jobs", 3]
    assert run("train", "digits-ce", "--seeds", "0-1", *options)[0] == 2
    assert given == {
        "seeds": [0, 1], "devices": 2, "tensorboard": True, "device": "cpu", "jobs": 3, "out": None
    }  # fmt: skip


def test_lists(run):
    for what in ("methods", "networks", "sources", "recipes", "views", "samplers"):
        code, printed, _ = run("list", what)
        assert code == 0, what
        assert len(printed.splitlines()) > 2, what
    assert "square root of its size" in run("list", "samplers", "square-root")[1]
    assert "weighting=class-balanced" in run("list", "methods", "ldam-drw")[1]


def test_data_describes_a_source(run, photos, tmp_path):
    code, printed, _ = run("data", photos, "--thumbnails", tmp_path / "grid.png")
    assert code == 0
    assert "imbalance ratio" in printed
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size[0] > 100
    description = json.loads(run("data", "digits", "--imbalance", "20", "--json")[1])
    assert description["imbalance_ratio"] == pytest.approx(20, abs=1)


def test_data_refuses_what_train_refuses_and_says_what_it_took_for_what(run, photos, tmp_path):
    (photos / "wasp" / ".DS_Store").write_bytes(b"")
    code, printed, errors = run("data", photos)
    assert code == 0
    assert "the header of every image; --full decodes every image" in printed
    assert errors.splitlines() == [
        f"'{photos}': no split folders, so all is train; its folders are 3 classes "
        "('ant', 'bee', 'wasp').",
        "photos (train): left out: hidden or system file (1).",
    ]
    damaged = photos / "bee" / "001.png"
    damaged.write_bytes(damaged.read_bytes()[:60])  # the header is good
    assert run("data", photos)[0] == 0
    code, printed, errors = run("data", photos, "--full")
    assert code == 2
    assert "unreadable images" in printed
    assert "1 of 48 images cannot be read: " in errors
    (tmp_path / "one").mkdir()
    (photos / "ant").rename(tmp_path / "one" / "ant")
    code, _, errors = run("data", tmp_path / "one")
    assert code == 2
    assert "has only one class ('ant')" in errors


def test_data_decodes_each_image_once_and_leaves_out_what_it_is_told_to(run, photos, monkeypatch):
    damaged = photos / "bee" / "001.png"
    damaged.write_bytes(damaged.read_bytes()[:60])  # the header is good
    decoded = []
    decode = stores.decode_rgb
    monkeypatch.setattr(stores, "decode_rgb", lambda *given: decoded.append(1) or decode(*given))
    assert run("data", photos, "--full")[0] == 2
    assert len(decoded) == 48
    code, printed, _ = run("data", photos, "--full", "--on-bad-image", "skip", "--json")
    description = json.loads(printed)
    assert code == 0
    assert (description["images"], description["skipped"]) == (47, 1)
    assert len(decoded) == 2 * 48


def test_data_refuses_a_test_split_that_train_refuses(run, photos, tmp_path):
    (tmp_path / "both").mkdir()
    photos.rename(tmp_path / "both" / "train")
    other = tmp_path / "both" / "test" / "fly"
    other.mkdir(parents=True)
    Image.new("L", (8, 8)).save(other / "0.png")
    (tmp_path / "both" / "test" / "ant").mkdir()
    (other / "0.png").rename(tmp_path / "both" / "test" / "ant" / "0.png")
    assert run("data", tmp_path / "both")[0] == 0
    Image.new("L", (8, 8)).save(other / "0.png")
    code, printed, errors = run("data", tmp_path / "both")
    assert code == 2
    assert "imbalance ratio" in printed
    assert "has the class 'fly', which" in errors
    assert run("data", tmp_path / "both", "--split", "test")[0] == 2


def test_data_counts_near_duplicates_within_and_across_splits(run, photos, tmp_path):
    for split in ("train", "test"):
        (tmp_path / "divided" / split).mkdir(parents=True)
        for name in ("ant", "bee", "wasp"):
            (tmp_path / "divided" / split / name).symlink_to(photos / name)
    code, printed, _ = run("data", tmp_path / "divided", "--duplicates", "near")
    assert code == 0
    assert "48 test images look almost the same as one in train." in " ".join(printed.split())
    code, printed, _ = run("data", photos, "--duplicates", "near", "--json")
    assert json.loads(printed)["near_duplicates"]["within_class"] == 48
    assert "near_duplicates" not in json.loads(run("data", photos, "--json")[1])
    code, printed, _ = run("data", photos, "--split-by-pattern", r"^\d\d")
    assert "Groups: 3, the largest of" in printed
    code, _, errors = run("data", photos, "--duplicates", "all")
    assert code == 2
    assert "'exact', 'near'" in errors


def test_how_a_table_was_read_is_printed_and_recorded(run, photos, tmp_path):
    rows = [
        f"photos/{path.parent.name}/{path.stem},{path.parent.name},{'train' if i % 4 else 'test'}"
        for i, path in enumerate(sorted(photos.rglob("*.png")))
    ]
    (tmp_path / "table.csv").write_text("\n".join(["scan,genus,split", *rows]) + "\n")
    columns = ["--image-column", "scan", "--label-column", "genus"]
    code, _, errors = run("data", "table.csv", *columns)
    assert code == 0
    assert "table.csv: images are in column 'scan', labels in 'genus'\n" in errors
    arguments = [
        "--data",
        "table.csv",
        *columns,
        "--network",
        "resnet8",
        "image_size=32",
        "-o",
        "r",
    ]
    code, _, errors = run("train", *arguments, "epochs=1", *QUICK[1:3], "holdout=0")
    assert code == 0, errors
    note = "table.csv: splits are those of column 'split'"
    assert errors.splitlines().count(note) == 1
    manifest = json.loads((tmp_path / "r" / "manifest.json").read_text())
    assert note in manifest["read_as"]
    assert manifest["eval_split"] == "test"
    assert [sum(manifest["splits"][name]["counts"]) for name in ("train", "test")] == [36, 12]
    code, printed, _ = run("evaluate", "r", "--data", "table.csv", *columns)
    assert code == 0
    assert 0 <= json.loads(printed)["top1"] <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "cifar10-lt-ldam"], "cifar-10-python.tar.gz"),
        (["train", "cifar10-ldam"], "unknown recipe 'cifar10-ldam'"),
        (["train", "--data", "digits", "--method", "ldma"], "did you mean 'ldam'"),
        (["train", "--data", "digitz"], "digitz"),
        (["train", "--data", "digits", "--network", "resnet33"], "resnet33"),
        (["train", "--data", "digits", "epocs=3"], "did you mean 'epochs'"),
        (["train", "--data", "digits", "--imbalance", "1000"], "would get no image"),
        (["train", "--data", "digits", "--device", "tpu"], "unknown device 'tpu'"),
        (["train"], "say what to train"),
        (["train", "--data", "digits", "--imbalance", "0.5"], "data.imbalance cannot be 0.5"),
        (["train", "--data", "digits", "--device", "cpu:1"], "makes no sense"),
        (
            ["train", "--data", "digits", "std=0,0,0", "mean=0,0,0"],
            "data.std.0 cannot be 0: input should be greater than 0",
        ),
        (["train", "digits-ce", "--jobs", "2"], "--jobs says how many of several seeds"),
        (["train", "digits-ce", "--seeds", "0-1", "seed=3"], "give either one seed or several"),
        (["train", "digits-ce", "--network", "foo", "network=resnet8"], "network.name is given tw"),
        (["train", "digits-ce", "views.standrad=flip"], "no stage asks for the view 'standrad'"),
        (["train", "digits-ce", "holdout=100000"], "holdout=100000 images of each class were"),
        (["train", "digits-ce", "meta_per_class=100000"], "but the largest class of the training"),
        (["data", "digits", "--imbalance", "nan"], "at least 1; it is nan"),
        (["data", "digits", "--split", "foo"], "digits has no split 'foo'; it has 'train' and"),
        (["train", "--data", "digits", "network.options.width=true"], "a number above 0 is needed"),
        (["train", "--data", "digits", "network.options.width=abc"], "'width' of resnet32 cannot"),
        (["train", "--data", "digits", "network=vit_tiny_patch16_224"], "vit_tiny_patch16_224"),
        (["data", "digits", "--thumbnails", "th.txt"], "must end in .png"),
        (["list", "methodes"], "did you mean 'methods'"),
        (["evaluate", "nowhere"], "does not exist"),
        (["report", "nowhere"], "nowhere"),
        (["data", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(run, arguments, message):
    code, _, errors = run(*arguments)
    assert code == 2
    assert message in errors
    assert "Traceback" not in errors
    assert len(errors.strip().splitlines()) == 1


def test_a_damaged_image_is_named_or_skipped(run, photos, tmp_path):
    (photos / "ant" / "000.png").write_bytes(b"")
    whole = (photos / "bee" / "001.png").read_bytes()
    (photos / "bee" / "001.png").write_bytes(whole[: len(whole) // 2])
    given = [
        "train",
        "--data",
        photos,
        "--network",
        "resnet8",
        "image_size=32",
        "batch_size=8",
        *QUICK[:1],
    ]
    code, _, errors = run(*given)
    assert code == 2
    assert "000.png" in errors
    assert "001.png" in errors
    code, _, errors = run(*given, "--on-bad-image", "skip", "--out", tmp_path / "skipped")
    assert code == 0, errors
    skipped = json.loads((tmp_path / "skipped" / "manifest.json").read_text())["skipped"]
    assert sorted(name.rpartition("/")[2] for name in skipped) == ["000.png", "001.png"]


DIGITS = ["digits-ldam-drw", *QUICK[1:], "network=resnet8", "epochs=6", "checkpoint_every=1"]


def test_killed_and_resumed_run_ends_with_the_same_weights(tmp_path, caplog):
    whole = train(DIGITS[0], overrides=DIGITS[1:], out=tmp_path / "whole", progress=False)
    directory = tmp_path / "killed"
    killed = subprocess.Popen(
        [sys.executable, "-m", "longtailed", "train", *DIGITS, "--out", str(directory)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_epoch(directory / "metrics.jsonl", killed, 2)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert not (directory / "results.json").exists()
    with caplog.at_level("INFO"):
        resumed = train(DIGITS[0], overrides=DIGITS[1:], out=directory)
    assert re.search(r"killed goes on from epoch [2-6] of 6\.", caplog.text)
    weights = [read_weights(run.directory / "model.safetensors") for run in (whole, resumed)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(tensor, weights[1][key]) for key, tensor in weights[0].items())


def wait_for_epoch(path, process, epochs: int) -> None:
    """Wait until metrics.jsonl shows that so many epochs are done and another is under way."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and len(path.read_text().splitlines()) >= epochs:
            return
        time.sleep(0.005)
    process.kill()
    raise AssertionError(f"the run ended before it could be stopped: {process.communicate()[1]}")


def test_an_interrupted_run_says_how_to_go_on(run, monkeypatch):
    def stopped(*_, **__):
        raise Interrupted("Stopped before epoch 1, step 2; run the same command again.", 143)

    monkeypatch.setattr("longtailed.runs.run.train", stopped)
    code, _, errors = run("train", "digits-ce")
    assert code == 143
    assert errors == "Stopped before epoch 1, step 2; run the same command again.\n"


def test_a_description_reads_as_sentences_and_not_as_values_of_python(run, photos):
    Image.new("RGB", (40, 36), (1, 2, 3)).save(photos / "ant" / "same.png")
    shutil.copy(photos / "ant" / "same.png", photos / "wasp" / "other.png")
    code, printed, _ = run("data", photos)
    assert code == 0
    said = " ".join(printed.split())
    assert "{" not in said
    assert "[" not in said
    assert "smallest image 36 x 40" in said
    assert "across classes: 1; at least one label of each is wrong" in said


def test_a_note_that_names_share_is_listed_once(run):
    code, printed, _ = run("list", "recipes", "lt-ldam-drw")
    assert code == 0
    lines = printed.splitlines()
    assert lines[0].startswith("cifar10-lt-ldam-drw ")
    assert lines[1].startswith("cifar100-lt-ldam-drw ")
    assert printed.count("LDAM with deferred re-weighting.") == 1
    assert "no augmentation" in run("list", "views")[1]


def test_a_moved_copy_of_the_data_is_called_what_it_is(run, photos, tmp_path):
    for number, path in enumerate(sorted(photos.rglob("*.png"))):  # no two images are alike
        pixels = torch.randint(256, (36, 40, 3), generator=torch.Generator().manual_seed(number))
        Image.fromarray(pixels.to(torch.uint8).numpy()).save(path)
    given = ["--network", "resnet8", "image_size=32", "batch_size=8", "epochs=1"]
    assert run("train", "--data", photos, *given, "--out", tmp_path / "run")[0] == 0
    shutil.copytree(photos, tmp_path / "copy")
    code, printed, errors = run("evaluate", tmp_path / "run", "--data", tmp_path / "copy")
    assert code == 0, errors
    assert "that were held out for testing" in errors
    own, other = json.loads(run("evaluate", tmp_path / "run")[1]), json.loads(printed)
    assert other["tested_on"].startswith("images held out from train by us")
    assert other == own
    out = tmp_path / "diagnosis"
    where = ["--data", tmp_path / "copy", "--out", out]
    code, printed, errors = run("diagnose", tmp_path / "run", *where)
    assert code == 0, errors
    assert "Tested on images held out from train by us" in " ".join(printed.split())
