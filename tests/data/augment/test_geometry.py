from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms.v2 import functional as vision

from longtailed.data.augment.color import ColorJitter, GaussianBlur, Grayscale
from longtailed.data.augment.geometry import (
    CenterCrop,
    Cutout,
    Flip,
    PadCrop,
    Resize,
    ResizedCrop,
    normalize,
)
from longtailed.data.augment.operation import Box
from longtailed.errors import LongTailedError

SIZES = [(8, 8), (32, 32), (12, 20)]
RANDOM_OPS = [
    PadCrop(3),
    PadCrop(2, mode="reflect"),
    Flip(),
    ResizedCrop(10),
    Cutout(4, p=0.5),
    ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
    ColorJitter(0.4, 0.4, 0.4, 0),
    Grayscale(0.5),
    GaussianBlur(),
]
ALL_OPS = [*RANDOM_OPS, Resize(10), CenterCrop(6)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_images(n, height=8, width=8, seed=0):
    return torch.randint(256, (n, 3, height, width), generator=seeded(seed), dtype=torch.uint8)


def largest_difference(first, second):
    assert first.dtype == second.dtype == torch.uint8
    assert first.shape == second.shape
    return int((first.int() - second.int()).abs().max())


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("mode", ["zero", "reflect"])
def test_pad_crop_equals_padding_and_cropping_each_image(height, width, mode):
    images, op = random_images(20, height, width), PadCrop(4, mode=mode)
    offsets = op.sample(images.shape, seeded())
    crops = op.apply(images, offsets)
    fill = "constant" if mode == "zero" else "reflect"
    for image, crop, top, left in zip(images, crops, *offsets.tolist(), strict=True):
        padded = vision.pad(image.float(), [4], padding_mode=fill).byte()
        assert torch.equal(crop, vision.crop(padded, top, left, height, width))


def test_pad_crop_offsets_are_uniform():
    offsets = PadCrop(4).sample((9000, 3, 8, 8), seeded())
    for axis in offsets:
        counts = torch.bincount(axis, minlength=9)
        assert len(counts) == 9
        assert ((counts - 1000).square() / 1000).sum() < 26  # chi-square, 8 degrees, p = 0.001
    assert abs(torch.corrcoef(offsets.float())[0, 1]) < 0.05


def test_pad_crop_refuses_to_reflect_more_than_the_image():
    with pytest.raises(LongTailedError, match="cannot reflect 8 pixels of 8 x 8"):
        PadCrop(8, mode="reflect")(random_images(1), seeded())


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_flip_mirrors_the_drawn_images(height, width):
    images, op = random_images(20, height, width), Flip()
    flipped = op.sample(images.shape, seeded())
    assert 0 < flipped.sum() < 20
    for image, result, mirror in zip(images, op.apply(images, flipped), flipped, strict=True):
        assert torch.equal(result, vision.horizontal_flip(image) if mirror else image)


@pytest.mark.parametrize("p", [0.0, 0.5, 0.8, 1.0])
def test_flip_rate(p):
    rate = Flip(p).sample((10_000, 3, 8, 8), seeded()).float().mean()
    assert abs(rate - p) < 0.02
    assert p not in (0.0, 1.0) or rate == p


@pytest.mark.parametrize(("height", "width"), [*SIZES, (60, 41)])
def test_resized_crop_equals_torchvision_on_each_image(height, width):
    images, op = random_images(20, height, width), ResizedCrop(16)
    box = op.sample(images.shape, seeded())
    crops = op.apply(images, box)
    assert crops.is_contiguous()
    for image, crop, top, left, bottom, right in zip(
        images, crops, *(edge.tolist() for edge in box), strict=True
    ):
        assert 0 <= top < bottom <= height
        assert 0 <= left < right <= width
        expected = vision.resized_crop(image, top, left, bottom - top, right - left, [16, 16])
        assert largest_difference(crop, expected) <= 1


def test_resized_crop_loads_what_the_batch_form_gives():
    image, op = random_images(1, 90, 70), ResizedCrop(32)
    for seed in range(5):
        loaded = op.load(image[0], seeded(seed))
        assert loaded.shape == (3, 32, 32)
        assert largest_difference(loaded, op(image, seeded(seed))[0]) <= 1


def test_resized_crop_areas_and_shapes_follow_the_ranges():
    op = ResizedCrop(8, scale=(0.25, 0.5), ratio=(0.5, 2.0))
    top, left, bottom, right = op.sample((4000, 3, 200, 200), seeded())
    area = (bottom - top) * (right - left) / 200**2
    shape = ((right - left) / (bottom - top)).log2()
    assert area.min() > 0.24
    assert area.max() < 0.51
    assert abs(area.mean() - 0.375) < 0.01
    assert shape.abs().max() < 1.03
    assert abs(shape.mean()) < 0.05


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(4, 100, (0, 47, 4, 52)), (100, 4, (47, 0, 52, 4))]
)
def test_resized_crop_of_a_thin_image_falls_back_to_the_centre(height, width, expected):
    box = ResizedCrop(8, scale=(1.0, 1.0)).sample((6, 3, height, width), seeded())
    assert all(edge.tolist() == [value] * 6 for edge, value in zip(box, expected, strict=True))


@pytest.mark.parametrize(("height", "width"), [*SIZES, (61, 40), (40, 61)])
def test_resize_and_center_crop_equal_torchvision(height, width):
    images = random_images(4, height, width)
    for size in (7, 16, 33):
        resized = Resize(size)(images, seeded())
        assert largest_difference(resized, vision.resize(images, [size])) <= 1
        assert torch.equal(resized[1], Resize(size).load(images[1], seeded()))
        cropped = CenterCrop(size)(images, seeded())
        assert torch.equal(cropped, vision.center_crop(images, [size, size]))
        assert torch.equal(cropped[1], CenterCrop(size).load(images[1], seeded()))


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("size", [4, 5])
def test_cutout_blanks_a_square_around_a_pixel(height, width, size):
    images, op = random_images(30, height, width).clamp(min=1), Cutout(size, p=0.7)
    box = op.sample(images.shape, seeded())
    sides = set()
    for image, result, top, left, bottom, right in zip(
        images, op.apply(images, box), *(edge.tolist() for edge in box), strict=True
    ):
        sides.add((bottom - top, right - left))
        expected = image.clone()
        expected[:, max(top, 0) : bottom, max(left, 0) : right] = 0
        assert torch.equal(result, expected)
    assert sides == {(0, 0), (size, size)}


def test_cutout_centres_cover_the_image():
    box = Cutout(2).sample((4000, 3, 6, 9), seeded())
    assert torch.bincount(box.top + 1).min() > 4000 / 6 * 0.8
    assert torch.bincount(box.left + 1).min() > 4000 / 9 * 0.8
    assert (len(torch.bincount(box.top + 1)), len(torch.bincount(box.left + 1))) == (6, 9)


@pytest.mark.parametrize("op", ALL_OPS, ids=str)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_operations_give_uint8_of_the_promised_size(op, height, width):
    images = random_images(6, height, width)
    before = images.clone()
    result = op(images, seeded())
    assert result.dtype == torch.uint8
    assert torch.equal(images, before)
    assert torch.equal(result, op(images, seeded()))
    assert torch.equal(result, op(images.contiguous(memory_format=torch.channels_last), seeded()))
    assert torch.equal(op.load(images[0], seeded(1)), op.load(images[0], seeded(1)))


@pytest.mark.parametrize("op", RANDOM_OPS, ids=str)
def test_every_image_gets_its_own_parameters(op):
    images = random_images(1, 16, 16).expand(24, -1, -1, -1).contiguous()
    result = op(images, seeded())
    distinct = {bytes(image.flatten().tolist()) for image in result}
    assert len(distinct) > (1 if isinstance(op, Flip | Grayscale) else 8)
    assert not torch.equal(result, op(images, seeded(1)))


@pytest.mark.parametrize("op", ALL_OPS, ids=str)
def test_operations_never_read_a_value_back(op):
    """Fake tensors have no values: reading one, or a shape that depends on one, fails."""
    with FakeTensorMode():
        assert op(torch.empty(6, 3, 12, 12, dtype=torch.uint8), seeded()).dtype == torch.uint8


@pytest.mark.parametrize("op", ALL_OPS, ids=str)
def test_operations_make_everything_where_the_images_are(op, on_fake_gpu):
    """Fake tensors of two devices do not mix."""
    drawn = op.sample((6, 3, 12, 12), seeded())
    with FakeTensorMode():
        images = on_fake_gpu(torch.empty(6, 3, 12, 12, dtype=torch.uint8))
        if isinstance(drawn, tuple):
            parameters = type(drawn)(*map(on_fake_gpu, drawn))
        else:
            parameters = None if drawn is None else on_fake_gpu(drawn)
        assert op.apply(images, parameters).device.type == "cuda"


def test_box_mask_of_one_box_and_of_many():
    edges = torch.tensor([[0, 1, 2, 4], [3, 0, 3, 5]])
    many = Box(*edges.T).mask(5, 6)
    assert many.shape == (2, 1, 5, 6)
    for mask, edge in zip(many, edges, strict=True):
        top, left, bottom, right = edge.tolist()
        expected = torch.zeros(1, 5, 6, dtype=torch.bool)
        expected[:, top:bottom, left:right] = True
        assert torch.equal(mask, expected)
        assert torch.equal(Box(*edge).mask(5, 6), expected)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_normalize_equals_torchvision(memory_format):
    images = random_images(5, 12, 20)
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])
    result = normalize(images, mean, std, memory_format=memory_format)
    expected = vision.normalize(images.float() / 255, mean.tolist(), std.tolist())
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: PadCrop(-1),
            "pad_crop: padding cannot be -1: input should be greater than or equal to 0",
        ),
        (lambda: PadCrop(1.5), "padding cannot be 1.5: input should be a valid integer"),
        (
            lambda: PadCrop(2, mode="edge"),
            "pad_crop: mode cannot be 'edge': input should be 'zero' or 'reflect'",
        ),
        (lambda: Flip(1.5), "flip: p cannot be 1.5: input should be less than or equal to 1"),
        (lambda: Flip("x"), "flip: p cannot be 'x': input should be a valid number"),
        (lambda: ResizedCrop(0), "size cannot be 0: input should be greater than or equal to 1"),
        (
            lambda: ResizedCrop(8, scale=(0.5, 1.5)),
            "scale cannot be .* a crop has at most the whole area, 1",
        ),
        (lambda: ResizedCrop(8, ratio=(2, 1)), "the first number must not be above the second"),
        (lambda: ResizedCrop(8, ratio=3), "ratio cannot be 3: input should be a valid tuple"),
        (lambda: Cutout(True), "size cannot be True: a number is needed, not true or false"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(make, message):
    with pytest.raises(LongTailedError, match=message):
        make()
