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

from longtailed.calibration import CalibrationBins
from longtailed.checkpoint import write_atomically
from longtailed.data import Splits
from longtailed.methods import Method
from longtailed.metrics import (
    Grouping,
    balanced_accuracy,
    harmonic_mean_accuracy,
    macro_f1,
    shot_accuracy,
    worst_class,
)

TOP_K = 5


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Predictions on a split with the figures computed from them.

    `labels`, `predictions` int64 [N] and `confidences` float32 [N] are in the split's order;
    `figures` is what results.json holds (fractions in 0..1, None for what is absent).
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
    batch_size: int = 512,
    groups: Grouping = "auto",
) -> Evaluation:
    """Return the evaluation of a method on a split; the processes share the pass.

    `groups` says how classes are grouped by size (see `metrics.class_groups`).

    The method is left in the mode (training or not) that it was in. Nothing is read from the
    device before the end of the pass.
    """
    was_training = method.training
    method.eval()
    bins = CalibrationBins(len(method.class_counts), device=fabric.device)
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    scan = splits.scan(split, batch_size, rank=fabric.global_rank, world_size=fabric.world_size)
    try:
        with torch.inference_mode():
            for batch in scan:
                with fabric.autocast():
                    logits = method.predict(batch.images[0])
                probabilities = logits.float().softmax(dim=1)
                bins.update(probabilities, batch.labels)
                top = probabilities.topk(min(TOP_K, probabilities.shape[1]), dim=1)
                hit = (top.indices == batch.labels[:, None]).any(dim=1)
                first = probabilities.argmax(dim=1)
                parts.append((batch.index, first, probabilities.amax(dim=1), hit))
    finally:
        method.train(was_training)
    labels = splits.imageset(split).labels
    predictions, confidences, hits = _gather(parts, len(labels), fabric)
    if fabric.world_size > 1:
        for tensor in bins.sums():
            tensor.copy_(cast(Tensor, fabric.all_reduce(tensor, reduce_op="sum")))
    figures = _figures(labels, predictions, hits, method.class_counts.tolist(), bins, groups)
    return Evaluation(labels, predictions, confidences, {"split": split, **figures})


def _gather(
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]], total: int, fabric: Fabric
) -> tuple[npt.NDArray[Any], ...]:
    """Return predictions, confidences and hits of all processes, in the split's order.

    Every process fills in its share of the images; the sum over processes is the whole.
    """
    wholes = []
    for column, kind in enumerate((torch.int64, torch.float32, torch.uint8), start=1):
        whole = torch.zeros(total, dtype=kind, device=fabric.device)
        for part in parts:
            whole[part[0]] = part[column].to(kind)
        if fabric.world_size > 1:
            whole = cast(Tensor, fabric.all_reduce(whole, reduce_op="sum"))
        wholes.append(whole.cpu().numpy())
    predictions, confidences, hits = wholes
    return predictions, confidences, hits.astype(np.bool_)


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
