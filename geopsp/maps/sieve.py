"""Small regions of a finished class map join their largest neighbour, as GDAL's sieve does it on the whole raster."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import Executor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.features import sieve as gdal_sieve
from rasterio.windows import Window as RioWindow

from geopsp.errors import OutputError
from geopsp.grid import Window
from geopsp.maps.blocks import PartWriter, writing
from geopsp.maps.joined import JoinedParts, PartPath
from geopsp.maps.plan import MapPlan
from geopsp.maps.products import Product
from geopsp.maps.reduce import is_nothing

UP = np.uint8(1)
"""What is added to a code, so that 255 becomes 0, which a mask takes for nothing."""


def sieve(
    product: Product,
    plan: MapPlan,
    source: PartPath,
    target: PartPath,
    size: int,
    *,
    pool: Executor | None = None,
) -> None:
    """The parts at `target` are those at `source`, but regions (4-connected) of fewer than `size` pixels.

    Unknown pixels stay, and nothing joins them. The disk holds a byte a pixel meanwhile, beside the parts; memory
    grows with the number of regions only.

    Raises:
        OutputError: if a part is missing or damaged, or the disk is full.
    """
    folder = target(0).parent
    with writing(folder), TemporaryDirectory(prefix=".sieve-", dir=folder) as scratch:
        raised, sieved = Path(scratch) / "codes.tif", Path(scratch) / "sieved"
        _write_raised(JoinedParts(product, plan, source), raised)
        out = _room(sieved, plan)
        with rasterio.open(raised) as dataset:
            band = rasterio.band(dataset, 1)
            if plan.width * plan.height > size:
                gdal_sieve(band, size, out=out, mask=band, connectivity=4)
            else:
                out[:] = dataset.read(1)  # no region can be that large, so none has a neighbour to join
        for number in range(plan.parts):
            _write_part(product, plan, number, out, target(number), pool)


def _write_raised(parts: JoinedParts, path: Path) -> None:
    """A raster of the codes, each one up."""
    plan, row = parts.plan, 0
    profile = {"driver": "GTiff", "width": plan.width, "height": plan.height, "count": 1, "dtype": "uint8"}
    profile |= {
        "tiled": True,
        "blockxsize": plan.block,
        "blockysize": plan.block,
        "transform": Affine(1, 0, 1, 0, -1, 1),
    }
    profile |= {"compress": "deflate", "zlevel": 1, "sparse_ok": True, "bigtiff": "if_safer"}
    try:
        with rasterio.open(path, "w", **profile) as dataset:
            for rows in parts.rows(0):
                if not is_nothing(rows, parts.product):
                    dataset.write(rows + UP, window=RioWindow(0, row, plan.width, rows.shape[1]))
                row += rows.shape[1]
    except RasterioError as error:
        raise OutputError(f"{path} cannot be written ({error}). Is the disk full?") from error


def _room(path: Path, plan: MapPlan) -> NDArray[np.uint8]:
    """(height, width) pixels that lie in a file, for which the disk has room: else a full one would end the program."""
    needed = plan.width * plan.height
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, needed)
        elif shutil.disk_usage(path.parent).free < needed:
            raise OutputError(f"The sieve needs {needed / 1e6:,.0f} MB beside {path.parent}. Make room on the disk.")
    return np.memmap(path, np.uint8, "r+", shape=(plan.height, plan.width))


def _write_part(
    product: Product, plan: MapPlan, number: int, codes: NDArray[np.uint8], path: Path, pool: Executor | None
) -> None:
    """A part of codes that are each one up."""
    window = plan.part(number).window
    rows, cols = window.slices(Window(0, 0, plan.width, plan.height))
    part = codes[rows, cols]
    with PartWriter(
        path, window.width, window.height, product, block=plan.block, levels=plan.levels, pool=pool
    ) as writer:
        for row in range(0, window.height, plan.block):
            writer.append(part[None, row : row + plan.block] - UP)
