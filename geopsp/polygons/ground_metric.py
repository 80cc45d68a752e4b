"""How large pixels are on the ground: areas and lengths on the ellipsoid of a grid's CRS."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyproj
from numpy.typing import NDArray

from geopsp.core.grid import Grid
from geopsp.core.jit import jit
from geopsp.errors import GridError

Floats = NDArray[np.float64]


Measure = Callable[[Floats, Floats], Floats]


KNOTS = (16, 64, 256)
"""Knots a side: as many as are exact enough, else the last."""


EXACT = 2e-6
"""The largest share by which squared lengths amid knots may differ from what the knots say of them."""


REACH = 10.0
"""Metres to each side of a point over which the ground there is measured."""


NODES, WEIGHTS = np.polynomial.legendre.leggauss(3)
"""Gauss-Legendre quadrature from -1 to 1: exact to 1e-11 for cells of ten degrees."""


class GroundMetric(NamedTuple):
    """How large pixels are in metres: known at knots, which are every `step`-th corner of pixels and the frame's.

    NaN beyond the domain of the CRS. numba's functions take it as it is.
    """

    step: int
    """Pixels; a power of two, 1 in small rasters."""

    cols: Floats
    """(m,) where the knots lie; the last may be nearer than `step` to the one before."""

    rows: Floats
    """(n,)"""

    across: Floats
    """(n, m) m2: a step of (x, y) pixels is sqrt(across x^2 + 2 both x y + along y^2) metres long."""

    both: Floats
    """(n, m)"""

    along: Floats
    """(n, m)"""

    density: Floats
    """(n, m) m2 a pixel."""

    balance: Floats
    """(n - 1, m - 1) what densities between knots are multiplied by, that the area of such a cell be exact."""

    @classmethod
    def of(cls, grid: Grid) -> GroundMetric:
        """The metric of a grid's pixels.

        Raises:
            GridError: if the CRS is neither geographic nor projected.
        """
        measure = _measure(grid)
        for most in KNOTS:
            step = 2 ** max(0, math.ceil(math.log2(max(grid.width, grid.height) / most)))
            cols, rows = _knots(grid.width, step), _knots(grid.height, step)
            tensor = measure(cols, rows[:, None])
            middle = measure(_inside(cols, 0), _inside(rows, 0)[:, None])
            if step == 1 or not (np.abs(_between(tensor) - middle) > EXACT * (middle[0] + middle[2])).any():
                break
        density, mean = _density(tensor), _means(cols, rows, measure)
        between = _between(density)
        across, both, along = tensor
        balance = np.divide(mean, between, out=np.ones_like(mean), where=between != 0)
        return cls(step, cols, rows, across, both, along, density, balance)


def _measure(grid: Grid) -> Measure:
    """What tells (3, ...) E, F and G at points of the grid, in pixels, by differences between points of the globe.

    Differences in space know neither poles nor an antimeridian.
    """
    plane = pyproj.CRS.from_user_input(grid.crs)
    geod, globe = plane.get_geod(), plane.geodetic_crs
    if globe is not None and globe.is_derived:  # one with poles elsewhere
        globe = globe.source_crs
    if geod is None or globe is None or plane.is_geocentric:
        raise GridError(f"{plane.name} is a CRS without an ellipsoid; needed a geographic or projected one. Assign it.")
    angles = pyproj.Transformer.from_crs(plane, globe, always_xy=True)  # to others a search takes 20 ms
    angle = globe.axis_info[0].unit_conversion_factor
    unit = grid.crs.units_factor[1]
    pole = math.pi / 2 / unit if plane.is_geographic else math.inf
    metres = unit * (geod.a if plane.is_geographic else 1)
    reach = [REACH / metres / size for size in grid.cell_size]
    place = partial(_place, grid=grid, angles=angles, angle=angle, geod=geod, pole=pole)

    def measure(cols: Floats, rows: Floats) -> Floats:
        (left, right), (up, down) = (
            (np.maximum(at - away, 0), np.minimum(at + away, size))
            for at, away, size in zip((cols, rows), reach, (grid.width, grid.height), strict=True)
        )
        across = (place(right, rows) - place(left, rows)) / (right - left)
        along = (place(cols, down) - place(cols, up)) / (down - up)
        return np.stack([(across * across).sum(0), (across * along).sum(0), (along * along).sum(0)])

    return measure


def _place(
    cols: Floats,
    rows: Floats,
    *,
    grid: Grid,
    angles: pyproj.Transformer,
    angle: float,
    geod: pyproj.Geod,
    pole: float,
) -> Floats:
    """(3, ...) points of the globe, in metres from its middle; NaN where the CRS has none.

    `angles` gives longitude and latitude, in units of `angle` radians. Rows beyond a pole, which some world maps have,
    lie on it.
    """
    t = grid.transform
    x, y = np.broadcast_arrays(t.c + cols * t.a + rows * t.b, np.clip(t.f + cols * t.d + rows * t.e, -pole, pole))
    found: Any = angles.transform(x, y)
    lon, lat = (np.where(np.isfinite(side), side * angle, np.nan) for side in found)
    normal = geod.a / np.sqrt(1 - geod.es * np.sin(lat) ** 2)
    axis = normal * np.cos(lat)
    return np.stack([axis * np.cos(lon), axis * np.sin(lon), normal * (1 - geod.es) * np.sin(lat)])


def _knots(size: int, step: int) -> Floats:
    """Every `step`-th corner from 0 on, and the last."""
    return np.append(np.arange(0, size, step), size).astype(np.float64)


def _density(tensor: Floats) -> Floats:
    """m2 a pixel, of E, F and G."""
    across, both, along = tensor
    found: Floats = np.sqrt(np.maximum(across * along - both**2, 0))
    return found


def _between(values: Floats) -> Floats:
    """The mean of a cell's four knots, which is that of all its pixels, as these are blended of them."""
    rows = values[..., 1:, :] + values[..., :-1, :]
    blended: Floats = (rows[..., 1:] + rows[..., :-1]) / 4
    return blended


def _means(cols: Floats, rows: Floats, measure: Measure) -> Floats:
    """(n - 1, m - 1) mean m2 a pixel of the cells between knots."""
    mean = np.zeros((rows.size - 1, cols.size - 1))
    for along, weight in zip(NODES, WEIGHTS, strict=True):
        for across, other in zip(NODES, WEIGHTS, strict=True):
            points = _inside(cols, across), _inside(rows, along)[:, None]
            mean += weight * other / 4 * _density(measure(*points))
    return mean


def _inside(knots: Floats, node: float) -> Floats:
    """The points that lie at `node` between each two knots, of -1 to 1."""
    return (knots[1:] + knots[:-1] + node * np.diff(knots)) / 2


@jit
def _cell(knots, step, at):  # type: ignore[no-untyped-def]
    """Which knots a point lies between, and how far from the first, of 0 to 1."""
    cell = max(0, min(int(at * (1.0 / step)), knots.size - 2))
    return cell, (at - knots[cell]) / (knots[cell + 1] - knots[cell])


@jit
def _blend(values, i, down, j, right):  # type: ignore[no-untyped-def]
    """Of a cell's four knots, the nearer the more."""
    upper = values[i, j] + right * (values[i, j + 1] - values[i, j])
    lower = values[i + 1, j] + right * (values[i + 1, j + 1] - values[i + 1, j])
    return upper + down * (lower - upper)


@jit
def pixel_area(metric, x, y):  # type: ignore[no-untyped-def]
    """m2 a pixel at a point; of pixel (col, row), at (col + 0.5, row + 0.5)."""
    j, right = _cell(metric.cols, metric.step, x)
    i, down = _cell(metric.rows, metric.step, y)
    return metric.balance[i, j] * _blend(metric.density, i, down, j, right)


@jit
def cumulative_area(metric, left, row, before):  # type: ignore[no-untyped-def]
    """before[i] is the m2 of i pixels of a row, from column `left` on; NaN behind the first that is unknown."""
    start, total, size = 0, 0.0, before.size - 1
    while start <= size:
        end = min(size + 1, ((left + start) // metric.step + 1) * metric.step - left)
        # density is linear between knots, so that a run has that of its middle
        first = pixel_area(metric, left + start, row + 0.5)
        slope = pixel_area(metric, left + start + 0.5, row + 0.5) - first
        for col in range(start, end):
            before[col] = total + (col - start) * (first + slope * (col - start))
        total += (end - start) * (first + slope * (end - start))
        start = end


def lengths(xy: Floats, starts: NDArray[np.int64], metric: GroundMetric) -> Floats:
    """(lines,) metres on the ground of lines, each of which begins at a start in (vertices, 2) columns and rows."""
    found = np.zeros(starts.size - 1)
    tensor = metric.across, metric.both, metric.along
    _lengths(xy, starts, metric.step, metric.cols, metric.rows, *tensor, found)
    return found


@jit
def _lengths(xy, starts, step, cols, rows, across, both, along, found):  # type: ignore[no-untyped-def]
    """Adds up segments, long ones in parts, each by the metric at its middle."""
    for arc in range(starts.size - 1):
        total = 0.0
        for at in range(starts[arc], starts[arc + 1] - 1):
            x0, y0 = float(xy[at, 0]), float(xy[at, 1])
            x, y = xy[at + 1, 0] - x0, xy[at + 1, 1] - y0
            parts = math.ceil(max(abs(x), abs(y)) * (1.0 / step))
            x, y = x / parts, y / parts
            for part in range(parts):
                j, right = _cell(cols, step, x0 + (part + 0.5) * x)
                i, down = _cell(rows, step, y0 + (part + 0.5) * y)
                squared = 0.0
                if x != 0:
                    squared += x * x * _blend(across, i, down, j, right)
                if y != 0:
                    squared += y * y * _blend(along, i, down, j, right)
                if x * y != 0:
                    squared += 2 * x * y * _blend(both, i, down, j, right)
                total += math.sqrt(squared)
        found[arc] = total
