"""Calibration errors: how far confidences are from the share of samples that are right."""

from __future__ import annotations

import torch
from torch import Tensor

from longtailed.errors import LongTailedError


class CalibrationBins:
    """What calibration errors need of the predictions, collected batch by batch on the device.

    Keeps, for each class and bin, the sum of the probabilities for the class and how many of the
    samples belong to it ([C, bins] each), and the same for the top prediction. Nothing larger than
    the batch's [N, C] is built, and `update` reads no value on the host.

    Raises `LongTailedError` if `bins` is below 1.
    """

    def __init__(
        self, num_classes: int, bins: int = 15, device: torch.device | str | None = None
    ) -> None:
        self.num_classes = num_classes
        self._classes = _BinTable(num_classes, bins, device)
        self._top = _BinTable(1, bins, device)

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Add a batch: probabilities [N, C] (after the softmax) and labels, int64 [N].

        Raises `LongTailedError` if the shapes do not fit.
        """
        if probabilities.shape != (*labels.shape, self.num_classes) or labels.ndim != 1:
            raise LongTailedError(
                f"probabilities must have the shape [N, {self.num_classes}] and labels [N]; they "
                f"are {list(probabilities.shape)} and {list(labels.shape)}."
            )
        self._classes.add(probabilities, labels, torch.ones_like(labels, dtype=torch.bool))
        confidences, predictions = probabilities.max(dim=1)
        self._top.add(confidences[:, None], torch.zeros_like(labels), predictions == labels)

    def sums(self) -> list[Tensor]:
        """Return the collected sums themselves, to be added up over processes in place."""
        tables = (self._classes, self._top)
        return [tensor for t in tables for tensor in (t.samples, t.confidences, t.hits)]

    def top_label_error(self) -> float:
        """Return the expected calibration error of the top prediction over all batches.

        sum_b (n_b / N) |accuracy_b - confidence_b| over `bins` intervals (b / bins, (b + 1) / bins]
        of equal width. NaN without samples. Paper: arXiv 1706.04599.
        """
        return self._top.errors().item()

    def classwise_errors(self) -> Tensor:
        """Return each class's calibration error, float64 [C].

        sum_b (n_cb / N) |y_cb - p_cb|, where n_cb of the N samples have a probability for class c
        in bin b, p_cb is their mean probability and y_cb the share that belongs to class c.
        Defined for a class without samples too: what it says then is that the class is predicted.
        """
        return self._classes.errors()

    def classwise_error(self) -> float:
        """Return the mean of `classwise_errors` over all C classes.

        Paper: arXiv 1910.12656. With many classes most probabilities are near 0 and calibrated,
        so values shrink with C: compare them only at the same C.
        """
        return self.classwise_errors().mean().item()


class _BinTable:
    """Sums of confidences and of hits for each row and bin, both [rows * bins]."""

    def __init__(self, rows: int, bins: int, device: torch.device | str | None) -> None:
        if bins < 1:
            raise LongTailedError(f"calibration needs at least 1 bin; {bins} were asked for.")
        self.rows, self.bins = rows, bins
        self.inner_edges = torch.arange(1, bins, dtype=torch.float64, device=device) / bins
        self.samples = torch.zeros((), dtype=torch.int64, device=device)
        self.confidences = torch.zeros(rows * bins, dtype=torch.float64, device=device)
        self.hits = torch.zeros(rows * bins, dtype=torch.float64, device=device)

    def add(self, confidences: Tensor, row: Tensor, hit: Tensor) -> None:
        """Add confidences [N, rows]; sample i hits in row[i] if hit[i]."""
        confidences = confidences.detach().contiguous()
        if confidences.dtype != torch.float64:
            confidences = confidences.float()
        cell = torch.bucketize(confidences, self.inner_edges.to(confidences))
        cell += torch.arange(self.rows, device=cell.device) * self.bins
        self.confidences.index_add_(0, cell.flatten(), confidences.double().flatten())
        self.hits.index_add_(0, cell.gather(1, row[:, None])[:, 0], hit.double())
        self.samples += len(confidences)

    def errors(self) -> Tensor:
        """Return sum_b |hits - confidences| / N for each row, float64 [rows]."""
        gaps = (self.hits - self.confidences).abs().reshape(self.rows, self.bins)
        return gaps.sum(dim=1) / self.samples
