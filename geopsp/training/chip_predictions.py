"""The predictions of a network on each labelled chip, whole chip by whole chip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from geopsp.chips.chip_set import ChipSet
from geopsp.core.bands import BandStats, Normalization, match_bands
from geopsp.core.legend import IGNORE_INDEX
from geopsp.core.pixel_values import PixelValues
from geopsp.data.dataset import ChipFiles, RawChip, TiledChipDataset
from geopsp.data.loader import tile_loader
from geopsp.errors import BandError
from geopsp.models.device import autocast, pick_device
from geopsp.models.memory import memory_errors
from geopsp.models.network import mask_channels
from geopsp.models.saved_model import TrainedModel
from geopsp.training.evaluate import require_fitting_chips, to_device

BATCH_SIZE = 4
"""Tiles that the network sees at a time, as in `PixelClassifier.evaluate`."""


@dataclass(frozen=True, slots=True, eq=False)
class ChipPrediction:
    """Labels and predictions of a chip."""

    row: int
    """Of the chip in the index."""

    labels: NDArray[np.uint8]
    """(h, w) channel indices of the chips' classes; IGNORE_INDEX where unlabelled."""

    predicted: NDArray[np.uint8]
    """(h, w) channel indices of the model's classes."""


class _SomeBands:
    """Reads chips from their files, with some of their bands in another order."""

    margin = 0

    def __init__(self, chips: ChipSet, positions: tuple[int, ...]) -> None:
        self._files, self._positions = ChipFiles(chips), list(positions)

    def read(self, row: int, top: int, left: int, size: int) -> RawChip:
        chip = self._files.read(row, top, left, size)
        return chip._replace(data=chip.data[self._positions])


def predict_chips(
    model: TrainedModel,
    chips: ChipSet,
    rows: NDArray[np.intp],
    *,
    device: str | None = None,
    allow_resolution_mismatch: bool = False,
) -> Iterator[ChipPrediction]:
    """Yield labels and predictions of chips, in the order of `rows`; the checks come before the first is asked for.

    The pixels are the same that `PixelClassifier.evaluate` scores, with the same predictions, but chips may have other
    classes than the model, and more bands.

    Args:
        model: The model.
        chips: The chips, in folders.
        rows: Which of them.
        device: As torch names it; None: the first GPU, else the CPU.
        allow_resolution_mismatch: True takes chips with pixels of any size.

    Raises:
        BandError: if the chips lack a band of the model.
        ChipError: if they are smaller than its tiles, or cannot be read.
        GridError: if their pixels are more than 4 times larger or smaller than those of the training.
    """
    try:
        positions = match_bands(model.bands, chips.bands, where="The chip folder")
    except BandError:
        positions = tuple(range(len(chips.bands)))  # the check below has words for it
    own = _with_bands(chips, positions)
    require_fitting_chips(model, own, allow_resolution_mismatch=allow_resolution_mismatch)
    normalization = Normalization.from_stats(model.statistics_for(own.pixel_values))
    dataset = TiledChipDataset(own, rows, normalization, size=model.tile_size, reader=_SomeBands(chips, positions))
    return predict_dataset(model, dataset, device)


def _with_bands(chips: ChipSet, positions: tuple[int, ...]) -> ChipSet:
    """Return chips with some of their bands."""
    chosen, stats = list(positions), chips.statistics
    arrays = (each[chosen] for each in (stats.mean, stats.m2, stats.low, stats.high))
    values = chips.pixel_values
    scales = tuple(values.scales[i] for i in chosen) if values.scales else ()
    return replace(
        chips,
        bands=tuple(chips.bands[i] for i in chosen),
        statistics=BandStats(stats.count, *arrays),
        pixel_values=PixelValues(values.scaled, scales),
    )


def predict_dataset(model: TrainedModel, dataset: TiledChipDataset, device: str | None) -> Iterator[ChipPrediction]:
    """Yield the chips of a dataset, put together from their tiles; afterwards the network is on the CPU."""
    where, ignored = pick_device(device), model.losses.ignored(model.legend)
    network, starts, size = model.network.to(where).eval(), dataset.starts, dataset.chips.tile_size
    corners = [(top, left) for top in starts for left in starts]
    labels = predicted = np.empty((0, 0), np.uint8)
    done = 0
    try:
        for batch in tile_loader(dataset, BATCH_SIZE):
            with memory_errors(), torch.inference_mode():
                sample = to_device(batch, where)
                with autocast(where):
                    found = mask_channels(network(sample.image, sample.valid), ignored).max(dim=1).indices
            tiles = zip(batch.row.tolist(), batch.label.numpy(), found.cpu().numpy(), strict=True)
            for row, label, classes in tiles:
                if not done:
                    labels, predicted = (np.full((size, size), IGNORE_INDEX, np.uint8) for _ in range(2))
                top, left = corners[done]
                part = slice(top, top + dataset.size), slice(left, left + dataset.size)
                known = label != IGNORE_INDEX  # where tiles overlap, only the first has labels
                labels[part][known] = label[known]
                predicted[part][known] = classes[known]
                done = (done + 1) % len(corners)
                if not done:
                    yield ChipPrediction(row, labels, predicted)
    finally:
        network.cpu()
