"""Map of chips, drawn over overviews of their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import shapely
from affine import Affine
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rasterio.crs import CRS

from geopsp.chips.chip_set import ChipSet, class_pixels
from geopsp.core.escape import printable, printable_lines
from geopsp.core.grid import Grid
from geopsp.core.legend import BACKGROUND
from geopsp.core.options import require_choice
from geopsp.core.paths import is_subdataset, local_file
from geopsp.core.text import format_count
from geopsp.data.split import Split
from geopsp.errors import ChipError, GeopspError
from geopsp.raster.find_images import Images
from geopsp.raster.scene import Scene
from geopsp.training.plots import add_legend, plain_text, rgb_band_indices, subplots, to_rgb

PANEL_PIXELS = 900
"""Pixels along the longer side of the images in a panel."""


MAX_PANELS = 9
"""Sources that are drawn if each has a panel of its own."""


MIN_COVERAGE = 0.05
"""Fraction of the common bounding box below which each source has a panel of its own, as in one it would be tiny."""


MAX_OUTLINES = 2500
"""Chips in a panel up to which they have outlines; more are only filled."""


SPLIT_COLORS = {"training": "#3d9bff", "validation": "#ff8c1a", "left out": "#9e9e9e", "no label": "#ffffff"}


@dataclass(frozen=True, slots=True, eq=False)
class _ChipColors:
    """Colours of the chips, and their legend."""

    colors: NDArray[np.float64]
    """(chips, 4)"""

    swatches: Mapping[str, str]
    """Colour by entry of the legend."""


@plain_text()
def chip_map(
    chips: ChipSet,
    *,
    split: Split | None = None,
    color: Literal["class", "labelled"] = "class",
    images: Mapping[str, Images] | None = None,
) -> Figure:
    """Draw the outlines of chips in CRS coordinates over their images; without rotated copies.

    Args:
        chips: The chips to show.
        split: Colour training and validation chips and those left out; None: colour by `color`.
        color: "class": the most frequent class, background only if there is no other; "labelled": the labelled
            fraction.
        images: Image of each source; None: the local files that it was cut from. The title lists images that are not
            found, or that only a network has.

    Raises:
        ChipError: if no chip has a georeference.
        OptionError: if `color` is neither.
    """
    shapes = chips.index.geometry.to_numpy()
    upright = (chips.index["angle"] == 0).to_numpy()
    drawable = np.flatnonzero(~(shapely.is_missing(shapes) | shapely.is_empty(shapes)) & upright)
    if not len(drawable):
        raise ChipError(f"No chip of {len(chips):,} has a georeference, so they cannot be mapped.")
    chip_colors = _chip_colors(chips, split, color)
    groups = _panel_rows(chips, shapes, drawable)
    columns = min(len(groups), 3)
    rows = -(-len(groups) // columns)
    left, bottom, right, top = shapely.total_bounds(shapes[groups[0]])
    aspect = float(np.clip((top - bottom) / (right - left), 0.3, 1.4))
    size = (9.0, 8.0 * aspect + 1.2) if columns == 1 else (4.6 * columns, 4.4 * rows + 0.8)
    figure, panels = subplots(rows, columns, *size)
    missing: list[str] = []
    for axes, group in zip(panels.flat, groups, strict=False):
        missing += _draw_panel(axes, chips, shapes, group, chip_colors, images or {})
    for axes in panels.flat[len(groups) :]:
        axes.set_axis_off()
    not_drawn = int(upright.sum()) - sum(map(len, groups))
    figure.suptitle(printable_lines(_title(chips, not_drawn, int((~upright).sum()), missing)), fontsize=10)
    add_legend(figure, chip_colors.swatches.items())
    return figure


def _title(chips: ChipSet, not_drawn: int, rotated: int, missing: Sequence[str]) -> list[str]:
    copies = f" (and {format_count(rotated, 'rotated copy', 'rotated copies')}, not shown)" if rotated else ""
    count = format_count(len(chips) - rotated, "chip")
    lines = [f"{count} of {chips.tile_size} x {chips.tile_size} pixels{copies}"]
    lines += [f"{format_count(not_drawn, 'chip')} not shown"] if not_drawn else []
    if missing:
        more = f" and {len(missing) - 2} more" if len(missing) > 2 else ""
        lines.append(f"images not found: {', '.join(Path(name).name for name in missing[:2])}{more}")
    return lines


def _panel_rows(chips: ChipSet, shapes: NDArray[np.object_], drawable: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Return the rows of the index in each panel: one panel for all, or one per source if these lie far apart."""
    sources = chips.index["source"].to_numpy()[drawable]
    by_source = [drawable[sources == source] for source in dict.fromkeys(sources)]
    boxes = np.array([shapely.total_bounds(shapes[rows]) for rows in by_source])
    covered = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).sum()
    total = np.prod(boxes[:, 2:].max(axis=0) - boxes[:, :2].min(axis=0))
    return by_source[:MAX_PANELS] if len(by_source) > 1 and covered < MIN_COVERAGE * total else [drawable]


def _chip_colors(chips: ChipSet, split: Split | None, color: str) -> _ChipColors:
    if split is not None:
        role = np.full(len(chips), "no label", object)
        role[split.train], role[split.valid], role[split.dropped] = "training", "validation", "left out"
        swatches = {name: shade for name, shade in SPLIT_COLORS.items() if (role == name).any()}
        return _ChipColors(np.array([to_rgba(swatches[name]) for name in role]), swatches)
    require_choice("color", color, ("class", "labelled"))
    if color == "labelled":
        colormap = plt.get_cmap("viridis")
        swatches = {f"{step:.0%} labelled": _hex(colormap(step)) for step in (0.0, 0.25, 0.5, 0.75, 1.0)}
        return _ChipColors(np.array(colormap(chips.index["labelled"].to_numpy(float))), swatches)
    pixels = class_pixels(chips.index, chips.legend)
    weight = pixels * np.array([1 if info.name == BACKGROUND else 10**6 for info in chips.legend])
    main_class = np.where(pixels.any(axis=1), weight.argmax(axis=1), -1)
    table = np.array([to_rgba(info.color) for info in chips.legend] + [to_rgba(SPLIT_COLORS["no label"])])
    swatches = {info.name: info.color for channel, info in enumerate(chips.legend) if (main_class == channel).any()}
    unlabelled = {"no label": SPLIT_COLORS["no label"]} if (main_class < 0).any() else {}
    return _ChipColors(table[main_class], swatches | unlabelled)


def _hex(rgba: Sequence[float]) -> str:
    return "#" + bytes(round(255 * level) for level in rgba[:3]).hex()


def _draw_panel(
    axes: Axes, chips: ChipSet, shapes: NDArray[np.object_], rows: NDArray[np.intp], chip_colors: _ChipColors,
    images: Mapping[str, Images],
) -> list[str]:  # fmt: skip
    """Draw images and chips; return the sources whose images are not found."""
    left, bottom, right, top = shapely.total_bounds(shapes[rows])
    margin = 0.03 * max(right - left, top - bottom)
    grid = _coarse_grid(chips.index.crs, (left - margin, bottom - margin, right + margin, top + margin))
    sources = list(map(str, dict.fromkeys(chips.index["source"].to_numpy()[rows])))
    files = {source: list(chips.files.get(source) or [source]) for source in sources}
    images = {source: files[source] for source in sources if all(map(_is_on_disk, files[source]))} | dict(images)
    missing = [
        source for source in sources
        if source not in images or not _draw_image(axes, images[source], grid, chips.bands)
    ]  # fmt: skip
    has_outlines = len(rows) <= MAX_OUTLINES
    colors = chip_colors.colors[rows].copy()
    colors[:, 3] = 0.35 if has_outlines else 0.5
    edges = chip_colors.colors[rows] if has_outlines else "none"
    rings = [shapely.get_coordinates(shape) for shape in shapes[rows]]
    width = float(np.clip(18 / np.sqrt(len(rows)), 0.4, 1.6))
    axes.add_collection(PolyCollection(rings, facecolors=colors, edgecolors=edges, linewidths=width))
    axes.set(xlim=(left - margin, right + margin), ylim=(bottom - margin, top + margin), aspect="equal")
    units = printable(chips.units)
    axes.set(xlabel=f"x ({units})", ylabel=f"y ({units})", facecolor="#e9e9e9")
    axes.ticklabel_format(useOffset=False, style="plain")
    axes.locator_params(nbins=5)
    axes.tick_params(labelsize=7)
    return missing


def _is_on_disk(name: str) -> bool:
    """Return True if a file can be read without a network; a received folder must not make us use one."""
    return local_file(name) is not None or (is_subdataset(name) and "://" not in name)


def _coarse_grid(crs: Any, bounds: tuple[float, float, float, float]) -> Grid:
    """Return a grid over the bounds, of `PANEL_PIXELS` along the longer side."""
    left, bottom, right, top = bounds
    cell = max(right - left, top - bottom) / PANEL_PIXELS
    width, height = int(np.ceil((right - left) / cell)), int(np.ceil((top - bottom) / cell))
    return Grid(CRS.from_user_input(crs), Affine(cell, 0, left, 0, -cell, top), width, height)


def _draw_image(axes: Axes, image: Images, grid: Grid, bands: Sequence[str]) -> bool:
    """Draw an image warped to the grid; return False if it does not exist or cannot be warped."""
    try:
        scene = Scene.open(image, onto=grid, expand_palette=True)
        if len(scene.bands) == 1 < len(bands) and isinstance(image, list):
            scene = Scene.open(_band_files(image, bands), onto=grid)
        window = scene.grid.window_of(grid)
        assert window is not None
        pixels = scene.read(window)
    except GeopspError:
        return False
    left, bottom, right, top = grid.bounds()
    rgb = to_rgb(pixels.data, pixels.valid, rgb_band_indices(scene.bands))
    rgba = np.dstack([rgb, pixels.valid])  # transparent where invalid, as other images may lie there
    axes.imshow(rgba, extent=(left, right, bottom, top), interpolation="nearest")
    return True


def _band_files(files: Sequence[str], bands: Sequence[str]) -> Images:
    """Return the files of the bands to draw, for images stored as one file per band."""
    if len(files) % len(bands):
        return list(files)
    drawn = dict.fromkeys(rgb_band_indices(bands))
    return [{bands[band]: files[first + band] for band in drawn} for first in range(0, len(files), len(bands))]
