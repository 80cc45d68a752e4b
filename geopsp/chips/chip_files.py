"""Chips as files: an image and its labels, in a format that maps and photo viewers open."""

from __future__ import annotations

import math
from collections.abc import Callable
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
from geopsp.core.grid import Grid
from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.errors import OptionError, OutputError
from geopsp.raster.geotiff import encode_geotiff

Kind: TypeAlias = ChipFormat


TAKES = {"png": ("uint8", "uint16"), "jpg": ("uint8",)}
"""Pixel types that a format holds; a GeoTIFF holds all."""


ENCODING: dict[str, dict[str, Any]] = {
    "png": {"driver": "PNG", "zlevel": 1},
    "jpg": {"driver": "JPEG", "quality": 90},
}
"""As fast as they can be."""


WORLD_FILES = {".png": ".pgw", ".jpg": ".jgw"}


def check_kind(kind: str, dtype: np.dtype[Any], bands: int) -> None:
    """Nothing, if chips of such pixels can be files of this kind.

    Raises:
        OptionError: if not; says what fits.
    """
    if kind not in get_args(Kind):
        raise OptionError(f"The chip format is {kind!r}; needed one of {', '.join(get_args(Kind))}.")
    if kind != "tif" and (dtype.name not in TAKES[kind] or bands not in {1, 3}):
        raise OptionError(
            f"The images have {bands} bands of {dtype.name}; {kind} holds 1 or 3 bands of {' or '.join(TAKES[kind])}. "
            "Choose tif, or fewer bands."
        )


def write_chip(folder: Path, stem: str, chip: Chip, legend: Legend, kind: Kind) -> tuple[str, str]:
    """The names of two new files, in `images` and in `labels`, that read back as the chip.

    GeoTIFF and PNG keep pixels as they are, JPEG nearly; labels are kept exactly. Where a pixel is invalid, a mask
    says so (TIFF, JPEG) or an alpha band (PNG). Files of these names are written over, also broken ones.

    Raises:
        OutputError: if the disk is full or the folder gone.
    """
    names = f"{stem}.{kind}", f"{stem}.{'tif' if kind == 'tif' else 'png'}"
    grid = chip.patch.grid
    try:
        for path, content, nodata in (
            (folder / "images" / names[0], _image(chip, kind), None),
            (folder / "labels" / names[1], _labels(chip, legend, "tif" if kind == "tif" else "png"), IGNORE_INDEX),
        ):
            path.write_bytes(content)
            if path.suffix in WORLD_FILES:
                _write_georeference(path, grid, nodata)
    except (RasterioError, CPLE_BaseError, OSError) as error:
        raise OutputError(f"The chip {stem} cannot be written to {folder} ({error}). Is the disk full?") from error
    return names


def _image(chip: Chip, kind: Kind) -> bytes:
    """The file of a chip's pixels."""
    data, valid, grid = chip.patch.data, chip.patch.valid, chip.patch.grid
    whole = bool(valid.all())
    if kind == "tif":
        return encode_geotiff(data, grid, valid=None if whole else valid)
    if kind == "png" and not whole:
        alpha = np.where(valid, np.iinfo(data.dtype).max, 0).astype(data.dtype)
        data = np.concatenate([data, alpha[None]])

    def fill(dataset: Any) -> None:
        dataset.write(data)
        if kind == "jpg" and not whole:
            dataset.write_mask(valid)

    return _encoded(kind, grid, fill, count=len(data), dtype=data.dtype)


def _labels(chip: Chip, legend: Legend, kind: Kind) -> bytes:
    """The file of a chip's codes, in the colours of the legend."""
    colors = {info.code: info.rgb for info in legend} | {IGNORE_INDEX: (0, 0, 0)}
    if kind == "tif":
        return encode_geotiff(chip.codes[None], chip.patch.grid, nodata=IGNORE_INDEX, colors=colors)

    def fill(dataset: Any) -> None:
        dataset.write(chip.codes, 1)
        dataset.write_colormap(1, {code: (*rgb, 0 if code == IGNORE_INDEX else 255) for code, rgb in colors.items()})

    return _encoded(kind, chip.patch.grid, fill, count=1, dtype="uint8", nodata=IGNORE_INDEX)


def _encoded(kind: Kind, grid: Grid, fill: Callable[[Any], None], **options: Any) -> bytes:
    """A whole file, made in memory: of one that a full disk cuts off, GDAL may say nothing."""
    frame = {"transform": grid.transform, "width": grid.width, "height": grid.height}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile(ext=f".{kind}") as memory:
        with memory.open(**ENCODING[kind], **frame, **options) as dataset:
            fill(dataset)
        return bytes(memory.getbuffer())


def _write_georeference(path: Path, grid: Grid, nodata: int | None) -> None:
    """Where the picture lies: beside it (.aux.xml), and for programs that do not know that in a world file.

    A world file holds the middle of the first pixel. GDAL believes it before all else, so there is none where the
    corner would come out rounded.
    """
    t = grid.transform
    numbers = ", ".join(f"{number:.17g}" for number in t.to_gdal())
    lines = [f"  <SRS>{escape(_wkt(grid.crs))}</SRS>", f"  <GeoTransform>{numbers}</GeoTransform>"]
    if nodata is not None:
        lines.append(f'  <PAMRasterBand band="1"><NoDataValue>{nodata}</NoDataValue></PAMRasterBand>')
    text = "\n".join(["<PAMDataset>", *lines, "</PAMDataset>\n"])
    path.with_name(f"{path.name}.aux.xml").write_text(text, encoding="utf-8")
    middle = _middle(t.c, t.a, t.b), _middle(t.f, t.d, t.e)
    if None not in middle:
        text = "".join(f"{number:.17g}\n" for number in (t.a, t.d, t.b, t.e, *middle))
        path.with_suffix(WORLD_FILES[path.suffix]).write_text(text, encoding="ascii")


def _wkt(crs: CRS) -> str:
    """In the older form, which more programs read, if that can hold it."""
    try:
        return str(crs.to_wkt(version="WKT1_GDAL"))
    except CRSError:
        return str(crs.to_wkt(version="WKT2_2019"))


def _middle(corner: float, across: float, down: float) -> float | None:
    """The middle of a pixel, so rounded that half a pixel less is its corner again; None if no number is so."""
    about = corner + across / 2 + down / 2
    below, above = math.nextafter(about, -math.inf), math.nextafter(about, math.inf)
    return next((x for x in (about, below, above) if x - across / 2 - down / 2 == corner), None)
