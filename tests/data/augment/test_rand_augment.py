from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from longtailed.data.augment.image_operation import DrawnOperations, Interpolation, Operation
from longtailed.data.augment.rand_augment import RandAugment
from longtailed.data.augment.views import parse_view
from longtailed.errors import LongTailedError

MOVES = (
    Operation.ROTATE,
    Operation.SHEAR_X,
    Operation.SHEAR_Y,
    Operation.TRANSLATE_X,
    Operation.TRANSLATE_Y,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_images(n, height=8, width=8):
    return torch.randint(256, (n, 3, height, width), generator=seeded(), dtype=torch.uint8)


def test_operations_are_drawn_evenly_and_half_of_them_left_out():
    drawn = RandAugment(3).sample((20_000, 3, 8, 8), seeded())
    assert drawn.operation.shape == (20_000, 3)
    for slot in drawn.operation.T:
        rates = torch.bincount(slot, minlength=len(Operation)) / 20_000
        assert abs(rates[Operation.IDENTITY] - 0.5) < 0.015
        assert (rates[1:] - 1 / 30).abs().max() < 0.006
    first, second, _ = drawn.operation.T
    assert abs(((first == second) & (first > 0)).float().mean() - 1 / 60) < 0.005  # replacement


def test_values_at_full_strength():
    drawn = RandAugment(mstd=0).sample((20_000, 3, 8, 8), seeded())
    sizes = {
        Operation.POSTERIZE: 4,
        Operation.SOLARIZE: 256,
        Operation.SOLARIZE_ADD: 110,
        Operation.BRIGHTNESS: 1.9,
        Operation.CONTRAST: 1.9,
        Operation.COLOR: 1.9,
        Operation.SHARPNESS: 1.9,
        Operation.ROTATE: 30,
        Operation.SHEAR_X: 0.3,
        Operation.SHEAR_Y: 0.3,
        Operation.TRANSLATE_X: 0.45,
        Operation.TRANSLATE_Y: 0.45,
    }
    for operation, size in sizes.items():
        values = drawn.value[drawn.operation == operation]
        expected = torch.full_like(values, size)
        if operation in MOVES:
            assert abs((values > 0).float().mean() - 0.5) < 0.06
            values = values.abs()
        torch.testing.assert_close(values, expected)


def test_values_at_other_strengths():
    drawn = RandAugment(m=4, mstd=0).sample((4000, 3, 8, 8), seeded())
    for operation, size in [
        (Operation.POSTERIZE, 1),
        (Operation.SOLARIZE, 102),
        (Operation.SOLARIZE_ADD, 44),
        (Operation.COLOR, 0.82),
        (Operation.ROTATE, 12),
        (Operation.TRANSLATE_Y, 0.18),
    ]:
        values = drawn.value[drawn.operation == operation].abs()
        torch.testing.assert_close(values, torch.full_like(values, size))


def test_strength_is_normal_and_clipped():
    drawn = RandAugment().sample((60_000, 3, 8, 8), seeded())
    strength = drawn.value[drawn.operation == Operation.ROTATE].abs() / 3
    assert abs((strength == 10).float().mean() - 0.5) < 0.03
    assert abs((10 - strength[strength < 10]).square().mean().sqrt() - 0.5) < 0.03
    bits = drawn.value[drawn.operation == Operation.POSTERIZE]
    assert bits.unique().tolist() == [3, 4]
    weak = RandAugment(m=0, mstd=1).sample((4000, 3, 8, 8), seeded())
    assert weak.value[weak.operation == Operation.SHARPNESS].min() == 0.1


def test_interpolation_is_bilinear_or_bicubic():
    drawn = RandAugment().sample((10_000, 3, 8, 8), seeded())
    counts = torch.bincount(drawn.interpolation.flatten(), minlength=len(Interpolation))
    assert counts[Interpolation.NEAREST] == 0
    assert abs(counts[Interpolation.BICUBIC] / 20_000 - 0.5) < 0.02


def test_pixels_from_outside_have_the_mean_colour():
    images = torch.zeros(1, 3, 10, 10, dtype=torch.uint8)
    move = (torch.tensor([[Operation.TRANSLATE_Y]]), torch.tensor([[-0.4]]), torch.tensor([[2]]))
    moved = RandAugment(1).apply(images, DrawnOperations(*move))
    assert (moved[:, :, 4:] == 0).all()
    assert (moved[:, :, :4] == torch.tensor([124, 116, 104])[:, None, None]).all()


@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 32), (12, 20)])
def test_images_keep_their_size_and_get_their_own_parameters(height, width):
    images = random_images(1, height, width).expand(40, -1, -1, -1)
    op = RandAugment()
    result = op(images, seeded())
    assert result.dtype == torch.uint8
    assert result.shape == images.shape
    assert torch.equal(result, op(images, seeded()))
    assert torch.equal(result, op(images.contiguous(memory_format=torch.channels_last), seeded()))
    assert len({bytes(image.flatten().tolist()) for image in result}) > 20
    assert not torch.equal(result, op(images, seeded(1)))


def test_no_value_is_read_back():
    """Fake tensors have no values: reading one, or a shape that depends on one, fails."""
    with FakeTensorMode():
        images = torch.empty(6, 3, 12, 12, dtype=torch.uint8)
        assert RandAugment()(images, seeded()).dtype == torch.uint8


def test_everything_is_made_where_the_images_are(on_fake_gpu):
    op = RandAugment()
    drawn = op.sample((6, 3, 12, 12), seeded())
    with FakeTensorMode():
        images = on_fake_gpu(torch.empty(6, 3, 12, 12, dtype=torch.uint8))
        assert op.apply(images, DrawnOperations(*map(on_fake_gpu, drawn))).device.type == "cuda"


def test_views_know_it_by_name():
    view = parse_view("flip, rand_augment(n=2, m=10, mstd=0.5), rand_augment(1, 9)")
    assert view.ops[1:] == (RandAugment(), RandAugment(1, m=9))
    assert str(view) == "flip, rand_augment, rand_augment(1, m=9)"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: RandAugment(0),
            "rand_augment: n cannot be 0: input should be greater than or equal to 1",
        ),
        (
            lambda: RandAugment(1.5),
            "rand_augment: n cannot be 1.5: input should be a valid integer",
        ),
        (
            lambda: RandAugment(2, m=11),
            "rand_augment: m cannot be 11: input should be less than or equal to 10",
        ),
        (
            lambda: RandAugment(2, mstd=-1),
            "rand_augment: mstd cannot be -1: input should be greater than or equal to 0",
        ),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(make, message):
    with pytest.raises(LongTailedError, match=message):
        make()
