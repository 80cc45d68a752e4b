"""Small GeoTIFFs as bytes, such as chips; and the TIFF tags of large ones.

GDAL writes the CRS once, as it knows best how; all else is made here, because libdeflate compresses several times
faster than GDAL does.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from io import BytesIO
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import pyproj
import tifffile
from affine import Affine
from deflate import zlib_compress
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.io import MemoryFile

from geopsp.core.grid import Grid
from geopsp.errors import GridError

CRS_TAGS = (34735, 34736, 34737)
"""GeoKeyDirectory, GeoDoubleParams, GeoAsciiParams."""


PIXEL_SCALE, TIE_POINT, TRANSFORMATION, NODATA = 33550, 33922, 34264, 42113


FASTEST = 1
"""Compression level of libdeflate; higher ones take more time than they save space."""


STRIP_OFFSETS, STRIP_SIZES = 273, 279


DOUBLE, ASCII, SHORT = 12, 2, 3
"""TIFF data types."""


MASK = 4
"""TIFF's NewSubfileType and PhotometricInterpretation of an internal mask."""


Colors = tuple[tuple[int, tuple[int, int, int]], ...]
"""Pixel values and their (red, green, blue), 0 to 255."""


Tag = tuple[int, int, int, Any, bool]
"""Code, data type, count, value, and True for the first page only: as tifffile takes tags."""


def encode_geotiff(
    data: NDArray[Any],
    grid: Grid,
    *,
    valid: NDArray[np.bool_] | None = None,
    nodata: int | None = None,
    colors: Mapping[int, tuple[int, int, int]] | None = None,
) -> bytes:
    """Return a deflated GeoTIFF, each band one strip.

    Args:
        data: (bands, rows, cols) pixels; with `colors` one band of uint8.
        grid: Their georeference.
        valid: (rows, cols) valid mask, written as an internal mask.
        nodata: The nodata value.
        colors: Colour table: (red, green, blue), 0 to 255, by pixel value.

    Source: OGC 19-008r4, GeoTIFF 1.1; the nodata tag is GDAL's.
    """
    table = None if colors is None else tuple(sorted(colors.items()))
    if valid is not None:
        return _encode(_deflate_bands(data), data.shape, data.dtype, grid, nodata, table, valid)
    template = _header_template(data.shape, data.dtype, grid.crs, _is_north_up(grid), nodata, table)
    strips = _deflate_bands(data)
    offsets = list(accumulate(map(len, strips), initial=len(template.header)))
    header = bytearray(template.header)
    for code, values in ((STRIP_OFFSETS, offsets[:-1]), (STRIP_SIZES, map(len, strips))):
        struct.pack_into(f"<{len(strips)}{template.formats[code]}", header, template.positions[code], *values)
    for code, _, count, numbers, _ in georeference_tags(grid):
        struct.pack_into(f"<{count}d", header, template.positions[code], *numbers)
    return b"".join([header, *strips])


class HeaderTemplate(NamedTuple):
    """The header shared by GeoTIFFs of one shape, data type, CRS, nodata value and colour table."""

    header: bytes
    """All bytes before the first strip."""

    positions: dict[int, int]
    """Position in `header` of the values of each tag, by code."""

    formats: dict[int, str]
    """Format characters of struct for the strips' offsets and sizes, by tag code."""


@lru_cache(maxsize=16)
def _header_template(
    shape: tuple[int, ...], dtype: np.dtype[Any], crs: CRS, north_up: bool, nodata: int | None, colors: Colors | None
) -> HeaderTemplate:
    """Make the header once with tifffile; filling in the numbers that differ is fifteen times faster."""
    transform = Affine(1, 0, 1, 0, -1, 1) if north_up else Affine(1, 1, 1, 0, 1, 1)
    content = _encode([b"-"] * shape[0], shape, dtype, Grid(crs, transform, shape[2], shape[1]), nodata, colors)
    with tifffile.TiffFile(BytesIO(content)) as file:
        page = file.pages.first
        formats = {code: "H" if page.tags[code].dtype == SHORT else "I" for code in (STRIP_OFFSETS, STRIP_SIZES)}
        positions = {tag.code: tag.valueoffset for tag in page.tags.values()}
        return HeaderTemplate(content[: page.dataoffsets[0]], positions, formats)


def _encode(
    strips: list[bytes],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    grid: Grid,
    nodata: int | None,
    colors: Colors | None,
    valid: NDArray[np.bool_] | None = None,
) -> bytes:
    """Return a whole file of `shape` (bands, rows, cols), given its compressed strips."""
    content = BytesIO()
    tags = [*crs_tags(grid.crs), *georeference_tags(grid)]
    if nodata is not None:
        tags.append(text_tag(NODATA, str(nodata)))
    photometric: dict[str, Any] = {"photometric": "minisblack"}
    if colors is not None:
        photometric = {"photometric": "palette", "colormap": color_map(colors)}
    with tifffile.TiffWriter(content, byteorder="<") as file:
        planes = "separate" if shape[0] > 1 else None
        _write(file, strips, shape, dtype, **photometric, planarconfig=planes, extratags=tags)
        if valid is not None:
            mask, shape = _deflate_bands(np.packbits(valid[None], axis=2)), (1, *valid.shape)
            _write(file, mask, shape, valid.dtype, photometric=MASK, subfiletype=MASK, bitspersample=1)
    return content.getvalue()


def _deflate_bands(data: NDArray[Any]) -> list[bytes]:
    return [deflate(band) for band in data]


def text_tag(code: int, text: str) -> Tag:
    """Return an ASCII tag that holds UTF-8, as GDAL writes and reads it."""
    value = text.encode() + b"\0"
    return (code, ASCII, len(value), value, True)


def deflate(band: NDArray[Any]) -> bytes:
    """Compress a band with libdeflate, which always gives the same bytes; igzip does not promise that."""
    return bytes(zlib_compress(np.ascontiguousarray(band), FASTEST))


def _write(
    file: tifffile.TiffWriter, strips: list[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], **options: Any
) -> None:
    """Write a page from its compressed strips."""
    file.write(
        iter(strips),
        shape=shape if shape[0] > 1 else shape[1:],
        dtype=dtype,
        compression="adobe_deflate",
        rowsperstrip=shape[1],
        metadata=None,
        software=False,
        **options,
    )


def georeference_tags(grid: Grid) -> list[Tag]:
    """Return the tags of the transform: pixel scale and tie point of a north-up grid, else the whole matrix."""
    t = grid.transform
    if _is_north_up(grid):
        return [
            (PIXEL_SCALE, DOUBLE, 3, (t.a, -t.e, 0.0), True),
            (TIE_POINT, DOUBLE, 6, (0.0, 0.0, 0.0, t.c, t.f, 0.0), True),
        ]
    matrix = (t.a, t.b, 0.0, t.c, t.d, t.e, 0.0, t.f, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    return [(TRANSFORMATION, DOUBLE, 16, matrix, True)]


def _is_north_up(grid: Grid) -> bool:
    t = grid.transform
    return bool(t.b == t.d == 0 and t.a > 0 > t.e)


@lru_cache(maxsize=8)
def crs_tags(crs: CRS) -> tuple[Tag, ...]:
    """Return the tags with which GDAL writes a CRS."""
    with MemoryFile(ext=".tif") as memory:
        transform = Affine.translation(1, 1)  # without one, rasterio warns
        with memory.open(driver="GTiff", width=1, height=1, count=1, dtype="uint8", crs=crs, transform=transform):
            pass
        with tifffile.TiffFile(BytesIO(memory.getbuffer())) as file:
            found = [tag for tag in file.pages.first.tags.values() if tag.code in CRS_TAGS]
            return tuple((tag.code, int(tag.dtype), tag.count, tag.value, True) for tag in found)


def require_geotiff_crs(grid: Grid, source: str) -> None:
    """Check that a GeoTIFF can hold the CRS of a grid, if it has one; `source` names the image.

    Raises:
        GridError: if it cannot, as with a rotated pole.
    """
    if grid.crs and not crs_tags(grid.crs):
        name = pyproj.CRS.from_user_input(grid.crs).name
        raise GridError(
            f"The CRS of {source} ({name}) cannot be written to a GeoTIFF, as chips and maps are. Warp the image to "
            "another CRS first, e.g. gdalwarp -t_srs EPSG:4326."
        )


def color_map(colors: Iterable[tuple[int, tuple[int, int, int]]]) -> NDArray[np.uint16]:
    """Return a TIFF colour map: (3, 256) of 16 bits."""
    table = np.zeros((3, 256), np.uint16)
    for value, rgb in colors:
        table[:, value] = rgb
    return table * np.uint16(257)
