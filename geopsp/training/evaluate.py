"""Scores of a network on labelled chips."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.data import DataLoader

from geopsp.chips.chip_set import ChipSet
from geopsp.core.legend import Legend
from geopsp.core.progress import LOG_SECONDS, progress_bar
from geopsp.core.text import format_length
from geopsp.data.dataset import Sample
from geopsp.errors import BandError, ChipError
from geopsp.models.device import autocast, pick_device
from geopsp.models.losses import ignore_channels
from geopsp.models.memory import memory_errors
from geopsp.models.network import mask_channels
from geopsp.models.saved_model import TrainedModel
from geopsp.training.metrics import Confusion, boundary_counts, boundary_width, count_pairs

logger = logging.getLogger(__name__)

SIZE_RATIO = 1.25
"""Largest ratio of two pixel sizes that count as equal, as in `inference.input_check`."""


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
) -> Confusion:
    """Count all labelled pixels of a loader by class and prediction; afterwards the network is on the CPU.

    Args:
        network: Moved to the device, and back.
        loader: Validation tiles.
        legend: The classes of the network's output channels.
        ignored: Channels that are never predicted, and whose pixels count as unlabelled.
        device: As torch names it; None: the first GPU, else the CPU.
    """
    where = pick_device(device)
    network = network.to(where).eval()
    size = len(legend)
    confusion = torch.zeros(size, size, dtype=torch.int64, device=where)
    boundary = torch.zeros(size, 2, dtype=torch.int64, device=where)
    with memory_errors(), torch.inference_mode(), progress_bar("Scoring", gap=LOG_SECONDS, unit="batches") as progress:
        for number, batch in enumerate(loader, 1):
            image, valid, label, _ = to_device(batch, where)
            label = ignore_channels(label, ignored)
            with autocast(where):
                predicted = mask_channels(network(image, valid), ignored).max(dim=1).indices
            confusion += count_pairs(label, predicted, size)
            boundary += boundary_counts(label, predicted, size, boundary_width(image.shape[-1]))
            progress(number, len(loader))
    network.cpu()
    return Confusion(legend, confusion.cpu().numpy(), boundary.cpu().numpy())


def chips_for(model: TrainedModel, chips: ChipSet) -> ChipSet:
    """Return the chips with the classes of a model, numbered as the model numbers them.

    Raises:
        BandError: if the chips have other bands than the model.
        ChipError: if they have classes that the model does not know, or are smaller than its tiles.
    """
    needed, found = ([band.lower() for band in bands] for bands in (model.bands, chips.bands))
    if needed != found:
        raise BandError(
            f"The chips have the bands {', '.join(chips.bands)}, but the model needs {', '.join(model.bands)}. "
            "Export the chips with `bands` set to those of the model."
        )
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
    return chips.with_legend(model.legend)
