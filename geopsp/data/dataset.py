"""Chips as tensors: random windows for training, tiles for validation."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from geopsp.chips.chip_set import ChipSet
from geopsp.core.bands import Normalization
from geopsp.core.documents import DocumentError
from geopsp.core.grid import tile_starts
from geopsp.core.legend import IGNORE_INDEX
from geopsp.core.text import format_error
from geopsp.data.augment import transform_chip
from geopsp.errors import ChipError
from geopsp.raster.open import open_chip
from geopsp.raster.valid_mask import alpha_band, valid_mask


class Sample(NamedTuple):
    """A chip, or with a leading axis a batch of chips."""

    image: Tensor
    """(bands, h, w) float32, normalised; 0 where invalid."""

    valid: Tensor
    """Valid mask, (1, h, w) float32; 1 where there is data."""

    label: Tensor
    """(h, w) int64 channel indices; `IGNORE_INDEX` where unlabelled."""

    row: Tensor
    """() int64, row of the chip in the index."""


class RawChip(NamedTuple):
    """Pixels of a chip as they are stored."""

    data: NDArray[Any]
    """(bands, h, w) in the dtype of the chips."""

    valid: NDArray[np.bool_]
    """Valid mask, (h, w); True where there is data."""

    codes: NDArray[np.uint8]
    """(h, w) class codes, or channel indices; `IGNORE_INDEX` where unlabelled or invalid."""


class ChipReader(Protocol):
    """A source of the pixels of a chip set: its files, a cache, or the scenes that it is cut from."""

    @property
    def margin(self) -> int:
        """Pixels around a chip that can also be read."""

    def read(self, row: int, top: int, left: int, size: int) -> RawChip:
        """Read the window of size x size pixels at row `top` and column `left` of a chip.

        Both are from -margin to the chip's side - size + margin.
        """


class ChipFiles:
    """Reads the pixels of a chip set from its files."""

    margin = 0

    def __init__(self, chips: ChipSet) -> None:
        """Open no file yet.

        Raises:
            ChipError: if the chips have no files.
        """
        if "image" not in chips.index:
            raise ChipError(
                "These chips have no files. Export them with export_training_data, or read them from their images with "
                "prepare_data(images=..., labels=...)."
            )
        self.images, self.labels = list(chips.index["image"]), list(chips.index["label"])
        self.bands, self.size, self.dtype = len(chips.bands), chips.tile_size, chips.dtype

    def read(self, row: int, top: int, left: int, size: int) -> RawChip:
        """Read a window.

        Raises:
            ChipError: if a file cannot be read, has another size, type or number of bands than the index says, or
                labels that are no class codes.
        """
        window = Window(left, top, size, size)
        data, valid = _read(self.images[row], (self.bands, self.size, self.size), window)
        if data.dtype.name != self.dtype:
            raise ChipError(
                f"{self.images[row]} has {data.dtype} pixels, but its folder says {self.dtype}. Export the chips again."
            )
        codes, _ = _read(self.labels[row], (1, self.size, self.size), window)  # the label's own nodata may be a class
        if codes.dtype != np.uint8:
            _require_codes(self.labels[row], codes)
        return RawChip(data, valid, np.where(valid, codes[0], IGNORE_INDEX).astype(np.uint8))


def _require_codes(path: str, codes: NDArray[Any]) -> None:
    if codes.dtype.kind not in "iu" or codes.min() < 0 or codes.max() > IGNORE_INDEX:
        raise ChipError(
            f"{path} has values from {codes.min()} to {codes.max()} ({codes.dtype}), but class codes are whole numbers "
            f"from 0 to {IGNORE_INDEX - 1}, and {IGNORE_INDEX} is unlabelled. Export the chips again."
        )


def _read(path: str, shape: tuple[int, int, int], window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    try:
        with open_chip(path) as dataset:
            alpha = alpha_band(dataset)
            indexes = [i for i in dataset.indexes if i != alpha] or list(dataset.indexes)
            found = (len(indexes), dataset.height, dataset.width)
            if found == shape:
                data = dataset.read(indexes, window=window)
                return data, valid_mask(dataset, data, indexes, window)
    except (OSError, DocumentError) as error:
        raise ChipError(f"Cannot read the chip {path}: {format_error(error)}. Export the chips again.") from error
    found_text, needed_text = (" x ".join(map(str, each)) for each in (found, shape))
    raise ChipError(
        f"{path} has {found_text} pixels (bands x rows x columns), but must have {needed_text}. Export the chips again."
    )


class _Chips(Dataset[Sample]):
    def __init__(
        self,
        chips: ChipSet,
        rows: NDArray[np.intp],
        normalization: Normalization,
        *,
        size: int,
        reader: ChipReader | None = None,
    ) -> None:
        self.chips, self.rows, self.normalization, self.size = chips, rows, normalization, size
        self.reader = reader or ChipFiles(chips)
        self.tables = chips.index["table"].to_numpy()

    @property
    def names(self) -> list[str]:
        """Name of each chip of the whole set: its image file, or its position in a scene."""
        index = self.chips.index
        if "image" in index:
            return [str(path) for path in index["image"]]
        positions = zip(index["source"], index["col"], index["row"], index["angle"], strict=True)
        return [f"{source}, column {col}, row {row}, {angle:g} degrees" for source, col, row, angle in positions]

    def _read(self, row: int, top: int, left: int) -> RawChip:
        """Read a window of a chip; its labels are channel indices."""
        data, valid, codes = self.reader.read(row, top, left, self.size)
        return RawChip(data, valid, np.take(self.chips.tables[self.tables[row]], codes))

    def _normalised(self, chip: RawChip, row: int) -> Sample:
        """Return a chip as tensors, normalised; its label is uint8."""
        return Sample(
            torch.from_numpy(self.normalization(chip.data, chip.valid)),
            torch.from_numpy(chip.valid[None].astype(np.float32)),
            torch.from_numpy(chip.codes),
            torch.tensor(row),
        )


class ChipDataset(_Chips):
    """Training chips: random windows of size x size pixels, transformed; they may leave the chip by a margin."""

    def __init__(
        self,
        chips: ChipSet,
        rows: NDArray[np.intp],
        normalization: Normalization,
        *,
        size: int,
        transform: v2.Transform,
        reader: ChipReader | None = None,
    ) -> None:
        super().__init__(chips, rows, normalization, size=size, reader=reader)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int | tuple[int, int]) -> Sample:
        """Return a chip by its number, or by (number, seed): then the random draws depend on the seed alone.

        Raises:
            ChipError: if the chip cannot be read.
        """
        with self.drawing(item) as number:
            image, valid, label, row = self._normalised(self.read_raw(number), self.row(number))
            return Sample(*transform_chip(self.transform, image, valid, label), row)

    @contextmanager
    def drawing(self, item: int | tuple[int, int]) -> Iterator[int]:
        """Yield the number of a chip; if it comes with a seed, draws depend on that alone inside the block."""
        if isinstance(item, tuple):
            with _seeded(item[1]):
                yield item[0]
        else:
            yield item

    def row(self, number: int) -> int:
        """Return the row in the index of a chip."""
        return int(self.rows[number])

    def read_raw(self, number: int) -> RawChip:
        """Read a random window of a chip; its labels are channel indices."""
        margin = self.reader.margin
        top, left = torch.randint(-margin, self.chips.tile_size - self.size + margin + 1, (2,)).tolist()
        return self._read(self.row(number), top, left)


class TiledChipDataset(_Chips):
    """Whole chips as tiles of size x size pixels. Where tiles overlap, only the first has labels."""

    @cached_property
    def starts(self) -> Sequence[int]:
        """First pixels of the tiles along a side."""
        return tile_starts(self.chips.tile_size, size=self.size, overlap=0)

    def __len__(self) -> int:
        return len(self.rows) * len(self.starts) ** 2

    def __getitem__(self, item: int) -> Sample:
        """Return a tile.

        Raises:
            ChipError: if the chip cannot be read.
        """
        sample = self._normalised(self.read_raw(item), self.row(item))
        return sample._replace(label=sample.label.long())

    @contextmanager
    def drawing(self, item: int) -> Iterator[int]:
        """Yield the number of a tile; nothing is drawn."""
        yield item

    def row(self, number: int) -> int:
        """Return the row in the index of the chip of a tile."""
        return int(self.rows[number // len(self.starts) ** 2])

    def read_raw(self, number: int) -> RawChip:
        """Read a tile; its labels are channel indices."""
        part = number % len(self.starts) ** 2
        (top, known_rows), (left, known_cols) = (self._start_and_overlap(i) for i in divmod(part, len(self.starts)))
        chip = self._read(self.row(number), top, left)
        chip.codes[:known_rows], chip.codes[:, :known_cols] = IGNORE_INDEX, IGNORE_INDEX
        return chip

    def _start_and_overlap(self, i: int) -> tuple[int, int]:
        """Return the first pixel of the i-th tile along a side, and its overlap with the tile before, in pixels."""
        start = self.starts[i]
        return start, self.starts[i - 1] + self.size - start if i else 0


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Make random draws of torch, numpy and Python depend on the seed alone, and restore their states.

    Ours draw from torch; a transform of the user may draw from any. The generator of the GPU is not touched.
    """
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (a user's transforms may use it)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)  # noqa: NPY002
