"""What differs between a scene and what a model was trained on, in words, before the first tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import pyproj
from pyproj.database import get_units_map

from geopsp.core.bands import BandStats, merge_stats
from geopsp.core.crs import metre_axes, metres_per_degree
from geopsp.core.grid import Grid, Window
from geopsp.models.saved_model import TrainedModel
from geopsp.raster.scene import Scene

SIZE_RATIO = 1.25
"""Largest ratio of two pixel sizes that goes without a word."""


COARSE = 8.0
"""Times a pixel may be larger than the trained one before no resampling helps."""


NUM_WINDOWS, LOOK = 12, 256
"""Windows in which a scene's values are looked at, and the side of each."""


READS, PLACES = 2 * NUM_WINDOWS, 1000
"""Windows that are read at most to find so many with ground, and places that are tried for them."""


FAR = 3.0
"""Standard deviations by which a band's mean may differ without a word."""


SCALE = 8.0
"""Times by which mean and spread may differ, both, before another scale is suspected."""


KNOWN_SCALES = (
    (10_000.0, "between reflectance of 0 to 1 and of 0 to 10,000"),
    (65_535.0, "between 0 to 1 and 16 bits"),
    (256.0, "between 8 and 16 bits, or 0 to 1 and 8 bits"),
)
"""Ratios of values that come up often."""


SHOWN = 3
"""Bands that a note names at most."""


def compare_with_training(scene: Scene, model: TrainedModel, *, tile_size: int | None = None) -> list[str]:
    """What a user should know before a model maps a scene: type, size of pixels, values, tiles."""
    return [*_type(scene, model), *_sizes(scene.grid, model), *_values(scene, model), *_tiles(model, tile_size)]


def _type(scene: Scene, model: TrainedModel) -> Iterator[str]:
    if scene.dtype.name != model.dtype:
        yield f"the images hold {scene.dtype.name}, the model was trained on {model.dtype}"


def _tiles(model: TrainedModel, tile_size: int | None) -> Iterator[str]:
    if tile_size is not None and tile_size != model.tile_size:
        yield (
            f"tiles are {tile_size} pixels wide, the model was trained on {model.tile_size}: what it averages over a "
            "whole tile is another piece of ground"
        )


def _sizes(grid: Grid, model: TrainedModel) -> Iterator[str]:
    across, down = ground_size(grid)
    unit = grid.crs.linear_units if grid.crs.is_projected else "degree"
    here, trained = grid.cell_size[1], model.cell_size[1]
    metres = metres_of(model.units, grid)
    ratio = here / trained if unit == model.units else None if metres is None else down / (trained * metres)
    if ratio is not None and not 1 / SIZE_RATIO <= ratio <= SIZE_RATIO:
        size = f"{here:g} {unit}" + ("" if unit == model.units else f" ({_number(down)} m on the ground)")
        times, smaller = _number(max(ratio, 1 / ratio)), "smaller" if ratio > 1 else "larger"
        remedy = f"cell_size={here / ratio:.5g} (--cell-size) shows them as it does"
        if ratio > COARSE:
            remedy = "so coarse images need a model of their own"
        yield (
            f"pixels are {size} high, the model was trained on {trained:g} {model.units}: things show {times} times "
            f"{smaller} than it knows them; {remedy}"
        )
    yield from _distortion(grid, across, down)


def _distortion(grid: Grid, across: float, down: float) -> Iterator[str]:
    """Where a pixel is not what the CRS says: far from the equator in Web Mercator, or in degrees."""
    name = pyproj.CRS.from_user_input(grid.crs).name
    said = grid.cell_size[1] * (grid.crs.units_factor[1] if grid.crs.is_projected else 0)
    if said and not 1 / SIZE_RATIO <= said / down <= SIZE_RATIO:
        yield (
            f"pixels of {grid.cell_size[1]:g} {grid.crs.linear_units} are {_number(down)} m high on the ground, as "
            f"{name} stretches the Earth here; that suits a model trained in the same CRS at about this latitude. "
            "Else give cell_size, or warp the images to a CRS of the region, such as UTM"
        )
    if not 1 / SIZE_RATIO <= across / down <= SIZE_RATIO:
        yield (
            f"pixels are {_number(across)} m wide and {_number(down)} m high on the ground ({name}): things look "
            f"{'narrower' if across > down else 'wider'} than they are; that suits a model trained on such pixels only"
        )


def _number(value: float) -> str:
    """To three digits, without an exponent where it is large."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def ground_size(grid: Grid) -> tuple[float, float]:
    """Metres on the ground that a pixel in the middle of a grid is wide and high.

    As the CRS's unit says where the middle has no place on the globe.
    """
    t, middle = grid.transform, grid.corners().mean(axis=0)
    axes = metre_axes(middle[None], pyproj.CRS.from_user_input(grid.crs))[0]
    sides = np.linalg.solve(axes, np.array([[t.a, t.b], [t.d, t.e]]))
    return float(np.hypot(*sides[:, 0])), float(np.hypot(*sides[:, 1]))


def metres_of(unit: str, grid: Grid) -> float | None:
    """Metres in a unit, of degrees along a meridian of the grid's globe; None: nobody knows."""
    if unit == "degree":
        return metres_per_degree(pyproj.CRS.from_user_input(grid.crs))
    return _lengths().get(unit.lower())


@cache
def _lengths() -> dict[str, float]:
    """Metres by the names that EPSG and ESRI give to units of length."""
    found = {name.lower(): unit.conv_factor for name, unit in get_units_map(category="linear").items()}
    return found | {"meter": 1.0, "foot_us": 1200 / 3937, "us survey foot": 1200 / 3937}


def _values(scene: Scene, model: TrainedModel) -> Iterator[str]:
    (found, looked), known = _look(scene), model.statistics
    if not found.count:
        where = f"{looked} windows" if looked > 1 else "the one window"
        yield (
            f"nothing valid was found in {where} of {LOOK} x {LOOK} pixels at most that were looked at: the map may be "
            "empty. Check the images, and what they declare as nodata"
        )
    if not found.count or not known.count:
        return
    spread = np.maximum(known.std, np.finfo(np.float32).tiny)
    outside = np.logical_or(found.low > known.high, found.high < known.low)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratios = np.stack([found.mean / known.mean, found.std / spread])
        scaled = (ratios > SCALE).all(axis=0) | ((ratios < 1 / SCALE) & (ratios > 0)).all(axis=0)
    shifted = np.abs(found.mean - known.mean) > FAR * spread
    differing = outside | scaled | shifted
    if not differing.any():
        return
    which = np.flatnonzero(differing)
    told = "; ".join(_band(model.bands[i], found, known, i) for i in which[:SHOWN])
    more = f"; and {len(which) - SHOWN} bands more" if len(which) > SHOWN else ""
    times = [float(ratio) for ratio in np.median(ratios, axis=1)] if scaled.all() else []
    reason = _reason(times, outside=bool(outside.all()))
    yield f"the values are not those that the model was trained on: {told}{more}. {reason}"


def _band(name: str, found: BandStats, known: BandStats, i: int) -> str:
    return (
        f"{name} lies between {found.low[i]:.6g} and {found.high[i]:.6g}, mean {found.mean[i]:.6g}; trained on "
        f"{known.low[i]:.6g} to {known.high[i]:.6g}, mean {known.mean[i]:.6g}"
    )


def _reason(ratios: Sequence[float], *, outside: bool) -> str:
    """Why values may differ, and what to do.

    `ratios`: of their mean and of their spread to the trained ones, where another scale may be why.
    """
    if ratios:
        less = "smaller" if ratios[0] < 1 else "larger"
        sizes = [max(ratio, 1 / ratio) for ratio in ratios]
        alike = [(times, words) for times in sizes for scale, words in KNOWN_SCALES if scale / 2 < times < scale * 2]
        times, words = alike[0] if alike else (sizes[0], "")
        like = f", as {words}" if words else ""
        return f"They are about {times:,.0f} times {less}{like}: bring the images to the trained scale"
    if outside:
        return "All lie outside of it: the model knows nothing of this, and the map will mean little. Check the images"
    return "The map may be poor: check that the images were made as those of the training, with the same bands"


def glance(scene: Scene) -> BandStats:
    """Statistics of a few windows with ground, spread over the scene; the same ones each time."""
    return _look(scene)[0]


def _look(scene: Scene) -> tuple[BandStats, int]:
    """As `glance`, and in how many windows it was looked for ground, those known to be empty among them."""
    parts: list[BandStats] = []
    looked = reads = 0
    for window in sample_windows(scene.grid):
        looked += 1
        if scene.known_empty(window):
            continue
        patch = scene.read(window)
        reads += 1
        parts += [BandStats.from_array(patch.data, patch.valid)] if patch.valid.any() else []
        if len(parts) == NUM_WINDOWS or reads == READS:
            break
    return merge_stats(parts, len(scene.bands)), looked


def sample_windows(grid: Grid) -> Sequence[Window]:
    """Windows of LOOK x LOOK pixels at most, evenly spread over a grid however many of them are taken.

    Source: Roberts, "The unreasonable effectiveness of quasirandom sequences" (2018).
    """
    width, height = min(LOOK, grid.width), min(LOOK, grid.height)
    shares = (0.5 + np.arange(PLACES)[:, None] * [0.7548776662466927, 0.5698402909980532]) % 1
    corners = np.floor(shares * [grid.width - width + 1, grid.height - height + 1]).astype(int)
    return [Window(int(col), int(row), width, height) for col, row in dict.fromkeys(map(tuple, corners.tolist()))]
