"""Parts of the error on constructed features: exact expectations, and the two known causes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from longtailed.analysis.diagnosis import (
    divide_error,
    equal_decision,
    nearest_images,
    nearest_means,
    vote_of_neighbours,
    wrong_neighbours,
)

CLASSES = 3


def clouds(counts: list[int], seed: int, spread: float = 0.25) -> tuple[torch.Tensor, torch.Tensor]:
    """Three classes around the corners of a triangle in the first two of four dimensions."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.tensor([[2.0, 0, 0, 0], [-1, 1.7, 0, 0], [-1, -1.7, 0, 0]])
    labels = torch.repeat_interleave(torch.arange(CLASSES), torch.tensor(counts))
    return corners[labels] + spread * torch.randn(len(labels), 4, generator=generator), labels


def test_an_image_among_look_alikes_has_excess_one_and_chance_is_taken_off():
    # Class 0 has four genuine images at 0 and, at 9, four look-alikes of class 1.
    features = torch.tensor(
        [[0.0, 0], [0, 1], [0, 2], [0, 3], [9, 0], [9, 1], [9, 2], [9, 3], [20, 1]]
    )
    labels = torch.tensor([0] * 8 + [1])
    looks = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1])
    queries = torch.tensor([[10.0, 1.5], [0.0, 1.5], [20.0, 1]])
    truth, predicted = torch.tensor([1, 1, 1]), torch.tensor([0, 0, 1])
    found = wrong_neighbours(features, labels, looks, queries, truth, predicted, 2, k=4)
    assert found.images.tolist() == [0, 1]
    assert found.excess.tolist() == [1.0, -1.0]  # (1 - 1/2) / (1 - 1/2), (0 - 1/2) / (1 - 1/2)
    assert sorted(found.nearest[0].tolist()) == [4, 5, 6, 7]
    assert found.alike.tolist() == [[True] * 4, [False] * 4]


def test_excess_is_defined_where_all_images_look_alike_or_few_are_there():
    features, labels = torch.tensor([[0.0, 1], [1, 0]]), torch.tensor([0, 1])
    looks = torch.tensor([1, 1])
    found = wrong_neighbours(
        features, labels, looks, torch.tensor([[1.0, 0], [0.0, 1]]), torch.tensor([1, 1]),
        torch.tensor([0, 2]), 3, k=5,
    )  # fmt: skip
    assert found.excess.tolist() == [0, 0]  # all of class 0 look alike; class 2 has no image
    assert found.nearest[0].tolist() == [0, -1, -1, -1, -1]
    assert found.nearest[1].tolist() == [-1] * 5


def test_parts_add_up_and_count_what_equal_weights_lose():
    features, labels = clouds([6, 6, 6], 0)
    truth = torch.tensor([0] * 4 + [1] * 4)
    predictions = torch.tensor([1, 1, 0, 0, 1, 1, 1, 0])
    equal = torch.tensor([0, 1, 0, 1, 1, 1, 1, 1])
    neighbours = wrong_neighbours(
        features, labels, labels, features[:8], truth, predictions, CLASSES
    )
    parts = divide_error(truth, predictions, equal, neighbours, CLASSES)
    assert parts.error.tolist() == [0.5, 0.25, 0]
    assert parts.scarcity.tolist() == [0, 0.25, 0]  # class 0: one won, one lost
    assert parts.similarity.tolist() == [0, 0, 0]
    assert parts.rest.tolist() == [0.5, 0, 0]
    assert parts.wrong.tolist() == [2, 1, 0]
    assert bool(np.isfinite(parts.intervals).all())
    low, high = parts.intervals[0, 0]
    assert 0 <= low <= 0.5 <= high <= 1


def test_intervals_are_those_of_the_binomial_distribution():
    truth = torch.zeros(400, dtype=torch.int64)
    predictions = (torch.arange(400) % 4 == 0).long()  # a quarter wrong
    features, labels = clouds([3, 3, 3], 0)
    neighbours = wrong_neighbours(
        features, labels, labels, torch.zeros(400, 4), truth, predictions, CLASSES
    )
    parts = divide_error(truth, predictions, predictions, neighbours, CLASSES, resamples=4000)
    deviation = (0.25 * 0.75 / 400) ** 0.5
    expected = [0.25 - 1.96 * deviation, 0.25 + 1.96 * deviation]
    assert parts.intervals[0, 0] == pytest.approx(expected, abs=0.006)


def test_equal_decision_ignores_counts_and_never_names_an_absent_class():
    features, labels = clouds([300, 3, 0], 1)
    queries, truth = clouds([50, 50, 0], 2)
    found = equal_decision(features, labels, queries, CLASSES)
    assert (found == truth).all()
    shifted = equal_decision(features * 3 + 7, labels, queries * 3 + 7, CLASSES)
    assert torch.equal(found, shifted)
    one = equal_decision(torch.zeros(2, 4), torch.tensor([0, 1]), torch.zeros(3, 4), CLASSES)
    assert one.max() < 2


def biased(features: torch.Tensor, bias: float) -> torch.Tensor:
    """Return predictions by nearest corner, with a bias against class 2."""
    corners = torch.tensor([[2.0, 0, 0, 0], [-1, 1.7, 0, 0], [-1, -1.7, 0, 0]])
    scores = -torch.cdist(features, corners)
    scores[:, 2] -= bias
    return scores.argmax(dim=1)


def test_a_decision_against_the_rare_class_is_scarcity():
    features, labels = clouds([100, 100, 5], 3)
    queries, truth = clouds([200, 200, 200], 4, spread=0.8)
    looks = torch.stack([nearest_means(features, labels, CLASSES), labels], dim=1)
    predictions, equal = biased(queries, 2.5), equal_decision(features, labels, queries, CLASSES)
    neighbours = wrong_neighbours(features, labels, looks, queries, truth, predictions, CLASSES)
    parts = divide_error(truth, predictions, equal, neighbours, CLASSES)
    assert parts.scarcity[2] > 0.8 * parts.error[2] > 0.2
    assert abs(parts.similarity[2]) < 0.02


def test_look_alikes_in_one_class_are_similarity_to_that_class():
    """Half of class 0 lies where class 2 is, labelled 0; the decision learnt from it errs there."""
    features, labels = clouds([100, 100, 100], 5)
    mixed, _ = clouds([0, 0, 50], 6)
    features[:50] = mixed + 0.1
    queries, truth = clouds([0, 0, 200], 7)
    # A classifier that learnt the labels by heart answers with the nearest training image.
    predictions = labels[torch.cdist(queries, features).argmin(dim=1)]
    looks = torch.stack([nearest_means(features, labels, CLASSES), labels], dim=1)
    # The neutral description shows what the images are.
    looks[:50, 1] = 2
    neighbours = wrong_neighbours(features, labels, looks, queries, truth, predictions, CLASSES)
    equal = equal_decision(features, labels, queries, CLASSES)
    parts = divide_error(truth, predictions, equal, neighbours, CLASSES)
    assert parts.error[2] > 0.1
    assert parts.similarity[2] == pytest.approx(parts.error[2])
    assert parts.towards[2].tolist() == [parts.similarity[2], 0, 0]
    assert parts.scarcity[2] <= 0


def test_votes_of_neighbours_leave_the_image_out():
    features = torch.tensor([[1.0, 0], [1, 0.1], [1, -0.1], [-1, 0], [-1, 0.1]])
    labels = torch.tensor([0, 0, 1, 1, 1])
    places, cosines = nearest_images(features, 2)
    found = vote_of_neighbours(places, cosines, labels, 2)
    assert found[2] == 0  # between two images of class 0
    assert found[3:].tolist() == [1, 1]


def test_a_thousand_classes_and_many_images_stay_small():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 1000, (5_000,), generator=generator)
    features = torch.randn(5_000, 16, generator=generator)
    predictions = torch.randint(0, 1000, (500,), generator=generator)
    looks = nearest_means(features, labels, 1000)
    neighbours = wrong_neighbours(
        features, labels, looks, features[:500], labels[:500], predictions, 1000
    )
    parts = divide_error(labels[:500], predictions, predictions, neighbours, 1000, resamples=50)
    assert parts.towards.shape == (1000, 1000)
    assert bool(np.isfinite(parts.rest).all())


def test_an_image_left_out_does_not_make_look_alikes_of_its_own_neighbours():
    """Labels drawn by lot: nothing lies anywhere for a reason, so similarity is 0 on average."""
    excess = []
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        features = torch.randn(320, 8, generator=generator)
        labels = torch.tensor([0] * 200 + [1] * 100 + [2] * 20)
        places, cosines = nearest_images(features, 5)
        found = vote_of_neighbours(places, cosines, labels, CLASSES)
        looks = labels[places[:, 0]]
        near = wrong_neighbours(
            features, labels, looks, features, labels, found, CLASSES, nearest=places[:, :2]
        )
        excess.append(near.excess[labels[near.images] == 2].mean().item())
    assert abs(np.mean(excess)) < 0.08  # 0.14 where the query counts


def test_leaving_the_query_out_agrees_with_doing_it_all_again():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(60, 3, generator=generator), torch.arange(60) % CLASSES
    places, cosines = nearest_images(features, 5)
    found = vote_of_neighbours(places, cosines, labels, CLASSES)
    near = wrong_neighbours(
        features, labels, labels[places[:, 0]], features, labels, found, CLASSES,
        nearest=places[:, :2],
    )  # fmt: skip
    unit = torch.nn.functional.normalize(features - features.mean(dim=0), dim=1)
    cosine = (unit @ unit.T).fill_diagonal_(-2)
    for row, image in enumerate(near.images.tolist()):
        others = cosine.clone()
        others[:, image] = -2
        looks = labels[others.argmax(dim=1)] == labels[image]
        members = torch.nonzero(labels == found[image]).flatten()
        share = looks[near.nearest[row]].double().mean().item()
        chance = looks[members].double().mean().item()
        expected = 0 if chance == 1 else (share - chance) / (1 - chance)
        assert near.excess[row].item() == pytest.approx(expected)
        assert near.alike[row].tolist() == looks[near.nearest[row]].tolist()


def test_no_image_counts_for_more_than_itself():
    """Nine of ten images of class 0 look like class 1, and the nearest does not."""
    features = torch.cat([torch.zeros(1, 2), torch.full((9, 2), 9.0), torch.tensor([[-9.0, 3]])])
    labels, looks = torch.tensor([0] * 10 + [1]), torch.tensor([0] + [1] * 10)
    near = wrong_neighbours(
        features, labels, looks, torch.zeros(1, 2), torch.tensor([1]), torch.tensor([0]), 2, k=1
    )
    assert near.excess.tolist() == pytest.approx([-1])  # and not (0 - 0.9) / (1 - 0.9)
