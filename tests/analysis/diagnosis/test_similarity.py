"""Similarity statistics against explicit loops and known answers; nothing is ever NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from longtailed.analysis.diagnosis import (
    confusion_similarity,
    gaussian_overlap,
    head_leakage,
    look_alike_share,
    mean_cosine,
    nearest_images,
    nearest_means,
)
from longtailed.analysis.diagnosis import similarity as module
from longtailed.errors import LongTailedError


def random_features(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Five classes of unequal size; class 2 is absent and class 4 has one image."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0] * 9 + [1] * 5 + [3] * 4 + [4])
    features = torch.randn(len(labels), 6, generator=generator, dtype=torch.float64)
    return features + labels[:, None] * 0.5, labels


def test_mean_cosine_is_that_of_the_means():
    features, labels = random_features()
    found = mean_cosine(features, labels, 5)
    means = {c: features[labels == c].mean(dim=0) for c in (0, 1, 3, 4)}
    for i, a in means.items():
        for j, b in means.items():
            expected = float(a @ b / (a.norm() * b.norm()))
            assert found[i, j].item() == pytest.approx(expected, abs=1e-12)
    assert found[2].eq(0).all()
    assert found[:, 2].eq(0).all()


def test_centred_cosine_ignores_what_all_classes_share():
    features, labels = random_features()
    shifted = mean_cosine(features + 100, labels, 5, centred=True)
    torch.testing.assert_close(shifted, mean_cosine(features, labels, 5, centred=True))
    assert mean_cosine(features + 100, labels, 5)[0, 1] > 0.99


def test_confusion_similarity_and_leakage():
    confusion = torch.tensor([[8, 2, 0], [3, 1, 0], [0, 0, 0]])
    found = confusion_similarity(confusion)
    assert found[0, 1].item() == pytest.approx((0.2 + 0.75) / 2)
    torch.testing.assert_close(found, found.T)
    assert found[2].eq(0).all()
    leakage = head_leakage(confusion, torch.tensor([100, 5, 5]))
    assert leakage.tolist() == [[0, 0, 0], [0.75, 0, 0], [0, 0, 0]]


def test_gaussian_overlap_is_that_of_the_normal_distribution():
    features, labels = random_features()
    found = gaussian_overlap(features, labels, 5)
    for i, j in ((0, 1), (1, 0), (0, 3)):
        a, b = features[labels == i], features[labels == j]
        line = a.mean(dim=0) - b.mean(dim=0)
        distance = line.norm()
        s = [float((x @ line / distance).std()) for x in (a, b)]
        assert found[i, j].item() == pytest.approx(2 * norm.cdf(-distance / sum(s)), abs=1e-12)
    assert found[0, 0] == 1
    assert found[2].eq(0).all()
    assert bool(found.isfinite().all())


def test_overlap_with_a_single_image_takes_the_spread_of_the_other():
    features = torch.tensor([[0.0], [2.0], [4.0]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1])  # mean 1, s sqrt(2); mean 4 from one image
    expected = 2 * norm.cdf(-3 / (2 * math.sqrt(2)))
    assert gaussian_overlap(features, labels, 2)[0, 1].item() == pytest.approx(expected)


def test_features_without_spread_are_defined():
    same = torch.ones(6, 3)
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    assert gaussian_overlap(same, labels, 2).tolist() == [[1, 1], [1, 1]]
    apart = same.clone()
    apart[3:] += 1
    assert gaussian_overlap(apart, labels, 2).tolist() == [[1, 0], [0, 1]]
    for values in (mean_cosine(same, labels, 2, centred=True), mean_cosine(0 * same, labels, 2)):
        assert bool(values.isfinite().all())
    assert bool(nearest_images(same, 2)[1].isfinite().all())


def test_nearest_mean_leaves_the_image_out():
    features, labels = random_features(3)
    found = nearest_means(features, labels, 5)
    unit = torch.nn.functional.normalize(features - features.mean(dim=0), dim=1)
    for row, own in enumerate(labels.tolist()):
        distances = {}
        for c in (0, 1, 3, 4):
            members = (labels == c) & (torch.arange(len(labels)) != row)
            if members.any():
                distances[c] = float((unit[row] - unit[members].mean(dim=0)).norm())
        expected = min(distances, key=distances.__getitem__) if own != 4 else 4
        assert found[row].item() == expected


def test_blocks_change_nothing(monkeypatch):
    features, labels = random_features(5)
    whole = (
        gaussian_overlap(features, labels, 5),
        nearest_means(features, labels, 5),
        *nearest_images(features, 3),
    )
    monkeypatch.setattr(module, "BLOCK", 4)
    monkeypatch.setattr(module, "QUERIES", 3)
    parts = (
        gaussian_overlap(features, labels, 5),
        nearest_means(features, labels, 5),
        *nearest_images(features, 3),
    )
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b)


def test_nearest_images_are_others():
    features, _ = random_features(7)
    places, cosines = nearest_images(features, 3)
    unit = torch.nn.functional.normalize(features - features.mean(dim=0), dim=1).numpy()
    full = unit @ unit.T
    np.fill_diagonal(full, -np.inf)
    assert places.tolist() == np.argsort(-full, axis=1)[:, :3].tolist()
    assert bool((cosines[:, :-1] >= cosines[:, 1:]).all())
    assert nearest_images(features[:2], 5)[0].shape == (2, 1)


def test_look_alike_share_counts_an_image_once_for_a_class():
    labels = torch.tensor([0, 0, 0, 0, 1])
    looks = torch.tensor([[0, 0], [1, 1], [1, 0], [2, 1], [1, 1]])
    found = look_alike_share(looks, labels, 3)
    assert found.tolist() == [[0.25, 0, 0], [0.75, 1, 0], [0.25, 0, 0]]


@pytest.mark.parametrize(
    ("features", "labels"),
    [
        (torch.zeros(2, 3), torch.tensor([0])),
        (torch.zeros(2), torch.tensor([0, 1])),
        (torch.zeros(2, 3), torch.tensor([0, 7])),
        (torch.tensor([[1.0, math.nan], [0, 1]]), torch.tensor([0, 1])),
    ],
)
def test_bad_features_are_refused(features, labels):
    with pytest.raises(LongTailedError):
        mean_cosine(features, labels, 2)
