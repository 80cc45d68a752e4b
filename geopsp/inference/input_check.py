"""How images differ from what a model was trained on, checked before the first tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyproj

from geopsp.core.bands import BandStats, has_band_names, merge_stats
from geopsp.core.grid import Grid, Window
from geopsp.core.pixel_size import SIZE_RATIO, PixelSize, format_number, format_size, ground_size
from geopsp.inference.engines import MapModel
from geopsp.raster.scene import Scene

MAX_RESAMPLING = 8.0
"""Largest ratio of a pixel size to the trained one at which resampling still helps."""


NUM_WINDOWS, WINDOW_SIZE = 12, 256
"""Windows of a scene whose values are compared, and their side in pixels."""


MAX_READS, MAX_WINDOWS = 2 * NUM_WINDOWS, 1000
"""Windows that are read, and that are tried, until enough have valid pixels."""


MAX_MEAN_SHIFT = 3.0
"""Standard deviations by which the mean of a band may differ."""


SCALE_RATIO = 8.0
"""Ratio of both mean and spread from which on another scale is suspected."""


KNOWN_SCALES = (
    (10_000.0, "between reflectance of 0 to 1 and of 0 to 10,000"),
    (65_535.0, "between 0 to 1 and 16 bits"),
    (256.0, "between 8 and 16 bits, or 0 to 1 and 8 bits"),
)
"""Ratios of values that come up often."""


MAX_BANDS_NAMED = 3
"""Bands that a message names at most."""


def compare_with_training(scene: Scene, model: MapModel, *, tile_size: int | None = None) -> list[str]:
    """Return what may make a map wrong, in words: bands, type, pixel size, values and tiles unlike the training's."""
    return [
        *scene.warnings,
        *_bands(scene),
        *_type(scene, model),
        *_pixel_size(scene.grid, model),
        *_values(scene, model),
        *_tiles(model, tile_size),
    ]


def _bands(scene: Scene) -> Iterator[str]:
    unnamed = [layer for layer in scene.layers if has_band_names(layer.bands) and not has_band_names(layer.all_bands)]
    if unnamed:
        yield (
            f"{unnamed[0].name} has no band names, so its bands are taken in this order: {', '.join(scene.bands)}. If "
            "the order is another one, set `bands`."
        )


def _type(scene: Scene, model: MapModel) -> Iterator[str]:
    if scene.dtype.name != model.dtype and not any(layer.conversion for layer in scene.layers):
        yield f"The images are {scene.dtype.name}, but the model was trained on {model.dtype}."


def _tiles(model: MapModel, tile_size: int | None) -> Iterator[str]:
    if tile_size is not None and tile_size != model.tile_size:
        yield (
            f"Tiles are {tile_size} pixels wide, but the model was trained on {model.tile_size}: what it averages over "
            "a whole tile covers another area on the ground."
        )


def _pixel_size(grid: Grid, model: MapModel) -> Iterator[str]:
    width, height = ground_size(grid)
    size = PixelSize.of_grid(grid)
    ratio = size.ratio_to(model.cell_size[1], model.units)
    if ratio is not None and not 1 / SIZE_RATIO <= ratio <= SIZE_RATIO:
        words = size.compared_with(model.cell_size[1], model.units)
        smaller, times = "smaller" if ratio > 1 else "larger", format_number(max(ratio, 1 / ratio))
        remedy = f"Resample the images with `cell_size={grid.cell_size[1] / ratio:.5g}`."
        if ratio > MAX_RESAMPLING:
            remedy = "Train a model for this resolution."
        yield (
            f"Pixel size is {words}. Objects appear {times}x {smaller} than in training, so results will be "
            f"unreliable. {remedy}"
        )
    yield from _distortion(grid, width, height)


def _distortion(grid: Grid, width: float, height: float) -> Iterator[str]:
    """Yield a note if a pixel is not what the CRS says: far from the equator in Web Mercator, or in degrees."""
    name = pyproj.CRS.from_user_input(grid.crs).name
    nominal = grid.cell_size[1] * (grid.crs.units_factor[1] if grid.crs.is_projected else 0)
    if nominal and not 1 / SIZE_RATIO <= nominal / height <= SIZE_RATIO:
        yield (
            f"Pixels of {format_size(grid.cell_size[1], grid.crs.linear_units)} are {format_number(height)} m high on "
            f"the ground, because {name} stretches distances here. This suits a model trained in the same CRS at about "
            "this latitude. Otherwise set `cell_size`, or warp the images to a CRS of the region, such as UTM."
        )
    if not 1 / SIZE_RATIO <= width / height <= SIZE_RATIO:
        yield (
            f"Pixels are {format_number(width)} m wide and {format_number(height)} m high on the ground ({name}), so "
            f"objects look {'narrower' if width > height else 'wider'} than they are. This suits only a model trained "
            "on such pixels."
        )


def _values(scene: Scene, model: MapModel) -> Iterator[str]:
    (found, num_windows), known = _sample_values(scene), model.statistics
    if not found.count:
        windows = f"{num_windows} windows" if num_windows > 1 else "1 window"
        yield (
            f"No valid pixel was found in {windows} of up to {WINDOW_SIZE} x {WINDOW_SIZE} pixels: the map may be "
            "empty. Check the images and their nodata value."
        )
    if not found.count or not known.count:
        return
    spread = np.maximum(known.std, np.finfo(np.float32).tiny)
    outside = np.logical_or(found.low > known.high, found.high < known.low)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratios = np.stack([found.mean / known.mean, found.std / spread])
        scaled = (ratios > SCALE_RATIO).all(axis=0) | ((ratios < 1 / SCALE_RATIO) & (ratios > 0)).all(axis=0)
    shifted = np.abs(found.mean - known.mean) > MAX_MEAN_SHIFT * spread
    differing = np.flatnonzero(outside | scaled | shifted)
    if not len(differing):
        return
    bands = "; ".join(_band(model.bands[i], found, known, i) for i in differing[:MAX_BANDS_NAMED])
    hidden = len(differing) - MAX_BANDS_NAMED
    more = f"; and {hidden} more band{'' if hidden == 1 else 's'}" if hidden > 0 else ""
    medians = (
        [float(ratio) for ratio in np.median(ratios, axis=1)] if scaled.all() and np.isfinite(ratios).all() else []
    )
    reason = _reason(medians, outside=bool(outside.all()))
    yield f"Pixel values differ from those of the training: {bands}{more}. {reason}"


def _band(name: str, found: BandStats, known: BandStats, i: int) -> str:
    return (
        f"{name} is {found.low[i]:.6g} to {found.high[i]:.6g} (mean {found.mean[i]:.6g}), trained on "
        f"{known.low[i]:.6g} to {known.high[i]:.6g} (mean {known.mean[i]:.6g})"
    )


def _reason(ratios: Sequence[float], *, outside: bool) -> str:
    """Return why values may differ, and what to do.

    `ratios`: of mean and spread to those of the training, if all bands may be of another scale.
    """
    if ratios:
        smaller = "smaller" if ratios[0] < 1 else "larger"
        sizes = [max(ratio, 1 / ratio) for ratio in ratios]
        known = [(times, words) for times in sizes for scale, words in KNOWN_SCALES if scale / 2 < times < scale * 2]
        times, words = known[0] if known else (sizes[0], "")
        like = f", as {words}" if words else ""
        return f"They are about {times:,.0f}x {smaller}{like}. Convert the images to the scale of the training."
    if outside:
        return "All values lie outside the range of the training, so results will be unreliable. Check the images."
    return "Results may be poor. Check that the images were made like those of the training, with the same bands."


def sample_statistics(scene: Scene) -> BandStats:
    """Return statistics of a few windows with valid pixels, spread over the scene; the same ones each time."""
    return _sample_values(scene)[0]


def _sample_values(scene: Scene) -> tuple[BandStats, int]:
    """Return statistics of a few windows, and how many windows were tried, those known to be empty included."""
    parts: list[BandStats] = []
    tried = reads = 0
    for window in sample_windows(scene.grid):
        tried += 1
        if scene.known_empty(window):
            continue
        array = scene.read(window)
        reads += 1
        if array.valid.any():
            parts.append(BandStats.from_array(array.data, array.valid))
        if len(parts) == NUM_WINDOWS or reads == MAX_READS:
            break
    return merge_stats(parts, len(scene.bands)), tried


def sample_windows(grid: Grid) -> Sequence[Window]:
    """Return windows of up to WINDOW_SIZE x WINDOW_SIZE pixels; any number of the first are evenly spread.

    Source: Roberts, "The unreasonable effectiveness of quasirandom sequences" (2018).
    """
    width, height = min(WINDOW_SIZE, grid.width), min(WINDOW_SIZE, grid.height)
    fractions = (0.5 + np.arange(MAX_WINDOWS)[:, None] * [0.7548776662466927, 0.5698402909980532]) % 1
    corners = np.floor(fractions * [grid.width - width + 1, grid.height - height + 1]).astype(int)
    return [Window(int(col), int(row), width, height) for col, row in dict.fromkeys(map(tuple, corners.tolist()))]
