"""How far probabilities are what they say: reliability by bins of confidence, and the scores that follow from it.

Pixels are counted as they come, so that all of a data set count in little memory. The confidence of a pixel is the
probability of its predicted class; it is counted in `FINE` narrow bins, which bins of equal width and of equal numbers
of pixels are made of.

Source: Guo et al., "On calibration of modern neural networks" (2017), section 2; Nixon et al., "Measuring calibration
in deep learning" (2019), for adaptive and classwise bins; Brier, "Verification of forecasts" (1950).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.core.options import require_int
from geopsp.models.calibration import Calibration
from geopsp.models.calibration_torch import scaled_softmax

BINS = 15
"""Bins of equal width. Source: Guo et al. (2017)."""

FINE = 100 * BINS
"""Narrow bins that confidence is counted in."""

LEAST = torch.finfo(torch.float32).tiny
"""What a probability of 0 counts as in the NLL, which would be infinite."""


@dataclass(slots=True, eq=False)
class Reliability:
    """Pixels by confidence, and how many of them are right."""

    legend: Legend
    confidence: NDArray[np.float64]
    """(FINE, 3) pixels, sum of confidence, correct pixels, by bin of confidence."""

    by_class: NDArray[np.float64]
    """(classes, BINS) sum of the probability of the class less pixels of the class, by bin of its probability."""

    nll_sum: float
    brier_sum: float

    @property
    def pixels(self) -> int:
        """Labelled pixels that were counted."""
        return int(self.confidence[:, 0].sum())

    def bins(self, *, adaptive: bool = False, bins: int = BINS) -> pd.DataFrame:
        """Return one row per bin that has pixels: low, high, pixels, confidence and accuracy (means of its pixels).

        Args:
            adaptive: True makes bins of about equal numbers of pixels, not of equal width.
            bins: Number of bins; of those of equal width a divisor of `FINE`.

        Raises:
            OptionError: if `bins` is out of range.
        """
        require_int("bins", bins, minimum=1, maximum=FINE)
        if adaptive:
            middles = self.confidence[:, 0].cumsum() - self.confidence[:, 0] / 2
            number = np.minimum(middles / max(self.pixels, 1) * bins, bins - 1).astype(int)
        else:
            number = np.arange(FINE) * bins // FINE
        sums = np.stack([np.bincount(number, column, minlength=bins) for column in self.confidence.T], axis=1)
        edges = np.searchsorted(number, np.arange(bins + 1)) / FINE
        kept = sums[:, 0] > 0
        pixels, confidence, correct = sums[kept].T
        columns = {
            "low": edges[:-1][kept],
            "high": edges[1:][kept],
            "pixels": pixels.astype(np.int64),
            "confidence": confidence / pixels,
            "accuracy": correct / pixels,
        }
        return pd.DataFrame(columns)

    def ece(self, *, adaptive: bool = False, bins: int = BINS) -> float:
        """Return the expected calibration error, 0 to 1: the mean gap of confidence and accuracy, weighted by pixels.

        NaN without pixels.
        """
        table = self.bins(adaptive=adaptive, bins=bins)
        gaps = (table["confidence"] - table["accuracy"]).abs()
        return float((gaps * table["pixels"]).sum() / self.pixels) if self.pixels else float("nan")

    def mce(self) -> float:
        """Return the maximum calibration error, 0 to 1: the largest gap of any bin; NaN without pixels."""
        table = self.bins()
        return float((table["confidence"] - table["accuracy"]).abs().max())

    def classwise_ece(self) -> NDArray[np.float64]:
        """Return the calibration error of the probability of each class over all pixels, (classes,)."""
        gaps: NDArray[np.float64] = np.abs(self.by_class).sum(axis=1)
        return gaps / self.pixels if self.pixels else np.full(len(self.legend), np.nan)

    def nll(self) -> float:
        """Return the mean negative logarithm of the probability of the true class; NaN without pixels."""
        return self.nll_sum / self.pixels if self.pixels else float("nan")

    def brier(self) -> float:
        """Return the Brier score, 0 to 2: the mean squared distance of probabilities from the truth; NaN without."""
        return self.brier_sum / self.pixels if self.pixels else float("nan")

    def mean_confidence(self) -> float:
        """Return the mean confidence; above the accuracy the network is over-confident. NaN without pixels."""
        return float(self.confidence[:, 1].sum() / self.pixels) if self.pixels else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Return all scores and the bins of equal width; None where a score is NaN."""

        def or_none(value: float) -> float | None:
            return float(value) if np.isfinite(value) else None

        classwise = dict(zip(self.legend.names, self.classwise_ece().tolist(), strict=True))
        return {
            "ece": or_none(self.ece()),
            "adaptive_ece": or_none(self.ece(adaptive=True)),
            "mce": or_none(self.mce()),
            "classwise_ece": {name: or_none(value) for name, value in classwise.items()},
            "nll": or_none(self.nll()),
            "brier": or_none(self.brier()),
            "mean_confidence": or_none(self.mean_confidence()),
            "pixels": self.pixels,
            "bins": self.bins().to_dict(orient="records"),
        }


class ReliabilityCounts:
    """Sums of `Reliability`, on the device where the probabilities are."""

    def __init__(self, classes: int, device: torch.device) -> None:
        # MPS has no float64
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.confidence = torch.zeros(FINE, 3, dtype=dtype, device=device)
        self.by_class = torch.zeros(classes * BINS, dtype=dtype, device=device)
        self.sums = torch.zeros(2, dtype=dtype, device=device)

    def add(self, labels: Tensor, probabilities: Tensor, predicted: Tensor) -> None:
        """Count pixels.

        Args:
            labels: (n, ...) channel indices; those that are IGNORE_INDEX do not count.
            probabilities: (n, classes, ...)
            predicted: (n, ...) channel indices.
        """
        classes, dtype = probabilities.shape[1], self.sums.dtype
        known = labels != IGNORE_INDEX
        channel = labels.where(known, 0)[:, None]
        of_truth = probabilities.gather(1, channel)[:, 0][known]
        of_predicted = probabilities.gather(1, predicted[:, None])[:, 0][known]
        hits = (labels == predicted)[known]
        number = _bin(of_predicted, FINE)
        for column, weights in enumerate((None, of_predicted.to(dtype), hits.to(dtype))):
            self.confidence[:, column] += torch.bincount(number, weights, minlength=FINE)
        away = probabilities.scatter_add(1, channel, -torch.ones_like(channel, dtype=probabilities.dtype))
        away *= known[:, None]
        offset = torch.arange(classes, device=labels.device).view(-1, *[1] * (labels.ndim - 1)) * BINS
        by_bin = torch.bincount((_bin(probabilities, BINS) + offset).flatten(), away.to(dtype).flatten())
        self.by_class[: len(by_bin)] += by_bin
        self.sums[0] -= of_truth.clamp(min=LEAST).log().sum(dtype=dtype)
        self.sums[1] += away.square_().sum(dtype=dtype)

    def result(self, legend: Legend) -> Reliability:
        """Return the sums."""
        nll, brier = self.sums.tolist()
        by_class = self.by_class.cpu().double().numpy().reshape(len(legend), BINS)
        return Reliability(legend, self.confidence.cpu().double().numpy(), by_class, nll, brier)


class ReliabilityCounter:
    """Counts the pixels of batches without calibration, and with it if there is one."""

    def __init__(
        self, calibration: Calibration | None, classes: int, ignored: Sequence[int], device: torch.device
    ) -> None:
        """Count nothing yet.

        Args:
            calibration: Of the network; None: it has none.
            classes: Number of classes.
            ignored: Channels that are never predicted.
            device: Of the logits.
        """
        self.scaled = None if calibration is None else coefficients(calibration, classes, ignored, device)
        self.counts = [ReliabilityCounts(classes, device) for _ in range(1 if calibration is None else 2)]

    def add(self, labels: Tensor, logits: Tensor, predicted: Tensor) -> None:
        """Count the pixels of (n, h, w) labels and predictions, and (n, classes, h, w) logits."""
        chances = logits.float().softmax(dim=1)
        self.counts[0].add(labels, chances, predicted)
        if self.scaled is not None:
            weights, biases = (line.view(-1, 1, 1) for line in self.scaled)
            self.counts[1].add(labels, scaled_softmax(chances, weights, biases, dim=1), predicted)

    def results(self, legend: Legend) -> list[Reliability]:
        """Return the reliability without calibration, and with it if there is one."""
        return [each.result(legend) for each in self.counts]


def by_pixel(logits: Tensor) -> Tensor:
    """Return (n, classes, h, w) as (pixels, classes) float32."""
    return logits.float().movedim(1, -1).flatten(0, -2)


def coefficients(
    calibration: Calibration, classes: int, ignored: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return weights and biases, (classes,), -inf for ignored channels."""
    weights, biases = (torch.from_numpy(line) for line in calibration.coefficients(classes))
    biases[list(ignored)] = -torch.inf
    return weights.to(device), biases.to(device)


def _bin(values: Tensor, bins: int) -> Tensor:
    return (values * bins).long().clamp(max=bins - 1)
