"""Evaluation: figures against scikit-learn or explicit loops, on logits that are looked up."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import nn

from longtailed.data import ImageSet, Splits, View
from longtailed.methods import Method
from longtailed.training.evaluation import evaluate_split

COUNTS = [300, 120, 60, 20, 10, 4, 2]  # training images: 2 classes are many, 2 medium, 3 few
IMAGES = 120


class Lookup(Method):
    """Answers with row i of a table for the image whose pixels are all i."""

    def __init__(self, logits: torch.Tensor, counts: list[int]) -> None:
        super().__init__(nn.Identity(), counts)
        self.logits = logits
        self.modes: list[bool] = []

    def predict(self, images):
        self.modes.append(self.training)
        return self.logits[(images[:, 0, 0, 0] * 255).round().long()]


def numbered_splits(labels, num_classes: int) -> Splits:
    numbers = torch.arange(len(labels), dtype=torch.uint8)
    pixels = numbers[:, None, None, None].repeat(1, 3, 2, 2)
    names = tuple(f"class {c}" for c in range(num_classes))
    sets = {"test": ImageSet(pixels, np.asarray(labels), names)}
    return Splits(sets, {"test": View()}, mean=(0.0,) * 3, std=(1.0,) * 3)


def sample(num_classes: int, absent: int | None = None):
    """Return labels [N] and logits [N, C] that are right about half of the time."""
    generator = np.random.default_rng(3)
    present = [c for c in range(num_classes) if c != absent]
    labels = generator.choice(present, IMAGES)
    logits = generator.normal(0, 1, (IMAGES, num_classes))
    logits[np.arange(IMAGES), labels] += 1.2
    return labels, torch.tensor(logits, dtype=torch.float32)


def evaluate(fabric, labels, logits, counts, batch_size: int = 32):
    splits = numbered_splits(labels, len(counts))
    return evaluate_split(Lookup(logits, counts), splits, "test", fabric, batch_size)


def calibration_error(confidences, hits) -> float:
    error = 0.0
    for b in range(15):
        inside = (confidences > b / 15) & (confidences <= (b + 1) / 15)
        if inside.any():
            gap = abs(hits[inside].mean() - confidences[inside].mean())
            error += inside.mean() * gap
    return float(error)


def test_figures_are_those_of_scikit_learn_and_of_explicit_loops(fabric):
    labels, logits = sample(7)
    result = evaluate(fabric, labels, logits, COUNTS)
    figures = result.figures
    probabilities = logits.softmax(dim=1).numpy().astype(np.float64)
    guesses = logits.argmax(dim=1).numpy()
    recall = sk.recall_score(labels, guesses, average=None)

    assert figures["split"] == "test"
    assert figures["images"] == IMAGES
    assert figures["top1"] == pytest.approx(sk.accuracy_score(labels, guesses))
    assert figures["top5"] == pytest.approx(sk.top_k_accuracy_score(labels, logits.numpy(), k=5))
    assert figures["balanced_accuracy"] == pytest.approx(
        sk.balanced_accuracy_score(labels, guesses)
    )
    assert figures["macro_f1"] == pytest.approx(sk.f1_score(labels, guesses, average="macro"))
    assert figures["harmonic_mean"] == pytest.approx(7 / (1 / recall).sum())
    assert figures["worst_class"] == {
        "class": int(recall.argmin()),
        "accuracy": pytest.approx(recall.min()),
    }
    assert figures["per_class"] == pytest.approx(recall.tolist())
    assert figures["groups"]["many"] == pytest.approx(recall[:2].mean())
    assert figures["groups"]["medium"] == pytest.approx(recall[2:4].mean())
    assert figures["groups"]["few"] == pytest.approx(recall[4:].mean())
    assert figures["groups"]["classes"] == {"many": 2, "medium": 2, "few": 3}
    top = probabilities.max(axis=1)
    assert figures["ece"] == pytest.approx(calibration_error(top, guesses == labels), abs=1e-6)
    errors = [calibration_error(probabilities[:, c], labels == c) for c in range(7)]
    assert figures["classwise_ece"] == pytest.approx(np.mean(errors), abs=1e-6)


def test_predictions_come_in_the_order_of_the_split_for_any_batch_size(fabric):
    labels, logits = sample(7)
    probabilities = logits.softmax(dim=1)
    for batch_size in (7, 120, 512):
        result = evaluate(fabric, labels, logits, COUNTS, batch_size)
        np.testing.assert_array_equal(result.labels, labels)
        np.testing.assert_array_equal(result.predictions, logits.argmax(dim=1).numpy())
        np.testing.assert_allclose(result.confidences, probabilities.amax(dim=1).numpy(), rtol=1e-6)
        assert result.predictions.dtype == np.int64
        assert result.confidences.dtype == np.float32


def test_a_class_without_test_images_is_none_and_not_zero(fabric):
    labels, logits = sample(7, absent=6)
    figures = evaluate(fabric, labels, logits, COUNTS).figures
    assert figures["per_class"][6] is None
    assert None not in figures["per_class"][:6]
    tested = [accuracy for accuracy in figures["per_class"] if accuracy is not None]
    assert figures["balanced_accuracy"] == pytest.approx(np.mean(tested))
    assert figures["groups"]["few"] == pytest.approx(np.mean(tested[4:]))
    assert figures["worst_class"]["class"] != 6
    assert "NaN" not in json.dumps(figures)


def test_a_group_without_test_images_is_none(fabric):
    counts = [300, 50, 5]
    labels, logits = sample(3, absent=2)
    groups = evaluate(fabric, labels, logits, counts).figures["groups"]
    assert groups["few"] is None
    assert groups["classes"] == {"many": 1, "medium": 1, "few": 1}
    assert groups["many"] is not None


def test_top_five_is_none_where_it_says_nothing(fabric):
    for classes, says_something in ((5, False), (6, True)):
        labels, logits = sample(classes)
        top5 = evaluate(fabric, labels, logits, COUNTS[:classes]).figures["top5"]
        assert (top5 is not None) == says_something


@pytest.mark.parametrize("training", [True, False])
def test_the_method_predicts_in_eval_mode_and_gets_its_mode_back(fabric, training):
    labels, logits = sample(7)
    method = Lookup(logits, COUNTS).train(training)
    evaluate_split(method, numbered_splits(labels, 7), "test", fabric, batch_size=32)
    assert method.modes == [False] * 4
    assert method.training is training
    assert method.network.training is training


def test_evaluating_a_network_changes_nothing_in_it(fabric, splits, small_network):
    method = Method(small_network(), [24, 12, 6, 3])
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    result = evaluate_split(method, splits, "test", fabric)
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.state_dict().items())
    np.testing.assert_array_equal(result.labels, splits.imageset("test").labels)


def test_saved_predictions_are_those_of_the_evaluation(fabric, tmp_path):
    labels, logits = sample(7)
    result = evaluate(fabric, labels, logits, COUNTS)
    path = tmp_path / "evaluation-last.npz"
    result.save(path)
    with np.load(path) as saved:
        assert set(saved) == {"labels", "predictions", "confidences"}
        for name in saved:
            np.testing.assert_array_equal(saved[name], getattr(result, name))
            assert saved[name].dtype == getattr(result, name).dtype
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
