"""Read a class raster as windows of uint8 codes; values beyond these are numbered."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window as RioWindow

from geopsp.core.grid import Grid, Window
from geopsp.core.legend import CLASSES_TAG, IGNORE_INDEX
from geopsp.core.parallel import cpu_count, map_ordered
from geopsp.core.paths import is_local
from geopsp.errors import RasterError
from geopsp.polygons.value_check import ValueCounts, find_classes
from geopsp.raster.info import read_info
from geopsp.raster.open import GDAL_ERRORS, gdal_env, open_raster, read_error, read_tags

VALUES_BLOCK = 2048
"""Side, in pixels, of what is read at once to find all values."""


MAX_VALUE = 10**15
"""The largest class code; beyond, floats do not tell whole numbers apart."""


class CodeSource(Protocol):
    """What gives the class codes of windows of a grid; several threads may read it."""

    @property
    def grid(self) -> Grid: ...

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Return (rows, cols) codes of a window; 255 for nodata and outside of the grid."""


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

    nodata: float | None
    """Nodata value besides 255; None if there is none, or if no pixel can have it."""

    has_mask: bool
    """True if the file has a mask band or an alpha band."""

    values: NDArray[np.int64] | None = None
    """Ascending values of the file whose positions stand for them as codes; None: the values are the codes."""

    _local: threading.local = field(default_factory=threading.local, init=False, repr=False)
    _handles: list[_Handle] = field(default_factory=list, init=False, repr=False)

    @classmethod
    def open(cls, path: str | Path, *, nodata: float | Literal["none"] | None = None) -> Self:
        """Open a raster and read its header; see `number_values`.

        Args:
            path: The raster.
            nodata: The value that is no class; "none": no value; None: the nodata value of the file.

        Raises:
            InputNotFoundError: if there is no such file.
            RasterError: if it has several bands besides alpha, or complex numbers.
            GridError: if it has no CRS or no georeference.
        """
        info = read_info(path, all_bands=True)
        with gdal_env(path), open_raster(path) as dataset:
            if dataset.count - (dataset.colorinterp[-1] == ColorInterp.alpha) != 1:
                raise RasterError(
                    f"{path} has {dataset.count} bands of {dataset.dtypes[0]}, but must have one band of class codes. "
                    "Export the band of the classes, e.g. gdal_translate -b 1."
                )
            flags = dataset.mask_flag_enums[0]
        has_mask = MaskFlags.per_dataset in flags and MaskFlags.all_valid not in flags
        value = info.nodata if nodata is None else None if nodata == "none" else nodata
        value = value if info.dtype.startswith("float") else _as_int(value)
        return cls(path, info.grid, np.dtype(info.dtype), value, has_mask)

    def number_values(self, *, asked: float | Literal["none"] | None = None) -> ValueCounts | None:
        """Read all values once; number them if some are no codes, or 255 is a class. Say what is left out.

        A map of ours, whose classes are known, is not read.

        Args:
            asked: The nodata value that the user gave.

        Returns:
            How many pixels have each value of the file; None of a map that is not read.

        Raises:
            RasterError: if the file is damaged, or has fractions or more than 255 different values.
        """
        with gdal_env(self.path), open_raster(self.path) as dataset:
            is_ours = CLASSES_TAG in read_tags(dataset)
        if is_ours and self.dtype == np.uint8 and asked is None:
            return None
        counts = self.count_values()
        found = find_classes(self.path, counts, self.nodata, asked)
        self.values = None if found is None else np.array(found, np.int64)
        return counts

    def count_values(self) -> ValueCounts:
        """Count the pixels by value; masked pixels do not count.

        Raises:
            RasterError: if the file is damaged, or has fractions or more than 255 different values.
        """
        total = ValueCounts()
        blocks = self.grid.blocks(VALUES_BLOCK)
        with (
            ThreadPoolExecutor(cpu_count()) as pool,
            closing(map_ordered(pool, self._count_block, blocks, in_flight=16)) as parts,
        ):
            for values, counts, num_nodata in parts:
                total.pixels.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
                total.num_nodata += num_nodata
                found = total.pixels
                if len(found) > IGNORE_INDEX and not 0 <= min(found) <= max(found) <= IGNORE_INDEX:
                    raise RasterError(
                        f"{self.path} has more than {IGNORE_INDEX} different values, from {min(found)} to {max(found)}"
                        f", but at most {IGNORE_INDEX} of them can be classes. Reclassify it first."
                    )
        return total

    def _count_block(self, window: Window) -> tuple[NDArray[Any], NDArray[Any], int]:
        """Return the values of a window, how many pixels have each, and how many are nodata but not masked."""
        data, valid = self._read_file(window)
        known = self._where_known(data, None if valid is None else valid.copy())
        num_nodata = int(np.count_nonzero(~known if valid is None else valid & ~known))
        if data.dtype == np.uint8:
            counts = np.bincount(data[known], minlength=256)
            return np.flatnonzero(counts), counts[counts > 0], num_nodata
        return *np.unique(self._whole_numbers(data, known), return_counts=True), num_nodata

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
        """Read a window inside the raster: values as they are, and True where the mask or alpha band shows them."""
        area = RioWindow(window.col, window.row, window.width, window.height)
        handle = self._thread_handle()
        try:
            with handle.lock, gdal_env(self.path):
                dataset = handle.open(self.path)
                data: NDArray[Any] = dataset.read(1, window=area)
                if dataset.count > 1:  # alpha; of a band with a nodata value, GDAL's mask leaves it out
                    return data, dataset.read(dataset.count, window=area) > 0
                return data, dataset.read_masks(1, window=area) > 0 if self.has_mask else None
        except GDAL_ERRORS as error:
            raise read_error(self.path, area, error) from error

    def _read(self, window: Window) -> NDArray[np.uint8]:
        data, valid = self._read_file(window)
        if self.dtype == np.uint8 and self.values is not None:
            lookup = np.full(256, IGNORE_INDEX, np.uint8)
            lookup[self.values] = np.arange(len(self.values))
            data = lookup[data]
        elif self.dtype == np.uint8 and self.nodata not in {None, IGNORE_INDEX}:
            data[data == self.nodata] = IGNORE_INDEX
        if self.dtype == np.uint8:
            if valid is not None:
                data[~valid] = IGNORE_INDEX
            return data
        return self._to_uint8(data, self._where_known(data, valid))

    def _where_known(self, data: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        """Return True for pixels that are neither masked nor nodata."""
        valid = np.ones(data.shape, bool) if valid is None else valid
        if data.dtype.kind == "f":
            valid &= ~np.isnan(data)
        if self.nodata is not None:
            valid &= data != (data.dtype.type(self.nodata) if data.dtype.kind == "f" else self.nodata)
        return valid

    def _whole_numbers(self, data: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return (n,) values of the valid pixels.

        Raises:
            RasterError: if some are fractions or too large.
        """
        values = data[valid]
        wrong = values > MAX_VALUE
        if values.dtype.kind in "if":
            wrong |= values < -MAX_VALUE
        if values.dtype.kind == "f":
            wrong |= values != np.floor(values)
        if wrong.any():
            examples = ", ".join(str(value) for value in np.unique(values[wrong])[:3])
            raise RasterError(
                f"{self.path} contains {examples} ({self.dtype}), but class codes are whole numbers of at most 15 "
                "digits. Is it the right raster? Reclassify it first."
            )
        return values.astype(np.int64)

    def _to_uint8(self, data: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        values = self._whole_numbers(data, valid)
        if self.values is not None:
            values = np.searchsorted(self.values, values)
        elif values.size and not 0 <= values.min() <= values.max() <= IGNORE_INDEX:
            raise RasterError(
                f"{self.path} contains values from {values.min()} to {values.max()}, but class codes are 0 "
                f"to {IGNORE_INDEX - 1}. Reclassify it first."
            )
        codes = np.full(data.shape, IGNORE_INDEX, np.uint8)
        codes[valid] = values
        return codes

    def _thread_handle(self) -> _Handle:
        if not hasattr(self._local, "handle"):
            self._local.handle = _Handle()
            self._handles.append(self._local.handle)
        handle: _Handle = self._local.handle
        return handle

    def __reduce__(self) -> tuple[Any, ...]:
        """Make it again in another process, which opens the file on its own, by its full path."""
        path = str(Path(self.path).absolute()) if is_local(self.path) else self.path
        return type(self), (path, self.grid, self.dtype, self.nodata, self.has_mask, self.values)

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
