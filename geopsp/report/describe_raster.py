"""Descriptions of one raster, and of a container of rasters such as NetCDF."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from geopsp.core.bands import has_band_names
from geopsp.core.escape import printable_lines
from geopsp.core.legend import CLASSES_TAG
from geopsp.core.pixel_values import PixelValues
from geopsp.core.text import format_count, format_pixel_size
from geopsp.errors import GeopspError
from geopsp.raster.info import RasterInfo, read_info
from geopsp.raster.legend_io import read_class_table
from geopsp.raster.mosaic import band_notes
from geopsp.raster.open import open_raster, read_tags
from geopsp.report.describe_vector import labels_beside
from geopsp.report.description import Description, place, place_line, shell_line

MAX_OPENED = 30
"""Rasters of a container that are opened to describe them."""


MAX_CLASSES = 30
"""Classes that are listed."""


def describe_raster(path: str | Path) -> Description:
    """Describe size, bands, CRS, extent and classes of a raster.

    Raises:
        InputNotFoundError, RasterError: if there is no such raster.
    """
    info, (names, colors) = read_info(path, needs_crs=False), read_class_table(path)
    grid = info.grid
    left, bottom, right, top = grid.bounds()
    size, bands = format_pixel_size(*grid.cell_size, grid.unit), format_count(len(info.indexes), "band")
    degrees = place(grid.bounds(), grid.crs.to_wkt()) if grid.crs else None
    lines = [
        f"{path}: raster of {grid.width:,} x {grid.height:,} pixels, {bands} of {info.dtype}",
        f"  bands      {', '.join(info.bands)}" + ("" if has_band_names(info.bands) else " (unnamed)"),
        f"  CRS        {grid.crs.to_string() if grid.crs else 'none (assign one before use)'}",
        f"  pixel      {size}" + (", rotated" if grid.transform.b or grid.transform.d else ""),
        f"  extent     x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g}",
        *place_line(degrees),
        f"  nodata     {'none declared' if info.nodata is None else f'{info.nodata:g}'}",
    ]
    if names:
        listed = [f"{code} {name}" for code, name in sorted(names.items())]
        more = f" and {len(listed) - MAX_CLASSES} more" if len(listed) > MAX_CLASSES else ""
        lines.append("  classes    " + ", ".join(listed[:MAX_CLASSES]) + more)
    notes = band_notes([replace(info, palette="")])
    lines += [f"  note       {note}" for note in notes]
    if info.palette:
        lines.append("  palette    as an image its colours are read (red, green, blue), as labels its values")
    if info.scales:
        lines.append(f"  values     raw, {PixelValues(scales=info.scales).scales_text}")
    content: dict[str, Any] = {
        "path": str(path),
        **_header(info),
        "notes": notes,
        "bounds": list(grid.bounds()),
        "degrees": degrees,
        "classes": [{"code": code, "name": name, "color": colors.get(code)} for code, name in sorted(names.items())],
    }
    return Description("raster", printable_lines(lines), content, _command(str(path), info, is_map=bool(names)))


def _header(info: RasterInfo) -> dict[str, Any]:
    grid = info.grid
    return {
        "width": grid.width,
        "height": grid.height,
        "bands": list(info.bands),
        "dtype": info.dtype,
        "crs": grid.crs.to_string() if grid.crs else None,
        "cell_size": list(grid.cell_size),
        "nodata": info.nodata,
    }


def _command(path: str, info: RasterInfo, *, is_map: bool) -> str:
    """Return the command for a class raster or an image."""
    with open_raster(path) as dataset:
        is_ours = CLASSES_TAG in read_tags(dataset)
    if is_ours or (is_map and len(info.indexes) == 1):
        return shell_line("geopsp", "polygonize", path, "--out", f"{Path(path).stem}.gpkg")
    return f"{shell_line('geopsp', 'chips', path)} {labels_beside(path)} --out chips"


def describe_container(path: str | Path) -> Description:
    """Describe the rasters of a file that holds several, by names that every command takes.

    Raises:
        InputNotFoundError, RasterError: if there is no such raster.
    """
    with open_raster(path) as dataset:
        driver, names = dataset.driver, [_pasteable(name) for name in dataset.subdatasets]
    lines = [f"{path}: {driver} with {format_count(len(names), 'raster')}"]
    rasters: list[dict[str, Any]] = []
    for name in names:
        content: dict[str, Any] = {"path": name}
        text = ""
        if len(rasters) < MAX_OPENED:
            try:
                content |= _header(read_info(name, needs_crs=False))
                bands = format_count(len(content["bands"]), "band")
                text = f"  {content['width']:,} x {content['height']:,} pixels, {bands} of {content['dtype']}"
            except GeopspError as error:
                content["error"] = str(error)
                text = "  (cannot be read)"
        rasters.append(content)
        lines.append(f"  {shell_line(name)}{text}")
    readable = next((each["path"] for each in rasters if "width" in each), names[0])
    return Description("container", printable_lines(lines), {"path": str(path), "driver": driver, "rasters": rasters},
                       shell_line("geopsp", "info", readable))  # fmt: skip


def _pasteable(name: str) -> str:
    """Return the name of a subdataset with its format in capitals, as commands know it."""
    prefix, separator, rest = name.partition(":")
    return f"{prefix.upper()}{separator}{rest}"
