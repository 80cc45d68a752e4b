"""Choose the bands and the target grid of one or many images, and place their files on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from rasterio.enums import Resampling

from geopsp.core.grid import Grid, Window
from geopsp.core.options import OptionInfo, check_value
from geopsp.errors import BandError, GridError, OptionError
from geopsp.raster.image_layer import BandSource, ImageLayer
from geopsp.raster.info import RasterInfo
from geopsp.raster.source_image import SourceImage
from geopsp.raster.warp import align_to_grid, north_up

CELL_SIZE = OptionInfo(help="", above=0, unit="CRS units")


def target_grid(layers: Sequence[ImageLayer], *, onto: Grid | None, cell_size: float | None) -> tuple[Grid, str]:
    """Choose the grid that the layers are aligned to; return it with a description.

    Only its origin, pixel size and CRS matter, not its size.

    Raises:
        OptionError: if the cell size is no positive number, or does not fit the unit of the first image.
    """
    first = layers[0].sources[0]
    if onto:
        return onto, "the given grid"
    if cell_size is not None:
        _require_cell_size(cell_size, first)
        return north_up(first.grid, cell_size), f"a north-up grid of {cell_size:g} {first.grid.unit} pixels"
    rotated = first.grid.transform.b or first.grid.transform.d
    if rotated and any(first.grid.window_of(s.grid) is None for layer in layers for s in layer.sources):
        return north_up(first.grid), f"a north-up grid of the same pixel size, as {first.path} is rotated"
    return first.grid, f"the grid of {first.path}"


def _require_cell_size(cell_size: Any, info: RasterInfo) -> None:
    check_value("cell_size", cell_size, "float", CELL_SIZE)
    unit = info.grid.unit
    left, bottom, right, top = info.grid.bounds()
    longest = max(right - left, top - bottom)
    if cell_size > longest * (1 + 1e-9):
        problem = "is wider than"
    elif longest > cell_size * 2**31:
        problem = "is more than 2**31 times smaller than"
    else:
        return
    raise OptionError(
        f"`cell_size` is {cell_size:g} (unit of the CRS: {unit}). That {problem} the image {info.path}, "
        f"{right - left:g} x {top - bottom:g}. Give it in that unit, or warp the image to a CRS of another unit."
    )


def require_one_type(dtypes: Sequence[tuple[str, np.dtype[Any]]]) -> None:
    """Check that all images, given as names and data types, have the data type of the first.

    Raises:
        BandError: if they have not.
    """
    first, first_dtype = dtypes[0]
    for name, dtype in dtypes:
        if dtype != first_dtype:
            raise BandError(
                f"{name} has {dtype} pixels, but {first} has {first_dtype}. All images must have one data type, so "
                "that their values are comparable. Convert one of them."
            )


def align_layer(layer: ImageLayer, grid: Grid, resampling: Resampling, *, average_if_finer: bool) -> ImageLayer:
    """Return the layer with its files aligned to a grid; see `align_to_grid`."""
    aligned = (
        replace(b, info=align_to_grid(b.info, grid, resampling, average_if_finer=average_if_finer))
        for b in layer.band_sources
    )
    return replace(layer, band_sources=tuple(part for b in aligned for part in _split_by_nodata(b)))


def _split_by_nodata(band_source: BandSource) -> list[BandSource]:
    """Split the bands of a warped file by nodata value, as a warp can use only one."""
    if not band_source.info.warped:
        return [band_source]
    groups: dict[str, list[int]] = {}
    for i, value in enumerate(band_source.nodatas):
        groups.setdefault(str(value), []).append(i)
    return [
        replace(
            band_source,
            info=replace(band_source.info, nodata=band_source.nodatas[group[0]]),
            indexes=tuple(band_source.indexes[i] for i in group),
            positions=tuple(band_source.positions[i] for i in group),
        )
        for group in groups.values()
    ]


def place_layers(
    layers: Sequence[ImageLayer], grid: Grid, extent: Sequence[float] | None
) -> tuple[Grid, tuple[ImageLayer, ...]]:
    """Extend the grid over all aligned layers, or crop it to an extent; return it and the layers placed on it.

    Raises:
        GridError: if no image overlaps the extent.
        OptionError: if the extent is no box.
    """
    layers = [
        replace(layer, band_sources=tuple(replace(b, window=_window_on(grid, b.info)) for b in layer.band_sources))
        for layer in layers
    ]
    window = union_window(layer.window for layer in layers)
    if extent is not None:
        asked = window_in(grid, extent)
        overlaps = [both for layer in layers if not (both := asked.intersect(layer.window)).is_empty]
        if not overlaps:
            raise GridError(
                f"No image lies in the extent {', '.join(f'{x:.10g}' for x in extent)} (left, bottom, right, top). "
                f"The images cover {grid.crop(window)}. Give the extent in that CRS."
            )
        window = union_window(overlaps)
    shift = (-window.col, -window.row)
    placed = (
        replace(layer, band_sources=tuple(replace(b, window=b.window.shift(*shift)) for b in layer.band_sources))
        for layer in layers
    )
    return grid.crop(window), tuple(placed)


def _window_on(grid: Grid, info: RasterInfo) -> Window:
    window = grid.window_of(info.grid)
    assert window is not None
    return window


def window_in(grid: Grid, extent: Sequence[float]) -> Window:
    """Return the pixels that an extent (left, bottom, right, top) touches.

    Raises:
        OptionError: if the extent is no box.
    """
    try:
        box = np.array(extent, float)
    except (TypeError, ValueError):
        box = np.empty(0)
    if box.shape != (4,) or not np.isfinite(box).all() or not (box[:2] < box[2:]).all():
        raise OptionError(
            f"`extent` is {extent!r}, but must be left, bottom, right, top in CRS units, with left < right and "
            "bottom < top."
        )
    left, bottom, right, top = box.tolist()
    return grid.enclosing_window(np.array([(left, bottom), (right, bottom), (right, top), (left, top)]))


def union_window(windows: Iterable[Window]) -> Window:
    """Return the smallest window that contains all of them."""
    windows = list(windows)
    col, row = min(w.col for w in windows), min(w.row for w in windows)
    return Window(col, row, max(w.col_stop for w in windows) - col, max(w.row_stop for w in windows) - row)


def mosaic_notes(
    images: Sequence[SourceImage], layers: Sequence[ImageLayer], grid: Grid, *, order: str, target: str
) -> tuple[str, ...]:
    """Describe how the images were brought onto one grid."""
    notes = [note for image in images for note in image.notes]
    if len(images) > 1:
        rule = {"given": "order as given", "newest": "newest first", "oldest": "oldest first"}
        notes.append(
            f"mosaic of {len(images)} images; where they overlap, {images[0].name} is on top "
            f"({rule.get(order, f'ordered by {order}')})"
        )
    sources = list(dict.fromkeys(source for layer in layers for source in layer.sources))
    notes += band_notes(sources)
    warped = {s.path: s.resampling.name for s in sources if s.resampling is not None}
    notes += [f"{path} is warped ({how}) onto {target}" for path, how in warped.items()]
    outside = [layer.name for layer in layers if layer.window.intersect(grid.full_window).is_empty]
    return (*notes, *note_left_out(outside))


def band_notes(sources: Sequence[RasterInfo]) -> list[str]:
    """Describe how files are read whose header leaves open what their bands are."""
    notes = []
    alpha = [source for source in sources if source.alpha and source.alpha not in source.indexes]
    if alpha:
        number, path = alpha[0].alpha, _and_more(alpha)
        notes.append(
            f"band {number} of {path} counts as an alpha band, which marks the valid pixels; if it is a band such as "
            f"near infrared, select it by its number (bands 1, 2, 3, {number}), or say so in the file (gdal_edit.py "
            f"-colorinterp_{number} undefined)"
        )
    data = [source for source in sources if source.alpha and source.alpha in source.indexes]
    if data:
        number, path = data[0].alpha, _and_more(data)
        notes.append(
            f"band {number} of {path} is marked as an alpha band, but most of its values are neither 0 nor 255: it "
            f"counts as data and marks no pixel as invalid; if it is alpha, name it so (its description: alpha)"
        )
    for how, words in PALETTE_NOTES.items():
        found = [source for source in sources if source.palette == how]
        notes += [f"{_and_more(found)} {words}"] if found else []
    return notes


PALETTE_NOTES = {
    "expanded": "has a palette: its colours are read, as bands red, green and blue; `bands=[1]` reads the indices",
    "indices": "has a palette, but its indices are read, not its colours",
}


def _and_more(sources: Sequence[RasterInfo]) -> str:
    """Return the first path, and how many files more there are."""
    paths = list(dict.fromkeys(source.path for source in sources))
    return paths[0] + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def note_left_out(names: Sequence[str]) -> list[str]:
    """Return a note on images outside the extent; [] if there are none."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"outside the extent and not used: {', '.join(names[:3])}{more}"] if names else []
