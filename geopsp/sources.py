"""What the header of a raster file says, and where the file lies on a lattice of pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.dtypes import in_dtype_range
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import CRSError, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import calculate_default_transform, transform_bounds

from geopsp.errors import GridError, RasterError
from geopsp.grid import Grid, Window
from geopsp.layers import local_file
from geopsp.rasters import is_local, is_remote, open_raster, reading
from geopsp.validity import alpha_band, telling_bands, warped_validity

NAMED_BANDS = {ColorInterp.red: "red", ColorInterp.green: "green", ColorInterp.blue: "blue"}

CELL = 256
"""Side, in pixels, of the cells that a warped file is read in: these always, so that a pixel has one value."""


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
    """Of the first band."""

    block: tuple[int, int] = (256, 256)
    """(rows, cols) that the file keeps together."""

    telling: tuple[int, ...] = ()
    """Numbers of bands of which a block that the file does not hold means that no pixel there is valid."""

    resampling: Resampling | None = None
    """How the file is brought onto the scene's lattice, where it lies on another one."""

    nodatas: tuple[float | None, ...] = ()
    """Of each band of the file, in the order of their numbers."""

    alpha: int | None = None
    """Number of the band that is taken for alpha by its place alone: the last of four of bytes."""

    @property
    def warped(self) -> bool:
        return self.resampling is not None


def describe(path: str | Path, *, needs_crs: bool = True, all_bands: bool = False) -> Source:
    """What a raster's header says.

    Args:
        path: A raster file.
        needs_crs: False takes a raster that lies nowhere.
        all_bands: True takes a band that is marked as alpha for one like the others.

    Raises:
        InputNotFoundError: if there is no such file.
        RasterError: if it is not a raster of real numbers with at least one band.
        GridError: if it has no CRS or no georeference and `needs_crs`.
    """
    with reading(path), open_raster(path) as dataset:
        _require_bands(path, dataset)
        alpha = None if all_bands else alpha_band(dataset)
        keep = [i for i in dataset.indexes if i != alpha] or list(dataset.indexes)
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
        names, nodatas = _band_names(dataset, keep), _nodatas(dataset)
        block, telling = dataset.block_shapes[keep[0] - 1], telling_bands(dataset, keep)
        guessed = alpha if dataset.count == 4 and dataset.dtypes[3] == "uint8" and not dataset.descriptions[3] else None
        nodata = nodatas[keep[0] - 1]
        return Source(str(path), grid, names, tuple(keep), kinds[0], nodata, block, telling, None, nodatas, guessed)


def _nodatas(dataset: rasterio.DatasetReader) -> tuple[float | None, ...]:
    """The bands' nodata values; None where a pixel of whole numbers cannot have it."""
    pairs = zip(dataset.dtypes, dataset.nodatavals, strict=True)
    return tuple(
        None if value is not None and np.dtype(kind).kind in "iu" and not in_dtype_range(value, kind) else value
        for kind, value in pairs
    )


def open_source(source: Source) -> Any:
    """The file opened to read, as it lies on the scene's lattice."""
    dataset = open_raster(source.path)
    if source.resampling is None:
        return dataset
    grid = source.grid
    place = {"crs": grid.crs, "transform": grid.transform, "width": grid.width, "height": grid.height}
    carried = warped_validity(dataset, source.dtype, source.nodata, source.indexes)
    return WarpedVRT(dataset, **place, resampling=source.resampling, **carried)


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


def cells(window: Window, place: Window) -> Iterator[Window]:
    """The cells of a file at `place`, counted from its corner and cut where it ends, that meet a window in it."""
    first_row, first_col = (window.row - place.row) // CELL * CELL, (window.col - place.col) // CELL * CELL
    for row in range(first_row, window.row_stop - place.row, CELL):
        for col in range(first_col, window.col_stop - place.col, CELL):
            yield Window(place.col + col, place.row + row, CELL, CELL).intersect(place)


def stamp(path: str) -> list[str]:
    """What tells the files that a raster is read from from others: path, bytes and time of change; a URL as it is.

    Of a file in an archive on this machine, the archive's; of a subdataset, its file's.
    """
    if is_remote(path):
        return [path]
    seen = [(part, part.stat()) for part in _parts(path)]
    lines = [f"{part} {about.st_size} {about.st_mtime_ns}" for part, about in seen]
    return lines if is_local(path) else [path, *lines]


def _parts(path: str) -> list[Path]:
    """The files on this machine that a raster is read from, those of VRTs within VRTs too."""
    names: dict[str, None] = {path: None}
    todo = [path]
    while todo:
        with open_raster(todo.pop()) as dataset:
            files = dict.fromkeys(name for name in dataset.files if not name.lower().endswith((".aux.xml", ".ovr")))
        todo += [name for name in files if name not in names and _leads_on(name)]
        names |= files
    places = (Path(name) if is_local(name) else local_file(name) for name in names)
    return list(dict.fromkeys(part for part in places if part and part.exists()))


def _leads_on(name: str) -> bool:
    """True of a VRT and of a subdataset, which tell the files that they are read from."""
    if is_remote(name):
        return False
    return name.lower().endswith(".vrt") or (not is_local(name) and local_file(name) is None)


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


def box_in(extent: Sequence[float], crs: CRS, grid: Grid) -> tuple[float, float, float, float]:
    """The box in the grid's CRS that holds an extent (left, bottom, right, top) of another CRS.

    Raises:
        GridError: if there is no way from one CRS to the other, or the extent has no place in it.
    """
    why = "it has no place there"
    try:
        box = transform_bounds(crs, grid.crs, *extent) if crs != grid.crs else tuple(extent)
        if np.isfinite(box).all():
            return float(box[0]), float(box[1]), float(box[2]), float(box[3])
    except (RasterioError, CRSError, CPLE_BaseError) as error:
        why = str(error)
    raise GridError(f"The extent cannot be taken into the CRS of {grid!r}: {why}.")
