"""Images in Zarr stores: `store.zarr`, or `store.zarr:variable`, in a folder or an object store.

GDAL reads the pixels. The dimension before y and x is the bands, and its coordinates are their names.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import rasterio

from geopsp.core.paths import gdal_path, is_local
from geopsp.core.text import format_error
from geopsp.core.time_limit import limit_servers
from geopsp.errors import InputNotFoundError, RasterError
from geopsp.raster.open import GDAL_ERRORS, gdal_env, open_raster, read_tags
from geopsp.raster.source_image import SourceImage

STORE = re.compile(r"(?P<store>(?!(?i:zarr):).*\.zarr)/?(:/*(?P<variable>[^:]+))?", re.DOTALL | re.IGNORECASE)

BESIDE = ("x", "y", "lon", "lat", "longitude", "latitude", "time", "band", "spatial_ref", "crs")
"""Names of variables that are no images."""


def find(item: Any) -> list[SourceImage] | None:
    """Return the image of a Zarr store; None of anything else.

    Raises:
        InputNotFoundError: if there is no such store or variable.
        RasterError: if several variables could be meant, or GDAL cannot read it.
    """
    match = STORE.fullmatch(str(item)) if isinstance(item, str | Path) else None
    if match is None or (is_local(item) and Path(str(item)).is_file()):
        return None
    store, variable = match["store"], match["variable"]
    if is_local(store) and not Path(store).is_dir():
        raise InputNotFoundError(f"No such Zarr store: {store}. Check the path.")
    place = gdal_path(store) if is_local(store) or "://" in store else gdal_path(Path(store))
    path = f'ZARR:"{place}":/{(variable or _only_variable(store, place)).strip("/")}'
    with open_raster(path) as dataset:
        names = tuple(_band_name(dataset, band) for band in dataset.indexes)
    named = all(names) and len(set(names)) == len(names)
    return [SourceImage(str(item), (path,), bands=(tuple(map(str, names)),) if named else None)]


def _only_variable(store: str, place: str) -> str:
    """Return the variable that holds the image.

    Raises:
        RasterError: if there are several, or none.
    """
    limit_servers()
    try:
        with gdal_env(store), rasterio.open(f'ZARR:"{place}"') as dataset:
            subdatasets = list(dataset.subdatasets)
            if not subdatasets and dataset.count:  # an array without a group around it
                return ""
    except GDAL_ERRORS as error:
        raise RasterError(
            f"Cannot read {store} as a Zarr store: {format_error(error)}. GDAL {rasterio.__gdal_version__} may not "
            "read this version of the format: write it with zarr_format=2."
        ) from error
    found = sorted(name.rpartition(":")[2].strip("/") for name in subdatasets)
    images = [name for name in found if name.rpartition("/")[2].lower() not in BESIDE]
    if len(images) != 1:
        what = f"several variables ({', '.join(images)})" if images else "no variable that is an image"
        raise RasterError(f"{store} holds {what}. Name the one to read: {store}:VARIABLE.")
    return str(images[0])


def _band_name(dataset: Any, band: int) -> str | None:
    """Return the coordinate of a band, if that is a name."""
    tags = read_tags(dataset, band)
    values = [value for name, value in tags.items() if re.fullmatch(r"DIM_.*_VALUE", name)]
    return values[0] if len(values) == 1 and not re.fullmatch(r"[-\d.e+]+", values[0]) else None
