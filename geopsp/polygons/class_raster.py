"""Class rasters as whole-pixel windows of codes, 255 where there is nothing."""

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
    """A file that a thread has open. It is not closed while it is read, which would end the program."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._dataset: Any = None

    def opened(self, path: str | Path) -> Any:
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
    """A raster of class codes. Safe to read from several threads: each opens the file for itself."""

    path: str | Path
    grid: Grid

    dtype: np.dtype[Any]
    """Of the file's pixels."""

    nodata: int | None
    """The value that means nothing, besides 255; None where pixels cannot have it."""

    masked: bool
    """True if the file has a mask."""

    _mine: threading.local = field(default_factory=threading.local, init=False, repr=False)
    _open: list[_Handle] = field(default_factory=list, init=False, repr=False)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The raster, of which only the header was read.

        Raises:
            InputNotFoundError: if there is no such file.
            RasterError: if it is not a raster of one band of whole numbers.
            GridError: if it has no CRS or no georeference.
        """
        source = read_info(path, all_bands=True)
        with gdal_env(path), open_raster(path) as dataset:
            if dataset.count != 1 or np.dtype(dataset.dtypes[0]).kind not in "iu":
                found = f"{dataset.count} band(s) of {dataset.dtypes[0]}"
                raise RasterError(f"{path} has {found}; needed one band of class codes (uint8). Export the class band.")
            flags = dataset.mask_flag_enums[0]
        masked = MaskFlags.per_dataset in flags and MaskFlags.all_valid not in flags
        return cls(path, source.grid, np.dtype(source.dtype), _whole(source.nodata), masked)

    def read(self, window: Window) -> NDArray[np.uint8]:
        """(rows, cols) codes of a window; 255 for nodata, for masked pixels and beyond the raster.

        Raises:
            RasterError: if the file is damaged there, or holds other values than codes.
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
        handle = self._handle()
        try:
            with handle.lock, gdal_env(self.path):
                dataset = handle.opened(self.path)
                data: NDArray[Any] = dataset.read(1, window=area)
                seen = dataset.read_masks(1, window=area) > 0 if self.masked else None
        except RasterioError as error:
            raise read_error(self.path, area, error) from error
        if self.dtype == np.uint8:
            if self.nodata not in {None, IGNORE_INDEX}:
                data[data == self.nodata] = IGNORE_INDEX
            if seen is not None:
                data[~seen] = IGNORE_INDEX
            return data
        return self._narrowed(data, seen)

    def _narrowed(self, data: NDArray[Any], seen: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
        """The codes of pixels of another type than theirs."""
        valid = np.ones(data.shape, bool) if seen is None else seen
        if self.nodata is not None:
            valid &= data != self.nodata
        if (((data < 0) | (data > IGNORE_INDEX)) & valid).any():
            found = f"values from {data[valid].min()} to {data[valid].max()}"
            raise RasterError(
                f"{self.path} holds {found}; class codes are 0 to {IGNORE_INDEX - 1}. Reclassify it first."
            )
        codes = np.full(data.shape, IGNORE_INDEX, np.uint8)
        np.copyto(codes, data, where=valid, casting="unsafe")
        return codes

    def _handle(self) -> _Handle:
        """This thread's own."""
        if not hasattr(self._mine, "handle"):
            self._mine.handle = _Handle()
            self._open.append(self._mine.handle)
        handle: _Handle = self._mine.handle
        return handle

    def close(self) -> None:
        """No thread holds the file open, once those that read have done so; reading on opens it anew."""
        for handle in self._open:
            handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _whole(nodata: float | None) -> int | None:
    """The value if it is a whole number."""
    return int(nodata) if nodata is not None and float(nodata).is_integer() else None
