"""What scoring chips with a network will cost, before the first tile."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from geopsp.chips.chip_set import ChipSet
from geopsp.core.text import format_count
from geopsp.models.device import autocast, pick_device
from geopsp.models.memory import memory_errors
from geopsp.models.saved_model import TrainedModel

BATCH = 4
"""Tiles that the network sees at a time, as when chips are scored."""

TIMED_BATCHES = 2
"""Batches that are timed, after a first one that does not count."""


@dataclass(frozen=True, slots=True)
class ScoringCost:
    """Work of a network on chips."""

    tiles: int
    tile_size: int
    seconds: float
    device: str

    @property
    def text(self) -> str:
        """The same in words."""
        return f"{format_count(self.tiles, 'tile')} of {self.tile_size} x {self.tile_size} pixels on {self.device}."


def estimate_scoring(model: TrainedModel, chips: ChipSet, device: str | None = None) -> ScoringCost:
    """Estimate how long a network takes for all labelled chips; it is timed with a few empty tiles.

    Raises:
        ModelError: if the device cannot be used.
        TrainingError: if memory is too small for a batch.
    """
    size, where = model.tile_size, pick_device(device)
    labelled = int((chips.index["labelled"] > 0).sum())
    tiles = labelled * math.ceil(chips.tile_size / size) ** 2
    network = model.network.to(where).eval()
    image = torch.zeros(BATCH, model.spec.bands, size, size, device=where)
    valid = torch.ones(BATCH, 1, size, size, dtype=torch.bool, device=where)
    best = math.inf
    with memory_errors(), torch.inference_mode(), autocast(where):
        for batch in range(1 + TIMED_BATCHES):
            start = time.perf_counter()
            network(image, valid)
            if where.type == "cuda":
                torch.cuda.synchronize(where)
            best = min(best, time.perf_counter() - start) if batch else best
    network.cpu()
    return ScoringCost(tiles, size, tiles / BATCH * best, str(where))
