"""Chips as tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from geopsp.augment import apply
from geopsp.chipset import ChipSet
from geopsp.errors import ChipError
from geopsp.legend import IGNORE
from geopsp.scene import Scene
from geopsp.stats import BandStats, merge_all
from geopsp.tiling import starts


class Sample(NamedTuple):
    """One chip, or with a leading axis a batch of them."""

    image: Tensor
    """(bands, h, w) float32, normalised; 0 where invalid."""

    valid: Tensor
    """(1, h, w) float32; 1 where the image shows ground."""

    label: Tensor
    """(h, w) int64 channel indices; IGNORE where nothing is known."""


@dataclass(frozen=True, slots=True, eq=False)
class Normalization:
    """(pixel - mean) / std a band, and 0 where invalid."""

    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    @classmethod
    def of(cls, stats: BandStats) -> Normalization:
        std = stats.std
        return cls(stats.mean.astype(np.float32), np.where(std > 0, std, 1).astype(np.float32))

    def __call__(self, data: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """(bands, h, w) of any type -> float32."""
        pixels = np.where(valid, data, 0).astype(np.float32)  # first of all: a nodata value may not fit float32
        pixels -= self.mean[:, None, None]
        pixels /= self.std[:, None, None]
        pixels *= valid
        return pixels


class ChipDataset(Dataset[Sample]):
    """Training chips, read from disk when asked for, cropped at random to `size` and changed by `transform`."""

    def __init__(
        self,
        chips: ChipSet,
        rows: NDArray[np.intp],
        normalization: Normalization,
        *,
        size: int,
        transform: v2.Transform,
    ) -> None:
        self.chips, self.rows, self.normalization = chips, rows, normalization
        self.size, self.transform = size, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> Sample:
        """Raises ChipError if the pair cannot be read."""
        sample = read_sample(self.chips, self.rows[item], self.normalization)
        row, col = (int(torch.randint(n - self.size + 1, ())) for n in sample.label.shape)
        rows, cols = slice(row, row + self.size), slice(col, col + self.size)
        image, valid, label = sample.image[:, rows, cols], sample.valid[:, rows, cols], sample.label[rows, cols]
        return Sample(*apply(self.transform, image, valid, label))


class WholeChipDataset(Dataset[Sample]):
    """The whole of every chip, as tiles of `size`; of a pixel in two tiles, the second has no label."""

    def __init__(self, chips: ChipSet, rows: NDArray[np.intp], normalization: Normalization, *, size: int) -> None:
        self.chips, self.rows, self.normalization, self.size = chips, rows, normalization, size
        self.firsts = starts(chips.tile_size, size=size, overlap=0)

    def __len__(self) -> int:
        return len(self.rows) * len(self.firsts) ** 2

    def __getitem__(self, item: int) -> Sample:
        """Raises ChipError if the pair cannot be read."""
        chip, part = divmod(item, len(self.firsts) ** 2)
        sample = read_sample(self.chips, self.rows[chip], self.normalization)
        (top, used_rows), (left, used_cols) = (self._span(i) for i in divmod(part, len(self.firsts)))
        rows, cols = slice(top, top + self.size), slice(left, left + self.size)
        label = sample.label[rows, cols].clone()
        label[:used_rows], label[:, :used_cols] = IGNORE, IGNORE
        return Sample(sample.image[:, rows, cols], sample.valid[:, rows, cols], label)

    def _span(self, i: int) -> tuple[int, int]:
        """First pixel of the i-th tile along a side, and how many of its pixels the one before shows already."""
        first = self.firsts[i]
        return first, self.firsts[i - 1] + self.size - first if i else 0


def read_sample(chips: ChipSet, row: int, normalization: Normalization) -> Sample:
    """A chip as tensors.

    Raises:
        ChipError: if it cannot be read, or is not what the index says.
    """
    entry = chips.index.iloc[row]
    data, valid, codes = read_pair(entry["image"], entry["label"])
    needed = (len(chips.bands), chips.tile_size, chips.tile_size)
    if data.shape != needed:
        found, wanted = (" x ".join(map(str, shape)) for shape in (data.shape, needed))
        raise ChipError(
            f"{entry['image']} holds {found} pixels (bands, rows, columns); needed {wanted}. Export the chips again."
        )
    return Sample(
        torch.from_numpy(normalization(data, valid)),
        torch.from_numpy(valid[None].astype(np.float32)),
        torch.from_numpy(chips.tables[entry["table"]][codes].astype(np.int64)),
    )


def read_pair(image: str, label: str) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.uint8]]:
    """Pixels (bands, h, w), validity (h, w) and class codes (h, w) of a chip.

    Raises:
        ChipError: if one file is damaged, or they differ in size.
    """
    try:
        patch = Scene.open(image).read()
        codes = Scene.open(label).read()
    except OSError as error:
        raise ChipError(f"A chip cannot be read ({error}). Export the chips again (geopsp chips).") from error
    if codes.data.shape[1:] != patch.data.shape[1:]:
        raise ChipError(f"{image} and {label} differ in size: {patch.data.shape[1:]} and {codes.data.shape[1:]}.")
    return patch.data, patch.valid, np.where(codes.valid, codes.data[0], IGNORE).astype(np.uint8)


def statistics_of(chips: ChipSet, rows: NDArray[np.intp]) -> BandStats:
    """Of the valid pixels of some chips."""
    index = chips.index.iloc[rows]
    parts = []
    for path in index["image"]:
        patch = Scene.open(path).read()
        parts.append(BandStats.of(patch.data, patch.valid))
    return merge_all(parts, len(chips.bands))
