"""Part files -> a Zarr store by the conventions of GeoZarr; compressed blocks are copied as they are.

The store has the array of its bands, (band, y, x), with their names, the coordinates of pixel centres, and the CRS in
`spatial_ref`. Its chunks are the blocks of the parts, which are zlib streams; one of nodata is not stored.

Source: Zarr specification 2; CF 1.11, grid mappings; GeoZarr 0.4; xarray's `_ARRAY_DIMENSIONS`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.documents import DocumentError, read_json
from geopsp.core.grid import Grid
from geopsp.core.output import write_errors
from geopsp.core.owned_files import FolderKind
from geopsp.raster.cog.part_grid import PartGrid
from geopsp.raster.cog.part_mosaic import PartMosaic, PartPath
from geopsp.raster.cog.raster_spec import RasterSpec

ZARR_ENDING = ".zarr"

METADATA = ".zmetadata"
"""All metadata of a store; written last, so that a store without it is not complete."""

ZARR_FOLDER = FolderKind(METADATA, (".zgroup", ".zattrs", "*/.zarray", "*/.zattrs", "*/[0-9]*"))

CRS, BAND, Y, X = "spatial_ref", "band", "y", "x"
"""Names of the variables beside the array."""


def is_zarr(path: Path) -> bool:
    """True if a raster is written as a Zarr store, by its ending."""
    return path.suffix.lower() == ZARR_ENDING


def write_zarr(
    spec: RasterSpec, grid: Grid, part_grid: PartGrid, part_path: PartPath, out: Path, *, tags: Mapping[str, str]
) -> None:
    """Write the parts as one Zarr store into a new folder. The bytes do not depend on the size of the parts.

    Args:
        spec: The raster.
        grid: Its georeference.
        part_grid: Its parts.
        part_path: Path of each part.
        out: The folder to write.
        tags: Attributes of the array.

    Raises:
        OutputError: if a part is missing or damaged, or the disk is full.
    """
    parts = PartMosaic(spec, part_grid, part_path)
    with write_errors(out):
        folder = out / spec.name
        folder.mkdir(parents=True)
        chunks = np.argwhere(parts.block_sizes(0))
        for number, data in zip(chunks.tolist(), parts.blocks(0), strict=True):
            (folder / ".".join(map(str, number))).write_bytes(data)
        metadata: dict[str, Any] = {".zgroup": {"zarr_format": 2}, ".zattrs": {"Conventions": "CF-1.11"}}
        metadata |= _array_metadata(spec, part_grid, tags)
        for name, values, attributes in _coordinates(spec, grid):
            metadata |= _write_coordinate(out / name, values, attributes)
        for name, content in metadata.items():
            (out / name).write_text(_json(content), encoding="utf-8")
        (out / METADATA).write_text(_json({"zarr_consolidated_format": 1, "metadata": metadata}), encoding="utf-8")


def attribute_of(metadata: Any, array: str, name: str) -> str | None:
    """Return an attribute of an array from the metadata of a store; None if it has none."""
    try:
        found = metadata["metadata"][f"{array}/.zattrs"][name]
        return found if isinstance(found, str) else None
    except (KeyError, TypeError):
        return None


def read_metadata(folder: Path) -> Any:
    """Return the metadata of a local store; None if it has none that can be read."""
    try:
        return read_json(folder / METADATA)
    except (OSError, DocumentError):
        return None


def _array_metadata(spec: RasterSpec, part_grid: PartGrid, tags: Mapping[str, str]) -> dict[str, Any]:
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    attributes: dict[str, Any] = {"_ARRAY_DIMENSIONS": [BAND, Y, X], "grid_mapping": CRS, "long_name": spec.name}
    if spec.scale != 1:
        attributes |= {"scale_factor": spec.scale, "add_offset": 0.0}
    return {
        f"{spec.name}/.zarray": {
            **_zarray((len(spec.bands), part_grid.height, part_grid.width), dtype.str),
            "chunks": [1, part_grid.block, part_grid.block],
            "compressor": {"id": "zlib", "level": 6},
            "fill_value": "NaN" if math.isnan(spec.nodata) else int(spec.nodata),
        },
        f"{spec.name}/.zattrs": {**attributes, **tags},
    }


def _coordinates(spec: RasterSpec, grid: Grid) -> Iterator[tuple[str, NDArray[Any], dict[str, Any]]]:
    """Yield name, values and attributes of the variables beside the array."""
    transform = grid.transform
    geographic = bool(grid.crs) and grid.crs.is_geographic
    kinds = ("longitude", "latitude") if geographic else ("projection_x_coordinate", "projection_y_coordinate")
    x = transform.c + transform.a * (np.arange(grid.width) + 0.5)
    y = transform.f + transform.e * (np.arange(grid.height) + 0.5)
    yield X, x, {"_ARRAY_DIMENSIONS": [X], "standard_name": kinds[0]}
    yield Y, y, {"_ARRAY_DIMENSIONS": [Y], "standard_name": kinds[1]}
    yield BAND, np.array(spec.bands, np.str_), {"_ARRAY_DIMENSIONS": [BAND], "long_name": "name of the band"}
    place = " ".join(f"{value:.17g}" for value in transform.to_gdal())
    wkt = {"crs_wkt": grid.crs.to_wkt(version="WKT2_2019")} if grid.crs else {}
    yield CRS, np.array(0), {"_ARRAY_DIMENSIONS": [], **wkt, "GeoTransform": place}


def _write_coordinate(folder: Path, values: NDArray[Any], attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Write the one chunk of a variable; return its metadata."""
    values = values.astype(values.dtype.newbyteorder("<"))
    folder.mkdir()
    (folder / ".".join("0" * max(values.ndim, 1))).write_bytes(values.tobytes())
    array = {**_zarray(values.shape, values.dtype.str), "chunks": list(values.shape), "compressor": None}
    return {f"{folder.name}/.zarray": {**array, "fill_value": None}, f"{folder.name}/.zattrs": attributes}


def _zarray(shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    return {"zarr_format": 2, "shape": list(shape), "dtype": dtype, "order": "C", "filters": None}


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, allow_nan=False)
