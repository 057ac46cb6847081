from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from longtailed.errors import LongTailedError
from longtailed.losses import semantic_mix_labels, semantic_weights

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "concutmix_soft_label.npz")
CASES = [case for case in range(9) if f"label_{case}" in GOLDEN.files]
COUNTS = [40, 9, 3, 1]


def example():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    prototypes = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    area = torch.rand(5, 4, generator=generator, dtype=torch.float64)
    return features, prototypes, area / area.sum(1, keepdim=True)


@pytest.mark.parametrize("case", CASES)
def test_equals_the_golden_labels(case):
    a, b = GOLDEN[f"scaling_factor_{case}"].tolist()
    given = [torch.tensor(GOLDEN[f"{n}_{case}"]) for n in ("features", "centers", "area_label")]
    counts, top_k = GOLDEN[f"cls_num_{case}"], int(GOLDEN[f"topk_{case}"])
    labels = semantic_mix_labels(*given, counts, a / b, top_k)
    np.testing.assert_allclose(labels, GOLDEN[f"label_{case}"], rtol=1e-4, atol=1e-6)
    weights = semantic_weights(given[2], counts, a / b)
    np.testing.assert_allclose(weights, GOLDEN[f"mix_weight_{case}"], rtol=1e-5)


@pytest.mark.parametrize("normalizer", ["sum", "mean", "max"])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("top_k", [1, 3, 4])
def test_equals_an_explicit_loop(normalizer, normalized, top_k):
    features, prototypes, area = example()
    labels = semantic_mix_labels(
        features, prototypes, area, COUNTS, 0.4, top_k, normalizer=normalizer, normalized=normalized
    )
    logs = [math.log(n) for n in COUNTS]
    divisor = {"sum": sum(logs), "mean": sum(logs) / 4, "max": max(logs)}[normalizer]

    def direction(vector):
        length = math.sqrt(sum(v * v for v in vector)) if normalized else 1
        return [v / length for v in vector]

    for z, t, label in zip(features.tolist(), area.tolist(), labels.tolist(), strict=True):
        near = [1 / math.dist(direction(z), direction(p)) for p in prototypes.tolist()]
        near = [e if e >= sorted(near)[-top_k] else 0.0 for e in near]
        weight = (
            0.4 * math.log(sum(n * share for n, share in zip(COUNTS, t, strict=True))) / divisor
        )
        expected = [
            weight * e / sum(near) + (1 - weight) * share for e, share in zip(near, t, strict=True)
        ]
        assert label == pytest.approx(expected, rel=1e-9)


def test_all_classes_at_the_same_distance_are_kept():
    axes = torch.eye(4)
    prototypes = torch.cat((axes, -axes[:2]))
    area = torch.full((1, 6), 1 / 6)
    labels = semantic_mix_labels(torch.zeros(1, 4), prototypes, area, [9] * 6, 1.0, 3)
    torch.testing.assert_close(labels, area)
    prototypes[5] *= 2  # only this one is farther away than the third-nearest
    weight = semantic_weights(area, [9] * 6, 1.0)[0]
    labels = semantic_mix_labels(torch.zeros(1, 4), prototypes, area, [9] * 6, 1.0, 3)
    torch.testing.assert_close(labels[0, 5], (1 - weight) / 6)


def test_an_image_on_a_prototype_looks_like_that_class_alone():
    _, prototypes, area = example()
    labels = semantic_mix_labels(
        prototypes[1:2].float(), prototypes.float(), area[:1], COUNTS, 0.5, 4, normalizer="max"
    )
    weight = semantic_weights(area[:1], COUNTS, 0.5, "max")[0]
    expected = (1 - weight) * area[0]
    expected[1] += weight
    torch.testing.assert_close(labels[0], expected)


def test_more_neighbours_than_classes_means_all_classes():
    features, prototypes, area = example()
    every = semantic_mix_labels(features, prototypes, area, COUNTS, 0.3, 4)
    assert torch.equal(semantic_mix_labels(features, prototypes, area, COUNTS, 0.3, 400), every)


def test_omega_zero_gives_the_area_labels():
    features, prototypes, area = example()
    assert torch.equal(semantic_mix_labels(features, prototypes, area, COUNTS, 0, 2), area)


def test_a_weight_above_one_makes_labels_negative_unless_it_is_clamped():
    features, prototypes, area = example()
    published = semantic_mix_labels(features, prototypes, area, COUNTS, 50, 2)
    assert published.min() < 0
    clamped = semantic_mix_labels(features, prototypes, area, COUNTS, 50, 2, clamp=True)
    assert 0 <= clamped.min() <= clamped.max() <= 1
    for labels in (published, clamped):
        torch.testing.assert_close(labels.sum(1), torch.ones(5, dtype=torch.float64))


def test_with_the_maximum_the_weight_runs_up_to_omega():
    pure = torch.eye(4)
    weights = semantic_weights(pure, COUNTS, 0.3, "max")
    assert weights.tolist() == pytest.approx([0.3 * math.log(n) / math.log(40) for n in COUNTS])


@pytest.mark.parametrize("counts", [[1, 1, 1, 1], [7, 0, 3, 0]])
def test_single_images_and_absent_classes_give_no_nan(counts):
    features, prototypes, area = (tensor.float() for tensor in example())
    for kind in ("sum", "mean", "max"):
        labels = semantic_mix_labels(features, prototypes, area, counts, 0.5, 2, normalizer=kind)
        assert bool(labels.isfinite().all())
        assert 0 <= labels.min() <= labels.max() <= 1
    if max(counts) == 1:
        torch.testing.assert_close(labels, area)


def test_nothing_has_a_gradient_and_autocast_changes_nothing():
    features, prototypes, area = (tensor.float().requires_grad_() for tensor in example())
    labels = semantic_mix_labels(features, prototypes, area, COUNTS, 0.5, 2)
    assert not labels.requires_grad
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = semantic_mix_labels(features, prototypes, area, COUNTS, 0.5, 2)
    assert torch.equal(labels, again)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"omega": -0.1}, "omega must be finite and not negative; it is -0.1"),
        ({"omega": math.inf}, "omega must be finite and not negative; it is inf"),
        ({"top_k": 0}, "top_k must be at least 1; it is 0"),
        ({"normalizer": "sums"}, "unknown normalizer of the semantic weight 'sums'.* 'sum'"),
        ({"prototypes": torch.zeros(4, 2)}, r"must have the shapes \[N, d\] and \[C, d\]"),
        ({"area_labels": torch.zeros(5, 3)}, r"area_labels must have the shape \[5, 4\]"),
        ({"class_counts": [1, 2]}, "class_counts must be 4 numbers"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(changes, message):
    features, prototypes, area = example()
    given = {"features": features, "prototypes": prototypes, "area_labels": area}
    given |= {"class_counts": COUNTS, "omega": 0.1, "top_k": 2, **changes}
    with pytest.raises(LongTailedError, match=message) as caught:
        semantic_mix_labels(**given)
    assert "\n" not in str(caught.value)
