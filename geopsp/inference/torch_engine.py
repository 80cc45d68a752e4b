"""PyTorch as what runs the network of a map."""

from __future__ import annotations

from pathlib import Path

import torch

from geopsp.inference.job import MapJob
from geopsp.inference.options import MapSettings, NetworkPrecision
from geopsp.inference.torch_predictor import TorchPredictor
from geopsp.models.device import device_name, has_compiler, pick_device, resolve_precision
from geopsp.models.memory import forward_bytes, free_memory, inference_batch_size, weight_bytes
from geopsp.models.saved_model import TrainedModel, save_model

MIN_COMPILED_TILES = 20_000
"""Tiles from which a GPU's network is compiled by itself: before, compiling takes longer than it saves."""


class TorchEngine:
    """The network in PyTorch, on any device; see `Engine`."""

    packages = ("torch", "numpy", "rasterio", "deflate", "timm", "segmentation-models-pytorch")
    identity = ()

    def pick_device(self, name: str | None) -> torch.device:
        return pick_device(name)

    def device_name(self, device: torch.device) -> str:
        return device_name(device)

    def num_gpus(self) -> int:
        return torch.cuda.device_count()

    def precision(self, settings: MapSettings, device: torch.device) -> NetworkPrecision:
        return resolve_precision(settings.precision, device)

    def compiles(self, settings: MapSettings, device: torch.device, num_tiles: int) -> bool:
        if settings.compiled is not None:
            return settings.compiled
        return device.type == "cuda" and num_tiles >= MIN_COMPILED_TILES and has_compiler()

    def predictor(
        self, job: MapJob, model: TrainedModel, device: torch.device, *, batch_size: int, compiled: bool
    ) -> TorchPredictor:
        """Return the network as the job uses it."""
        return TorchPredictor(
            model,
            device,
            batch_size=batch_size,
            precision=job.precision,
            test_time_augmentation=job.settings.test_time_augmentation,
            excluded_channels=job.excluded_channels,
            compiled=compiled,
        )

    def batch(self, job: MapJob, model: TrainedModel, device: torch.device) -> tuple[int, int]:
        """Return the tiles of a batch, and how many batches are computed at a time."""
        return inference_batch_size(
            model.network,
            bands=len(model.bands),
            classes=len(model.legend),
            size=job.tiles.size,
            device=device,
            batch_size=job.settings.batch_size,
            precision=job.precision,
        )

    def batch_bytes(self, job: MapJob, model: TrainedModel, device: torch.device, batch_size: int) -> int:
        return forward_bytes(
            model.network,
            batch_size,
            bands=len(model.bands),
            size=job.tiles.size,
            device=device,
            precision=job.precision,
        )

    def weight_bytes(self, model: TrainedModel) -> int:
        return weight_bytes(model.network)

    def free_memory(self, device: torch.device) -> float:
        return free_memory(device)

    def save(self, model: TrainedModel, folder: Path) -> None:
        save_model(model, folder, overwrite=True)

    def set_up_worker(self, device: torch.device) -> None:
        if device.type == "cpu":
            torch.set_num_threads(1)  # for good: parts side by side are what uses this machine's cores


ENGINE = TorchEngine()
