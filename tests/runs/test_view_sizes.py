"""Views end at the size that the network sees, or are refused before anything is trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from longtailed.data.augment.views import parse_view
from longtailed.errors import LongTailedError
from longtailed.recipes import Recipe
from longtailed.report.strict_json import read_json
from longtailed.runs.prepare import prepare
from longtailed.runs.run import train

QUICK = {
    "network": "resnet8",
    "network.options.width": 0.5,
    "epochs": 1,
    "batch_size": 8,
    "data.workers": 0,
    "data.image_size": 32,
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photos of different sizes, none of them square."""
    root = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for name, number in (("ant", 12), ("bee", 8), ("wasp", 6)):
        (root / name).mkdir()
        for i in range(number):
            pixels = generator.integers(0, 256, (50 + i, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return str(root)


def views_of(source, **data):
    settings = {"source": source, "image_size": 32, "workers": 0, **data}
    recipe = Recipe.model_validate({"data": settings})
    return prepare(recipe, torch.device("cpu"))[0]


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_a_view_of_small_images_works_on_files(photos, storage):
    splits = views_of(photos, storage=storage, views={"standard": "pad_crop(4), flip, cutout(16)"})
    cut = "center_crop(32)" if storage == "memory" else "resize(37), center_crop(32)"
    assert str(splits.views["standard"]) == f"{cut}, pad_crop, flip, cutout(16)"
    assert str(splits.views["test"]) == cut
    assert str(splits.views["strong"]) == f"{splits.views['standard']}, auto_augment"
    for name in ("standard", "strong", "sim", "test"):
        assert next(splits.scan("train", view=name)).images[0].shape[2:] == (32, 32)
        splits.check_view(name, "train")


def test_views_that_end_at_the_size_stay_as_they_are(photos):
    for text in ("resized_crop(32), flip", "resize(40), center_crop(32)", "center_crop(32)"):
        assert str(views_of(photos, views={"standard": text}).views["standard"]) == text
    assert str(
        views_of("digits", image_size=None, views={"standard": "flip"}).views["standard"]
    ) == ("flip")


def test_a_run_trains_and_tests_at_one_size(photos, tmp_path):
    run = train(
        data=photos,
        overrides={**QUICK, "views.standard": "pad_crop(4), flip"},
        out=tmp_path / "run",
        device="cpu",
        progress=False,
        report=False,
    )
    manifest = read_json(run.directory / "manifest.json")
    assert manifest["network_input"] == 32
    assert manifest["views"]["standard"] == "center_crop(32), pad_crop, flip"


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ({"standard": "resized_crop(24)"}, "gives train images of 24 x 24 .* sees 32 x 32; let it"),
        ({"standard": "flip, resize(40)"}, "view 'standard' .* gives train images of 40 x 40 pix"),
        ({"test": "resize(24)"}, "the view 'test' .* gives .* images of 24 x 24 pixels"),
        ({"standrad": "flip"}, "no stage asks for the view 'standrad'; they ask for standard, te"),
        ({"sim": "resized_crop(32)"}, "no stage asks for the view 'sim'; they ask for standard"),
        ({"standard": "center_crop(64)"}, "'standard' cannot be used: center_crop.64. is larger"),
        ({"standard": "cutout(64)"}, "'standard' cannot be used: cutout.64. cuts out as much"),
        ({"standard": "pad_crop(40)"}, "'standard' cannot be used: pad_crop.40. pads images of 37"),
    ],
)
def test_a_view_that_cannot_be_used_is_refused_before_training(photos, views, message, tmp_path):
    changes = {**QUICK, **{f"views.{name}": text for name, text in views.items()}}
    with pytest.raises(LongTailedError, match=message) as caught:
        train(data=photos, overrides=changes, out=tmp_path / "run", device="cpu", progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_strong_view_begins_with_the_standard_one(photos, tmp_path):
    changes = {**QUICK, "method": "bcl", "views.standard": "pad_crop(4)", "epochs": 0}
    how = {"device": "cpu", "progress": False, "report": False}
    train(data=photos, overrides=changes, out=tmp_path / "run", **how)
    changes["views.strong"] = "pad_crop(2)"
    with pytest.raises(LongTailedError, match="no stage asks for the view 'standard'"):
        train(data=photos, overrides=changes, out=tmp_path / "other", **how)
    changes["views.standard"] = None  # views.standard=none takes it back
    train(data=photos, overrides=changes, out=tmp_path / "other", **how)


@pytest.mark.parametrize(
    ("text", "given", "result"),
    [
        ("", (20, 30), (20, 30)),
        ("flip", None, None),
        ("pad_crop(4), flip, grayscale, blur, auto_augment", (20, 30), (20, 30)),
        ("resize(10)", (20, 30), (10, 15)),
        ("resize(10)", None, None),
        ("resize(10), center_crop(8)", None, (8, 8)),
        ("resized_crop(8), cutout(4), rand_augment", None, (8, 8)),
    ],
)
def test_a_view_knows_its_size(text, given, result):
    view = parse_view(text)
    assert view.output_size(given) == result
    if given is not None:
        images = torch.zeros(2, 3, *given, dtype=torch.uint8)
        assert view(images, torch.Generator()).shape[2:] == result
