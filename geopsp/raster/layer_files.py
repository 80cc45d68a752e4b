"""LayerFiles: the pixels of an image read from its files."""

from __future__ import annotations

import os
import threading
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RioWindow

from geopsp.core.grid import Window
from geopsp.raster.image_layer import BandSource, ImageLayer
from geopsp.raster.open import GDAL_ERRORS, OpenDatasets, gdal_env, read_error
from geopsp.raster.pixel_rule import convert_pixels
from geopsp.raster.valid_mask import block_is_missing, valid_mask_but_zero
from geopsp.raster.warp import open_source, warp_cells

Pixels: TypeAlias = tuple[NDArray[Any], NDArray[np.bool_]]
"""(bands, rows, cols) pixels and their (rows, cols) valid mask."""


class LayerFiles:
    """The files of a scene's images; each thread, and each process that they are sent to, opens its own."""

    def __init__(self) -> None:
        self._local = threading.local()

    def __reduce__(self) -> tuple[type[LayerFiles], tuple[()]]:
        return LayerFiles, ()

    def read(self, layer: ImageLayer, window: Window) -> Pixels:
        """Read (bands, rows, cols) pixels and (rows, cols) valid mask from all files of an image.

        The window lies inside the image.

        Raises:
            RasterError: if the pixels of a file cannot be read.
        """
        if len(layer.band_sources) == 1:
            data, valid = self._read_source(layer.band_sources[0], window)
        else:
            data = np.zeros((len(layer.bands), window.height, window.width), layer.dtype)
            valid = np.ones((window.height, window.width), bool)
            for band_source in layer.band_sources:
                file_valid = np.zeros_like(valid)
                inside = window.intersect(band_source.window)
                if not inside.is_empty:
                    rows, cols = inside.slices(window)
                    pixels, file_valid[rows, cols] = self._read_source(band_source, inside)
                    data[list(band_source.positions), rows, cols] = pixels
                valid &= file_valid
        if any(band_source.zero_is_nodata for band_source in layer.band_sources):
            valid &= data.any(axis=0)
        return (convert_pixels(data, valid, layer.conversion) if layer.conversion else data), valid

    def _read_source(self, band_source: BandSource, window: Window) -> Pixels:
        """Read a window inside a file: (bands, rows, cols) pixels, and valid mask as `valid_mask_but_zero`.

        A warped file is read in whole cells, see WARP_CELL.
        """
        if not band_source.info.warped:
            return self._read_file(band_source, window)
        data = np.empty((len(band_source.indexes), window.height, window.width), band_source.info.dtype)
        valid = np.empty((window.height, window.width), bool)
        for cell in warp_cells(window, band_source.window):
            cell_data, cell_valid = self._read_file(band_source, cell)
            part = cell.intersect(window)
            rows, cols = part.slices(cell)
            inside = part.slices(window)
            data[:, *inside], valid[inside] = cell_data[:, rows, cols], cell_valid[rows, cols]
        return data, valid

    def _read_file(self, band_source: BandSource, window: Window) -> Pixels:
        """Read a window inside a file in one go."""
        info, indexes = band_source.info, band_source.indexes
        area = _file_area(window, band_source.window)
        try:
            with gdal_env(info.path):
                dataset = self._dataset(band_source)
                data = dataset.read(indexes, window=area)
                nodatas = [dataset.nodatavals[i - 1] for i in indexes] if info.warped else band_source.nodatas
                valid = valid_mask_but_zero(dataset, data, indexes, area, nodatas=nodatas, not_alpha=info.indexes)
                return data, valid
        except GDAL_ERRORS as error:
            raise read_error(info.path, area, error) from error

    def _dataset(self, band_source: BandSource) -> Any:
        """Return this thread's own dataset of a file."""
        local = self._local
        if getattr(local, "process", None) != os.getpid():
            local.process, local.open = os.getpid(), OpenDatasets()
        info = band_source.info
        key = (info.path, info.resampling, str(info.nodata), band_source.window)
        return local.open.get(key, lambda: open_source(info))

    def known_empty(self, layer: ImageLayer, window: Window) -> bool:
        """Return True if one file is known to be empty there; all of them where only 0 is nodata.

        No pixel is read. The window lies inside the image.
        """
        if window.is_empty or any(window.intersect(b.window).is_empty for b in layer.band_sources):
            return True
        empty = [self._source_empty(b, window.intersect(b.window)) for b in layer.band_sources]
        return all(empty) or any(e and not b.zero_is_nodata for b, e in zip(layer.band_sources, empty, strict=True))

    def _source_empty(self, band_source: BandSource, window: Window) -> bool:
        info = band_source.info
        if info.warped or not info.sparse_bands:
            return False
        with gdal_env(info.path):
            area = _file_area(window, band_source.window)
            return block_is_missing(self._dataset(band_source), band_source.sparse_bands, info.block, area)


def _file_area(window: Window, file_window: Window) -> RioWindow:
    """Return a window of the scene in the pixels of a file that lies at `file_window`."""
    return RioWindow(window.col - file_window.col, window.row - file_window.row, window.width, window.height)
