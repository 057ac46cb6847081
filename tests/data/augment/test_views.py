from __future__ import annotations

import pickle

import pytest
import torch

from longtailed.data.augment.color import ColorJitter, GaussianBlur, Grayscale
from longtailed.data.augment.geometry import CenterCrop, Flip, PadCrop, Resize, ResizedCrop
from longtailed.data.augment.views import OPS, VIEWS, View, parse_view, view_preset
from longtailed.errors import LongTailedError

TEXT = "pad_crop(4), flip, color_jitter(0.4,0.4,0.4,0.1,p=0.8), grayscale(0.2), blur(p=0.5)"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_images(n, height=8, width=8):
    return torch.randint(256, (n, 3, height, width), generator=seeded(), dtype=torch.uint8)


def test_parse_view_reads_names_and_arguments():
    assert parse_view(TEXT).ops == (
        PadCrop(4),
        Flip(),
        ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        Grayscale(0.2),
        GaussianBlur(p=0.5),
    )
    assert parse_view("flip").ops == parse_view("flip(),").ops == (Flip(),)
    assert parse_view("resized_crop(8,\n  scale=[0.5, 1])").ops == (ResizedCrop(8, (0.5, 1.0)),)


@pytest.mark.parametrize("text", ["", "  ", "()"])
def test_empty_text_is_the_identity(text):
    view, images = parse_view(text), random_images(2)
    assert view == View()
    assert str(view) == ""
    assert torch.equal(view(images, seeded()), images)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (TEXT, "pad_crop, flip, color_jitter(0.4, 0.4, 0.4, 0.1, p=0.8), grayscale, blur"),
        ("pad_crop(padding=1,mode='reflect')", "pad_crop(1, mode='reflect')"),
        ("resized_crop(32, (0.2, 1.0))", "resized_crop(32, scale=(0.2, 1))"),
        ("flip(0.25), blur((0.5, 2))", "flip(0.25), blur((0.5, 2))"),
        ("cutout(16, 0.5), resize(256), center_crop(224)",) * 2,
    ],
)
def test_text_round_trip(text, canonical):
    canonical = canonical.replace("cutout(16, 0.5)", "cutout(16, p=0.5)")
    view = parse_view(text)
    assert str(view) == canonical
    assert parse_view(str(view)) == view
    assert hash(parse_view(str(view))) == hash(view)
    assert pickle.loads(pickle.dumps(view)) == view


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("size", [8, 32, 64])
def test_presets_give_images_of_the_asked_size(name, size):
    view = view_preset(name, size)
    assert parse_view(str(view)) == view
    result = view(random_images(3, size, size), seeded())
    assert result.shape == (3, 3, size, size)
    assert result.dtype == torch.uint8
    assert torch.equal(result, view(random_images(3, size, size), seeded()))


def test_presets_are_the_published_ones():
    assert view_preset("small", 32).ops == (PadCrop(4), Flip())
    assert view_preset("small-reflect", 32).ops == (PadCrop(4, mode="reflect"), Flip())
    assert view_preset("digits", 8).ops == (PadCrop(1),)
    assert view_preset("large-test", 224).ops == (Resize(256), CenterCrop(224))
    assert view_preset("large-plain", 224).ops == (ResizedCrop(224), Flip())
    assert view_preset("large", 224).ops[2:] == (ColorJitter(0.4, 0.4, 0.4, 0),)
    contrastive = (ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8), Grayscale(0.2))
    small = (ResizedCrop(32, scale=(0.2, 1)), Flip(), *contrastive, GaussianBlur((0.1, 2.0), 0.5))
    assert view_preset("simclr-small", 32).ops == small
    assert view_preset("simclr-large", 224).ops == (ResizedCrop(224), Flip(), *contrastive)


def test_leading_geometry_runs_where_images_are_decoded():
    view = parse_view("resize(256), center_crop(224), flip, resize(8)")
    assert view.load_ops == (Resize(256), CenterCrop(224))
    assert view.batch_ops == (Flip(), Resize(8))
    assert parse_view("flip, resize(8)").load_ops == ()
    image = random_images(1, 30, 45)[0]
    for op in parse_view("resize(16), center_crop(12)").load_ops:
        image = op.load(image, seeded())
    assert image.shape == (3, 12, 12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pad_crp(4)", "unknown view operation 'pad_crp'; did you mean 'pad_crop'"),
        ("pad_crop(4", "cannot read the view 'pad_crop\\(4'"),
        ("flip; flip", "cannot read the view"),
        ("flip\0", "cannot read the view"),
        ("flip + flip", "cannot read 'flip \\+ flip' in a view"),
        ("torch.flip()", "cannot read 'torch.flip\\(\\)' in a view"),
        ("flip, 3", "cannot read '3' in a view"),
        ("pad_crop(pading=4)", "unknown argument of pad_crop 'pading'; did you mean 'padding'"),
        ("flip(**3)", "unknown argument of flip '\\*\\*3'"),
        ("flip(*3)", "flip: '\\*3' must be a number"),
        ("flip({[]: 1})", "flip: '{\\[\\]: 1}' must be a number"),
        ("flip(0.5, 1)", "flip takes at most 1 arguments \\(p\\), not 2"),
        ("flip(0.5, p=1)", "flip has two values for p"),
        ("flip(size)", "flip: 'size' must be a number"),
        ("pad_crop(padding=__import__('os'))", "pad_crop: .* must be a number"),
        ("resized_crop", "resized_crop needs a value for size"),
        ("color_jitter(0.4)", "color_jitter needs a value for contrast and saturation and hue"),
        ("flip(2)", "flip: p cannot be 2: input should be less than or equal to 1"),
    ],
)
def test_bad_texts_are_refused_in_one_sentence(text, message):
    with pytest.raises(LongTailedError, match=message) as caught:
        parse_view(text)
    assert "\n" not in str(caught.value)


def test_unknown_preset_names_the_nearest():
    with pytest.raises(LongTailedError, match="unknown view 'smal'; did you mean 'small'"):
        view_preset("smal", 32)


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 8, 8), random_images(2)[0]])
def test_view_refuses_other_images(images):
    with pytest.raises(LongTailedError, match="a view needs uint8 images"):
        View((Flip(),))(images, seeded())


def test_every_operation_is_known_by_its_name():
    assert all(op.name == name for name, op in OPS.items())
    assert len(OPS) == 11
