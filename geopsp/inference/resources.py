"""What a map is computed with: device, batch size and threads."""

from __future__ import annotations

from dataclasses import dataclass

from geopsp.inference.crf_rows import strip_bytes
from geopsp.inference.engines import MapModel, engine_of
from geopsp.inference.job import MapJob
from geopsp.inference.part_size import MAX_ROW_BYTES
from geopsp.inference.tile_ops import Device


@dataclass(frozen=True, slots=True)
class Resources:
    """What this process computes a map with."""

    device: Device
    batch_size: int
    """Tiles in a batch."""

    threads: int
    """Batches that are computed at a time."""

    @classmethod
    def for_job(cls, job: MapJob, model: MapModel, device: Device) -> Resources:
        """Find the number of threads, and the batch size that fits unless the job's settings have one."""
        batch_size, threads = engine_of(model).batch(job, model, device)
        return cls(device, batch_size, threads)

    def needed_bytes(self, job: MapJob, model: MapModel) -> float:
        """Estimate the memory that a map takes."""
        engine = engine_of(model)
        batch = engine.batch_bytes(job, model, self.device, self.batch_size)
        crf, width = job.crf, min(job.parts.part_width, job.scene.grid.width)
        strip = 0 if crf is None else strip_bytes(crf, width + 2 * crf.halo, len(model.legend), len(model.bands))
        return self.threads * batch + engine.weight_bytes(model) + MAX_ROW_BYTES + strip


@dataclass(frozen=True, slots=True)
class ComputeCost:
    """Time and memory of the network."""

    tile_seconds: float
    """Seconds for each tile, with all threads at work."""

    needed_bytes: float
    free_bytes: float
