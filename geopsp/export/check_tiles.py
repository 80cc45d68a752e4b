"""Tiles of raw pixels on which an exported file is checked: from chips, from images, or drawn from statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geopsp.core.bands import match_bands
from geopsp.core.grid import Window, tile_starts
from geopsp.core.pixel_values import is_identity
from geopsp.errors import BandError, ChipError, GridError
from geopsp.models.saved_model import TrainedModel
from geopsp.raster.open_scenes import open_scenes
from geopsp.raster.pixel_rule import convert_pixels

if TYPE_CHECKING:
    from geopsp.chips.chip_set import ChipSet
    from geopsp.data.dataset import ChipReader

CHECKED_PIXELS = 2**20
"""Pixels that a file is checked on; at least `MIN_TILES` tiles, and at most `MAX_TILES`."""

MIN_TILES, MAX_TILES = 4, 32

COARSE = 16
"""Pixels per cell of the coarse structure of drawn tiles."""


class RawTile(NamedTuple):
    """A tile as a network takes it before it is normalised."""

    pixels: NDArray[np.float32]
    """(bands, s, s); 0 where invalid."""

    valid: NDArray[np.bool_]
    """(s, s); True where there is data."""


@dataclass(frozen=True, slots=True, eq=False)
class RawTiles:
    """Tiles to check on."""

    read: Callable[[int, int], Iterator[RawTile]]
    """Takes how many, and the side of a tile; may give fewer."""

    source: str
    """Where they are from, for messages: "validation chips"."""

    def take(self, size: int) -> list[RawTile]:
        """Return as many as a check needs.

        Raises:
            ChipError: if none has a valid pixel.
        """
        count = min(MAX_TILES, max(MIN_TILES, CHECKED_PIXELS // size**2))
        tiles = list(islice(self.read(count, size), count))
        if not any(tile.valid.any() for tile in tiles):
            raise ChipError(
                f"The {self.source} have no valid pixels to check the exported file on. Choose others with `chips` or "
                "`images`."
            )
        return tiles


def raw_tile(data: NDArray[Any], valid: NDArray[np.bool_], size: int) -> RawTile:
    """Return a tile of (bands, rows, cols) pixels that may be smaller, filled up with invalid ones."""
    valid = valid & np.isfinite(data).all(axis=0)
    rows, cols = valid.shape
    pixels, mask = np.zeros((len(data), size, size), np.float32), np.zeros((size, size), bool)
    pixels[:, :rows, :cols], mask[:rows, :cols] = np.where(valid, data, 0), valid
    return RawTile(pixels, mask)


def chip_tiles(
    model: TrainedModel, chips: ChipSet, reader: ChipReader, rows: Sequence[int], source: str = "chips"
) -> RawTiles:
    """Return tiles in the middle of chips, spread over the given rows of their index.

    Raises:
        BandError: if the chips have other bands than the model.
    """
    try:
        matched = list(match_bands(model.bands, chips.bands, where="The chip folder"))
    except BandError:
        matched = []
    if matched != list(range(len(chips.bands))):
        raise BandError(
            f"The chips have the bands {', '.join(chips.bands)}, but the model needs {', '.join(model.bands)}. Choose "
            "chips with the bands of the model."
        )
    conversion = chips.pixel_values.conversion_to(model.pixel_values, len(model.bands))

    def read(count: int, size: int) -> Iterator[RawTile]:
        shown = min(size, chips.tile_size)
        start = (chips.tile_size - shown) // 2
        for row in _spread(rows, count):
            data, valid, _ = reader.read(row, start, start, shown)
            yield raw_tile(data if is_identity(conversion) else convert_pixels(data, valid, conversion), valid, size)

    return RawTiles(read, source)


def folder_tiles(model: TrainedModel, folders: str | Path | Sequence[str | Path]) -> RawTiles:
    """Return tiles of the chips of a folder, or of several."""
    from geopsp.chips.chip_set import ChipSet
    from geopsp.data.dataset import ChipFiles

    chips = ChipSet.open(folders)
    return chip_tiles(model, chips, ChipFiles(chips), range(len(chips)))


def image_tiles(model: TrainedModel, images: str | Path | Sequence[str | Path]) -> RawTiles:
    """Return tiles spread over images, on the grid of each.

    Raises:
        InputNotFoundError, RasterError, GridError, BandError: as the images are.
    """
    found = images if isinstance(images, str | Path) else list(images)
    scenes = open_scenes(found, bands=model.bands, like=model.pixel_values)

    def read(count: int, size: int) -> Iterator[RawTile]:
        windows = [
            (scene, Window(col, row, min(size, scene.grid.width), min(size, scene.grid.height)))
            for scene in scenes
            for row, col in product(
                *(tile_starts(side, size=min(size, side), overlap=0) for side in (scene.grid.height, scene.grid.width))
            )
        ]
        for scene, window in _spread(windows, count):
            array = scene.read(window)
            yield raw_tile(array.data, array.valid, size)

    return RawTiles(read, "images")


def drawn_tiles(model: TrainedModel, seed: int = 0) -> RawTiles:
    """Return tiles with the mean, spread and range of the training pixels, some of them with invalid areas."""
    stats = model.statistics
    if not stats.count:
        raise GridError("The model has no statistics of its training pixels. Give `chips` or `images` to check on.")

    def read(count: int, size: int) -> Iterator[RawTile]:
        rng = np.random.default_rng(seed)
        for number in range(count):
            coarse = rng.standard_normal((len(model.bands), *2 * (-(-size // COARSE),)))
            smooth = coarse.repeat(COARSE, axis=1).repeat(COARSE, axis=2)[:, :size, :size]
            noise = 0.8 * smooth + 0.6 * rng.standard_normal((len(model.bands), size, size))
            mean, std, low, high = (each[:, None, None] for each in (stats.mean, stats.std, stats.low, stats.high))
            data = np.clip(mean + std * noise, low, high)
            if np.dtype(model.dtype).kind in "iu" and not model.pixel_values.scaled:
                data = data.round()
            valid = np.ones((size, size), bool)
            if number % 2:
                valid[: size // (number + 1)] = False
                valid[:, size - size // (number + 2) :] = False
            yield raw_tile(data, valid, size)

    return RawTiles(read, "tiles drawn from the statistics of the training pixels")


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    """Return at most so many items, evenly spread."""
    chosen = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[i] for i in chosen]
