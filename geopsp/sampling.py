"""Pixels of one grid taken onto another of the same CRS."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.grid import Grid


def sample(
    data: NDArray[Any], valid: NDArray[np.bool_], source: Grid, target: Grid, *, nearest: bool = False
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """(bands, rows, cols) pixels of `target` and where they are valid: where the pixel under their centre is.

    Between the four pixels around a centre by distance, the invalid ones left out; integers are rounded.
    """
    rows, cols = np.mgrid[0 : target.height, 0 : target.width] + 0.5
    t = target.transform
    points = np.column_stack([(t.a * cols + t.b * rows + t.c).ravel(), (t.d * cols + t.e * rows + t.f).ravel()])
    places = source.pixels_at(points)
    shape = (target.height, target.width)
    flat = np.where(valid, data, 0).reshape(len(data), -1)
    under = _inside(places, source)
    seen = valid.ravel()[under]
    if nearest:
        return flat[:, under].reshape(-1, *shape), seen.reshape(shape)
    low = np.floor(places - 0.5)
    share = places - 0.5 - low
    total, weights = np.zeros((len(data), len(points))), np.zeros(len(points))
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
        at = _inside(low + np.array([right, down]), source)
        weight = np.abs(1 - right - share[:, 0]) * np.abs(1 - down - share[:, 1]) * valid.ravel()[at]
        total += flat.take(at, axis=1) * weight
        weights += weight
    total /= np.where(weights > 0, weights, 1)
    if data.dtype.kind in "iu":
        np.rint(total, out=total)
    return np.where(seen, total, 0).astype(data.dtype).reshape(-1, *shape), seen.reshape(shape)


def _inside(places: NDArray[np.float64], grid: Grid) -> NDArray[np.intp]:
    """Flat positions of the pixels that places lie in, of the nearest ones for places a hair outside."""
    col = places[:, 0].astype(np.intp).clip(0, grid.width - 1)
    row = places[:, 1].astype(np.intp).clip(0, grid.height - 1)
    flat: NDArray[np.intp] = row * grid.width + col
    return flat
