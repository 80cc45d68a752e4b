"""Features of the chips of a folder, which the model has seen or soon will."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RioWindow

from geopsp.active_learning.tile_views import Floats, TileViews, View
from geopsp.chips.chip_set import ChipSet
from geopsp.core.documents import DocumentError
from geopsp.core.pixel_values import is_identity
from geopsp.core.progress import progress_bar
from geopsp.core.text import format_error
from geopsp.errors import ChipError
from geopsp.inference.engines import MapModel
from geopsp.raster.open import open_chip
from geopsp.raster.pixel_rule import convert_pixels
from geopsp.raster.valid_mask import alpha_band, valid_mask


def chip_features(chips: ChipSet, model: MapModel, views: TileViews, size: int) -> Floats:
    """Return the features of all chips with labels, (n, d); one larger than a tile has several, a rotated copy none.

    Raises:
        ChipError: if the chips lack a band of the model, or one cannot be read.
    """
    missing = [band for band in model.bands if band not in chips.bands]
    if missing:
        raise ChipError(
            f"The chips in {chips.folders[0]} have the bands {', '.join(chips.bands)}, but the model needs "
            f"{', '.join(model.bands)}. Give the chips that it was trained on."
        )
    found: list[Floats] = []
    index = chips.index
    paths = list(index["image"][(index["angle"] == 0) & (index["labelled"] > 0)])
    with progress_bar("Features of labelled chips", unit="chips") as progress:
        tiles = _all_tiles(paths, chips, model, size, progress)
        while batch := list(islice(tiles, views.predictor.batch_size)):  # a batch costs the same, however full it is
            features = views.predict(batch)[1]
            assert features is not None
            found.append(features)
    return np.concatenate(found) if found else np.zeros((0, 0), np.float32)


def _all_tiles(
    paths: list[str], chips: ChipSet, model: MapModel, size: int, progress: Callable[[int, int], None]
) -> Iterator[View]:
    for number, path in enumerate(paths, 1):
        yield from _tiles(path, chips, model, size)
        progress(number, len(paths))


def _tiles(path: str, chips: ChipSet, model: MapModel, size: int) -> Iterator[View]:
    """Yield a chip as tiles side by side; of one smaller than a tile, the rest is not valid."""
    data, valid = _read(path, [chips.bands.index(band) + 1 for band in model.bands], chips.tile_size)
    conversion = chips.pixel_values.conversion_to(model.pixel_values, len(model.bands))
    if not is_identity(conversion):
        data = convert_pixels(data, valid, conversion)
    short = max(size - chips.tile_size, 0)
    if short:
        data, valid = np.pad(data, ((0, 0), (0, short), (0, short))), np.pad(valid, ((0, short), (0, short)))
    for top in range(0, len(valid) - size + 1, size):
        for left in range(0, len(valid) - size + 1, size):
            rows, cols = slice(top, top + size), slice(left, left + size)
            if valid[rows, cols].any():
                yield View(data[:, rows, cols], valid[rows, cols])


def _read(path: str, indexes: list[int], side: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    try:
        with open_chip(path) as dataset:
            bands = [i for i in dataset.indexes if i != alpha_band(dataset)] or list(dataset.indexes)
            if (dataset.height, dataset.width) == (side, side) and len(bands) >= max(indexes):
                chosen = [bands[i - 1] for i in indexes]
                data = dataset.read(chosen)
                return data, valid_mask(dataset, data, chosen, RioWindow(0, 0, side, side))
    except (OSError, DocumentError) as error:
        raise ChipError(f"Cannot read the chip {path}: {format_error(error)}. Export the chips again.") from error
    raise ChipError(f"{path} is not the chip that its folder lists: size or bands differ. Export the chips again.")
