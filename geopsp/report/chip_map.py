"""A picture of chips where they lie, over small views of the images that they were cut from."""

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
from matplotlib.patches import Patch as Swatch
from numpy.typing import NDArray
from rasterio.crs import CRS

from geopsp.chips.chip_set import ChipSet, class_pixels
from geopsp.core.grid import Grid
from geopsp.core.legend import BACKGROUND
from geopsp.data.split import Split
from geopsp.errors import ChipError, GeopspError, OptionError
from geopsp.raster.find_images import Images
from geopsp.raster.scene import Scene
from geopsp.training.plots import rgb_band_indices, to_rgb

VIEW = 900
"""Pixels along the longer side of a panel's views of images."""


PANELS = 9


SPARSE = 0.05
"""Share of the ground around all chips below which the images get a panel each: together they would be specks."""


OUTLINED = 2500
"""Chips up to which each is outlined; more are only filled."""


USES = {"training": "#3d9bff", "validation": "#ff8c1a", "left out": "#9e9e9e", "no label": "#ffffff"}


@dataclass(frozen=True, slots=True, eq=False)
class _ChipColors:
    """How chips are coloured."""

    colors: NDArray[np.float64]
    """(chips, 4)"""

    swatches: Mapping[str, str]
    """Colour by what it means."""


def chip_map(
    chips: ChipSet,
    *,
    split: Split | None = None,
    color: Literal["class", "labelled"] = "class",
    images: Mapping[str, Images] | None = None,
) -> Figure:
    """Outlines of chips in CRS coordinates over their images; turned copies, and what was left out, are absent.

    Args:
        chips: The chips to show.
        split: Colours tell training from validation chips and those left out; None: they tell what `color` says.
        color: "class": the most frequent class, background only where there is no other; "labelled": the share.
        images: Where the image of each source is; None: where it was when the chips were cut. Images that are gone
            are left out, and the title says so.

    Raises:
        ChipError: if no chip has a georeference.
        OptionError: if `color` is neither.
    """
    shapes = chips.index.geometry.to_numpy()
    upright = (chips.index["angle"] == 0).to_numpy()
    there = np.flatnonzero(~(shapely.is_missing(shapes) | shapely.is_empty(shapes)) & upright)
    if not len(there):
        raise ChipError(f"None of {len(chips)} chips has a georeference, so nothing tells where they lie.")
    paint = _paint(chips, split, color)
    groups = _groups(chips, shapes, there)
    wide = min(len(groups), 3)
    high = -(-len(groups) // wide)
    left, bottom, right, top = shapely.total_bounds(shapes[groups[0]])
    flat = float(np.clip((top - bottom) / (right - left), 0.3, 1.4))
    size = (9.0, 8.0 * flat + 1.2) if wide == 1 else (4.6 * wide, 4.4 * high + 0.8)
    figure, axes = plt.subplots(high, wide, figsize=size, layout="constrained", squeeze=False)
    gone: list[str] = []
    for place, rows in zip(axes.flat, groups, strict=False):
        gone += _panel(place, chips, shapes, rows, paint, images or {})
    for place in axes.flat[len(groups) :]:
        place.set_axis_off()
    absent = int(upright.sum()) - sum(map(len, groups))
    figure.suptitle(_title(chips, absent, int((~upright).sum()), gone), fontsize=10)
    handles = [Swatch(facecolor=shade, edgecolor="#666666", label=name) for name, shade in paint.swatches.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 8), fontsize=8, frameon=False)
    return figure


def _title(chips: ChipSet, absent: int, turned: int, gone: Sequence[str]) -> str:
    copies = f" and {turned:,} turned copies, which are not shown" if turned else ""
    lines = [f"{len(chips) - turned:,} chips of {chips.tile_size} x {chips.tile_size} pixels{copies}"]
    lines += [f"{absent:,} of them are not shown"] if absent else []
    if gone:
        more = f" and {len(gone) - 2} more" if len(gone) > 2 else ""
        lines.append(f"not found and left out: {', '.join(Path(name).name for name in gone[:2])}{more}")
    return "\n".join(lines)


def _groups(chips: ChipSet, shapes: NDArray[np.object_], there: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Rows of each panel: one for all, or one a source if these lie far apart."""
    sources = chips.index["source"].to_numpy()[there]
    by_source = [there[sources == source] for source in dict.fromkeys(sources)]
    boxes = np.array([shapely.total_bounds(shapes[rows]) for rows in by_source])
    covered = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).sum()
    around = np.prod(boxes[:, 2:].max(axis=0) - boxes[:, :2].min(axis=0))
    return by_source[:PANELS] if len(by_source) > 1 and covered < SPARSE * around else [there]


def _paint(chips: ChipSet, split: Split | None, color: str) -> _ChipColors:
    if split is not None:
        use = np.full(len(chips), "no label", object)
        use[split.train], use[split.valid], use[split.dropped] = "training", "validation", "left out"
        named = {name: shade for name, shade in USES.items() if (use == name).any()}
        return _ChipColors(np.array([to_rgba(named[name]) for name in use]), named)
    if color == "labelled":
        shades = plt.get_cmap("viridis")
        steps = (0.0, 0.25, 0.5, 0.75, 1.0)
        swatches = {f"{step:.0%} labelled": _hex(shades(step)) for step in steps}
        return _ChipColors(np.array(shades(chips.index["labelled"].to_numpy(float))), swatches)
    if color != "class":
        raise OptionError(f"color is {color!r}; needed 'class' or 'labelled'.")
    pixels = class_pixels(chips.index, chips.legend)
    weight = pixels * np.array([1 if info.name == BACKGROUND else 10**6 for info in chips.legend])
    most = np.where(pixels.any(axis=1), weight.argmax(axis=1), -1)
    table = np.array([to_rgba(info.color) for info in chips.legend] + [to_rgba(USES["no label"])])
    swatches = {info.name: info.color for place, info in enumerate(chips.legend) if (most == place).any()}
    return _ChipColors(table[most], swatches | ({"no label": USES["no label"]} if (most < 0).any() else {}))


def _hex(rgba: Sequence[float]) -> str:
    return "#" + bytes(round(255 * part) for part in rgba[:3]).hex()


def _panel(
    axes: Axes, chips: ChipSet, shapes: NDArray[np.object_], rows: NDArray[np.intp], paint: _ChipColors,
    images: Mapping[str, Images],
) -> list[str]:  # fmt: skip
    """The images and chips drawn; the names of images that are not found."""
    left, bottom, right, top = shapely.total_bounds(shapes[rows])
    margin = 0.03 * max(right - left, top - bottom)
    lattice = _lattice(chips.index.crs, (left - margin, bottom - margin, right + margin, top + margin))
    sources = list(map(str, dict.fromkeys(chips.index["source"].to_numpy()[rows])))
    files = {source: list(chips.files.get(source) or [source]) for source in sources}
    gone = [
        source for source in sources if not _draw_image(axes, images.get(source, files[source]), lattice, chips.bands)
    ]
    outlined = len(rows) <= OUTLINED
    colors = paint.colors[rows].copy()
    colors[:, 3] = 0.35 if outlined else 0.5
    edges = paint.colors[rows] if outlined else "none"
    rings = [shapely.get_coordinates(shape) for shape in shapes[rows]]
    width = float(np.clip(18 / np.sqrt(len(rows)), 0.4, 1.6))
    axes.add_collection(PolyCollection(rings, facecolors=colors, edgecolors=edges, linewidths=width))
    axes.set(xlim=(left - margin, right + margin), ylim=(bottom - margin, top + margin), aspect="equal")
    axes.set(xlabel=f"x ({chips.units})", ylabel=f"y ({chips.units})", facecolor="#e9e9e9")
    axes.ticklabel_format(useOffset=False, style="plain")
    axes.locator_params(nbins=5)
    axes.tick_params(labelsize=7)
    return gone


def _lattice(crs: Any, bounds: tuple[float, float, float, float]) -> Grid:
    """A coarse grid over the bounds."""
    left, bottom, right, top = bounds
    cell = max(right - left, top - bottom) / VIEW
    width, height = int(np.ceil((right - left) / cell)), int(np.ceil((top - bottom) / cell))
    return Grid(CRS.from_user_input(crs), Affine(cell, 0, left, 0, -cell, top), width, height)


def _draw_image(axes: Axes, image: Images, lattice: Grid, bands: Sequence[str]) -> bool:
    """False if there is no such image any more, or it cannot be brought here."""
    try:
        scene = Scene.open(image, onto=lattice)
        if len(scene.bands) == 1 < len(bands) and isinstance(image, list):
            scene = Scene.open(_one_file_a_band(image, bands), onto=lattice)
        window = scene.grid.window_of(lattice)
        assert window is not None
        patch = scene.read(window)
    except GeopspError:
        return False
    left, bottom, right, top = lattice.bounds()
    shown = to_rgb(patch.data, patch.valid, rgb_band_indices(scene.bands))
    shown = np.dstack([shown, patch.valid])  # what no pixel covers lets other images through
    axes.imshow(shown, extent=(left, right, bottom, top), interpolation="nearest")
    return True


def _one_file_a_band(files: Sequence[str], bands: Sequence[str]) -> Images:
    """The bands to show of images of which each is as many files as there are bands."""
    if len(files) % len(bands):
        return list(files)
    shown = dict.fromkeys(rgb_band_indices(bands))
    return [{bands[at]: files[first + at] for at in shown} for first in range(0, len(files), len(bands))]
