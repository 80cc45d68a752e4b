"""Part files -> one Cloud Optimized GeoTIFF (COG); compressed blocks are copied as they are."""

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

from geopsp.core.escape import xml_text
from geopsp.core.grid import Grid
from geopsp.core.legend import CLASSES_TAG
from geopsp.core.output import write_errors
from geopsp.raster.cog.overviews import downsample
from geopsp.raster.cog.part_file import PartWriter, level_sizes
from geopsp.raster.cog.part_grid import BLOCK, PartGrid
from geopsp.raster.cog.part_mosaic import PartMosaic, PartPath
from geopsp.raster.cog.raster_spec import RasterSpec
from geopsp.raster.geotiff import NODATA, Tag, color_map, crs_tags, georeference_tags, text_tag

METADATA = 42112
"""GDAL's TIFF tag for its metadata."""


TILE_OFFSETS, TILE_SIZES = 324, 325


CLASSIC = 2**32
"""Size limit in bytes of a TIFF that is no BigTIFF."""


LAYOUT = (
    b"LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)
"""The layout that GDAL may rely on. Source: GDAL's documentation of its COG driver."""


LEADER = TRAILER = 4
"""Bytes before and after each block: its size, and its last bytes once more."""


def assemble(
    spec: RasterSpec,
    grid: Grid,
    part_grid: PartGrid,
    part_path: PartPath,
    out: Path,
    *,
    tags: Mapping[str, str],
    pool: Executor | None = None,
) -> None:
    """Write the parts as one COG at `out`. The bytes do not depend on the size of the parts.

    Overviews that are coarser than those in the parts are made here.

    Args:
        spec: The raster.
        grid: Its georeference.
        part_grid: Its parts.
        part_path: Path of each part.
        out: The file to write.
        tags: GDAL metadata.
        pool: Threads that compress the coarse overviews.

    Raises:
        OutputError: if a part is missing or damaged, or the disk is full.
    """
    parts = PartMosaic(spec, part_grid, part_path)
    count = 1 + num_overviews(part_grid.width, part_grid.height, part_grid.block)
    stored = min(part_grid.levels + 1, count)
    coarse_path = out.with_name(out.name + ".coarse")
    try:
        levels = [(parts, level) for level in range(stored)]
        if stored < count:
            coarse = _coarse_overviews(parts, stored - 1, coarse_path, pool)
            levels += [(coarse, level) for level in range(count - stored)]
        with write_errors(out):
            _write(out, levels, _header_maker(spec, grid, part_grid, tags))
    finally:
        coarse_path.unlink(missing_ok=True)


def num_overviews(width: int, height: int, block: int) -> int:
    """Return the number of overviews, the coarsest of which fits into one block."""
    return max(0, (-(-max(width, height) // block) - 1).bit_length())


def single_part(width: int, height: int, block: int = BLOCK) -> PartGrid:
    """Return the grid of a raster that is stored as one part with all its overviews."""
    side = block << num_overviews(width, height, block)
    return PartGrid(width, height, part_width=side, part_height=side, block=block)


def _coarse_overviews(parts: PartMosaic, level: int, path: Path, pool: Executor | None) -> PartMosaic:
    """Make the overviews that are coarser than this level of the parts, in a temporary part file."""
    spec, block = parts.spec, parts.part_grid.block
    width, height = level_sizes(parts.part_grid.width, parts.part_grid.height, level + 1)[-1]
    part_grid = single_part(width, height, block)
    with PartWriter(path, width, height, spec, block=block, levels=part_grid.levels, pool=pool) as writer:
        for rows in parts.rows(level):
            writer.append(downsample(rows, spec))
    return PartMosaic(spec, part_grid, lambda _: path)


def _write(out: Path, levels: list[tuple[PartMosaic, int]], make_header: Callable[[bool], bytearray]) -> None:
    """Write the header, then the levels, the coarsest first, as a COG asks for."""
    sizes = [parts.block_sizes(level) for parts, level in levels]
    num_bytes = sum(int(each.sum()) + (LEADER + TRAILER) * np.count_nonzero(each) for each in sizes)
    header = make_header(False)
    if len(header) + num_bytes >= CLASSIC:
        header = make_header(True)
    _write_offsets(header, sizes)
    with out.open("wb") as file:
        file.write(header)
        for parts, level in reversed(levels):
            for block in parts.blocks(level):
                file.write(struct.pack("<I", len(block)) + block + block[-TRAILER:])


def _write_offsets(header: bytearray, sizes: list[NDArray[np.uint64]]) -> None:
    """Write offset and size of each block into the header; 0 and 0 for a block of nodata, which is not stored."""
    end = len(header)
    with tifffile.TiffFile(BytesIO(header)) as file:
        pages: list[Any] = list(file.pages)
        for page, page_sizes in reversed(list(zip(pages, sizes, strict=True))):
            steps = np.where(page_sizes > 0, page_sizes + np.uint64(LEADER + TRAILER), 0).ravel()
            stops = end + np.cumsum(steps)
            offsets = np.where(steps > 0, stops - steps + np.uint64(LEADER), 0)
            end = int(stops[-1])
            for code, values in ((TILE_OFFSETS, offsets), (TILE_SIZES, page_sizes)):
                tag = page.tags[code]
                content = values.astype({3: "<u2", 4: "<u4", 16: "<u8"}[tag.dtype]).tobytes()
                header[tag.valueoffset : tag.valueoffset + len(content)] = content


def _header_maker(
    spec: RasterSpec, grid: Grid, part_grid: PartGrid, tags: Mapping[str, str]
) -> Callable[[bool], bytearray]:
    """Return a function that makes all bytes before the blocks, as BigTIFF or not; offsets and sizes are still 0."""
    sizes = level_sizes(
        part_grid.width, part_grid.height, num_overviews(part_grid.width, part_grid.height, part_grid.block)
    )
    bands, legend = len(spec.bands), spec.legend
    first_page_tags = [text_tag(METADATA, _metadata(spec, tags)), *crs_tags(grid.crs), *georeference_tags(grid)]
    nodata = text_tag(NODATA, f"{spec.nodata:g}")
    photometric: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "separate" if bands > 1 else None}
    if legend is not None:
        photometric = {"photometric": "palette", "colormap": color_map((info.code, info.rgb) for info in legend)}

    def make(big: bool) -> bytearray:
        content = BytesIO()
        with tifffile.TiffWriter(content, bigtiff=big, byteorder="<") as file:
            content.write(b"GDAL_STRUCTURAL_METADATA_SIZE=%06d bytes\n" % len(LAYOUT) + LAYOUT)
            for level, (width, height) in enumerate(sizes):
                blocks = bands * -(-width // part_grid.block) * -(-height // part_grid.block)
                extra: list[Tag] = [nodata] if level else [*first_page_tags, nodata]
                file.write(
                    iter(repeat(b"", blocks)),
                    shape=(bands, height, width) if bands > 1 else (height, width),
                    dtype=spec.dtype,
                    tile=(part_grid.block, part_grid.block),
                    compression="adobe_deflate",
                    subfiletype=1 if level else 0,
                    metadata=None,
                    software=False,
                    extratags=extra,
                    **photometric,
                )
        return bytearray(content.getbuffer())

    return make


def _metadata(spec: RasterSpec, tags: Mapping[str, str]) -> str:
    """Return GDAL's XML of tags, band names and scales."""
    root = ET.Element("GDALMetadata")

    def add(name: str, value: str, **attributes: str) -> None:
        item = ET.SubElement(root, "Item", {"name": name, **attributes})
        item.text = escape(xml_text(value))  # GDAL unescapes it twice

    legend = {} if spec.legend is None else {CLASSES_TAG: json.dumps(spec.legend.to_json())}
    for name, value in {**legend, **tags}.items():
        add(name, value)
    for band, name in enumerate(spec.bands):
        add("DESCRIPTION", name, sample=str(band), role="description")
        if spec.scale != 1:
            add("OFFSET", "0", sample=str(band), role="offset")
            add("SCALE", f"{spec.scale:.17g}", sample=str(band), role="scale")
    return ET.tostring(root, encoding="unicode")
