"""Scores of a network on labelled chips."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn
from torch.utils.data import DataLoader

from geopsp.chips.chip_set import ChipSet
from geopsp.core.bands import Normalization, has_band_names, match_bands
from geopsp.core.legend import Legend
from geopsp.core.pixel_size import SIZE_RATIO, PixelSize, require_similar_size
from geopsp.core.progress import LOG_SECONDS, progress_bar
from geopsp.core.text import format_length
from geopsp.data.dataset import Sample, TiledChipDataset
from geopsp.data.loader import tile_loader
from geopsp.errors import BandError, ChipError
from geopsp.models.calibration import Calibration
from geopsp.models.device import autocast, pick_device
from geopsp.models.losses import ignore_channels
from geopsp.models.memory import memory_errors
from geopsp.models.network import mask_channels
from geopsp.models.saved_model import TrainedModel
from geopsp.training.metrics import Confusion, boundary_counts, boundary_width, count_pairs
from geopsp.training.reliability import ReliabilityCounter

logger = logging.getLogger(__name__)


class TileCounter(Protocol):
    """Counts what it wants to know of scored tiles."""

    def add(self, rows: torch.Tensor, labels: torch.Tensor, predicted: torch.Tensor) -> None:
        """Count a batch: (n,) rows of the chips in the index, and (n, h, w) channel indices."""


def to_device(batch: Sample, device: torch.device) -> Sample:
    """Copy a batch to a device."""
    return Sample(*(part.to(device, non_blocking=True) for part in batch))


def evaluate(
    network: nn.Module,
    loader: DataLoader[Sample],
    legend: Legend,
    *,
    ignored: Sequence[int] = (),
    device: str | None = None,
    calibration: Calibration | None = None,
    counter: TileCounter | None = None,
) -> Confusion:
    """Count all labelled pixels of a loader by class and prediction; afterwards the network is on the CPU.

    Args:
        network: Moved to the device, and back.
        loader: Validation tiles.
        legend: The classes of the network's output channels.
        ignored: Channels that are never predicted, and whose pixels count as unlabelled.
        device: As torch names it; None: the first GPU, else the CPU.
        calibration: Of the network; then its reliability is also counted with it.
        counter: Shown each batch, too.
    """
    where = pick_device(device)
    network = network.to(where).eval()
    size = len(legend)
    confusion = torch.zeros(size, size, dtype=torch.int64, device=where)
    boundary = torch.zeros(size, 2, dtype=torch.int64, device=where)
    reliability = ReliabilityCounter(calibration, size, ignored, where)
    with memory_errors(), torch.inference_mode(), progress_bar("Scoring", gap=LOG_SECONDS, unit="batches") as progress:
        for number, batch in enumerate(loader, 1):
            image, valid, label, rows = to_device(batch, where)
            label = ignore_channels(label, ignored)
            with autocast(where):
                logits = mask_channels(network(image, valid), ignored)
                predicted = logits.max(dim=1).indices
            confusion += count_pairs(label, predicted, size)
            boundary += boundary_counts(label, predicted, size, boundary_width(image.shape[-1]))
            reliability.add(label, logits, predicted)
            if counter is not None:
                counter.add(rows, label, predicted)
            progress(number, len(loader))
    network.cpu()
    return Confusion(legend, confusion.cpu().numpy(), boundary.cpu().numpy(), *reliability.results(legend))


def chips_for(model: TrainedModel, chips: ChipSet, *, allow_resolution_mismatch: bool = False) -> ChipSet:
    """Return the chips with the classes of a model, numbered as the model numbers them.

    Bands without names are taken in the model's order, as in prediction.

    Args:
        model: The model.
        chips: The chips.
        allow_resolution_mismatch: True takes chips with pixels of any size.

    Raises:
        BandError: if the chips have other bands than the model.
        ChipError: if they have classes that the model does not know, or are smaller than its tiles.
        GridError: if their pixels are more than 4 times larger or smaller than those of the training.
    """
    require_fitting_chips(model, chips, allow_resolution_mismatch=allow_resolution_mismatch)
    return chips.with_legend(model.legend)


def require_fitting_chips(model: TrainedModel, chips: ChipSet, *, allow_resolution_mismatch: bool = False) -> None:
    """Check that a model can score chips, whatever their classes.

    Raises:
        BandError, ChipError, GridError: as `chips_for`.
    """
    _require_bands(model, chips)
    if chips.tile_size < model.tile_size:
        raise ChipError(
            f"The chips are {chips.tile_size} pixels wide, but the model needs at least {model.tile_size}. Export "
            "larger chips."
        )
    pixel, trained = chips.cell_size[1], model.cell_size[1]
    if chips.units == model.units and not 1 / SIZE_RATIO <= pixel / trained <= SIZE_RATIO:
        logger.warning(
            f"The chips have pixels of {format_length(pixel, chips.units)}, but the model was trained at "
            f"{format_length(trained, model.units)}: objects appear at other sizes, so the network knows them badly."
        )
    if not allow_resolution_mismatch:
        size = PixelSize(chips.cell_size[1], chips.units, chips.index.crs)
        require_similar_size(size, model.cell_size[1], model.units, "the chips")
    _warn_of_values(model, chips)


def chip_loader(model: TrainedModel, chips: ChipSet, *, allow_resolution_mismatch: bool = False) -> DataLoader[Sample]:
    """Return a loader of all chips with labels, as tiles that are normalised as the model's training chips were.

    Raises:
        BandError, ChipError, GridError: as `chips_for`, or if no chip is labelled.
    """
    chips = chips_for(model, chips, allow_resolution_mismatch=allow_resolution_mismatch)
    rows = (chips.index["labelled"].to_numpy() > 0).nonzero()[0]
    if not len(rows):
        raise ChipError("The chips have no labelled pixels, so there is nothing to score. Choose other chips.")
    normalization = Normalization.from_stats(model.statistics_for(chips.pixel_values))
    return tile_loader(TiledChipDataset(chips, rows, normalization, size=model.tile_size), 4)


def _require_bands(model: TrainedModel, chips: ChipSet) -> None:
    try:
        positions: Sequence[int] = match_bands(model.bands, chips.bands, where="The chip folder")
    except BandError:
        positions = ()
    if list(positions) != list(range(len(chips.bands))):
        raise BandError(
            f"The chips have the bands {', '.join(chips.bands)}, but the model needs {', '.join(model.bands)}. "
            "Export the chips with `bands` set to those of the model."
        )
    if has_band_names(model.bands) and not has_band_names(chips.bands):
        logger.warning(
            f"The chips have no band names, so their bands are taken in this order: {', '.join(model.bands)}. If the "
            "order is another one, export the chips with `bands`."
        )


def _warn_of_values(model: TrainedModel, chips: ChipSet) -> None:
    ours, theirs = model.pixel_values, chips.pixel_values
    if ours.lacks(theirs) != theirs.lacks(ours) and not (ours.scaled and theirs.scaled):
        logger.warning(
            f"The chips hold {theirs}, but the model was trained on {ours}: where scale and offset are not known they "
            "are taken to be the same."
        )
