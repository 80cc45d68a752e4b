"""ONNX Runtime as what runs the network of a map, on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from geopsp.core.free_memory import available_memory
from geopsp.core.output import atomic_output
from geopsp.core.parallel import cpu_count
from geopsp.core.text import format_count
from geopsp.errors import OptionError
from geopsp.inference.engines import WORKER_FILE
from geopsp.inference.job import MapJob
from geopsp.inference.onnx_predictor import OnnxPredictor
from geopsp.inference.options import MapSettings, NetworkPrecision
from geopsp.models.onnx_file import INPUT, OnnxModel, require_runtime

USABLE_FRACTION = 0.8
"""Share of the free memory that is used."""

WAITING_BATCHES = 3
"""Batches for each thread whose pixels and probabilities are in memory."""


@dataclass(frozen=True, slots=True)
class Processor:
    """The CPU."""

    type: str = "cpu"

    def __str__(self) -> str:
        return self.type


class OnnxEngine:
    """The network in ONNX Runtime; see `Engine`."""

    packages = ("onnxruntime", "numpy", "rasterio", "deflate")
    identity = ("onnxruntime",)

    def pick_device(self, name: str | None) -> Processor:
        """Return the CPU.

        Raises:
            OptionError: if another device is asked for, or ONNX Runtime is not installed.
        """
        require_runtime()
        if name not in {None, "cpu"}:
            raise OptionError(
                f"`device` is {name!r}, but an ONNX model runs on the CPU only. Leave the option out, or map with the "
                "folder of the saved model."
            )
        return Processor()

    def device_name(self, device: Processor) -> str:
        return f"CPU ({format_count(cpu_count(), 'thread')}, ONNX Runtime)"

    def num_gpus(self) -> int:
        return 0

    def precision(self, settings: MapSettings, device: Processor) -> NetworkPrecision:
        """Return "fp32": the file decides the precision.

        Raises:
            OptionError: if the settings ask for another one.
        """
        if settings.precision in {"bf16", "fp16"}:
            raise OptionError(
                f"`precision={settings.precision!r}` does not apply to ONNX models, whose file decides it. Leave the "
                "option out, or map with the folder of the saved model."
            )
        return "fp32"

    def compiles(self, settings: MapSettings, device: Processor, num_tiles: int) -> bool:
        """Return False.

        Raises:
            OptionError: if the settings ask for `torch.compile`.
        """
        if settings.compiled:
            raise OptionError("`compiled` does not apply to ONNX models. Leave the option out.")
        return False

    def predictor(
        self, job: MapJob, model: OnnxModel, device: Processor, *, batch_size: int, compiled: bool
    ) -> OnnxPredictor:
        """Return the network as the job uses it."""
        return OnnxPredictor(
            model,
            device,
            batch_size=batch_size,
            test_time_augmentation=job.settings.test_time_augmentation,
            excluded_channels=job.excluded_channels,
        )

    def batch(self, job: MapJob, model: OnnxModel, device: Processor) -> tuple[int, int]:
        """Return the tiles of a batch, and how many batches are computed at a time: one tile, on each core."""
        size = job.settings.batch_size or 1
        each = self.batch_bytes(job, model, device, size)
        return size, max(1, min(cpu_count(), int(USABLE_FRACTION * self.free_memory(device) / each)))

    def batch_bytes(self, job: MapJob, model: OnnxModel, device: Processor, batch_size: int) -> int:
        """Return the bytes by which this process grows with the first batch; ONNX Runtime keeps them for the next."""
        known = model.batch_bytes
        if batch_size not in known:
            shape = (batch_size, len(model.bands), model.tile_size, model.tile_size)
            session, process = model.session(), psutil.Process()
            before = process.memory_info().rss
            session.run([model.network_output], {INPUT: np.ones(shape, np.float32)})
            grown = process.memory_info().rss - before
            pixels = batch_size * (len(model.bands) + len(model.legend)) * model.tile_size**2
            known[batch_size] = max(grown, 0) + WAITING_BATCHES * 4 * pixels
        return known[batch_size]

    def weight_bytes(self, model: OnnxModel) -> int:
        return 2 * len(model.content)  # the file and the session's own copy

    def free_memory(self, device: Processor) -> float:
        return float(available_memory())

    def save(self, model: OnnxModel, folder: Path) -> None:
        """Write the file for workers on other machines."""
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_output(folder / WORKER_FILE, overwrite=True) as partial:
            partial.write_bytes(model.content)

    def set_up_worker(self, device: Processor) -> None:
        """Do nothing: a session runs each call in the caller's thread."""


ENGINE = OnnxEngine()
