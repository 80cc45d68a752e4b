"""A network's scores over chips."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.data import DataLoader

from geopsp.chips.chip_set import ChipSet
from geopsp.core.legend import Legend
from geopsp.data.dataset import Sample
from geopsp.errors import BandError, ChipError
from geopsp.models.device import autocast, pick_device
from geopsp.models.losses import ignore_channels
from geopsp.models.memory import memory_errors
from geopsp.models.network import mask_channels
from geopsp.models.saved_model import TrainedModel
from geopsp.training.metrics import Confusion, boundary_counts, boundary_width, count_pairs


def to_device(batch: Sample, device: torch.device) -> Sample:
    """The batch, there."""
    return Sample(*(part.to(device, non_blocking=True) for part in batch))


def evaluate(
    network: nn.Module,
    loader: DataLoader[Sample],
    legend: Legend,
    *,
    ignored: Sequence[int] = (),
    device: str | None = None,
) -> Confusion:
    """Scores over every labelled pixel of the loader; those of `ignored` channels count as unlabelled."""
    where = pick_device(device)
    network = network.to(where).eval()
    size = len(legend)
    tally = torch.zeros(size, size, dtype=torch.int64, device=where)
    edges = torch.zeros(size, 2, dtype=torch.int64, device=where)
    with memory_errors(), torch.inference_mode():
        for batch in loader:
            image, valid, label, _ = to_device(batch, where)
            label = ignore_channels(label, ignored)
            with autocast(where):
                found = mask_channels(network(image, valid), ignored).max(dim=1).indices
            tally += count_pairs(label, found, size)
            edges += boundary_counts(label, found, size, boundary_width(image.shape[-1]))
    network.cpu()
    return Confusion(legend, tally.cpu().numpy(), edges.cpu().numpy())


def chips_for(model: TrainedModel, chips: ChipSet) -> ChipSet:
    """The chips in the classes of a model, if they have its bands.

    Raises:
        BandError, ChipError: if they have other bands, classes that the model does not know, or are too small.
    """
    ours, theirs = ([band.lower() for band in bands] for bands in (model.bands, chips.bands))
    if ours != theirs:
        raise BandError(
            f"The chips have the bands {', '.join(chips.bands)}; the model needs {', '.join(model.bands)}. "
            "Export them with those bands (bands=, --bands)."
        )
    if chips.tile_size < model.tile_size:
        raise ChipError(f"The chips are {chips.tile_size} pixels wide; the model needs {model.tile_size} or more.")
    return chips.with_legend(model.legend)
