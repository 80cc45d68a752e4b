"""Small GeoTIFFs as bytes: GDAL says how a CRS is written, libdeflate deflates faster than it does."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from io import BytesIO
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import tifffile
from affine import Affine
from deflate import zlib_compress
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.io import MemoryFile

from geopsp.core.grid import Grid

CRS_TAGS = (34735, 34736, 34737)
"""GeoKeyDirectory, GeoDoubleParams, GeoAsciiParams."""


PIXEL_SCALE, TIE_POINT, TRANSFORMATION, NODATA = 33550, 33922, 34264, 42113


FASTEST = 1
"""How hard to try: more costs more time than it is worth."""


STRIP_OFFSETS, STRIP_SIZES = 273, 279


DOUBLE, ASCII, SHORT = 12, 2, 3
"""Types of tags."""


MASK = 4
"""What a TIFF calls the page, and the meaning of its pixels, that says where others are valid."""


Colors = tuple[tuple[int, tuple[int, int, int]], ...]
"""Values and their red, green and blue."""


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
    table = None if colors is None else tuple(sorted(colors.items()))
    if valid is not None:
        return _encode(_deflated(data), data.shape, data.dtype, grid, nodata, table, valid)
    form = _header_template(data.shape, data.dtype, grid.crs, _north_up(grid), nodata, table)
    strips = _deflated(data)
    ends = list(accumulate(map(len, strips), initial=len(form.head)))
    head = bytearray(form.head)
    for code, values in ((STRIP_OFFSETS, ends[:-1]), (STRIP_SIZES, map(len, strips))):
        struct.pack_into(f"<{len(strips)}{form.numbers[code]}", head, form.places[code], *values)
    for code, _, count, numbers, _ in georeference_tags(grid):
        struct.pack_into(f"<{count}d", head, form.places[code], *numbers)
    return b"".join([head, *strips])


class HeaderTemplate(NamedTuple):
    """All that small GeoTIFFs of one kind have in common."""

    head: bytes
    """What comes before the first strip."""

    places: dict[int, int]
    """Where in it the values of a tag lie, by its number."""

    numbers: dict[int, str]
    """How the strips' places and sizes are written, as struct calls it."""


@lru_cache(maxsize=16)
def _header_template(
    shape: tuple[int, ...], dtype: np.dtype[Any], crs: CRS, north_up: bool, nodata: int | None, colors: Colors | None
) -> HeaderTemplate:
    """Made of a whole file, once: the others differ from it in a few numbers, which is fifteen times quicker."""
    place = Affine(1, 0, 1, 0, -1, 1) if north_up else Affine(1, 1, 1, 0, 1, 1)
    content = _encode([b"-"] * shape[0], shape, dtype, Grid(crs, place, shape[2], shape[1]), nodata, colors)
    with tifffile.TiffFile(BytesIO(content)) as file:
        page = file.pages.first
        numbers = {code: "H" if page.tags[code].dtype == SHORT else "I" for code in (STRIP_OFFSETS, STRIP_SIZES)}
        places = {tag.code: tag.valueoffset for tag in page.tags.values()}
        return HeaderTemplate(content[: page.dataoffsets[0]], places, numbers)


def _encode(
    strips: list[bytes],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    grid: Grid,
    nodata: int | None,
    colors: Colors | None,
    valid: NDArray[np.bool_] | None = None,
) -> bytes:
    """A whole file of (bands, rows, cols), whose strips are deflated already."""
    content = BytesIO()
    tags = [*crs_tags(grid.crs), *georeference_tags(grid)]
    if nodata is not None:
        tags.append(text_tag(NODATA, str(nodata)))
    look: dict[str, Any] = {"photometric": "minisblack"}
    if colors is not None:
        look = {"photometric": "palette", "colormap": color_map(colors)}
    with tifffile.TiffWriter(content, byteorder="<") as file:
        planes = "separate" if shape[0] > 1 else None
        _write(file, strips, shape, dtype, **look, planarconfig=planes, extratags=tags)
        if valid is not None:
            mask, bits = _deflated(np.packbits(valid[None], axis=2)), (1, *valid.shape)
            _write(file, mask, bits, valid.dtype, photometric=MASK, subfiletype=MASK, bitspersample=1)
    return content.getvalue()


def _deflated(data: NDArray[Any]) -> list[bytes]:
    return [deflate(band) for band in data]


def text_tag(code: int, text: str) -> Tag:
    """A tag of UTF-8."""
    value = text.encode() + b"\0"
    return (code, ASCII, len(value), value, True)


def deflate(band: NDArray[Any]) -> bytes:
    """A band deflated by libdeflate: always to the same bytes, which igzip does not promise."""
    return bytes(zlib_compress(np.ascontiguousarray(band), FASTEST))


def _write(
    file: tifffile.TiffWriter, strips: list[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], **options: Any
) -> None:
    """A page of strips that are deflated already."""
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
    """Where the pixels lie: by corner and size, or where they are turned by the whole transformation."""
    t = grid.transform
    if _north_up(grid):
        return [
            (PIXEL_SCALE, DOUBLE, 3, (t.a, -t.e, 0.0), True),
            (TIE_POINT, DOUBLE, 6, (0.0, 0.0, 0.0, t.c, t.f, 0.0), True),
        ]
    matrix = (t.a, t.b, 0.0, t.c, t.d, t.e, 0.0, t.f, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    return [(TRANSFORMATION, DOUBLE, 16, matrix, True)]


def _north_up(grid: Grid) -> bool:
    t = grid.transform
    return bool(t.b == t.d == 0 and t.a > 0 > t.e)


@lru_cache(maxsize=8)
def crs_tags(crs: CRS) -> tuple[Tag, ...]:
    """A CRS as GDAL writes it."""
    with MemoryFile(ext=".tif") as memory:
        place = Affine.translation(1, 1)  # without one, rasterio warns
        with memory.open(driver="GTiff", width=1, height=1, count=1, dtype="uint8", crs=crs, transform=place):
            pass
        with tifffile.TiffFile(BytesIO(memory.getbuffer())) as file:
            found = [tag for tag in file.pages.first.tags.values() if tag.code in CRS_TAGS]
            return tuple((tag.code, int(tag.dtype), tag.count, tag.value, True) for tag in found)


def color_map(colors: Iterable[tuple[int, tuple[int, int, int]]]) -> NDArray[np.uint16]:
    """(3, 256) of 16 bits."""
    table = np.zeros((3, 256), np.uint16)
    for value, rgb in colors:
        table[:, value] = rgb
    return table * np.uint16(257)
