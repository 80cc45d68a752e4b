"""The outline of a raster's valid pixels, from its overviews."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from geopsp.raster.open import open_raster

MAX_SIDE = 1024
"""Pixels along each side of what is read."""


def valid_hull(path: str | Path, *, max_side: int = MAX_SIDE) -> Any | None:
    """Return the convex hull of the valid pixels in the CRS of a raster; None if no pixel is valid.

    Of a raster larger than `max_side` it is too large by up to two of the pixels that are read.
    """
    with open_raster(path) as dataset:
        width, height, transform = dataset.width, dataset.height, dataset.transform
        step = max(1, math.ceil(max(width, height) / max_side))
        shape = (math.ceil(height / step), math.ceil(width / step))
        valid = dataset.read_masks(1, out_shape=shape) > 0
    rows = np.flatnonzero(valid.any(axis=1))
    if not rows.size:
        return None
    first, last = valid[rows].argmax(axis=1), shape[1] - valid[rows, ::-1].argmax(axis=1)
    pad = 0 if step == 1 else 1
    cols = np.concatenate([first - pad, last + pad] * 2) * (width / shape[1])
    lines = np.concatenate([rows - pad] * 2 + [rows + 1 + pad] * 2) * (height / shape[0])
    cols, lines = np.clip(cols, 0, width), np.clip(lines, 0, height)
    t = transform
    corners = np.column_stack([t.a * cols + t.b * lines + t.c, t.d * cols + t.e * lines + t.f])
    return shapely.convex_hull(shapely.MultiPoint(corners))
