"""Pixel areas and lengths on the ellipsoid of a grid's CRS."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyproj
from numpy.typing import NDArray
from pyproj.exceptions import ProjError

from geopsp.core.grid import Grid, Window
from geopsp.core.jit import jit
from geopsp.core.text import format_error
from geopsp.errors import GridError

Floats = NDArray[np.float64]


FormFunction = Callable[[Floats, Floats], Floats]
"""Returns (3, ...) E, F and G in m2 at columns and rows, which are broadcast."""


MAX_KNOTS = (16, 64, 256)
"""Numbers of knots per side, tried in this order until the metric is accurate enough."""


MAX_ERROR = 2e-6
"""Largest relative error of squared lengths at the centres between knots; above it more knots are used."""


DIFFERENCE_STEP = 10.0
"""Metres to each side of a point, for central differences."""


MAX_DISTORTION = 0.02
"""Largest relative error of areas at which the metres of a projected CRS are taken as metres on the ground."""


NODES, WEIGHTS = np.polynomial.legendre.leggauss(3)
"""Gauss-Legendre quadrature from -1 to 1: exact to 1e-11 for cells of ten degrees."""


class GroundMetric(NamedTuple):
    """Sizes of pixels on the ellipsoid, at knots: every `step`-th pixel corner, and the corners of the raster's end.

    `e`, `f` and `g` are the coefficients of the first fundamental form: a step of (x, y) pixels is
    sqrt(e x^2 + 2 f x y + g y^2) metres long. Values are NaN outside of the domain of the CRS. It is a NamedTuple
    because numba takes these as arguments.
    """

    step: int
    """In pixels; a power of two, 1 in small rasters."""

    cols: Floats
    """(m,) columns of the knots; the last interval may be shorter than `step`."""

    rows: Floats
    """(n,) rows of the knots."""

    e: Floats
    """(n, m) in m2: squared length of a step of one column."""

    f: Floats
    """(n, m) in m2: product of the steps of one column and one row."""

    g: Floats
    """(n, m) in m2: squared length of a step of one row."""

    pixel_area: Floats
    """(n, m) in m2."""

    area_correction: Floats
    """(n - 1, m - 1) factor for pixel areas interpolated between knots; it makes the area of such a cell exact."""

    @property
    def pixel_side(self) -> float:
        """The shorter side of a pixel in metres; the median of the raster, 1 if that is unknown."""
        sides = np.sqrt(np.minimum(self.e, self.g))
        return (float(np.nanmedian(sides)) if np.isfinite(sides).any() else 1.0) or 1.0

    @classmethod
    def from_grid(cls, grid: Grid) -> GroundMetric:
        """Compute the metric of a grid's pixels.

        Raises:
            GridError: if the CRS is neither geographic nor projected.
        """
        form = _fundamental_form(grid)
        for most in MAX_KNOTS:
            step = 2 ** max(0, math.ceil(math.log2(max(grid.width, grid.height) / most)))
            cols, rows = _knots(grid.width, step), _knots(grid.height, step)
            at_knots = form(cols, rows[:, None])
            between = form(_points_between(cols, 0), _points_between(rows, 0)[:, None])
            if step == 1 or not (np.abs(_cell_means(at_knots) - between) > MAX_ERROR * (between[0] + between[2])).any():
                break
        area, mean = _area(at_knots), _mean_areas(cols, rows, form)
        interpolated = _cell_means(area)
        correction = np.divide(mean, interpolated, out=np.ones_like(mean), where=interpolated != 0)
        e, f, g = at_knots
        return cls(step, cols, rows, e, f, g, area, correction)


def square_pixels(area: float, metric: GroundMetric, grid: Grid, window: Window) -> float:
    """Return an area in square metres on the ground as square pixels, nowhere in a window more than it is there.

    In a projected CRS whose own metres are true to MAX_DISTORTION these are used: there, tolerances of whole pixels
    are common, and must not fall below or above a pixel by chance.

    Args:
        area: In square metres.
        metric: Pixel sizes of the grid.
        grid: The grid.
        window: Where the area is measured.

    Returns:
        0 where the ground is unknown.
    """
    cols = slice(*_knots_around(metric.cols, window.col, window.col_stop))
    rows = slice(*_knots_around(metric.rows, window.row, window.row_stop))
    largest = float(np.nan_to_num(metric.pixel_area[rows, cols]).max())
    if grid.crs.is_projected:
        of_crs = abs(grid.transform.determinant) * float(grid.crs.units_factor[1]) ** 2
        largest = of_crs if abs(largest / of_crs - 1) <= MAX_DISTORTION else largest
    return area / largest if largest > 0 else 0.0


def _knots_around(knots: Floats, start: int, stop: int) -> tuple[int, int]:
    """Return the first of the knots that enclose a range of pixels, and the one behind the last."""
    first = int(np.searchsorted(knots, start, side="right")) - 1
    return max(0, first), int(np.searchsorted(knots, stop)) + 1


def example_metric() -> GroundMetric:
    """Return a metric that shows `core.jit.jit` the type of all metrics."""
    return GroundMetric(1, *[np.zeros(1)] * 2, *[np.zeros((1, 1))] * 5)


def _fundamental_form(grid: Grid) -> FormFunction:
    """Return a function that gives E, F and G at points of the grid.

    It takes differences between points in space, where neither poles nor the antimeridian matter.
    """
    plane = pyproj.CRS.from_user_input(grid.crs)
    geod, globe = plane.get_geod(), plane.geodetic_crs
    if globe is not None and globe.is_derived:  # a CRS with rotated poles
        globe = globe.source_crs
    if geod is None or globe is None or plane.is_geocentric:
        raise GridError(
            f"{plane.name} is a CRS without an ellipsoid, but areas and lengths need a geographic or projected CRS. "
            "Assign the right CRS to the raster."
        )
    try:
        to_globe = pyproj.Transformer.from_crs(plane, globe, always_xy=True)  # finding one to another CRS takes 20 ms
    except ProjError as error:
        raise GridError(
            f"Cannot transform {plane.name}, the CRS of the raster, to longitude and latitude: {format_error(error)}. "
            "Assign the right CRS to the raster."
        ) from error
    radians = globe.axis_info[0].unit_conversion_factor
    unit = grid.crs.units_factor[1]
    max_y = math.pi / 2 / unit if plane.is_geographic else math.inf
    metres = unit * (geod.a if plane.is_geographic else 1)
    steps = [DIFFERENCE_STEP / metres / size for size in grid.cell_size]
    locate = partial(_to_space, grid=grid, to_globe=to_globe, radians=radians, geod=geod, max_y=max_y)

    def form(cols: Floats, rows: Floats) -> Floats:
        (left, right), (top, bottom) = (
            (np.maximum(at - step, 0), np.minimum(at + step, size))
            for at, step, size in zip((cols, rows), steps, (grid.width, grid.height), strict=True)
        )
        per_col = (locate(right, rows) - locate(left, rows)) / (right - left)
        per_row = (locate(cols, bottom) - locate(cols, top)) / (bottom - top)
        return np.stack([(per_col * per_col).sum(0), (per_col * per_row).sum(0), (per_row * per_row).sum(0)])

    return form


def _to_space(
    cols: Floats,
    rows: Floats,
    *,
    grid: Grid,
    to_globe: pyproj.Transformer,
    radians: float,
    geod: pyproj.Geod,
    max_y: float,
) -> Floats:
    """Return (3, ...) geocentric coordinates in metres; NaN outside of the domain of the CRS.

    `to_globe` gives longitude and latitude in units of `radians`. Rows beyond a pole, which some world maps have, are
    moved to the pole (`max_y`).
    """
    t = grid.transform
    x, y = np.broadcast_arrays(t.c + cols * t.a + rows * t.b, np.clip(t.f + cols * t.d + rows * t.e, -max_y, max_y))
    angles: Any = to_globe.transform(x, y)
    lon, lat = (np.where(np.isfinite(angle), angle * radians, np.nan) for angle in angles)
    normal = geod.a / np.sqrt(1 - geod.es * np.sin(lat) ** 2)
    to_axis = normal * np.cos(lat)
    return np.stack([to_axis * np.cos(lon), to_axis * np.sin(lon), normal * (1 - geod.es) * np.sin(lat)])


def _knots(size: int, step: int) -> Floats:
    """Return every `step`-th corner from 0 on, and the last."""
    return np.append(np.arange(0, size, step), size).astype(np.float64)


def _area(form: Floats) -> Floats:
    """Return m2 per pixel of (3, ...) E, F and G."""
    e, f, g = form
    area: Floats = np.sqrt(np.maximum(e * g - f**2, 0))
    return area


def _cell_means(values: Floats) -> Floats:
    """Return the mean of the four knots of each cell; it is the mean of all its pixels, interpolated linearly."""
    rows = values[..., 1:, :] + values[..., :-1, :]
    means: Floats = (rows[..., 1:] + rows[..., :-1]) / 4
    return means


def _mean_areas(cols: Floats, rows: Floats, form: FormFunction) -> Floats:
    """Return (n - 1, m - 1) mean m2 per pixel of the cells between knots."""
    mean = np.zeros((rows.size - 1, cols.size - 1))
    for down, row_weight in zip(NODES, WEIGHTS, strict=True):
        for right, col_weight in zip(NODES, WEIGHTS, strict=True):
            points = _points_between(cols, right), _points_between(rows, down)[:, None]
            mean += row_weight * col_weight / 4 * _area(form(*points))
    return mean


def _points_between(knots: Floats, node: float) -> Floats:
    """Return the point at `node`, from -1 to 1, of each interval between two knots."""
    return (knots[1:] + knots[:-1] + node * np.diff(knots)) / 2


@jit()
def _interval(knots, step, at):  # type: ignore[no-untyped-def]
    """Return the interval between knots that contains a point, and the point's position in it, from 0 to 1."""
    interval = max(0, min(int(at * (1.0 / step)), knots.size - 2))
    return interval, (at - knots[interval]) / (knots[interval + 1] - knots[interval])


@jit()
def _interpolate(values, i, down, j, right):  # type: ignore[no-untyped-def]
    """Interpolate bilinearly between the four knots of a cell."""
    upper = values[i, j] + right * (values[i, j + 1] - values[i, j])
    lower = values[i + 1, j] + right * (values[i + 1, j + 1] - values[i + 1, j])
    return upper + down * (lower - upper)


@jit()
def pixel_area(metric, x, y):  # type: ignore[no-untyped-def]
    """Return m2 per pixel at a point; of pixel (col, row), at (col + 0.5, row + 0.5)."""
    j, right = _interval(metric.cols, metric.step, x)
    i, down = _interval(metric.rows, metric.step, y)
    return metric.area_correction[i, j] * _interpolate(metric.pixel_area, i, down, j, right)


@jit()
def cumulative_area(metric, left, row, areas):  # type: ignore[no-untyped-def]
    """Write to areas[i] the m2 of the first i pixels of a row from column `left` on; NaN after an unknown pixel."""
    start, total, size = 0, 0.0, areas.size - 1
    while start <= size:
        end = min(size + 1, ((left + start) // metric.step + 1) * metric.step - left)
        # Pixel areas are linear between knots, so the mean of a run is the value at its middle.
        first = pixel_area(metric, float(left + start), row + 0.5)
        slope = pixel_area(metric, left + start + 0.5, row + 0.5) - first
        for col in range(start, end):
            areas[col] = total + (col - start) * (first + slope * (col - start))
        total += (end - start) * (first + slope * (end - start))
        start = end


def lengths(xy: Floats, starts: NDArray[np.int64], metric: GroundMetric) -> Floats:
    """Return (lines,) lengths in metres.

    Args:
        xy: (vertices, 2) columns and rows of all lines.
        starts: (lines + 1,) start of each line in `xy`, and the end.
        metric: Pixel sizes.
    """
    result = np.zeros(starts.size - 1)
    _lengths(xy, starts, metric.step, metric.cols, metric.rows, metric.e, metric.f, metric.g, result)
    return result


@jit("f8[:, ::1]", "i8[::1]", "i8", "f8[::1]", "f8[::1]", "f8[:, ::1]", "f8[:, ::1]", "f8[:, ::1]", "f8[::1]")
def _lengths(xy, starts, step, cols, rows, e, f, g, result):  # type: ignore[no-untyped-def]
    """Sum up segments; long ones are split, and the metric is taken at the middle of each part."""
    for line in range(starts.size - 1):
        total = 0.0
        for at in range(starts[line], starts[line + 1] - 1):
            x0, y0 = float(xy[at, 0]), float(xy[at, 1])
            x, y = xy[at + 1, 0] - x0, xy[at + 1, 1] - y0
            parts = math.ceil(max(abs(x), abs(y)) * (1.0 / step))
            x, y = x / parts, y / parts
            for part in range(parts):
                j, right = _interval(cols, step, x0 + (part + 0.5) * x)
                i, down = _interval(rows, step, y0 + (part + 0.5) * y)
                squared = 0.0
                if x != 0:
                    squared += x * x * _interpolate(e, i, down, j, right)
                if y != 0:
                    squared += y * y * _interpolate(g, i, down, j, right)
                if x * y != 0:
                    squared += 2 * x * y * _interpolate(f, i, down, j, right)
                total += math.sqrt(squared)
        result[line] = total
