"""Tiny rasters and labels, off-origin and non-square."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

MakeRaster = Callable[..., Path]


@pytest.fixture
def make_raster(tmp_path: Path) -> MakeRaster:
    """A GeoTIFF: `make_raster("a.tif", data, origin=, cell=, crs=, names=, mask=, **profile)`; data is (bands, h, w)."""

    def make(
        name: str = "image.tif",
        data: Any = None,
        *,
        size: tuple[int, int] = (61, 83),
        bands: int = 3,
        dtype: str = "uint8",
        origin: tuple[float, float] = (601234.0, 5301717.0),
        cell: float = 2.0,
        crs: str | None = "EPSG:32632",
        transform: Any = None,
        names: tuple[str, ...] | None = None,
        mask: Any = None,
        seed: int = 0,
        **profile: Any,
    ) -> Path:
        if data is None:
            data = np.random.default_rng(seed).integers(1, 200, (bands, *size)).astype(dtype)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        count, height, width = data.shape
        options = {"driver": "GTiff", "dtype": data.dtype, "count": count, "height": height, "width": width, "crs": crs}
        options["transform"] = transform or from_origin(*origin, cell, cell)
        with rasterio.open(path, "w", **options | profile) as dataset:
            dataset.write(data)
            if names:
                dataset.descriptions = names
            if mask is not None:
                dataset.write_mask(mask)
        return path

    return make


@pytest.fixture
def make_labels(tmp_path: Path) -> Callable[..., Path]:
    """A GeoPackage: `make_labels("l.gpkg", [geometry...], {"class": [...]}, crs=, layer=)`."""

    def make(
        name: str, shapes: list[Any], columns: dict[str, list[Any]] | None = None, *, crs: str = "EPSG:32632", **options: Any
    ) -> Path:
        path = tmp_path / name
        gpd.GeoDataFrame(columns or {"id": range(len(shapes))}, geometry=shapes, crs=crs).to_file(path, **options)
        return path

    return make


def square(left: float, top: float, side: float) -> shapely.Polygon:
    """A square by its upper left corner."""
    return shapely.box(left, top - side, left + side, top)
