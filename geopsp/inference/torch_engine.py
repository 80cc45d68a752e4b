"""PyTorch as what runs the network of a map."""

from __future__ import annotations

from pathlib import Path

import torch

from geopsp.inference.job import MapJob
from geopsp.inference.options import MapSettings
from geopsp.inference.torch_predictor import TorchPredictor
from geopsp.models.device import device_name, pick_device, resolve_precision
from geopsp.models.memory import forward_bytes, free_memory, inference_batch_size, weight_bytes
from geopsp.models.saved_model import TrainedModel, save_model


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

    def uses_bf16(self, settings: MapSettings, device: torch.device) -> bool:
        return resolve_precision(settings.precision, device) == "bf16"

    def predictor(
        self, job: MapJob, model: TrainedModel, device: torch.device, *, batch_size: int, compiled: bool
    ) -> TorchPredictor:
        """Return the network as the job uses it."""
        return TorchPredictor(
            model,
            device,
            batch_size=batch_size,
            bf16=job.bf16,
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
            bf16=job.bf16,
        )

    def batch_bytes(self, job: MapJob, model: TrainedModel, device: torch.device, batch_size: int) -> int:
        return forward_bytes(
            model.network, batch_size, bands=len(model.bands), size=job.tiles.size, device=device, bf16=job.bf16
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
