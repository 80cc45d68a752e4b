"""Read a class raster as windows of uint8 codes."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window as RioWindow

from geopsp.core.grid import Grid, Window
from geopsp.core.legend import IGNORE_INDEX
from geopsp.errors import RasterError
from geopsp.raster.info import read_info
from geopsp.raster.open import gdal_env, open_raster, read_error


class _Handle:
    """The open file of one thread. Its lock keeps the file from being closed during a read, which would crash."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._dataset: Any = None

    def open(self, path: str | Path) -> Any:
        if self._dataset is None:
            self._dataset = open_raster(path)
        return self._dataset

    def close(self) -> None:
        with self.lock:
            if self._dataset is not None:
                self._dataset.close()
                self._dataset = None


@dataclass(slots=True, eq=False)
class ClassRaster:
    """A raster of class codes. Several threads may read it; each has the file open on its own."""

    path: str | Path
    grid: Grid

    dtype: np.dtype[Any]
    """Data type of the file."""

    nodata: int | None
    """Nodata value besides 255; None if there is none, or if no pixel can have it."""

    has_mask: bool
    """True if the file has a mask band."""

    _local: threading.local = field(default_factory=threading.local, init=False, repr=False)
    _handles: list[_Handle] = field(default_factory=list, init=False, repr=False)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a raster and read its header.

        Raises:
            InputNotFoundError: if there is no such file.
            RasterError: if it has several bands, or other data than integers.
            GridError: if it has no CRS or no georeference.
        """
        info = read_info(path, all_bands=True)
        with gdal_env(path), open_raster(path) as dataset:
            if dataset.count != 1 or np.dtype(dataset.dtypes[0]).kind not in "iu":
                bands = "1 band" if dataset.count == 1 else f"{dataset.count} bands"
                raise RasterError(
                    f"{path} has {bands} of {dataset.dtypes[0]}, but must have one band of class codes (uint8). Export "
                    "the band of the classes."
                )
            flags = dataset.mask_flag_enums[0]
        has_mask = MaskFlags.per_dataset in flags and MaskFlags.all_valid not in flags
        return cls(path, info.grid, np.dtype(info.dtype), _as_int(info.nodata), has_mask)

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Return (rows, cols) codes of a window; 255 for nodata, masked pixels and pixels outside of the raster.

        Raises:
            RasterError: if the file is damaged in this window, or contains values that are not codes.
        """
        inside = window.intersect(self.grid.full_window)
        if inside == window:
            return self._read(inside)
        codes = np.full((window.height, window.width), IGNORE_INDEX, np.uint8)
        if not inside.is_empty:
            codes[inside.slices(window)] = self._read(inside)
        return codes

    def _read(self, window: Window) -> NDArray[np.uint8]:
        area = RioWindow(window.col, window.row, window.width, window.height)
        handle = self._thread_handle()
        try:
            with handle.lock, gdal_env(self.path):
                dataset = handle.open(self.path)
                data: NDArray[Any] = dataset.read(1, window=area)
                valid = dataset.read_masks(1, window=area) > 0 if self.has_mask else None
        except RasterioError as error:
            raise read_error(self.path, area, error) from error
        if self.dtype == np.uint8:
            if self.nodata not in {None, IGNORE_INDEX}:
                data[data == self.nodata] = IGNORE_INDEX
            if valid is not None:
                data[~valid] = IGNORE_INDEX
            return data
        return self._to_uint8(data, valid)

    def _to_uint8(self, data: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
        valid = np.ones(data.shape, bool) if valid is None else valid
        if self.nodata is not None:
            valid &= data != self.nodata
        if (((data < 0) | (data > IGNORE_INDEX)) & valid).any():
            raise RasterError(
                f"{self.path} contains values from {data[valid].min()} to {data[valid].max()}, but class codes are 0 "
                f"to {IGNORE_INDEX - 1}. Reclassify it first."
            )
        codes = np.full(data.shape, IGNORE_INDEX, np.uint8)
        np.copyto(codes, data, where=valid, casting="unsafe")
        return codes

    def _thread_handle(self) -> _Handle:
        if not hasattr(self._local, "handle"):
            self._local.handle = _Handle()
            self._handles.append(self._local.handle)
        handle: _Handle = self._local.handle
        return handle

    def close(self) -> None:
        """Close the files of all threads, each after the read in progress; a later read opens its file again."""
        for handle in self._handles:
            handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _as_int(nodata: float | None) -> int | None:
    """Return the value if it is a whole number, else None."""
    return int(nodata) if nodata is not None and float(nodata).is_integer() else None
