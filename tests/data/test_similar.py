"""Similar samples: the reference's images exactly, its generalisations, and bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from longtailed.data import append_similar_samples, make_similar_samples, mix_similar_samples
from longtailed.errors import LongTailedError

GOLDEN = Path(__file__).parents[1] / "golden" / "similar_samples.npz"


@pytest.fixture
def small():
    """Three classes of 7, 4 and 3 images; pixels that tell every image."""
    labels = np.array([0, 1, 0, 2, 0, 1, 0, 2, 0, 1, 0, 2, 0, 1])
    images = np.random.default_rng(0).integers(0, 256, (14, 2, 3), dtype=np.uint8)
    return images, labels


def test_golden_images():
    golden = np.load(GOLDEN)
    labels = np.repeat(np.arange(10), golden["counts_0"])
    before, seed = golden["images_before_0"], int(golden["seed_0"])
    kept = before.copy()
    after = make_similar_samples(before, labels, 0, 9, float(golden["p_0"]), seed=seed)
    np.testing.assert_array_equal(after, golden["images_after_0"])
    np.testing.assert_array_equal(before, kept)
    changed = np.flatnonzero((after != before).any(axis=(1, 2, 3)))
    np.testing.assert_array_equal(changed, golden["changed_index_0"])


def test_every_pixel_against_a_loop(small):
    images, labels = small
    random = np.random.RandomState(5)
    heads, tails = np.flatnonzero(labels == 0), np.flatnonzero(labels == 2)
    random.shuffle(heads)
    random.shuffle(tails)
    expected = images.copy()
    for i in range(5):  # int(0.75 * 7); the three tail images come round again
        mixed = 0.3 * images[heads[i]].astype(float) + 0.7 * images[tails[i % 3]]
        expected[heads[i]] = np.rint(mixed)
    found = make_similar_samples(images, labels, 0, 2, 0.75, 0.3, seed=5, rounding="round")
    np.testing.assert_array_equal(found, expected)


def test_weights_at_their_ends(small):
    images, labels = small
    for fraction, head_weight in ((0.0, 0.2), (1.0, 1.0)):
        same = make_similar_samples(images, labels, 0, 2, fraction, head_weight)
        np.testing.assert_array_equal(same, images)
    tails = {image.tobytes() for image in images[labels == 2]}
    only_tail = make_similar_samples(images, labels, 0, 2, 1.0, head_weight=0.0)
    assert {image.tobytes() for image in only_tail[labels == 0]} == tails


def test_appended_images_leave_the_genuine_ones(small):
    images, labels = small
    more, more_labels = append_similar_samples(images, labels, 0, 2, 0.5)
    rows, mixed = mix_similar_samples(images, labels, 0, 2, 0.5)
    assert len(rows) == 3
    np.testing.assert_array_equal(more[:14], images)
    np.testing.assert_array_equal(more[14:], mixed)
    np.testing.assert_array_equal(more_labels, np.append(labels, [0, 0, 0]))


def test_several_head_classes_share_the_tail_images_evenly(small):
    images, labels = small
    rows, mixed = mix_similar_samples(images, labels, [0, 1], 2, 0.5, head_weight=0.0)
    assert labels[rows].tolist() == [0, 0, 0, 1, 1]
    uses = [
        sum(image.tobytes() == tail.tobytes() for image in mixed) for tail in images[labels == 2]
    ]
    assert sorted(uses) == [1, 2, 2]


def test_classes_may_be_numpy_numbers(small):
    images, labels = small
    found = make_similar_samples(images, labels, labels.min(), labels.max(), 0.5)
    np.testing.assert_array_equal(found, make_similar_samples(images, labels, 0, 2, 0.5))


def test_noise_is_a_control_with_the_same_head_images(small):
    images, labels = small
    rows, mixed = mix_similar_samples(images, labels, 0, "noise", 1.0, seed=3)
    again = mix_similar_samples(images, labels, 0, "noise", 1.0, seed=3)
    np.testing.assert_array_equal(rows, mix_similar_samples(images, labels, 0, 2, 1.0, seed=3).rows)
    np.testing.assert_array_equal(mixed, again.images)
    assert len({image.tobytes() for image in mixed}) == len(rows)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fraction": 1.5}, "fraction of similar samples must be in 0..1; it is 1.5"),
        ({"head_weight": -0.1}, "head_weight of similar samples must be"),
        ({"tail_class": 0}, "mix one or more different head classes with another class"),
        ({"head_class": []}, "mix one or more different head classes"),
        ({"head_class": [0, 0]}, "mix one or more different head classes"),
        ({"tail_class": 3}, "class 3 has no images"),
        ({"tail_class": "tail"}, "a number or 'noise'; it is 'tail'"),
        ({"rounding": "up"}, "unknown rounding 'up'"),
        ({"labels": np.zeros(3, np.int64)}, "need uint8 images and one label for each"),
        ({"images": np.zeros((14, 2))}, "need uint8 images"),
    ],
)
def test_bad_input_is_one_sentence(small, changes, message):
    images, labels = small
    given = {"images": images, "labels": labels, "head_class": 0, "tail_class": 2, "fraction": 0.5}
    with pytest.raises(LongTailedError, match=message):
        make_similar_samples(**{**given, **changes})
