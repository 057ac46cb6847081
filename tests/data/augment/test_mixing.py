from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from longtailed.data.augment.mixing import (
    box_complement,
    cutmix,
    cutmix_box,
    mixup,
    sample_beta,
    soft_targets,
)
from longtailed.errors import LongTailedError

GOLDEN = Path(__file__).parents[2] / "golden" / "cutmix_bbox.npz"
BOTH = pytest.mark.parametrize("per_sample", [False, True])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(n=12, height=8, width=10, seed=0):
    """Images that tell where every pixel comes from, and labels that tell which image is which."""
    pixels = torch.randperm(n * 3 * height * width, generator=seeded(seed))
    return pixels.view(n, 3, height, width).double(), torch.arange(n)


def test_cutmix_box_equals_golden():
    golden = {key: torch.as_tensor(value) for key, value in np.load(GOLDEN).items()}
    sizes = zip(golden["size_w"].tolist(), golden["size_h"].tolist(), strict=True)
    for row, (height, width) in enumerate(sizes):  # the authors' W is tensor axis 2
        box = cutmix_box(height, width, *(golden[key][row] for key in ("lam_in", "cx", "cy")))
        expected = [int(golden[key][row]) for key in ("x1", "y1", "x2", "y2")]
        assert [int(edge) for edge in box] == expected
        lam = box_complement(box, height, width).item()
        assert lam == pytest.approx(golden["lam_out"][row].item(), abs=1e-6)


def test_cutmix_box_of_many_images_equals_golden():
    golden = {key: torch.as_tensor(value) for key, value in np.load(GOLDEN).items()}
    height, width = int(golden["size_w"][0]), int(golden["size_h"][0])
    same = (golden["size_w"] == height) & (golden["size_h"] == width)
    assert same.sum() > 1
    box = cutmix_box(height, width, *(golden[key][same] for key in ("lam_in", "cx", "cy")))
    for edge, key in zip(box, ("x1", "y1", "x2", "y2"), strict=True):
        assert torch.equal(edge, golden[key][same])


def test_cutmix_box_of_a_tall_image():
    lam, row, column = torch.tensor(0.75), torch.tensor(10), torch.tensor(1)
    box = cutmix_box(20, 8, lam, row, column)  # half of each side: 10 x 4, cut at the left border
    assert [int(edge) for edge in box] == [5, 0, 15, 3]
    assert box_complement(box, 20, 8).item() == pytest.approx(1 - 30 / 160)


@pytest.mark.parametrize("alpha", [0.02, 0.2, 1.0, 4.0])
def test_sample_beta_has_the_moments_of_beta(alpha):
    lam = sample_beta(alpha, (40_000,), seeded())
    variance = 1 / (4 * (2 * alpha + 1))
    assert lam.dtype == torch.float32
    assert lam.isfinite().all()
    assert abs(lam.mean() - 0.5) < 4 * (variance / 40_000) ** 0.5
    assert abs(lam.var() / variance - 1) < 0.03


def test_sample_beta_of_one_is_uniform():
    lam = sample_beta(1.0, (20_000,), seeded())
    counts = torch.histc(lam, bins=20, min=0, max=1)
    assert ((counts - 1000).square() / 1000).sum() < 43  # chi-square, 19 degrees, p = 0.001


@BOTH
def test_mixup_equals_an_explicit_loop(per_sample):
    images, labels = batch()
    mixed, (first, second, lam) = mixup(images, labels, 1.0, seeded(), per_sample=per_sample)
    assert lam.shape == ((12,) if per_sample else ())
    assert torch.equal(first, labels)
    assert sorted(second.tolist()) == labels.tolist()
    for row in range(12):
        weight = lam.expand(12)[row].double()
        expected = weight * images[row] + (1 - weight) * images[second[row]]
        torch.testing.assert_close(mixed[row], expected, rtol=1e-6, atol=1e-6)


@BOTH
def test_cutmix_equals_an_explicit_loop(per_sample):
    images, labels = batch()
    mixed, (first, second, lam) = cutmix(images, labels, 1.0, seeded(3), per_sample=per_sample)
    assert torch.equal(first, labels)
    boxes = set()
    for row in range(12):
        pasted = (mixed[row] != images[row]).any(0) | bool(second[row] == row)
        if second[row] == row:
            continue
        rows, columns = pasted.any(1).nonzero().flatten(), pasted.any(0).nonzero().flatten()
        expected, area = images[row].clone(), 0
        if len(rows):
            top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
            expected[:, top:bottom, left:right] = images[second[row], :, top:bottom, left:right]
            area = int((bottom - top) * (right - left))
            boxes.add((int(top), int(bottom), int(left), int(right)))
        assert torch.equal(mixed[row], expected)
        assert lam.expand(12)[row].item() == pytest.approx(1 - area / 80, abs=1e-6)
    assert len(boxes) > 3 if per_sample else len(boxes) == 1


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_partners_come_from_the_other_batch(mix):
    images, labels = batch()
    others, other_labels = torch.full_like(images, -1.0), labels + 100
    mixed, result = mix(images, labels, 1.0, seeded(2), partners=(others, other_labels))
    assert torch.equal(result.labels_a, labels)
    assert sorted(result.labels_b.tolist()) == other_labels.tolist()
    assert result.labels_b.tolist() != other_labels.tolist()
    share = (1 - result.lam).double()
    if mix is cutmix:
        torch.testing.assert_close((mixed == -1).double().mean(), share, rtol=1e-6, atol=1e-7)
    else:
        torch.testing.assert_close(mixed, images - share * (images + 1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_probability_leaves_images_and_labels_alone(mix):
    images, labels = batch(400, 4, 4)
    mixed, result = mix(images, labels, 1.0, seeded(), per_sample=True, p=0.4)
    whole = result.lam == 1
    assert torch.equal(mixed[whole], images[whole])
    # A CutMix box may be empty as well, so more images stay whole.
    assert 0.55 < whole.float().mean() < (0.66 if mix is mixup else 0.95)
    mixed, result = mix(images, labels, 1.0, seeded(), p=0.0)
    assert torch.equal(mixed, images)
    assert result.lam == 1


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_only_used_partners_are_mixed_in(mix):
    images, labels = batch(40)
    used = torch.arange(40) % 3 == 0
    partners = torch.where(used[:, None, None, None], -1.0, 1e9).expand_as(images).double(), labels
    mixed, result = mix(
        images, labels, 1.0, seeded(), partners=partners, per_sample=True, used=used
    )
    _, always = mix(images, labels, 1.0, seeded(), partners=partners, per_sample=True)
    chosen = used[result.labels_b]
    assert torch.equal(result.labels_b, always.labels_b)  # the other draws are as they were
    assert torch.equal(result.lam, torch.where(chosen, always.lam, 1.0))
    assert torch.equal(mixed[~chosen], images[~chosen])
    for decision in (True, False):
        used = torch.full((40,), decision)
        mixed, result = mix(images, labels, 1.0, seeded(), partners=partners, used=used)
        assert torch.equal(mixed, images) != decision
        assert (result.lam < 1) == decision


@BOTH
@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_mixing_is_deterministic_and_keeps_the_layout(mix, per_sample):
    images, labels = batch()
    images = images.contiguous(memory_format=torch.channels_last)
    first, a = mix(images, labels, 1.0, seeded(), per_sample=per_sample)
    second, b = mix(images, labels, 1.0, seeded(), per_sample=per_sample)
    other, _ = mix(images, labels, 1.0, seeded(1), per_sample=per_sample)
    assert torch.equal(first, second)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(first, other)
    assert first.is_contiguous(memory_format=torch.channels_last)


def test_cutmix_takes_uint8_and_mixup_does_not():
    images, labels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.arange(4)
    assert cutmix(images, labels, 1.0, seeded())[0].dtype == torch.uint8
    with pytest.raises(LongTailedError, match="mixup needs float images"):
        mixup(images, labels, 1.0, seeded())


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_alpha_must_be_positive(alpha):
    with pytest.raises(LongTailedError, match="alpha must be above 0"):
        mixup(*batch(), alpha, seeded())


@BOTH
@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_mixing_never_reads_a_value_back(mix, per_sample):
    """Fake tensors have no values: reading one, or a shape that depends on one, fails."""
    with FakeTensorMode():
        images, labels = torch.empty(6, 3, 8, 8), torch.empty(6, dtype=torch.int64)
        used = torch.empty(6, dtype=torch.bool)
        mixed, result = mix(images, labels, 0.2, seeded(), per_sample=per_sample, p=0.5, used=used)
        assert mixed.shape == (6, 3, 8, 8)
        assert soft_targets(*result, num_classes=5).shape == (6, 5)


@BOTH
def test_soft_targets_equal_an_explicit_loop(per_sample):
    first, second = torch.tensor([0, 1, 2, 2]), torch.tensor([3, 1, 0, 2])
    lam = torch.tensor([0.25, 0.5, 1.0, 0.0]) if per_sample else torch.tensor(0.75)
    expected = torch.zeros(4, 5)
    for row in range(4):
        expected[row, first[row]] += lam.expand(4)[row]
        expected[row, second[row]] += 1 - lam.expand(4)[row]
    torch.testing.assert_close(soft_targets(first, second, lam, 5), expected)
