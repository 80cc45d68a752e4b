"""Write chips as GeoTIFF, PNG or JPEG files."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, get_args
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.io import MemoryFile

from geopsp.chips.chip import Chip
from geopsp.chips.options import ChipFormat
from geopsp.core.escape import xml_text
from geopsp.core.full_disk import full_disk_hint
from geopsp.core.grid import Grid
from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.core.options import require_choice
from geopsp.core.text import format_count, format_error
from geopsp.errors import OptionError, OutputError
from geopsp.raster.geotiff import encode_geotiff

Kind: TypeAlias = ChipFormat


DTYPES = {"png": ("uint8", "uint16"), "jpg": ("uint8",)}
"""Data types that a format can store; a GeoTIFF can store all."""


GDAL_OPTIONS: dict[str, dict[str, Any]] = {
    "png": {"driver": "PNG", "zlevel": 1},
    "jpg": {"driver": "JPEG", "quality": 90},
}
"""PNG with the fastest compression."""


WORLD_FILES = {".png": ".pgw", ".jpg": ".jgw"}


def check_kind(kind: str, dtype: np.dtype[Any], bands: int) -> None:
    """Check that a file format can store such pixels.

    Raises:
        OptionError: if it cannot; the message says what it can store.
    """
    require_choice("chip_format", kind, get_args(Kind))
    if kind != "tif" and (dtype.name not in DTYPES[kind] or bands not in {1, 3}):
        raise OptionError(
            f"The images have {format_count(bands, 'band')} of {dtype.name}, but {kind} chips have 1 or 3 bands of "
            f"{' or '.join(DTYPES[kind])}. Use `chip_format=tif`, or choose other `bands`."
        )


def write_chip(folder: Path, stem: str, chip: Chip, legend: Legend, kind: Kind) -> tuple[str, str]:
    """Write the image and the labels of a chip to the subfolders `images` and `labels`; return the names of the files.

    Only JPEG images are lossy, labels never. Invalid pixels are marked in a mask (TIFF, JPEG) or an alpha band (PNG).
    Existing files are replaced.

    Raises:
        OutputError: if they cannot be written.
    """
    names = f"{stem}.{kind}", f"{stem}.{'tif' if kind == 'tif' else 'png'}"
    grid = chip.patch.grid
    if not grid.crs:  # without georeference
        chip = replace(chip, patch=replace(chip.patch, grid=grid.without_georeference))
    try:
        for path, content, nodata in (
            (folder / "images" / names[0], _encode_image(chip, kind), None),
            (folder / "labels" / names[1], _encode_labels(chip, legend, kind), IGNORE_INDEX),
        ):
            _write_whole(path, content)
            if grid.crs and path.suffix in WORLD_FILES:
                _write_georeference(path, grid, nodata)
    except (RasterioError, CPLE_BaseError, OSError) as error:
        raise OutputError(
            f"Cannot write the chip {stem} to {folder}: {format_error(error)}.{full_disk_hint(error)}"
        ) from error
    return names


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file; on a disk that takes no more, leave none of it."""
    try:
        path.write_bytes(content)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _encode_image(chip: Chip, kind: Kind) -> bytes:
    data, valid, grid = chip.patch.data, chip.patch.valid, chip.patch.grid
    all_valid = bool(valid.all())
    if kind == "tif":
        return encode_geotiff(data, grid, valid=None if all_valid else valid)
    if kind == "png" and not all_valid:
        alpha = np.where(valid, np.iinfo(data.dtype).max, 0).astype(data.dtype)
        data = np.concatenate([data, alpha[None]])

    def write(dataset: Any) -> None:
        dataset.write(data)
        if kind == "jpg" and not all_valid:
            dataset.write_mask(valid)

    return _encode_with_gdal(kind, grid, write, count=len(data), dtype=data.dtype)


def _encode_labels(chip: Chip, legend: Legend, kind: Kind) -> bytes:
    """Encode the class codes with the colours of the legend; beside JPEG images as PNG."""
    colors = {info.code: info.rgb for info in legend} | {IGNORE_INDEX: (0, 0, 0)}
    if kind == "tif":
        return encode_geotiff(chip.codes[None], chip.patch.grid, nodata=IGNORE_INDEX, colors=colors)

    def write(dataset: Any) -> None:
        dataset.write(chip.codes, 1)
        dataset.write_colormap(1, {code: (*rgb, 0 if code == IGNORE_INDEX else 255) for code, rgb in colors.items()})

    return _encode_with_gdal("png", chip.patch.grid, write, count=1, dtype="uint8", nodata=IGNORE_INDEX)


def _encode_with_gdal(kind: Kind, grid: Grid, write: Callable[[Any], None], **options: Any) -> bytes:
    """Encode a file in memory, as GDAL may not report that a full disk cut off a file."""
    shape = {"transform": grid.transform, "width": grid.width, "height": grid.height}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile(ext=f".{kind}") as memory:
        with memory.open(**GDAL_OPTIONS[kind], **shape, **options) as dataset:
            write(dataset)
        return bytes(memory.getbuffer())


def _write_georeference(path: Path, grid: Grid, nodata: int | None) -> None:
    """Write the georeference of a PNG or JPEG file beside it: as .aux.xml for GDAL, and as a world file for others.

    A world file contains the centre of the first pixel. GDAL prefers it to all else, so it is left out if the corner
    computed from it would be rounded.
    """
    t = grid.transform
    numbers = ", ".join(f"{number:.17g}" for number in t.to_gdal())
    lines = [f"  <SRS>{escape(xml_text(_wkt(grid.crs)))}</SRS>", f"  <GeoTransform>{numbers}</GeoTransform>"]
    if nodata is not None:
        lines.append(f'  <PAMRasterBand band="1"><NoDataValue>{nodata}</NoDataValue></PAMRasterBand>')
    text = "\n".join(["<PAMDataset>", *lines, "</PAMDataset>\n"])
    path.with_name(f"{path.name}.aux.xml").write_text(text, encoding="utf-8")
    centre = _pixel_centre(t.c, t.a, t.b), _pixel_centre(t.f, t.d, t.e)
    if None not in centre:
        text = "".join(f"{number:.17g}\n" for number in (t.a, t.d, t.b, t.e, *centre))
        path.with_suffix(WORLD_FILES[path.suffix]).write_text(text, encoding="ascii")


def _wkt(crs: CRS) -> str:
    """Return the CRS as WKT 1, which more programs read, if that can express it; else as WKT 2."""
    try:
        return str(crs.to_wkt(version="WKT1_GDAL"))
    except CRSError:
        return str(crs.to_wkt(version="WKT2_2019"))


def _pixel_centre(corner: float, across: float, down: float) -> float | None:
    """Return the x or y of a pixel's centre from which the corner can be computed exactly; None if there is none."""
    about = corner + across / 2 + down / 2
    below, above = math.nextafter(about, -math.inf), math.nextafter(about, math.inf)
    return next((x for x in (about, below, above) if x - across / 2 - down / 2 == corner), None)
