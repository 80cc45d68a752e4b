"""Class and probability rasters, written from the top in slabs; they appear whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.windows import Window as RioWindow

from geopsp.errors import OutputError
from geopsp.grid import Grid
from geopsp.legend import CLASSES_TAG, IGNORE, Legend
from geopsp.outputs import whole

BLOCK = 256
PROBABILITY_STEPS = 254
"""A probability raster holds round(254 p); 255 is nodata."""


class SlabWriter:
    """Writes rows from the top; full rows of blocks go to the file as soon as they are complete."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._waiting: list[NDArray[np.uint8]] = []
        self._row = 0

    def append(self, rows: NDArray[np.uint8]) -> None:
        """Puts (bands, rows, width) below what was written so far."""
        self._waiting.append(rows)
        waiting = sum(part.shape[1] for part in self._waiting)
        last = self._row + waiting == self._dataset.height
        ready = waiting if last else waiting - waiting % BLOCK
        if ready:
            slab = np.concatenate(self._waiting, axis=1)
            self._waiting = [slab[:, ready:]]
            window = RioWindow(0, self._row, self._dataset.width, ready)
            self._dataset.write(slab[:, :ready], window=window)
            self._row += ready

    def finish(self) -> None:
        assert self._row == self._dataset.height, f"{self._row} of {self._dataset.height} rows written"


@contextmanager
def _raster(path: Path, grid: Grid, *, overwrite: bool, **profile: Any) -> Iterator[tuple[Any, SlabWriter]]:
    """A new tiled and compressed uint8 GeoTIFF on the grid, with nodata 255."""
    with whole(path, overwrite=overwrite) as partial:
        try:
            with rasterio.open(
                partial,
                "w",
                driver="GTiff",
                dtype="uint8",
                crs=grid.crs,
                transform=grid.transform,
                width=grid.width,
                height=grid.height,
                nodata=IGNORE,
                tiled=True,
                blockxsize=BLOCK,
                blockysize=BLOCK,
                compress="deflate",
                BIGTIFF="IF_SAFER",
                **profile,
            ) as dataset:
                writer = SlabWriter(dataset)
                yield dataset, writer
                writer.finish()
        except RasterioError as error:
            raise OutputError(f"{path} cannot be written ({error}). Is the disk full?") from error


@contextmanager
def class_raster(
    path: str | Path, grid: Grid, legend: Legend, *, overwrite: bool = False, tags: dict[str, str] | None = None
) -> Iterator[SlabWriter]:
    """A class raster of codes: colour table, class names in the tags and beside it (.aux.xml), nodata 255.

    Raises:
        OutputError: if it exists and `overwrite` is False, or cannot be written.
    """
    path = Path(path)
    sidecar = path.with_name(path.name + ".aux.xml")
    with (
        whole(sidecar, overwrite=True) as partial,
        _raster(path, grid, overwrite=overwrite, count=1, photometric="palette") as (dataset, writer),
    ):
        partial.write_text(_category_names(legend), encoding="utf-8")
        colors = {info.code: (*info.rgb, 255) for info in legend}
        dataset.write_colormap(1, {**colors, IGNORE: (0, 0, 0, 0)})
        dataset.update_tags(**{CLASSES_TAG: json.dumps(legend.to_json())}, **(tags or {}))
        dataset.set_band_description(1, "class")
        yield writer


def _category_names(legend: Legend) -> str:
    """The sidecar in which GDAL and QGIS look for class names, one line a code from 0."""
    names = {info.code: info.name for info in legend}
    lines = [f"      <Category>{escape(names.get(code, ''))}</Category>" for code in range(max(names) + 1)]
    body = "\n".join(lines)
    return (
        f'<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n{body}\n'
        "    </CategoryNames>\n  </PAMRasterBand>\n</PAMDataset>\n"
    )


@contextmanager
def probability_raster(
    path: str | Path, grid: Grid, legend: Legend, *, overwrite: bool = False
) -> Iterator[SlabWriter]:
    """A raster with one band a class, named for it: round(254 p) with scale 1/254, nodata 255.

    Raises:
        OutputError: if it exists and `overwrite` is False, or cannot be written.
    """
    count = len(legend)
    with _raster(Path(path), grid, overwrite=overwrite, count=count, photometric="minisblack") as (dataset, writer):
        dataset.colorinterp = [ColorInterp.gray] + [ColorInterp.undefined] * (count - 1)
        dataset.descriptions = tuple(legend.names)
        dataset.scales = (1 / PROBABILITY_STEPS,) * count
        yield writer
