"""Rasters seen as one grid: windowed reads of pixels and of where they are valid.

The only module that opens rasters to read their pixels.
"""

from __future__ import annotations

import glob
import json
import os
import threading
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.vrt import WarpedVRT
from rasterio.warp import calculate_default_transform
from rasterio.windows import Window as RioWindow

from geopsp.bands import match_bands
from geopsp.errors import GridError, InputNotFoundError, RasterError
from geopsp.grid import Grid, Window
from geopsp.legend import CLASSES_TAG, Legend
from geopsp.validity import alpha_band, validity, warped_validity

Images = str | Path | Sequence[str | Path]
"""A path, a glob pattern, a folder, or several of them."""

RASTER_ENDINGS = {".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg"}

NAMED_BANDS = {ColorInterp.red: "red", ColorInterp.green: "green", ColorInterp.blue: "blue"}


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """Pixels and where they lie."""

    data: NDArray[Any]
    """Pixel values, (bands, rows, cols); 0 where no raster reaches."""

    valid: NDArray[np.bool_]
    """(rows, cols); True where the sensor saw ground."""

    grid: Grid


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
    warped: bool = False
    """True if the file lies on another lattice and is resampled onto the scene's."""


def find_images(images: Images) -> list[Path]:
    """Raster files named by a path, a glob, a folder or a list of these, in the given order.

    Raises:
        InputNotFoundError: if one of them names no file.
    """
    items = [images] if isinstance(images, str | Path) else list(images)
    if not items:
        raise InputNotFoundError("No image was given; needed at least one raster file.")
    return [path for item in items for path in _expand(item)]


def _expand(item: str | Path) -> list[Path]:
    path = Path(item)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in RASTER_ENDINGS)
    elif path.exists():
        found = [path]
    else:
        found = sorted(map(Path, glob.glob(str(item), recursive=True)))  # noqa: PTH207 (patterns may be absolute)
    if not found:
        raise InputNotFoundError(f"No raster found at {item}: no such file, and nothing matches it. Check the path.")
    return found


def open_raster(path: str | Path) -> rasterio.DatasetReader:
    """The dataset, opened to read.

    Raises:
        InputNotFoundError: if there is no such file.
        RasterError: if it is not a raster.
    """
    if not Path(path).exists():
        raise InputNotFoundError(f"No such file: {path}. Check the path.")
    try:
        with warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning):  # `describe` refuses these
            return rasterio.open(path)
    except RasterioIOError as error:
        raise RasterError(f"{path} cannot be read as a raster ({error}); needed e.g. a GeoTIFF.") from error


def describe(path: str | Path, *, needs_crs: bool = True) -> Source:
    """What a raster's header says.

    Raises:
        RasterError: if it is not a raster of real numbers with at least one band.
        GridError: if it has no CRS or no georeference and `needs_crs`.
    """
    with open_raster(path) as dataset:
        if not dataset.count:
            parts = f" It holds {len(dataset.subdatasets)} subdatasets: extract one." if dataset.subdatasets else ""
            raise RasterError(f"{path} holds no band of its own.{parts}")
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
        return Source(str(path), grid, names, tuple(keep), kinds[0], nodata)


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


def _on_lattice(source: Source, lattice: Grid) -> Source:
    """The source as it lies on the lattice: as it is if already there, else as a warp would place it."""
    if lattice.window_of(source.grid) is not None:
        return source
    step_x, step_y = lattice.transform.a, lattice.transform.e
    if lattice.transform.b or lattice.transform.d:
        raise GridError(f"{source.path} must be warped onto a rotated grid, {lattice!r}. Warp the first north-up.")
    try:
        transform, width, height = calculate_default_transform(
            source.grid.crs, lattice.crs, source.grid.width, source.grid.height, *source.grid.bounds()
        )
    except (RasterioError, CRSError, CPLE_BaseError) as error:
        raise GridError(f"{source.path}, {source.grid!r}, cannot be warped onto {lattice!r} ({error}).") from error
    left, bottom, right, top = Grid(lattice.crs, transform, width, height).bounds()
    cols = sorted(((left - lattice.transform.c) / step_x, (right - lattice.transform.c) / step_x))
    rows = sorted(((bottom - lattice.transform.f) / step_y, (top - lattice.transform.f) / step_y))
    col, row = int(np.floor(cols[0])), int(np.floor(rows[0]))
    window = Window(col, row, int(np.ceil(cols[1])) - col, int(np.ceil(rows[1])) - row)
    grid = lattice.crop(window)
    return Source(source.path, grid, source.bands, source.indexes, source.dtype, source.nodata, warped=True)


@dataclass(slots=True, eq=False)
class Scene:
    """One raster or many, seen as one grid: the first one's lattice, stretched over all of them.

    Later rasters fill where earlier ones are invalid. Safe to read from several threads and to send to other
    processes: each opens files of its own.
    """

    sources: tuple[Source, ...]
    grid: Grid
    bands: tuple[str, ...]
    """Names of the bands read."""

    notes: tuple[str, ...] = ()
    """What was done to bring the rasters onto one grid, in words."""

    resampling: Resampling = Resampling.bilinear
    _positions: tuple[tuple[int, ...], ...] = ()
    _handles: threading.local = field(default_factory=threading.local, repr=False)

    @classmethod
    def open(
        cls,
        images: Images,
        *,
        bands: Sequence[str | int] | None = None,
        resampling: Resampling = Resampling.bilinear,
        onto: Grid | None = None,
    ) -> Scene:
        """The scene that the images make.

        Args:
            images: A path, a glob, a folder or a list; the first one found gives the grid.
            bands: Names, or numbers from 1; None means all bands of the first image.
            resampling: How images on another lattice are brought onto the scene's.
            onto: A grid whose lattice the scene takes; None means the first image's.

        Raises:
            InputNotFoundError, RasterError, GridError, BandError: as the input is.
        """
        sources = [describe(path) for path in find_images(images)]
        first = sources[0]
        lattice = onto or first.grid
        placed = [_on_lattice(source, lattice) for source in sources]
        wanted = tuple(bands) if bands is not None else first.bands
        chosen = match_bands(wanted, first.bands, where=first.path)
        names = tuple(w if isinstance(w, str) else first.bands[i] for w, i in zip(wanted, chosen, strict=True))
        positions = (chosen, *(match_bands(names, source.bands, where=source.path) for source in placed[1:]))
        target = "the grid asked for" if onto else f"the grid of {first.path}"
        notes = tuple(f"{s.path} is warped ({resampling.name}) onto {target}" for s in placed if s.warped)
        return cls(tuple(placed), _union(lattice, placed), names, notes, resampling, positions)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that holds the pixels of every source."""
        return np.result_type(*(np.dtype(source.dtype) for source in self.sources))

    @property
    def cell_size(self) -> tuple[float, float]:
        return self.grid.cell_size

    def read(self, window: Window | None = None) -> Patch:
        """The pixels of a window, which may overhang the scene; None means all.

        Raises:
            RasterError: if a file's pixels cannot be read.
        """
        window = window or self.grid.window
        data = np.zeros((len(self.bands), window.height, window.width), self.dtype)
        valid = np.zeros((window.height, window.width), bool)
        for number, source in enumerate(self.sources):
            if valid.all():
                break
            self._fill(data, valid, window, number, source)
        return Patch(data, valid, self.grid.crop(window))

    def _fill(self, data: NDArray[Any], valid: NDArray[np.bool_], window: Window, number: int, source: Source) -> None:
        """Puts the source's pixels where nothing valid lies yet."""
        place = self.grid.window_of(source.grid)
        assert place is not None
        part = window.intersect(place)
        if part.empty:
            return
        pixels, seen = self._read_source(number, part.shift(-place.col, -place.row))
        inside = part.slices(window)
        fresh = ~valid[inside] & (seen | (number == 0))
        np.copyto(data[:, *inside], pixels, where=fresh)
        valid[inside] |= seen

    def _read_source(self, number: int, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """(bands, rows, cols) pixels and (rows, cols) validity of a window within one source."""
        source = self.sources[number]
        indexes = [source.indexes[i] for i in self._positions[number]]
        area = RioWindow(window.col, window.row, window.width, window.height)
        try:
            dataset = self._dataset(number)
            data = dataset.read(indexes, window=area)
            return data, validity(dataset, data, indexes, area)
        except RasterioError as error:
            raise RasterError(
                f"{source.path} cannot be read at columns {window.col} to {window.col_stop}, rows {window.row} to "
                f"{window.row_stop} ({error}): the file is truncated or damaged. Fetch or export it again."
            ) from error

    def _dataset(self, number: int) -> Any:
        """This thread's own handle of a source."""
        local = self._handles
        if getattr(local, "process", None) != os.getpid():
            local.process, local.open = os.getpid(), {}
        if number not in local.open:
            local.open[number] = self._open_source(self.sources[number])
        return local.open[number]

    def _open_source(self, source: Source) -> Any:
        dataset = open_raster(source.path)
        if not source.warped:
            return dataset
        grid = source.grid
        place = {"crs": grid.crs, "transform": grid.transform, "width": grid.width, "height": grid.height}
        return WarpedVRT(
            dataset, **place, resampling=self.resampling, **warped_validity(dataset, source.dtype, source.nodata)
        )

    def __getstate__(self) -> dict[str, Any]:
        names = ("sources", "grid", "bands", "notes", "resampling", "_positions")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self._handles = threading.local()


def read_legend(path: str | Path) -> Legend | None:
    """The classes that a class raster says it holds, in our own tag; None if it says nothing."""
    with open_raster(path) as dataset:
        text = dataset.tags().get(CLASSES_TAG)
    return Legend.from_json(json.loads(text)) if text else None


def _union(lattice: Grid, sources: Sequence[Source]) -> Grid:
    """The lattice stretched over all sources."""
    windows = [w for w in (lattice.window_of(source.grid) for source in sources) if w is not None]
    col, row = min(w.col for w in windows), min(w.row for w in windows)
    col_stop, row_stop = max(w.col_stop for w in windows), max(w.row_stop for w in windows)
    return lattice.crop(Window(col, row, col_stop - col, row_stop - row))
