"""What is said of a scene: in one line, and in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from geopsp.core.escape import printable
from geopsp.core.grid import Grid
from geopsp.core.notebook_html import html_block, html_facts
from geopsp.core.text import format_count, format_pixel_size
from geopsp.raster.image_layer import ImageLayer

MAX_IMAGES = 10
"""Images that a notebook names."""


class Described(Protocol):
    """What is said of a `Scene`."""

    layers: tuple[ImageLayer, ...]
    grid: Grid
    bands: tuple[str, ...]
    name: str
    notes: tuple[str, ...]

    @property
    def dtype(self) -> Any: ...


def scene_line(scene: Described) -> str:
    """Return the name, the grid and the bands of a scene in one line."""
    bands = f"{format_count(len(scene.bands), 'band')} ({', '.join(scene.bands)}) of {scene.dtype}"
    return printable(f"<Scene {scene.name}: {scene.grid}, {bands}>")


def scene_html(scene: Described) -> str:
    """Return what a notebook shows of a scene; no pixel is read."""
    grid = scene.grid
    left, bottom, right, top = (f"{value:.10g}" for value in grid.bounds())
    facts = {
        "size": f"{grid.width:,} x {grid.height:,} pixels of {format_pixel_size(*grid.cell_size, grid.unit)}",
        "CRS": str(grid.crs.to_string()) if grid.crs else "none",
        "extent": f"x {left} to {right}, y {bottom} to {top}",
        "bands": f"{', '.join(scene.bands)} ({scene.dtype})",
        "images": _names([layer.name for layer in scene.layers]),
    }
    facts |= {"notes": "; ".join(scene.notes)} if scene.notes else {}
    return html_block(f"Scene {scene.name}", html_facts(facts))


def _names(images: Sequence[str]) -> str:
    more = f" and {len(images) - MAX_IMAGES} more" if len(images) > MAX_IMAGES else ""
    return ", ".join(images[:MAX_IMAGES]) + more
