"""Evaluation: one ordered pass over a split, and every figure that a report shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import Tensor

from longtailed.data import Splits
from longtailed.errors import LongTailedError
from longtailed.methods import Method
from longtailed.metrics.calibration import CalibrationBins
from longtailed.metrics.shots import (
    Grouping,
    balanced_accuracy,
    harmonic_mean_accuracy,
    macro_f1,
    shot_accuracy,
    worst_class,
)
from longtailed.training.capture import Replayed
from longtailed.training.checkpoint import write_atomically
from longtailed.training.features import FeatureStore, pass_batch_size

TOP_K = 5


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Predictions on a split with the figures computed from them.

    `labels`, `predictions` int64 [N] and `confidences` float32 [N] are in the split's order;
    `figures` is what results.json holds (fractions in 0..1, None for what is absent, and the names
    of the classes without images, which no figure covers).
    """

    labels: npt.NDArray[np.int64]
    predictions: npt.NDArray[np.int64]
    confidences: npt.NDArray[np.float32]
    figures: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write the predictions as a compressed .npz file."""
        write_atomically(
            path,
            lambda file: np.savez_compressed(
                file,
                labels=self.labels,
                predictions=self.predictions,
                confidences=self.confidences,
            ),
        )


def evaluate_split(
    method: Method,
    splits: Splits,
    split: str,
    fabric: Fabric,
    batch_size: int | None = None,
    groups: Grouping = "auto",
    features: FeatureStore | None = None,
) -> Evaluation:
    """Return the evaluation of a method on a split (see `Evaluator`)."""
    return Evaluator(method, splits, split, fabric, batch_size, groups, features=features)()


class Evaluator:
    """Evaluates a method on a split, again and again; several processes share each pass.

    `groups` says how classes are grouped by size (see `metrics.class_groups`). The method is left
    in the mode (training or not) that it was in. Nothing is read from the device before the end
    of a pass. With `captured`, batches run as CUDA graphs. A graph sees new weights, but it repeats
    the operations that were recorded: a `predict` with an `if` whose outcome changes would be
    wrong. With `features`, a method on a frozen backbone classifies the features that are kept
    there, so images are read once and not in each pass.

    The default batch is `pass_batch_size`. Raises `LongTailedError` if a prediction is NaN.
    """

    def __init__(
        self,
        method: Method,
        splits: Splits,
        split: str,
        fabric: Fabric,
        batch_size: int | None = None,
        groups: Grouping = "auto",
        captured: bool = False,
        features: FeatureStore | None = None,
    ) -> None:
        self.method, self.splits, self.split, self.fabric = method, splits, split, fabric
        self.labels, self.groups = splits.imageset(split).labels, groups
        self.class_names = splits.imageset(split).class_names
        self.store = features if method.frozen_backbone else None
        self.features: Tensor | None = None
        total, device = len(self.labels), fabric.device
        self.batch_size = batch_size or pass_batch_size(splits.imageset(split), device)
        self.feed = splits.open_scan(
            split,
            self.batch_size,
            "test" if self.store is None else None,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
        )
        self.predictions = torch.zeros(total, dtype=torch.int64, device=device)
        self.confidences = torch.zeros(total, device=device)
        self.hits = torch.zeros(total, dtype=torch.uint8, device=device)
        self.bins = CalibrationBins(len(method.class_counts), device=device)
        self.captured = captured
        self.replayed = Replayed([self.feed.generator], what="evaluation batches")

    def __call__(self) -> Evaluation:
        """Return the evaluation of the method as it is now."""
        for tensor in self._sums():
            tensor.zero_()
        if self.store is not None:
            self.features = self.store.of(self.method.network, self.split)
        was_training = self.method.training
        self.method.eval()
        try:
            with torch.no_grad():
                for draw in self.feed.ordered_draws():
                    self.feed.generator.manual_seed(draw.seed)
                    if self.captured:
                        self.replayed(self._score, draw.tensors)
                    else:
                        self._score(draw.tensors)
        finally:
            self.method.train(was_training)
        if self.fabric.world_size > 1:
            for tensor in self._sums():  # every process has filled in its share of the images
                tensor.copy_(cast(Tensor, self.fabric.all_reduce(tensor, reduce_op="sum")))
        predictions, confidences = self.predictions.cpu().numpy(), self.confidences.cpu().numpy()
        hits = self.hits.cpu().numpy().astype(np.bool_)
        bad = int(np.count_nonzero(~np.isfinite(confidences)))
        if bad:
            raise LongTailedError(
                f"{bad} of {len(confidences)} predictions on the {self.split} split are NaN: the "
                "network's output overflows or its weights are not finite; precision=32 or a "
                "lower learning rate may help."
            )
        counts, names = self.method.class_counts.tolist(), self.class_names
        figures = _figures(self.labels, predictions, hits, counts, self.bins, self.groups)
        figures["classes_without_images"] = [
            name for name, value in zip(names, figures["per_class"], strict=True) if value is None
        ]
        return Evaluation(self.labels, predictions, confidences, {"split": self.split, **figures})

    def _sums(self) -> list[Tensor]:
        return [self.predictions, self.confidences, self.hits, *self.bins.sums()]

    def _score(self, inputs: tuple[Tensor, ...]) -> None:
        """Predict one batch and note the outcome at its images' places."""
        batch = self.feed.prepare(inputs)
        with self.fabric.autocast():
            if self.features is None:
                logits = self.method.predict(batch.images[0])
            else:
                logits = self.method.classify(self.features[batch.index])
        probabilities = logits.float().softmax(dim=1)
        self.bins.update(probabilities, batch.labels)
        top = probabilities.topk(min(TOP_K, probabilities.shape[1]), dim=1)
        hit = (top.indices == batch.labels[:, None]).any(dim=1)
        self.predictions[batch.index] = probabilities.argmax(dim=1)
        self.confidences[batch.index] = probabilities.amax(dim=1)
        self.hits[batch.index] = hit.to(torch.uint8)


def _figures(
    labels: npt.NDArray[np.int64],
    predictions: npt.NDArray[np.int64],
    hits: npt.NDArray[np.bool_],
    counts: list[int],
    bins: CalibrationBins,
    groups: Grouping,
) -> dict[str, Any]:
    classes = len(counts)
    guesses, truth = torch.from_numpy(predictions), torch.from_numpy(labels)
    shots = shot_accuracy(guesses, truth, counts, groups=groups)
    worst, worst_accuracy = worst_class(guesses, truth, classes)
    return {
        "images": len(labels),
        "top1": shots.overall,
        "top5": float(hits.mean()) if classes > TOP_K else None,
        "balanced_accuracy": balanced_accuracy(guesses, truth, classes),
        "macro_f1": macro_f1(guesses, truth, classes),
        "harmonic_mean": harmonic_mean_accuracy(guesses, truth, classes),
        "worst_class": {"class": worst, "accuracy": worst_accuracy},
        "groups": {
            "rule": shots.rule,
            **{name: _present(getattr(shots, name)) for name in ("many", "medium", "few")},
            "classes": {n: len(getattr(shots.groups, n)) for n in ("many", "medium", "few")},
        },
        "ece": bins.top_label_error(),
        "classwise_ece": bins.classwise_error(),
        "per_class": [_present(value) for value in shots.per_class.tolist()],
    }


def _present(value: float) -> float | None:
    """Return None for a figure that does not exist (NaN), which JSON cannot say otherwise."""
    return None if math.isnan(value) else value
