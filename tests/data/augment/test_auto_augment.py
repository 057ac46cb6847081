from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms import AutoAugment as TorchvisionAutoAugment
from torchvision.transforms import AutoAugmentPolicy

from longtailed.data.augment.auto_augment import CIFAR10_POLICY, AutoAugment
from longtailed.data.augment.image_operation import DrawnOperations, Interpolation, Operation
from longtailed.data.augment.views import parse_view

ENTRIES = list(chain(*CIFAR10_POLICY))
NO_VALUE = (Operation.INVERT, Operation.AUTO_CONTRAST, Operation.EQUALIZE)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_images(n, height=8, width=8):
    return torch.randint(256, (n, 3, height, width), generator=seeded(), dtype=torch.uint8)


def test_policy_is_the_one_of_torchvision():
    published = TorchvisionAutoAugment(AutoAugmentPolicy.CIFAR10).policies
    assert len(CIFAR10_POLICY) == 25
    for entry, (name, probability, level) in zip(ENTRIES, chain(*published), strict=True):
        operation, tenths, own_level = entry
        assert operation.name.replace("_", "") == name.upper()
        assert tenths == round(10 * probability)
        assert operation in NO_VALUE or own_level == level


@pytest.mark.parametrize("slot", [0, 1])
def test_operations_are_drawn_with_the_probabilities_of_the_policy(slot):
    drawn = AutoAugment().sample((40_000, 3, 8, 8), seeded())
    rates = torch.bincount(drawn.operation[:, slot], minlength=len(Operation)) / 40_000
    expected = torch.zeros(len(Operation))
    for operation, tenths, _ in ENTRIES[slot::2]:
        expected[operation] += tenths / 250
    expected[Operation.IDENTITY] = 1 - expected.sum()
    assert (rates - expected).abs().max() < 0.01


def test_values_are_those_of_the_levels():
    drawn = AutoAugment().sample((40_000, 3, 8, 8), seeded())
    levels = {
        kind: {level for known, tenths, level in ENTRIES if known == kind and tenths > 0}
        for kind in Operation
    }
    scales = {
        Operation.POSTERIZE: np.round(np.linspace(8, 4, 10)),
        Operation.SOLARIZE: np.linspace(256, 0, 10),
        Operation.ROTATE: np.linspace(0, 30, 10),
        Operation.SHEAR_Y: np.linspace(0, 0.3, 10),
        Operation.TRANSLATE_X: np.linspace(0, 150 / 331, 10),
        Operation.TRANSLATE_Y: np.linspace(0, 150 / 331, 10),
        Operation.BRIGHTNESS: np.linspace(0, 0.9, 10),
        Operation.CONTRAST: np.linspace(0, 0.9, 10),
        Operation.COLOR: np.linspace(0, 0.9, 10),
        Operation.SHARPNESS: np.linspace(0, 0.9, 10),
    }
    for operation, scale in scales.items():
        values = drawn.value[drawn.operation == operation].double()
        expected = {scale[level] for level in levels[operation]}
        if operation in (Operation.SHEAR_Y, Operation.TRANSLATE_X, Operation.TRANSLATE_Y):
            expected |= {-value for value in expected}
            assert abs((values > 0).double().mean() - 0.5) < 0.05
        elif Operation.BRIGHTNESS <= operation <= Operation.SHARPNESS:
            expected = {1 + value for value in expected} | {1 - value for value in expected}
        np.testing.assert_allclose(values.unique(), sorted(expected), atol=1e-5)


def test_only_shears_are_interpolated():
    drawn = AutoAugment().sample((4000, 3, 8, 8), seeded())
    sheared = drawn.operation == Operation.SHEAR_Y
    assert sheared.any()
    assert (drawn.interpolation[sheared] == Interpolation.BICUBIC).all()
    assert (drawn.interpolation[~sheared] == Interpolation.NEAREST).all()


def test_pixels_from_outside_are_grey():
    images = torch.zeros(1, 3, 10, 10, dtype=torch.uint8)
    move = DrawnOperations(
        torch.tensor([[Operation.TRANSLATE_X, Operation.IDENTITY]]),
        torch.tensor([[0.4, 0.0]]),
        torch.zeros(1, 2, dtype=torch.int64),
    )
    moved = AutoAugment().apply(images, move)
    assert (moved[..., :6] == 0).all()
    assert (moved[..., 6:] == 128).all()


@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 32), (12, 20)])
def test_images_keep_their_size_and_get_their_own_parameters(height, width):
    images = random_images(1, height, width).expand(40, -1, -1, -1)
    op = AutoAugment()
    result = op(images, seeded())
    assert result.dtype == torch.uint8
    assert result.shape == images.shape
    assert torch.equal(result, op(images, seeded()))
    assert torch.equal(result, op(images.contiguous(memory_format=torch.channels_last), seeded()))
    assert len({bytes(image.flatten().tolist()) for image in result}) > 10
    assert not torch.equal(result, op(images, seeded(1)))


def test_no_value_is_read_back():
    """Fake tensors have no values: reading one, or a shape that depends on one, fails."""
    with FakeTensorMode():
        images = torch.empty(6, 3, 12, 12, dtype=torch.uint8)
        assert AutoAugment()(images, seeded()).dtype == torch.uint8


def test_everything_is_made_where_the_images_are(on_fake_gpu):
    op = AutoAugment()
    drawn = op.sample((6, 3, 12, 12), seeded())
    with FakeTensorMode():
        images = on_fake_gpu(torch.empty(6, 3, 12, 12, dtype=torch.uint8))
        assert op.apply(images, DrawnOperations(*map(on_fake_gpu, drawn))).device.type == "cuda"


def test_views_know_it_by_name():
    view = parse_view("pad_crop(4), flip, auto_augment")
    assert view.ops[2] == AutoAugment()
    assert str(view) == "pad_crop, flip, auto_augment"
