"""Loaders of a run as Lightning takes them, and the way of their batches to the device."""

from __future__ import annotations

import sys
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from geopsp.data.batch_transforms import BatchTransforms
from geopsp.data.chip_batch import ChipBatch
from geopsp.data.loader import ChipLoaders


class ChipDataModule(L.LightningDataModule):
    """Loaders that give each device its own chips."""

    def __init__(self, loaders: ChipLoaders, accumulate: int, *, packed: bool) -> None:
        """Take the loaders.

        Args:
            loaders: Of the chips.
            accumulate: Batches of a step.
            packed: True sends chips to the device as they are stored, and transforms them there.
        """
        super().__init__()
        self.loaders, self.accumulate, self.packed = loaders, accumulate, packed
        self._transforms = BatchTransforms(loaders.train.normalization, loaders.train.transform) if packed else None

    def train_dataloader(self) -> DataLoader[Any]:
        return self.loaders.train_loader(accumulate=self.accumulate, **self._options())

    def val_dataloader(self) -> DataLoader[Any]:
        return self.loaders.val_loader(**self._options())

    def _options(self) -> dict[str, Any]:
        trainer = self.trainer
        assert trainer is not None
        epochs = sys.maxsize if trainer.max_epochs in {None, -1} else trainer.max_epochs
        return {"rank": trainer.global_rank, "world": trainer.world_size, "packed": self.packed, "epochs": epochs}

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Copy a batch to the device; one that was sent as stored is normalised and transformed there."""
        if isinstance(batch, ChipBatch) and self._transforms is not None:
            return self._transforms(batch, device)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)
