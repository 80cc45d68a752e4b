"""What is on the ground of the corpus's images, in pixels, and what the commands made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray

SHAPES = {
    "forest": shapely.box(10.3, 6.3, 60.3, 46.3),
    "water": shapely.box(20.3, 12.3, 44.3, 32.3),
    "road": shapely.Polygon([(30.3, 20.3), (52.3, 24.3), (34.3, 40.3)]),
}
"""Polygons in columns and rows, from the largest to the smallest, which lies on top."""

BORDER = 0.06
"""Pixels whose centre is nearer to an outline are not compared."""


def centres(height: int, width: int) -> NDArray[np.object_]:
    """Return the centres of pixels as points, (rows, cols)."""
    cols, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.asarray(shapely.points(cols, rows), object)


def label_names(height: int, width: int) -> tuple[NDArray[np.object_], NDArray[np.bool_]]:
    """Return the class of each pixel by its name, and True where it is beyond doubt."""
    points = centres(height, width)
    names = np.full((height, width), "background", object)
    sure = np.ones((height, width), bool)
    for name, shape in SHAPES.items():
        names[shapely.contains(shape, points)] = name
        sure &= shapely.distance(shape.boundary, points) > BORDER
    return names, sure


def labels_of(transform: Affine, crs: Any, *, shift: float = 0.0) -> gpd.GeoDataFrame:
    """Return the polygons on the ground; `shift` is added to x."""
    shapes = [
        shapely.transform(shape, lambda xy: np.add(np.column_stack(transform @ tuple(xy.T)), [shift, 0]))
        for shape in SHAPES.values()
    ]
    return gpd.GeoDataFrame({"kind": list(SHAPES)}, geometry=shapes, crs=crs.to_wkt() if crs else None)


def pasted_chips(chips: Any, transform: Affine, size: tuple[int, int]) -> dict[str, NDArray[Any]]:
    """Read all chips with rasterio, and put them where their georeference says: data, valid mask and labels."""
    found: dict[str, NDArray[Any]] = {}
    for image, label in zip(chips.index["image"], chips.index["label"], strict=True):
        with rasterio.open(image) as source, rasterio.open(label) as codes:
            assert source.transform.almost_equals(codes.transform), "a chip and its label lie in different places"
            col, row = (~transform) @ (source.transform.c, source.transform.f)
            assert abs(col - round(col)) < 1e-3, f"a chip is {col} columns off"
            assert abs(row - round(row)) < 1e-3, f"a chip is {row} rows off"
            parts = {"data": source.read(), "valid": source.dataset_mask() > 0, "codes": codes.read(1)}
        for name, part in parts.items():
            whole = found.setdefault(name, np.zeros((*part.shape[:-2], *size), part.dtype))
            rows, cols = _overlap(round(row), part.shape[-2], size[0]), _overlap(round(col), part.shape[-1], size[1])
            whole[..., rows[0], cols[0]] = part[..., rows[1], cols[1]]
    return found


def _overlap(start: int, length: int, size: int) -> tuple[slice, slice]:
    low, high = max(start, 0), min(start + length, size)
    return slice(low, high), slice(low - start, high - start)


def require_any(attempts: Sequence[Callable[[], None]]) -> None:
    """Check that one of several right answers was given."""
    errors = []
    for attempt in attempts:
        try:
            return attempt()
        except AssertionError as error:
            errors.append(str(error).splitlines()[0] if str(error) else "differs")
    raise AssertionError("; or ".join(errors))


def same(found: NDArray[Any], expected: NDArray[Any], where: NDArray[np.bool_], words: str) -> None:
    """Check that two arrays are the same in some pixels."""
    assert found.shape == expected.shape, f"{words}: {found.shape} instead of {expected.shape}"
    where = np.broadcast_to(where, found.shape)
    wrong = where & (found != expected)
    if found.dtype.kind == "f":
        wrong &= ~np.isclose(found.astype(float), expected.astype(float), rtol=1e-5, atol=1e-5)
    if wrong.any():
        spot = tuple(np.argwhere(wrong)[0].tolist())
        raise AssertionError(
            f"{words}: {int(wrong.sum())} of {int(where.sum())} differ, at {spot} {found[spot]} instead of "
            f"{expected[spot]}"
        )
