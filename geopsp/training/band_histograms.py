"""Histograms of bands, of a few chips, in bins that chips of other folders share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geopsp.core.bands import BandStats
from geopsp.core.pixel_values import PixelValues
from geopsp.data.dataset import ChipReader
from geopsp.models.training_record import Counts, Histogram

BINS = 48

MAX_CHIPS = 64
"""Chips that are read for a histogram, evenly spread over all."""

DEVIATIONS = 4.0
"""Standard deviations around the mean that bins span at most."""


def empty_histograms(bands: Sequence[str], stats: BandStats, dtype: str) -> list[Histogram]:
    """Return histograms without pixels, which span the values of the training pixels.

    Bins of whole numbers hold equally many of them.
    """
    spread = DEVIATIONS * np.nan_to_num(stats.std)
    low, high = np.maximum(stats.low, stats.mean - spread), np.minimum(stats.high, stats.mean + spread)
    if np.issubdtype(np.dtype(dtype), np.integer):
        low, high = np.floor(low), np.ceil(high) + 1
        width = np.ceil((high - low) / BINS)
        bins = np.ceil((high - low) / width)
        high = low + bins * width
    else:
        high, bins = np.where(high > low, high, low + 1.0), np.full(len(bands), BINS)
    return [
        Histogram(band=name, low=start, high=end, counts=[0] * int(count))
        for name, start, end, count in zip(bands, low.tolist(), high.tolist(), bins.tolist(), strict=True)
    ]


def count_values(
    histograms: Sequence[Histogram], reader: ChipReader, rows: NDArray[np.intp], size: int, *,
    values: PixelValues, trained: PixelValues,
) -> list[Counts]:  # fmt: skip
    """Return the counts of the valid pixels of some chips in the bins of histograms.

    Args:
        histograms: One for each band.
        reader: Of the chips.
        rows: All chips, of which at most `MAX_CHIPS` are read.
        size: Side of a chip in pixels.
        values: What the values of the chips mean.
        trained: What those of the histograms mean.
    """
    conversion = values.conversion_to(trained, len(histograms))
    counts = [np.zeros(len(each.counts), np.int64) for each in histograms]
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MAX_CHIPS)).round().astype(int))
    for row in rows[chosen].tolist():
        chip = reader.read(row, 0, 0, size)
        for band, (histogram, (gain, bias)) in enumerate(zip(histograms, conversion, strict=True)):
            pixels = chip.data[band][chip.valid].astype(np.float64) * gain + bias
            bins = len(histogram.counts)
            place = (pixels - histogram.low) / (histogram.high - histogram.low) * bins
            counts[band] += np.bincount(place.clip(0, bins - 1).astype(int), minlength=bins)
    return [each.tolist() for each in counts]
