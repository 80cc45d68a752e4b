"""Chips on their way to a GPU as bytes: pixels as they are stored, and what was drawn to change each chip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from geopsp.data.dataset import ChipDataset, RawChip, TiledChipDataset
from geopsp.data.drawn_changes import ChangeLayout

SENT_TYPES = ("uint8", "int8", "int16", "uint16", "float32")
"""Pixels that are sent as they are; others become float32 first."""


class ChipBatch(NamedTuple):
    """A batch of chips before it is normalised and transformed, or after it if `is_final`."""

    image: Tensor
    """(n, bands, h, w) in the type of the chips; float32 if `is_final`."""

    valid: Tensor
    """(n, h, w) bool."""

    label: Tensor
    """(n, h, w) uint8 channel indices; `IGNORE_INDEX` where unlabelled."""

    row: Tensor
    """(n,) int64, rows of the chips in the index."""

    changes: Tensor
    """(n, `ChangeLayout.size`) float32, on the CPU."""

    is_final: bool
    """True if transforms that only the CPU knows are done."""


class PackedChips(Dataset[ChipBatch]):
    """The batches of a dataset as they are sent to a GPU. Chip and seed give the chip that the dataset itself gives."""

    def __init__(self, chips: ChipDataset | TiledChipDataset) -> None:
        self.chips = chips
        self.layout = ChangeLayout.of(getattr(chips, "transform", None), len(chips.chips.bands))

    def __len__(self) -> int:
        return len(self.chips)

    def __getitems__(self, items: Sequence[int | tuple[int, int]]) -> ChipBatch:
        """Return a batch.

        Raises:
            ChipError: if a chip cannot be read.
        """
        if self.layout is not None:
            return self._as_stored(items, self.layout)
        dataset: Any = self.chips
        image, valid, label, row = (torch.stack(p) for p in zip(*(dataset[item] for item in items), strict=True))
        none = torch.empty(len(items), 0)
        return ChipBatch(image, valid[:, 0] > 0, label.to(torch.uint8), row, none, is_final=True)

    def _as_stored(self, items: Sequence[int | tuple[int, int]], layout: ChangeLayout) -> ChipBatch:
        dataset: Any = self.chips
        kind, side, bands = self.chips.chips.dtype, self.chips.size, len(self.chips.chips.bands)
        image = np.empty((len(items), bands, side, side), kind if kind in SENT_TYPES else np.float32)
        valid = np.empty((len(items), side, side), bool)
        label = np.empty((len(items), side, side), np.uint8)
        changes, rows = np.empty((len(items), layout.size), np.float32), np.empty(len(items), np.int64)
        for number, item in enumerate(items):
            with dataset.drawing(item) as index:
                chip: RawChip = dataset.read_raw(index)
                changes[number] = layout.draw(side)
            # a nodata value may not fit float32
            image[number] = chip.data if kind in SENT_TYPES else np.where(chip.valid, chip.data, 0)
            valid[number], label[number], rows[number] = chip.valid, chip.codes, dataset.row(index)
        pixels, mask, labels, row, drawn = map(torch.from_numpy, (image, valid, label, rows, changes))
        return ChipBatch(pixels, mask, labels, row, drawn, is_final=False)


def chip_bytes(chips: ChipDataset | TiledChipDataset, *, packed: bool) -> int:
    """Return the bytes of a chip in a batch: as a `ChipBatch` if `packed`, else as a `Sample`."""
    bands, kind = len(chips.chips.bands), chips.chips.dtype
    if not packed:
        pixel = 4 * bands + 4 + 8
    else:
        is_raw = ChangeLayout.of(getattr(chips, "transform", None), bands) is not None and kind in SENT_TYPES
        pixel = bands * (np.dtype(kind).itemsize if is_raw else 4) + 2
    return pixel * chips.size**2


def as_is(batch: ChipBatch) -> ChipBatch:
    """Return a batch that is one already, where loaders would make one."""
    return batch
