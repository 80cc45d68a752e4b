"""What a map is computed with: device, batch size and threads."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from geopsp.inference.crf_rows import strip_bytes
from geopsp.inference.job import MapJob
from geopsp.inference.part_size import MAX_ROW_BYTES
from geopsp.models.memory import forward_bytes, inference_batch_size, weight_bytes
from geopsp.models.saved_model import TrainedModel


@dataclass(frozen=True, slots=True)
class Resources:
    """What this process computes a map with."""

    device: torch.device
    batch_size: int
    """Tiles in a batch."""

    threads: int
    """Batches that are computed at a time."""

    @classmethod
    def for_job(cls, job: MapJob, model: TrainedModel, device: torch.device) -> Resources:
        """Find the number of threads, and the batch size that fits unless the job's settings have one."""
        batch_size, threads = inference_batch_size(
            model.network,
            bands=len(model.bands),
            classes=len(model.legend),
            size=job.tiles.size,
            device=device,
            batch_size=job.settings.batch_size,
            bf16=job.bf16,
        )
        return cls(device, batch_size, threads)

    def needed_bytes(self, job: MapJob, model: TrainedModel) -> float:
        """Estimate the memory that a map takes."""
        batch = forward_bytes(
            model.network,
            self.batch_size,
            bands=len(model.bands),
            size=job.tiles.size,
            device=self.device,
            bf16=job.bf16,
        )
        crf, width = job.crf, min(job.parts.part_width, job.scene.grid.width)
        strip = 0 if crf is None else strip_bytes(crf, width + 2 * crf.halo, len(model.legend), len(model.bands))
        return self.threads * batch + weight_bytes(model.network) + MAX_ROW_BYTES + strip


@dataclass(frozen=True, slots=True)
class ComputeCost:
    """Time and memory of the network."""

    tile_seconds: float
    """Seconds for each tile, with all threads at work."""

    needed_bytes: float
    free_bytes: float
