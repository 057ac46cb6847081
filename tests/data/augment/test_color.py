from __future__ import annotations

import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as vision

from longtailed.data.augment.color import ColorJitter, GaussianBlur, Grayscale, Jitter
from longtailed.errors import LongTailedError

SIZES = [(8, 8), (32, 32), (12, 20)]
ADJUST = (
    vision.adjust_brightness,
    vision.adjust_contrast,
    vision.adjust_saturation,
    vision.adjust_hue,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_images(n, height=8, width=8, seed=0):
    return torch.randint(256, (n, 3, height, width), generator=seeded(seed), dtype=torch.uint8)


def largest_difference(first, second):
    assert first.dtype == second.dtype == torch.uint8
    assert first.shape == second.shape
    return int((first.int() - second.int()).abs().max())


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("hue", [0, 0.1, 0.5])
def test_color_jitter_equals_torchvision_on_each_image(height, width, hue):
    images, op = random_images(30, height, width), ColorJitter(0.8, 0.9, 1.5, hue, p=0.8)
    jitter = op.sample(images.shape, seeded())
    results = op.apply(images, jitter)
    for row, image in enumerate(images):
        values = [*jitter.factors[row].tolist(), jitter.hue[row].item()]
        expected = image.float() / 255
        for operation in jitter.order[row].tolist():
            expected = ADJUST[operation](expected, values[operation])
        expected = (expected * 255).round().to(torch.uint8)
        assert largest_difference(results[row], expected) <= 1


@pytest.mark.parametrize("operation", range(4))
def test_each_color_operation_is_within_one_level_of_uint8_arithmetic(operation):
    images = random_images(20)
    factors, hue = torch.ones(20, 3), torch.zeros(20)
    values = torch.linspace(0.1, 1.9, 20) if operation < 3 else torch.linspace(-0.5, 0.5, 20)
    (hue if operation == 3 else factors[:, operation]).copy_(values)
    order = torch.rand(20, 4, generator=seeded()).argsort(1)
    results = ColorJitter(1, 1, 1, 0.5).apply(images, Jitter(factors, hue, order))
    for image, result, value in zip(images, results, values.tolist(), strict=True):
        if operation == 3:  # PIL keeps hues in 8 bits
            expected = vision.adjust_hue(image, value)
        else:
            adjusted = ADJUST[operation](vision.to_pil_image(image), value)
            expected = vision.pil_to_tensor(adjusted)
        assert largest_difference(result, expected) <= 1


def test_color_jitter_parameters_follow_the_strengths():
    jitter = ColorJitter(0.4, 0.2, 1.5, 0.1, p=0.75).sample((24_000, 3, 8, 8), seeded())
    changed = jitter.hue != 0
    assert abs(changed.float().mean() - 0.75) < 0.02
    assert (jitter.factors[~changed] == 1).all()
    for column, (low, high) in enumerate([(0.6, 1.4), (0.8, 1.2), (0.0, 2.5)]):
        factor = jitter.factors[changed, column]
        assert low <= factor.min() < low + 0.01
        assert high - 0.01 < factor.max() <= high
        assert abs(factor.mean() - (low + high) / 2) < 0.02
    assert -0.1 <= jitter.hue.min() < -0.099
    assert 0.099 < jitter.hue.max() <= 0.1
    codes = (jitter.order * torch.tensor([64, 16, 4, 1])).sum(1)
    _, counts = codes.unique(return_counts=True)
    assert len(counts) == 24
    assert ((counts - 1000).square() / 1000).sum() < 50  # chi-square, 23 degrees, p = 0.001


def test_color_jitter_of_no_strength_or_probability_changes_nothing():
    images = random_images(10)
    for op in (ColorJitter(0, 0, 0, 0), ColorJitter(0.4, 0.4, 0.4, 0.4, p=0.0)):
        assert torch.equal(op(images, seeded()), images)


def test_color_jitter_keeps_grey_images_grey():
    grey = random_images(10)[:, :1].expand(-1, 3, -1, -1).contiguous()
    result = ColorJitter(0.4, 0.4, 0.4, 0.5)(grey, seeded())
    assert (result.amax(1) - result.amin(1)).max() <= 1


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_grayscale_equals_pil(height, width):
    images, op = random_images(20, height, width), Grayscale(0.5)
    chosen = op.sample(images.shape, seeded())
    assert 0 < chosen.sum() < 20
    for image, result, grey in zip(images, op.apply(images, chosen), chosen, strict=True):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        luma = torch.tensor(list(picture.convert("L").tobytes()), dtype=torch.uint8)
        expected = luma.view(1, height, width).expand(3, -1, -1) if grey else image
        assert torch.equal(result, expected)


@pytest.mark.parametrize("p", [0.0, 0.2, 1.0])
def test_grayscale_rate(p):
    rate = Grayscale(p).sample((10_000, 3, 8, 8), seeded()).float().mean()
    assert abs(rate - p) < 0.02


@pytest.mark.parametrize(("height", "width"), [*SIZES, (2, 5)])
def test_blur_equals_torchvision_on_each_image(height, width):
    images, op = random_images(20, height, width), GaussianBlur(sigma=(0.1, 2.0))
    widths = op.sample(images.shape, seeded())
    assert 0 < (widths == 0).sum() < 20
    reach = min(6, height - 1, width - 1)
    for image, result, sigma in zip(images, op.apply(images, widths), widths, strict=True):
        expected = image
        if sigma > 0:
            expected = vision.gaussian_blur(image, [2 * reach + 1] * 2, [sigma.item()] * 2)
        assert largest_difference(result, expected) <= (1 if sigma > 0 else 0)


def test_blur_widths_follow_the_range():
    widths = GaussianBlur(sigma=(0.5, 1.5), p=0.3).sample((10_000, 3, 8, 8), seeded())
    blurred = widths[widths > 0]
    assert abs(len(blurred) / 10_000 - 0.3) < 0.02
    assert 0.5 <= blurred.min() < 0.51
    assert 1.49 < blurred.max() <= 1.5
    assert abs(blurred.mean() - 1) < 0.02


def test_blur_is_exact_under_bfloat16_autocast():
    images, op = random_images(8), GaussianBlur(p=1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = op(images, seeded())
    assert torch.equal(lowered, op(images, seeded()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ColorJitter(-0.1, 0, 0, 0),
            "brightness cannot be -0.1: input should be greater than or equal to 0",
        ),
        (
            lambda: ColorJitter(0, 0, "a", 0),
            "saturation cannot be 'a': input should be a valid number",
        ),
        (
            lambda: ColorJitter(0, 0, float("inf"), 0),
            "saturation cannot be inf: input should be a finite number",
        ),
        (
            lambda: ColorJitter(0, 0, 0, 0.6),
            "hue cannot be 0.6: input should be less than or equal to 0.5",
        ),
        (lambda: Grayscale(2), "p cannot be 2: input should be less than or equal to 1"),
        (lambda: GaussianBlur(sigma=(0, 1)), "sigma cannot be .*: input should be greater than 0"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(make, message):
    with pytest.raises(LongTailedError, match=message):
        make()
