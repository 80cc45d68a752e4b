"""Read a class raster as windows of uint8 codes."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window as RioWindow

from geopsp.core.grid import Grid, Window
from geopsp.core.legend import CLASSES_TAG, IGNORE_INDEX, ClassInfo
from geopsp.core.parallel import cpu_count, map_ordered
from geopsp.errors import RasterError
from geopsp.polygons.value_check import find_class_of_255
from geopsp.raster.info import read_info
from geopsp.raster.open import gdal_env, open_raster, read_error

COUNT_BLOCK = 2048
"""Side, in pixels, of what is read at once to count values."""


MAX_VALUES = 1000
"""Values of a block that are counted; more are no classes."""


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

    class_of_255: ClassInfo | None = None
    """The class of the value 255, whose code takes its place; None: 255 is nodata."""

    _local: threading.local = field(default_factory=threading.local, init=False, repr=False)
    _handles: list[_Handle] = field(default_factory=list, init=False, repr=False)

    @classmethod
    def open(cls, path: str | Path, *, nodata: float | Literal["none"] | None = None) -> Self:
        """Open a raster and read its header; see `check_values`.

        Args:
            path: The raster.
            nodata: The value that is no class; "none": no value; None: the nodata value of the file.

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
        value = _as_int(info.nodata if nodata is None else None if nodata == "none" else nodata)
        return cls(path, info.grid, np.dtype(info.dtype), value, has_mask)

    def check_values(self, asked: float | Literal["none"] | None = None) -> None:
        """Read all values once, to say before the work which of them become no polygon, and to find the class of 255.

        A map of ours, whose classes are known, is not read.

        Args:
            asked: The nodata value that the user gave.

        Raises:
            RasterError: if the file is damaged, or contains values that are no codes.
        """
        with gdal_env(self.path), open_raster(self.path) as dataset:
            is_ours = CLASSES_TAG in dataset.tags()
        if not is_ours or asked is not None:
            self.class_of_255 = find_class_of_255(self.path, self.count_values(), self.nodata, asked)

    def count_values(self) -> Counter[int]:
        """Count the pixels by value; masked pixels do not count.

        Raises:
            RasterError: if the file is damaged.
        """
        total: Counter[int] = Counter()
        with ThreadPoolExecutor(cpu_count()) as pool:
            blocks = self.grid.blocks(COUNT_BLOCK)
            with closing(map_ordered(pool, self._count_block, blocks, in_flight=16)) as parts:
                for values, counts in parts:
                    total.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        return total

    def _count_block(self, window: Window) -> tuple[NDArray[Any], NDArray[Any]]:
        data, valid = self._read_file(window)
        found = data.ravel() if valid is None else data[valid]
        if found.dtype == np.uint8:
            counts = np.bincount(found, minlength=256)
            return np.flatnonzero(counts), counts[counts > 0]
        values, counts = np.unique(found, return_counts=True)
        return values[:MAX_VALUES], counts[:MAX_VALUES]

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

    def _read_file(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Read a window inside the raster: values as they are, and True where the mask band shows them."""
        area = RioWindow(window.col, window.row, window.width, window.height)
        handle = self._thread_handle()
        try:
            with handle.lock, gdal_env(self.path):
                dataset = handle.open(self.path)
                data: NDArray[Any] = dataset.read(1, window=area)
                return data, dataset.read_masks(1, window=area) > 0 if self.has_mask else None
        except RasterioError as error:
            raise read_error(self.path, area, error) from error

    def _read(self, window: Window) -> NDArray[np.uint8]:
        data, valid = self._read_file(window)
        if self.class_of_255 is None:
            return self._to_codes(data, valid)
        is_255 = data == IGNORE_INDEX
        if valid is not None:
            is_255 &= valid
        codes = self._to_codes(data, valid)
        codes[is_255] = self.class_of_255.code
        return codes

    def _to_codes(self, data: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
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
