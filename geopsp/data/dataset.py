"""Chips as tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from geopsp.chips.chip_set import ChipSet
from geopsp.core.bands import BandStats, Normalization, merge_stats
from geopsp.core.grid import tile_starts
from geopsp.core.legend import IGNORE_INDEX
from geopsp.data.augment import transform_chip
from geopsp.errors import ChipError
from geopsp.raster.open import open_raster
from geopsp.raster.valid_mask import alpha_band, valid_mask


class Sample(NamedTuple):
    """One chip, or with a leading axis a batch of them."""

    image: Tensor
    """(bands, h, w) float32, normalised; 0 where invalid."""

    valid: Tensor
    """(1, h, w) float32; 1 where the image shows ground."""

    label: Tensor
    """(h, w) int64 channel indices; IGNORE where nothing is known."""

    row: Tensor
    """() int64; the chip's position in the index."""


class RawChip(NamedTuple):
    """What is known of some pixels of a chip."""

    data: NDArray[Any]
    """(bands, h, w) pixels in their own type."""

    valid: NDArray[np.bool_]
    """(h, w); True where the image shows ground."""

    codes: NDArray[np.uint8]
    """(h, w) class codes; IGNORE where there are none."""


class ChipReader(Protocol):
    """Where the pixels of a chip set come from: its files, a cache of them, or the scenes that chips are cut from."""

    @property
    def margin(self) -> int:
        """Pixels around a chip that it gives, too."""

    def read(self, row: int, top: int, left: int, size: int) -> RawChip:
        """The square of a chip that begins `top` rows below and `left` columns right of the chip's first pixel.

        Both lie within -reach and the chip's side - size + reach.
        """


class ChipFiles:
    """The pixels of a chip set, read from its files when asked for."""

    margin = 0

    def __init__(self, chips: ChipSet) -> None:
        """Raises ChipError if the chips have no files."""
        if "image" not in chips.index:
            raise ChipError(
                f"{chips!r} have no files. Export them (export_training_data), or read them as they are cut "
                "(decoder=, which prepare_data(images=..., labels=...) makes)."
            )
        self.images, self.labels = list(chips.index["image"]), list(chips.index["label"])
        self.bands, self.size = len(chips.bands), chips.tile_size

    def read(self, row: int, top: int, left: int, size: int) -> RawChip:
        """Raises ChipError if a file cannot be read, or is not what the index says."""
        window = Window(left, top, size, size)
        data, valid = _read(self.images[row], (self.bands, self.size, self.size), window)
        codes, _ = _read(self.labels[row], (1, self.size, self.size), window)  # what nodata is, the legend knows
        return RawChip(data, valid, np.where(valid, codes[0], IGNORE_INDEX).astype(np.uint8))


def _read(path: str, needed: tuple[int, int, int], window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    try:
        # asked about one by one, neighbours are found faster than in the list of a folder of thousands
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE"), open_raster(path) as dataset:
            alpha = alpha_band(dataset)
            indexes = [i for i in dataset.indexes if i != alpha] or list(dataset.indexes)
            found = (len(indexes), dataset.height, dataset.width)
            if found == needed:
                data = dataset.read(indexes, window=window)
                return data, valid_mask(dataset, data, indexes, window)
    except (OSError, RasterioError) as error:
        raise ChipError(f"A chip cannot be read ({path}: {error}). Export the chips again (geopsp chips).") from error
    holds, wanted = (" x ".join(map(str, shape)) for shape in (found, needed))
    raise ChipError(f"{path} holds {holds} pixels (bands, rows, columns); needed {wanted}. Export the chips again.")


class _Chips(Dataset[Sample]):
    def __init__(
        self,
        chips: ChipSet,
        rows: NDArray[np.intp],
        normalization: Normalization,
        *,
        size: int,
        decoder: ChipReader | None = None,
    ) -> None:
        self.chips, self.rows, self.normalization, self.size = chips, rows, normalization, size
        self.decoder = decoder or ChipFiles(chips)
        self.tables = chips.index["table"].to_numpy()

    @property
    def names(self) -> list[str]:
        """What to call each chip of the whole set: its image file, or where it is cut from."""
        index = self.chips.index
        if "image" in index:
            return [str(path) for path in index["image"]]
        places = zip(index["source"], index["col"], index["row"], index["angle"], strict=True)
        return [f"{source}, column {col}, row {row}, {angle:g} degrees" for source, col, row, angle in places]

    def _cut(self, row: int, top: int, left: int) -> Sample:
        """A window of a chip; the label as uint8."""
        data, valid, codes = self.decoder.read(row, top, left, self.size)
        channels = np.take(self.chips.tables[self.tables[row]], codes)
        return Sample(
            torch.from_numpy(self.normalization(data, valid)),
            torch.from_numpy(valid[None].astype(np.float32)),
            torch.from_numpy(channels),
            torch.tensor(row),
        )


class ChipDataset(_Chips):
    """Training chips: a window of `size` drawn from as far as the decoder reaches, changed by `transform`."""

    def __init__(
        self,
        chips: ChipSet,
        rows: NDArray[np.intp],
        normalization: Normalization,
        *,
        size: int,
        transform: v2.Transform,
        decoder: ChipReader | None = None,
    ) -> None:
        super().__init__(chips, rows, normalization, size=size, decoder=decoder)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int | tuple[int, int]) -> Sample:
        """The chip by its number, or by number and seed: then it is the same whatever was drawn before.

        Raises:
            ChipError: if the chip cannot be read.
        """
        if isinstance(item, tuple):
            number, seed = item
            with _seeded(seed):
                return self[number]
        reach = self.decoder.margin
        top, left = torch.randint(-reach, self.chips.tile_size - self.size + reach + 1, (2,)).tolist()
        image, valid, label, row = self._cut(int(self.rows[item]), top, left)
        return Sample(*transform_chip(self.transform, image, valid, label), row)


class TiledChipDataset(_Chips):
    """The whole of every chip, as tiles of `size`; of a pixel in two tiles, the second has no label."""

    @cached_property
    def firsts(self) -> Sequence[int]:
        """First pixels of the tiles along a side."""
        return tile_starts(self.chips.tile_size, size=self.size, overlap=0)

    def __len__(self) -> int:
        return len(self.rows) * len(self.firsts) ** 2

    def __getitem__(self, item: int) -> Sample:
        """Raises ChipError if the chip cannot be read."""
        chip, part = divmod(item, len(self.firsts) ** 2)
        (top, used_rows), (left, used_cols) = (self._span(i) for i in divmod(part, len(self.firsts)))
        sample = self._cut(int(self.rows[chip]), top, left)
        label = sample.label.long()
        label[:used_rows], label[:, :used_cols] = IGNORE_INDEX, IGNORE_INDEX
        return sample._replace(label=label)

    def _span(self, i: int) -> tuple[int, int]:
        """First pixel of the i-th tile along a side, and how many of its pixels the one before shows already."""
        first = self.firsts[i]
        return first, self.firsts[i - 1] + self.size - first if i else 0


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draws depend on the seed alone, and leave no trace; the GPU's generator is not touched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def statistics_of(chips: ChipSet, rows: NDArray[np.intp], decoder: ChipReader | None = None) -> BandStats:
    """Of the valid pixels of some chips."""
    decoder, side = decoder or ChipFiles(chips), chips.tile_size
    wholes = (decoder.read(int(row), 0, 0, side) for row in rows)
    return merge_stats([BandStats.from_array(whole.data, whole.valid) for whole in wholes], len(chips.bands))
