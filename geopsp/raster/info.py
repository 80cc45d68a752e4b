"""RasterInfo: what the header of a raster says; the fingerprint of its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
from rasterio.dtypes import in_dtype_range
from rasterio.enums import ColorInterp, Resampling

from geopsp.core.grid import Grid
from geopsp.core.paths import is_local, is_remote, local_file
from geopsp.core.pixel_values import BandScale, valid_scale
from geopsp.core.text import format_count
from geopsp.errors import GridError, RasterError
from geopsp.raster.acquisition import tagged_time
from geopsp.raster.image_vrt import has_palette, is_expanded, open_image
from geopsp.raster.open import band_texts, gdal_env, open_raster
from geopsp.raster.valid_mask import alpha_band, find_sparse_bands, looks_like_alpha

Palette = Literal["", "expanded", "indices"]

MAX_COORDINATE = 1e12
"""Largest coordinate of a raster, in units of the CRS."""


NAMED_BANDS = {ColorInterp.red: "red", ColorInterp.green: "green", ColorInterp.blue: "blue"}


@dataclass(frozen=True, slots=True)
class RasterInfo:
    """Header of a raster file and, once aligned, its place on a scene's grid."""

    path: str
    grid: Grid
    """The file's own grid; once aligned, its pixels on the scene's grid."""

    bands: tuple[str, ...]
    """Names of all bands but alpha."""

    indexes: tuple[int, ...]
    """Numbers of these bands in the file, from 1."""

    dtype: str
    nodata: float | None
    """Of the first band."""

    block: tuple[int, int] = (256, 256)
    """(rows, cols) of the file's blocks."""

    sparse_bands: tuple[int, ...] = ()
    """Numbers of the bands whose missing blocks mean nodata."""

    resampling: Resampling | None = None
    """How the file is warped onto the scene's grid; None: its pixels are the grid's."""

    nodatas: tuple[float | None, ...] = ()
    """Nodata values of all bands of the file, in the order of their numbers."""

    alpha: int | None = None
    """Number of the band that counts as alpha only because it is the last of four uint8 bands; if it is one of
    `indexes`, its values are no mask, and it is read as data."""

    scales: tuple[BandScale | None, ...] = ()
    """Scale and offset of all bands of the file, in the order of their numbers; () if no band has any."""

    palette: Palette = ""
    """How an image with a palette is read: expanded to colours, or as indices; "" if it has none."""

    files: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """All local files that GDAL reads for it, e.g. the sources of a VRT, as `dataset.files`; () of a URL."""

    acquired: datetime | None = field(default=None, compare=False, repr=False)
    """Acquisition time in the tags."""

    @property
    def warped(self) -> bool:
        """True if the file is warped onto the scene's grid."""
        return self.resampling is not None

    @property
    def telling(self) -> tuple[int, ...]:
        """The name of `sparse_bands` in earlier versions."""
        return self.sparse_bands

    def identity(self) -> str:
        """Return all fields as text for the key of a map, spelled as in version 0.1, so that its maps resume."""
        return (
            f"Source(path={self.path!r}, grid={self.grid!r}, bands={self.bands!r}, indexes={self.indexes!r}, "
            f"dtype={self.dtype!r}, nodata={self.nodata!r}, block={self.block!r}, telling={self.sparse_bands!r}, "
            f"resampling={self.resampling!r}, nodatas={self.nodatas!r}, alpha={self.alpha!r})"
        )


def read_info(
    path: str | Path, *, needs_crs: bool = True, all_bands: bool = False, expand_palette: bool = False
) -> RasterInfo:
    """Read the header of a raster.

    Args:
        path: A raster file, URL or subdataset.
        needs_crs: False accepts a raster without CRS or georeference.
        all_bands: True reads a band that is marked as alpha as data.
        expand_palette: True reads indices into a palette as its colours, see `open_image`.

    Raises:
        InputNotFoundError: if the file does not exist.
        RasterError: if it is not a raster of real numbers with at least one band.
        GridError: if it has no CRS or no georeference and `needs_crs` is True.
    """
    with gdal_env(path), open_image(path, expand_palette=expand_palette) as dataset:
        _require_bands(path, dataset)
        alpha = None if all_bands else alpha_band(dataset)
        named = dataset.count != 4 or dataset.dtypes[3] != "uint8" or bool(band_texts(dataset)[3])
        is_data = alpha is not None and not named and not looks_like_alpha(dataset, alpha)
        keep = [i for i in dataset.indexes if i != alpha or is_data] or list(dataset.indexes)
        dtypes = sorted({dataset.dtypes[i - 1] for i in keep})
        if len(dtypes) > 1 or dtypes[0].startswith("complex"):
            raise RasterError(
                f"{path} has {' and '.join(dtypes)} pixels, but all bands must have one integer or float type. "
                "Convert it first."
            )
        if needs_crs:
            _require_georeference(path, dataset)
        if dataset.transform.is_degenerate:
            raise GridError(f"The pixels of {path} have no area (transform {tuple(dataset.transform)[:6]}).")
        grid = Grid(dataset.crs, dataset.transform, dataset.width, dataset.height)
        if not (np.abs(grid.corners()) <= MAX_COORDINATE).all():
            raise GridError(
                f"{path} lies beyond all coordinates (transform {tuple(dataset.transform)[:6]}). Its georeference is "
                "damaged: assign its bounds, e.g. gdal_edit.py -a_ullr."
            )
        nodatas = _nodatas(dataset)
        return RasterInfo(
            str(path),
            grid=grid,
            bands=_band_names(dataset, keep),
            indexes=tuple(keep),
            dtype=dtypes[0],
            nodata=nodatas[keep[0] - 1],
            block=dataset.block_shapes[keep[0] - 1],
            sparse_bands=find_sparse_bands(dataset, keep),
            nodatas=nodatas,
            alpha=None if named else alpha,
            scales=_scales(dataset),
            palette="indices" if has_palette(dataset) else "expanded" if is_expanded(dataset) else "",
            files=() if is_remote(path) else tuple(dataset.files),
            acquired=tagged_time(dataset),
        )


def _nodatas(dataset: rasterio.DatasetReader) -> tuple[float | None, ...]:
    """Return the nodata value of each band; None where an integer pixel cannot hold it."""
    pairs = zip(dataset.dtypes, dataset.nodatavals, strict=True)
    return tuple(
        None if value is not None and np.dtype(dtype).kind in "iu" and not in_dtype_range(value, dtype) else value
        for dtype, value in pairs
    )


def _scales(dataset: rasterio.DatasetReader) -> tuple[BandScale | None, ...]:
    scales = tuple(valid_scale(*pair) for pair in zip(dataset.scales, dataset.offsets, strict=True))
    return scales if any(scales) else ()


def _require_bands(path: str | Path, dataset: rasterio.DatasetReader) -> None:
    if dataset.count:
        return
    names = dataset.subdatasets
    advice = f" Name one of its subdatasets: {', '.join(names[:9])}." if names else ""
    raise RasterError(f"{path} has no bands.{advice}")


def _require_georeference(path: str | Path, dataset: rasterio.DatasetReader) -> None:
    points = len(dataset.gcps[0])
    if dataset.transform.is_identity and (points or dataset.rpcs):
        found = format_count(points, "ground control point") if points else "RPCs (rational polynomial coefficients)"
        raise GridError(
            f"{path} is georeferenced only by {found}, but needs a CRS and a transform. Warp it, e.g. with gdalwarp."
        )
    if not dataset.crs:
        raise GridError(f"{path} has no CRS (coordinate reference system). Assign one, e.g. gdal_edit.py -a_srs.")
    if dataset.transform.is_identity:
        raise GridError(f"{path} has a CRS but no georeference. Assign its bounds, e.g. gdal_edit.py -a_ullr.")


def _band_names(dataset: rasterio.DatasetReader, indexes: Sequence[int]) -> tuple[str, ...]:
    """Return descriptions, else colours, as names; "band_3" for a band without a name of its own."""
    texts = {
        i: (band_texts(dataset)[i - 1] or NAMED_BANDS.get(dataset.colorinterp[i - 1]) or "").strip() for i in indexes
    }
    counts = Counter(text.lower() for text in texts.values())
    return tuple(text if text and counts[text.lower()] == 1 else f"band_{i}" for i, text in texts.items())


def raster_fingerprint(path: str, files: Sequence[str] = ()) -> list[str]:
    """Return path, size and modification time of all local files that a raster is read from; a URL as it is.

    For a file inside a local archive these are the archive's, for a subdataset those of the file that holds it.

    Args:
        path: A raster file, URL or subdataset.
        files: Its `RasterInfo.files`; without them the raster is opened to find out.
    """
    if is_remote(path):
        return [path]
    stats = [(file, file.stat()) for file in _local_files(path, files)]
    lines = [f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in stats]
    return lines if is_local(path) else [path, *lines]


def _local_files(path: str, files: Sequence[str]) -> list[Path]:
    """Return the local files that a raster is read from, also those of nested VRTs."""
    names: dict[str, None] = {path: None}
    todo = [(path, files)]
    while todo:
        name, parts = todo.pop()
        parts = [part for part in parts or _dataset_files(name) if not part.lower().endswith((".aux.xml", ".ovr"))]
        todo += [(part, ()) for part in dict.fromkeys(parts) if part not in names and _refers_to_files(part)]
        names |= dict.fromkeys(parts)
    paths = (Path(name) if is_local(name) else local_file(name) for name in names)
    return list(dict.fromkeys(file for file in paths if file and file.exists()))


def _dataset_files(name: str) -> list[str]:
    with open_raster(name) as dataset:
        return list(dataset.files)


def _refers_to_files(name: str) -> bool:
    """Return True for a VRT and for a subdataset, which must be opened to list the files that they are read from."""
    if is_remote(name):
        return False
    return name.lower().endswith(".vrt") or (not is_local(name) and local_file(name) is None)
