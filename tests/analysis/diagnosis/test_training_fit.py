"""How well a network fits its training images, by its predictions and by its features."""

from __future__ import annotations

import pytest
import torch

from longtailed.analysis.diagnosis.training_fit import training_fit


def test_accuracy_and_neighbour_error_are_means_over_classes():
    # Class 0: nine images together. Class 1: two together, and one among those of class 0.
    features = torch.tensor([[1.0, 0.02 * i] for i in range(9)] + [[-1, 0], [-1, 0.1], [1, 0.07]])
    labels = torch.tensor([0] * 9 + [1] * 3)
    predictions = torch.tensor([0] * 6 + [1] * 3 + [1, 1, 0])
    fit = training_fit(features, predictions, labels, 3)
    assert fit.accuracy == pytest.approx((6 / 9 + 2 / 3) / 2)  # the third class has no images
    unit = torch.nn.functional.normalize(features - features.mean(dim=0), dim=1)
    cosines = (unit @ unit.T).fill_diagonal_(-2)
    wrong = labels[cosines.argmax(dim=1)] != labels
    assert fit.neighbour_error == pytest.approx(
        (wrong[:9].float().mean() + wrong[9:].float().mean()).item() / 2
    )
    assert 0 < fit.neighbour_error < 0.5
    assert (fit.images, fit.sampled) == (12, 12)


def test_large_sets_are_sampled_evenly_and_a_lone_image_has_no_neighbour():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 500 + [1] * 30 + [2])
    features = torch.randn(len(labels), 4, generator=generator) + 20 * torch.eye(4)[labels]
    fit = training_fit(features, labels, labels, 3, sample=150)
    assert (fit.images, fit.sampled) == (531, 50 + 30)
    assert (fit.accuracy, fit.neighbour_error) == (1, 0)
    assert not fit.too_short
    alone = training_fit(features[[0, 500]], labels[[0, 500]], labels[[0, 500]], 3)
    assert (alone.sampled, alone.neighbour_error, alone.too_short) == (0, 1, False)
