"""The parts of a map put together as one Cloud Optimized GeoTIFF: deflated blocks are copied, never made again."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from io import BytesIO
from itertools import repeat
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import numpy as np
import tifffile
from numpy.typing import NDArray

from geopsp.core.grid import Grid
from geopsp.core.legend import CLASSES_TAG
from geopsp.raster.cog.overviews import downsample
from geopsp.raster.cog.part_file import PartWriter, disk_errors, level_sizes
from geopsp.raster.cog.part_grid import BLOCK, PartGrid
from geopsp.raster.cog.part_mosaic import PartMosaic, PartPath
from geopsp.raster.cog.raster_spec import RasterSpec
from geopsp.raster.geotiff import NODATA, Tag, color_map, crs_tags, georeference_tags, text_tag

METADATA = 42112
"""GDAL's tag for its metadata."""


TILE_OFFSETS, TILE_SIZES = 324, 325


CLASSIC = 2**32
"""Bytes that a file which is no BigTIFF cannot reach."""


LAYOUT = (
    b"LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)
"""What GDAL may rely on when it reads. Source: GDAL's documentation of its COG driver."""


LEADER = TRAILER = 4
"""Bytes before and behind each block."""


def assemble(
    product: RasterSpec,
    grid: Grid,
    part_grid: PartGrid,
    part_path: PartPath,
    out: Path,
    *,
    tags: Mapping[str, str],
    pool: Executor | None = None,
) -> None:
    """`out` is the map that the parts make, whatever parts they are.

    Levels that are coarser than the parts hold are made here, for which `pool` deflates.

    Raises:
        OutputError: if a part is missing or damaged, or the disk is full.
    """
    parts = PartMosaic(product, part_grid, part_path)
    count = 1 + num_overviews(part_grid.width, part_grid.height, part_grid.block)
    held = min(part_grid.levels + 1, count)
    rest = out.with_name(out.name + ".coarse")
    try:
        levels = [(parts, level) for level in range(held)]
        if held < count:
            coarse = _coarsened(parts, held - 1, rest, pool)
            levels += [(coarse, level) for level in range(count - held)]
        with disk_errors(out):
            _write(out, levels, _head(product, grid, part_grid, tags))
    finally:
        rest.unlink(missing_ok=True)


def num_overviews(width: int, height: int, block: int) -> int:
    """How often pixels are halved until both sides are at most one block."""
    return max(0, (-(-max(width, height) // block) - 1).bit_length())


def single_part(width: int, height: int, block: int = BLOCK) -> PartGrid:
    """The grid of a raster that is one part, with all its levels."""
    side = block << num_overviews(width, height, block)
    return PartGrid(width, height, part_width=side, part_height=side, block=block)


def _coarsened(parts: PartMosaic, level: int, path: Path, pool: Executor | None) -> PartMosaic:
    """All that is coarser than this level of the parts."""
    product, block = parts.product, parts.part_grid.block
    width, height = level_sizes(parts.part_grid.width, parts.part_grid.height, level + 1)[-1]
    part_grid = single_part(width, height, block)
    with PartWriter(path, width, height, product, block=block, levels=part_grid.levels, pool=pool) as writer:
        for rows in parts.rows(level):
            writer.append(downsample(rows, product))
    return PartMosaic(product, part_grid, lambda _: path)


def _write(out: Path, levels: list[tuple[PartMosaic, int]], make_head: Callable[[bool], bytearray]) -> None:
    """Head first, then the levels, the coarsest first."""
    lengths = [parts.block_sizes(level) for parts, level in levels]
    data = sum(int(sizes.sum()) + (LEADER + TRAILER) * np.count_nonzero(sizes) for sizes in lengths)
    head = make_head(False)
    if len(head) + data >= CLASSIC:
        head = make_head(True)
    _write_offsets(head, lengths)
    with out.open("wb") as file:
        file.write(head)
        for parts, level in reversed(levels):
            for blob in parts.blocks(level):
                file.write(struct.pack("<I", len(blob)) + blob + blob[-TRAILER:])


def _write_offsets(head: bytearray, lengths: list[NDArray[np.uint64]]) -> None:
    """Writes into the head where each block lies and how long it is; a block of nothing has 0 and 0."""
    end = len(head)
    with tifffile.TiffFile(BytesIO(head)) as file:
        pages: list[Any] = list(file.pages)
        for page, sizes in reversed(list(zip(pages, lengths, strict=True))):
            steps = np.where(sizes > 0, sizes + np.uint64(LEADER + TRAILER), 0).ravel()
            stops = end + np.cumsum(steps)
            places = np.where(steps > 0, stops - steps + np.uint64(LEADER), 0)
            end = int(stops[-1])
            for code, values in ((TILE_OFFSETS, places), (TILE_SIZES, sizes)):
                tag = page.tags[code]
                content = values.astype({3: "<u2", 4: "<u4", 16: "<u8"}[tag.dtype]).tobytes()
                head[tag.valueoffset : tag.valueoffset + len(content)] = content


def _head(product: RasterSpec, grid: Grid, part_grid: PartGrid, tags: Mapping[str, str]) -> Callable[[bool], bytearray]:
    """All that comes before the blocks, as BigTIFF or not, but where they lie."""
    sizes = level_sizes(
        part_grid.width, part_grid.height, num_overviews(part_grid.width, part_grid.height, part_grid.block)
    )
    bands, legend = len(product.bands), product.legend
    about = [text_tag(METADATA, _metadata(product, tags)), *crs_tags(grid.crs), *georeference_tags(grid)]
    nodata = text_tag(NODATA, f"{product.nodata:g}")
    look: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "separate" if bands > 1 else None}
    if legend is not None:
        look = {"photometric": "palette", "colormap": color_map((info.code, info.rgb) for info in legend)}

    def make(big: bool) -> bytearray:
        content = BytesIO()
        with tifffile.TiffWriter(content, bigtiff=big, byteorder="<") as file:
            content.write(b"GDAL_STRUCTURAL_METADATA_SIZE=%06d bytes\n" % len(LAYOUT) + LAYOUT)
            for level, (width, height) in enumerate(sizes):
                blocks = bands * -(-width // part_grid.block) * -(-height // part_grid.block)
                extra: list[Tag] = [nodata] if level else [*about, nodata]
                file.write(
                    iter(repeat(b"", blocks)),
                    shape=(bands, height, width) if bands > 1 else (height, width),
                    dtype=product.dtype,
                    tile=(part_grid.block, part_grid.block),
                    compression="adobe_deflate",
                    subfiletype=1 if level else 0,
                    metadata=None,
                    software=False,
                    extratags=extra,
                    **look,
                )
        return bytearray(content.getbuffer())

    return make


def _metadata(product: RasterSpec, tags: Mapping[str, str]) -> str:
    """GDAL's XML of tags, names of bands and scales."""
    root = ET.Element("GDALMetadata")

    def add(name: str, value: str, **where: str) -> None:
        ET.SubElement(root, "Item", {"name": name, **where}).text = escape(value)  # GDAL takes it off twice

    own = {} if product.legend is None else {CLASSES_TAG: json.dumps(product.legend.to_json())}
    for name, value in {**own, **tags}.items():
        add(name, value)
    for band, name in enumerate(product.bands):
        add("DESCRIPTION", name, sample=str(band), role="description")
        if product.scale != 1:
            add("OFFSET", "0", sample=str(band), role="offset")
            add("SCALE", f"{product.scale:.17g}", sample=str(band), role="scale")
    return ET.tostring(root, encoding="unicode")
