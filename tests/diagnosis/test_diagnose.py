"""A diagnosis from end to end: a run of digits with look-alikes, a folder of photos, bad input."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from longtailed import cli, train
from longtailed.diagnosis import advice, diagnose
from longtailed.diagnosis.alternatives import Alternatives
from longtailed.errors import LongTailedError

HEAD, TAIL = 8, 9


@pytest.fixture(scope="module")
def similar_run(tmp_path_factory):
    """A quickly trained run in which half of the 8s were mixed with the few 9s."""
    overrides = {
        "epochs": 6, "batch_size": 32, "lr": 0.05, "network.options.width": 0.5,
        "data.counts": [60] * 9 + [15], "data.similar.fraction": 0.5,
        "data.similar.head_classes": [HEAD], "data.similar.tail_class": TAIL, "data.holdout": 0,
    }  # fmt: skip
    out = tmp_path_factory.mktemp("similar") / "run"
    train(data="digits", method="ce", network="resnet8", overrides=overrides, out=out,
          device="cpu", progress=False)  # fmt: skip
    return out


@pytest.fixture(scope="module")
def diagnosed(similar_run, tmp_path_factory):
    return diagnose(similar_run, out=tmp_path_factory.mktemp("diagnosed"), device="cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three colours; one green image is filed under red, and again under green."""
    folder = tmp_path_factory.mktemp("photos") / "photos"
    for number, (name, count) in enumerate([("red", 12), ("green", 6), ("blue", 4)]):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            colour = [20 + 9 * i % 50] * 3
            colour[number] = 200
            image = Image.new("RGB", (24, 20), tuple(colour))
            image.paste((255, 255, 255), (i % 9, 2, i % 9 + 8, 9))
            image.save(folder / name / f"{i}.png")
    shutil.copy(folder / "green" / "3.png", folder / "red" / "wrong.png")
    return folder


def test_similar_samples_are_found_in_a_run(diagnosed):
    findings = diagnosed.findings
    assert findings.alike[TAIL, HEAD] > 0.35
    assert findings.alike[TAIL, HEAD] > 2 * max(findings.alike[TAIL, :HEAD])
    assert findings.similar_class(TAIL) == HEAD
    assert findings.parts.towards[TAIL, HEAD] > 0
    assert findings.parts.towards[TAIL, HEAD] == findings.parts.towards[TAIL].max()
    value = json.loads(diagnosed.json_path.read_text())
    entry = value["classes"][TAIL]
    assert entry["similar_class"]["name"] == "8"
    parts = [entry[name] for name in ("scarcity", "similarity", "rest")]
    assert sum(parts) == pytest.approx(entry["error"])
    assert entry["similarity_interval"][0] <= entry["similarity"] <= entry["similarity_interval"][1]
    assert len(value["similarity"]["look_alike_share"]) == 10
    assert "NaN" not in diagnosed.json_path.read_text()


def test_the_page_is_self_contained_and_shows_examples(diagnosed):
    page = diagnosed.page.read_text()
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert page.count("<svg") == 3
    assert "data:image/png;base64," in page
    assert 'class="alike"' in page
    assert "What these numbers can and cannot show" in page


def test_the_table_names_the_similar_class_and_says_what_to_try(diagnosed, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    diagnosed.show()
    output = capsys.readouterr().out
    assert "8 (60)" in output
    assert "What to try first" in output


def test_the_command_prints_json_or_one_sentence(photos, tmp_path, monkeypatch, capsys):
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["longtailed", "diagnose", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    code, output, _ = call(photos, "--network", "pixels", "--out", tmp_path / "a", "--json")
    assert (code, json.loads(output)["kind"]) == (0, "data")
    code, _, errors = call(photos, "--network", "pixels", "--look-alikes-from", "pixels")
    assert code == 2
    assert errors.startswith("error: --look-alikes-from makes no sense for data")
    assert len(errors.splitlines()) == 1


def test_look_alikes_can_be_sought_in_another_run(similar_run, tmp_path):
    result = diagnose(similar_run, look_alikes_from=str(similar_run), out=tmp_path, device="cpu")
    assert "the network of" in result.findings.evidence.about["look_alikes_from"]
    with pytest.raises(LongTailedError, match="began from random weights"):
        diagnose(similar_run, look_alikes_from="start", out=tmp_path, device="cpu")


def test_data_without_a_run_lists_the_image_in_the_wrong_folder(photos, tmp_path):
    result = diagnose(photos, network="pixels", out=tmp_path, device="cpu")
    first = result.findings.look_alikes[0]
    assert first.duplicate
    assert {first.name.rsplit("/", 1)[-1]} <= {"wrong.png", "3.png"}
    assert result.advice[0].title == "Check the likely duplicates"
    value = json.loads(result.json_path.read_text())
    assert value["estimated"] is True
    assert value["images"] == {"train": 23, "test": 23}
    assert "estimate" in result.limits[0]


def test_small_photos_are_neither_enlarged_nor_given_a_pretrained_network(photos, tmp_path):
    result = diagnose(photos, network="pixels", out=tmp_path, device="cpu")
    assert result.findings.evidence.about["image_side"] == 20  # of 24 x 20, not the 224 of crops
    line = Alternatives(result.findings.evidence).first_run().line
    assert line == f"longtailed train --data {photos} --network resnet32 --method ce image_size=20"


def test_data_seen_by_the_network_of_a_run(photos, similar_run, tmp_path):
    result = diagnose(photos, network_weights=str(similar_run), out=tmp_path, device="cpu")
    assert result.findings.counts.tolist() == [4, 6, 13]
    assert "the network of" in result.findings.evidence.about["network"]


def test_bad_input_is_one_sentence(similar_run, photos, tmp_path):
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(similar_run / "recipe.json", unfinished)
    one = tmp_path / "one"
    shutil.copytree(photos / "red", one / "red")
    cases = [
        ((unfinished,), {}, "is not finished"),
        ((similar_run,), {"split": "nothing"}, "nothing"),
        ((similar_run,), {"network": "resnet18"}, "makes no sense for a run"),
        ((similar_run,), {"data": str(photos)}, "nothing says which is which"),
        ((similar_run,), {"look_alikes_from": "nothing"}, "neither pixels nor start"),
        ((one,), {"network": "pixels"}, "at least 2"),
        ((photos,), {"network": "resnet8", "network_weights": str(tmp_path / "x.pt")}, "x.pt"),
        ((photos,), {"network": "resnot18"}, "unknown network"),
        ((photos,), {"weights": "best-test"}, "makes no sense"),
        ((tmp_path / "nowhere",), {"network": "pixels"}, "nowhere"),
        ((similar_run,), {"on_bad_image": "skip"}, "--on-bad-image makes no sense for a run"),
        ((similar_run,), {"root": "x"}, "--root makes no sense for a run's own images"),
        ((photos,), {"network": "pixels", "network_weights": "x.pt"}, "leave one of them out"),
        ((tmp_path,), {}, "holds 1 run.s.; name one, such as .*unfinished"),
    ]
    for arguments, options, expected in cases:
        with pytest.raises(LongTailedError, match=expected):
            diagnose(*arguments, **options, out=tmp_path, device="cpu")


def test_a_pretrained_network_that_cannot_be_had_is_said(photos, tmp_path, monkeypatch):
    import timm

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(LongTailedError, match="--network-weights"):
        diagnose(photos, out=tmp_path, device="cpu")


def test_a_file_is_no_folder_and_is_refused_at_once(photos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LongTailedError, match="is a file"):
        diagnose(photos, network="pixels", out=tmp_path / "file", device="cpu")


def changed(findings, **parts):
    """Return the findings with other parts."""
    return dataclasses.replace(findings, parts=dataclasses.replace(findings.parts, **parts))


def test_the_verdict_names_the_class_that_similarity_goes_to(diagnosed):
    findings = diagnosed.findings
    error, similarity = np.full(10, 0.05), np.full(10, 0.04)
    towards = np.zeros((10, 10))
    towards[TAIL, :4] = [0.015, 0.01, 0.01, 0.005]
    intervals = np.full((4, 10, 2), 0.01)
    found = changed(
        findings, error=error, similarity=similarity, towards=towards, intervals=intervals,
        scarcity=np.zeros(10), rest=np.zeros(10), wrong=np.full(10, 9),
    )  # fmt: skip
    assert found.verdict(TAIL) == "similarity to 0 and others"


def test_classes_of_the_largest_size_are_not_called_rare(diagnosed):
    findings = diagnosed.findings
    assert findings.rare() == [TAIL]
    equal = dataclasses.replace(findings, counts=np.full(10, 60))
    assert equal.rare() == []
    assert not advice.rare_share(equal).rare


def test_names_are_escaped_and_nothing_is_fetched(tmp_path):
    names = ['<b>&"x"', "$\\frac{a$", "c^_d"]
    for number, name in enumerate(names):
        folder = tmp_path / "<i>" / name
        folder.mkdir(parents=True)
        for i in range(7):
            pixels = np.random.RandomState(10 * number + i).randint(0, 255, (16, 16, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f'"{i}" <u>.png')
    result = diagnose(tmp_path / "<i>", network="pixels", out=tmp_path / "out", device="cpu")
    page = result.page.read_text()
    for tag in ('<b>&"', "<u>", "<i>"):
        assert tag not in page
    assert "&lt;b&gt;&amp;" in page
    assert not re.search(r"https?://|@import|url\((?!#)", page)
