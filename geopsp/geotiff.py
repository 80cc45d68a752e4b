"""Small GeoTIFFs as bytes: GDAL says how a CRS is written, igzip deflates several times faster than it does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
import tifffile
from affine import Affine
from isal import isal_zlib
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.io import MemoryFile

from geopsp.grid import Grid

CRS_TAGS = (34735, 34736, 34737)
"""GeoKeyDirectory, GeoDoubleParams, GeoAsciiParams."""

PIXEL_SCALE, TIE_POINT, TRANSFORMATION, NODATA = 33550, 33922, 34264, 42113

DOUBLE, ASCII = 12, 2
"""Types of tags."""

MASK = 4
"""What a TIFF calls the page, and the meaning of its pixels, that says where others are valid."""

Tag = tuple[int, int, int, Any, bool]
"""Number, type, count, value, and that it is of the first page only: as tifffile takes them."""


def encode_geotiff(
    data: NDArray[Any],
    grid: Grid,
    *,
    valid: NDArray[np.bool_] | None = None,
    nodata: int | None = None,
    colors: Mapping[int, tuple[int, int, int]] | None = None,
) -> bytes:
    """A deflated GeoTIFF, each band one strip.

    Args:
        data: (bands, rows, cols); one band of bytes with `colors`.
        grid: Where they lie.
        valid: (rows, cols); becomes an internal mask.
        nodata: The value that says so.
        colors: Of the values, 0 to 255 a component.

    Source: OGC 19-008r4, GeoTIFF 1.1; the tag of the nodata value is GDAL's.
    """
    content = BytesIO()
    tags = [*_crs_tags(grid.crs), *_place_tags(grid)]
    if nodata is not None:
        text = str(nodata)
        tags.append((NODATA, ASCII, len(text) + 1, text, True))
    look: dict[str, Any] = {"photometric": "minisblack"}
    if colors is not None:
        look = {"photometric": "palette", "colormap": _color_map(colors)}
    with tifffile.TiffWriter(content) as file:
        _write(file, data, **look, planarconfig="separate" if len(data) > 1 else None, extratags=tags)
        if valid is not None:
            _write(file, valid[None], photometric=MASK, subfiletype=MASK)
    return content.getvalue()


def _write(file: tifffile.TiffWriter, data: NDArray[Any], **options: Any) -> None:
    """A page, deflated beforehand."""
    bits: dict[str, Any] = {"bitspersample": 1} if data.dtype == bool else {}
    packed = np.packbits(data, axis=2) if bits else data
    strips = (isal_zlib.compress(np.ascontiguousarray(band), 1) for band in packed)
    file.write(
        strips,
        shape=data.shape if len(data) > 1 else data.shape[1:],
        dtype=data.dtype,
        compression="adobe_deflate",
        rowsperstrip=data.shape[1],
        metadata=None,
        software=False,
        **bits,
        **options,
    )


def _place_tags(grid: Grid) -> list[Tag]:
    """Where the pixels lie: by corner and size, or where they are turned by the whole transformation."""
    t = grid.transform
    if t.b == t.d == 0 and t.a > 0 > t.e:
        return [
            (PIXEL_SCALE, DOUBLE, 3, (t.a, -t.e, 0.0), True),
            (TIE_POINT, DOUBLE, 6, (0.0, 0.0, 0.0, t.c, t.f, 0.0), True),
        ]
    matrix = (t.a, t.b, 0.0, t.c, t.d, t.e, 0.0, t.f, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    return [(TRANSFORMATION, DOUBLE, 16, matrix, True)]


@lru_cache(maxsize=8)
def _crs_tags(crs: CRS) -> tuple[Tag, ...]:
    """A CRS as GDAL writes it."""
    with MemoryFile(ext=".tif") as memory:
        place = Affine.translation(1, 1)  # without one, rasterio warns
        with memory.open(driver="GTiff", width=1, height=1, count=1, dtype="uint8", crs=crs, transform=place):
            pass
        with tifffile.TiffFile(BytesIO(memory.getbuffer())) as file:
            found = [tag for tag in file.pages.first.tags.values() if tag.code in CRS_TAGS]
            return tuple((tag.code, int(tag.dtype), tag.count, tag.value, True) for tag in found)


def _color_map(colors: Mapping[int, tuple[int, int, int]]) -> NDArray[np.uint16]:
    """(3, 256) of 16 bits."""
    table = np.zeros((3, 256), np.uint16)
    for value, rgb in colors.items():
        table[:, value] = rgb
    return table * np.uint16(257)
