"""What the header of a raster file says, and where the file lies on a lattice of pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import calculate_default_transform

from geopsp.errors import GridError, RasterError
from geopsp.grid import Grid
from geopsp.rasters import is_local, open_raster, reading
from geopsp.validity import alpha_band, telling_bands

NAMED_BANDS = {ColorInterp.red: "red", ColorInterp.green: "green", ColorInterp.blue: "blue"}


@dataclass(frozen=True, slots=True)
class Source:
    """One raster file: what its header says."""

    path: str
    grid: Grid
    bands: tuple[str, ...]
    """Names, of all bands but alpha."""

    indexes: tuple[int, ...]
    """The bands' numbers in the file, from 1."""

    dtype: str
    nodata: float | None
    block: tuple[int, int] = (256, 256)
    """(rows, cols) that the file keeps together."""

    telling: tuple[int, ...] = ()
    """Numbers of bands of which a block that the file does not hold means that no pixel there is valid."""

    resampling: Resampling | None = None
    """How the file is brought onto the scene's lattice, where it lies on another one."""

    @property
    def warped(self) -> bool:
        return self.resampling is not None


def describe(path: str | Path, *, needs_crs: bool = True) -> Source:
    """What a raster's header says.

    Raises:
        InputNotFoundError: if there is no such file.
        RasterError: if it is not a raster of real numbers with at least one band.
        GridError: if it has no CRS or no georeference and `needs_crs`.
    """
    with reading(path), open_raster(path) as dataset:
        _require_bands(path, dataset)
        keep = [i for i in dataset.indexes if i != alpha_band(dataset)] or list(dataset.indexes)
        kinds = sorted({dataset.dtypes[i - 1] for i in keep})
        if len(kinds) > 1 or kinds[0].startswith("complex"):
            raise RasterError(
                f"{path} holds {' and '.join(kinds)} pixels; needed integers or floats, of one type. Convert it first."
            )
        if needs_crs:
            _require_georeference(path, dataset)
        if dataset.transform.is_degenerate:
            raise GridError(f"{path} has a degenerate transform {tuple(dataset.transform)[:6]}; pixels have no area.")
        grid = Grid(dataset.crs, dataset.transform, dataset.width, dataset.height)
        names, nodata = _band_names(dataset, keep), dataset.nodatavals[keep[0] - 1]
        block, telling = dataset.block_shapes[keep[0] - 1], telling_bands(dataset, keep)
        return Source(str(path), grid, names, tuple(keep), kinds[0], nodata, block, telling)


def _require_bands(path: str | Path, dataset: rasterio.DatasetReader) -> None:
    if dataset.count:
        return
    parts = dataset.subdatasets
    held = f" It holds {len(parts)} subdatasets; name one of them: {', '.join(parts[:9])}." if parts else ""
    raise RasterError(f"{path} holds no band of its own.{held}")


def _require_georeference(path: str | Path, dataset: rasterio.DatasetReader) -> None:
    points = len(dataset.gcps[0])
    if dataset.transform.is_identity and (points or dataset.rpcs):
        found = f"{points} ground control points" if points else "RPCs (rational polynomial coefficients)"
        raise GridError(f"{path} is placed by {found} only; needed a CRS and a transform. Warp it, e.g. with gdalwarp.")
    if not dataset.crs:
        raise GridError(f"{path} has no CRS (coordinate reference system). Assign one, e.g. gdal_edit.py -a_srs.")
    if dataset.transform.is_identity:
        raise GridError(f"{path} has a CRS but no georeference. Assign its bounds, e.g. gdal_edit.py -a_ullr.")


def _band_names(dataset: rasterio.DatasetReader, indexes: Sequence[int]) -> tuple[str, ...]:
    """Descriptions, else colours; a name that several bands bear tells nothing, and gives way to the number."""
    texts = {
        i: (dataset.descriptions[i - 1] or NAMED_BANDS.get(dataset.colorinterp[i - 1]) or "").strip() for i in indexes
    }
    borne = Counter(text.lower() for text in texts.values())
    return tuple(text if text and borne[text.lower()] == 1 else f"band_{i}" for i, text in texts.items())


def stamp(path: str) -> list[str]:
    """What tells the files that a raster is read from from others: path, bytes and time of change; a URL as it is."""
    if not is_local(path):
        return [path]
    with open_raster(path) as dataset:
        parts = [Path(name) for name in dataset.files if not name.lower().endswith((".aux.xml", ".ovr"))]
    seen = [(part, part.stat()) for part in dict.fromkeys([Path(path), *parts]) if part.exists()]
    return [f"{part} {about.st_size} {about.st_mtime_ns}" for part, about in seen]


def place(source: Source, lattice: Grid, resampling: Resampling, *, thin: bool = False) -> Source:
    """The source as it lies on the lattice: as it is if already there, else as a warp would place it.

    Args:
        source: A raster file.
        lattice: Whose pixels it shall have.
        resampling: How it is warped.
        thin: True averages a source, unless by nearest, whose pixels are at most half as wide as the lattice's.

    Raises:
        GridError: if there is no way from one CRS to the other.
    """
    if lattice.window_of(source.grid) is not None:
        return source
    box = _reprojected(source, lattice)
    if thin and resampling != Resampling.nearest and min(lattice.cell_size) >= 2 * max(box.cell_size) * (1 - 1e-9):
        resampling = Resampling.average
    return replace(source, grid=lattice.crop(lattice.window_around(box.corners())), resampling=resampling)


def _reprojected(source: Source, lattice: Grid) -> Grid:
    """A grid in the lattice's CRS that holds the source, of pixels like its."""
    if source.grid.crs == lattice.crs:
        return source.grid
    try:
        transform, width, height = calculate_default_transform(
            source.grid.crs, lattice.crs, source.grid.width, source.grid.height, *source.grid.bounds()
        )
    except (RasterioError, CRSError, CPLE_BaseError) as error:
        raise GridError(f"{source.path}, {source.grid!r}, cannot be warped onto {lattice!r} ({error}).") from error
    return Grid(lattice.crs, transform, width, height)


def north_up(grid: Grid, cell_size: float | None = None) -> Grid:
    """A lattice of upright pixels from the grid's upper left corner, over all of it."""
    left, bottom, right, top = grid.bounds()
    x, y = (cell_size, cell_size) if cell_size else grid.cell_size
    lattice = Grid(grid.crs, Affine(x, 0, left, 0, -y, top), 1, 1)
    return lattice.crop(lattice.window_around(np.array([(left, top), (right, bottom)])))
