"""What the header of a raster file says, and where the file lies on a lattice of pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.dtypes import in_dtype_range
from rasterio.enums import ColorInterp, Resampling

from geopsp.core.grid import Grid
from geopsp.core.paths import is_local, is_remote, local_file
from geopsp.errors import GridError, RasterError
from geopsp.raster.open import gdal_env, open_raster
from geopsp.raster.valid_mask import alpha_band, find_sparse_bands

NAMED_BANDS = {ColorInterp.red: "red", ColorInterp.green: "green", ColorInterp.blue: "blue"}


@dataclass(frozen=True, slots=True)
class RasterInfo:
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

    sparse_bands: tuple[int, ...] = ()
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

    @property
    def telling(self) -> tuple[int, ...]:
        """`sparse_bands`, as earlier versions called it."""
        return self.sparse_bands

    def identity(self) -> str:
        """All fields as text, part of what identifies a map. It is spelled as in version 0.1, whose maps resume."""
        return (
            f"Source(path={self.path!r}, grid={self.grid!r}, bands={self.bands!r}, indexes={self.indexes!r}, "
            f"dtype={self.dtype!r}, nodata={self.nodata!r}, block={self.block!r}, telling={self.sparse_bands!r}, "
            f"resampling={self.resampling!r}, nodatas={self.nodatas!r}, alpha={self.alpha!r})"
        )


def read_info(path: str | Path, *, needs_crs: bool = True, all_bands: bool = False) -> RasterInfo:
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
    with gdal_env(path), open_raster(path) as dataset:
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
        block, telling = dataset.block_shapes[keep[0] - 1], find_sparse_bands(dataset, keep)
        guessed = alpha if dataset.count == 4 and dataset.dtypes[3] == "uint8" and not dataset.descriptions[3] else None
        nodata = nodatas[keep[0] - 1]
        return RasterInfo(str(path), grid, names, tuple(keep), kinds[0], nodata, block, telling, None, nodatas, guessed)


def _nodatas(dataset: rasterio.DatasetReader) -> tuple[float | None, ...]:
    """The bands' nodata values; None where a pixel of whole numbers cannot have it."""
    pairs = zip(dataset.dtypes, dataset.nodatavals, strict=True)
    return tuple(
        None if value is not None and np.dtype(kind).kind in "iu" and not in_dtype_range(value, kind) else value
        for kind, value in pairs
    )


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


def raster_fingerprint(path: str) -> list[str]:
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
