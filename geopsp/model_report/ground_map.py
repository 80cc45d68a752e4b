"""Where chips lie on the ground, as SVG: one panel for each group of chips that lie near each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyproj
import shapely
from markupsafe import Markup
from numpy.typing import NDArray

from geopsp.core.crs import metre_axes
from geopsp.core.text import format_length
from geopsp.model_report.charts import svg
from geopsp.models.training_record import Footprints

ORDER = ("dropped", "train", "valid", "test")
"""The parts, the last on top."""

WORDS = {
    "train": "training", "valid": "validation", "dropped": "left out between them", "test": "scored here",
}  # fmt: skip

NEAR = 24.0
"""Chips' sides between two groups that share a panel."""

MAX_PANELS = 6

SIDE = 400.0
"""Of the largest panel, in pixels."""


@dataclass(frozen=True, slots=True)
class GroundPanel:
    """A group of chips."""

    picture: Markup
    caption: str


def ground_panels(footprints: Footprints | None, test: Footprints | None = None) -> tuple[list[GroundPanel], int]:
    """Return the panels of the largest groups, and how many groups are not shown.

    Args:
        footprints: Of the split.
        test: Of other chips that were scored.
    """
    first = footprints or test
    if first is None:
        return [], 0
    crs = pyproj.CRS.from_user_input(first.crs)
    parts: dict[str, NDArray[np.float64]] = {name: _corners([]) for name in ORDER}
    if footprints is not None:
        parts |= {name: _corners(getattr(footprints, name)) for name in ORDER[:3]}
    if test is not None:
        parts["test"] = _in_crs(_corners(test.valid), test.crs, crs)
    groups = _groups(np.concatenate(list(parts.values())))
    split = np.split(groups, np.cumsum([len(each) for each in parts.values()])[:-1])
    numbers, sizes = np.unique(groups, return_counts=True)
    order = numbers[np.argsort(-sizes, kind="stable")]
    shown = [
        {name: corners[which == number] for (name, corners), which in zip(parts.items(), split, strict=True)}
        for number in order[:MAX_PANELS]
    ]
    return [_panel(each, crs) for each in shown], len(order) - len(shown)


def _corners(outlines: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Return (chips, 4, 2)."""
    return np.array(outlines, float).reshape(-1, 4, 2)


def _in_crs(corners: NDArray[np.float64], source: str, target: pyproj.CRS) -> NDArray[np.float64]:
    transformer = pyproj.Transformer.from_crs(source, target, always_xy=True)
    x, y = transformer.transform(corners[..., 0], corners[..., 1])
    moved: NDArray[np.float64] = np.stack([x, y], axis=-1)
    return moved[np.isfinite(moved).all(axis=(1, 2))]


def _groups(corners: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return (chips,) the number of the group of each chip; groups are far from each other."""
    low, high = corners.min(axis=1), corners.max(axis=1)
    reach = NEAR / 2 * float(np.median(high - low))
    boxes = shapely.box(*(low - reach).T, *(high + reach).T)
    areas = shapely.get_parts(shapely.union_all(boxes))
    tree = shapely.STRtree(areas)
    found: NDArray[np.intp] = tree.nearest(shapely.points((low + high) / 2))
    return found


def _panel(parts: Mapping[str, NDArray[np.float64]], crs: pyproj.CRS) -> GroundPanel:
    every = np.concatenate([corners.reshape(-1, 2) for corners in parts.values()])
    low, high = every.min(axis=0), every.max(axis=0)
    middle = (low + high) / 2
    axes = np.abs(np.diag(metre_axes(middle[None], crs)[0]))
    axes = np.where(np.isfinite(axes) & (axes > 0), axes, 1.0)  # CRS units in a metre
    metres = np.maximum((high - low) / axes, 1e-9)
    scale = SIDE / float(metres.max())
    width, height = (metres * scale).tolist()

    def pixels(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x = (points[..., 0] - low[0]) / axes[0] * scale
        y = (high[1] - points[..., 1]) / axes[1] * scale
        return np.stack([x, y], axis=-1) + 1

    shapes = [f'<g class="chips {name}">{"".join(_outlines(pixels(parts[name])))}</g>' for name in ORDER]
    length = _round_length(float(metres[0]) / 3)
    bar = length * scale
    shapes.append(f'<path class="scale" d="M1 {height + 16:.1f}v5h{bar:.1f}v-5"/>')
    shapes.append(f'<text class="tick" x="{bar + 8:.1f}" y="{height + 22:.1f}">{format_length(length, "metre")}</text>')
    counts = {name: len(parts[name]) for name in ("train", "valid", "dropped", "test") if len(parts[name])}
    words = ", ".join(f"{count:,} {WORDS[name]}" for name, count in counts.items())
    label = f"Outlines of chips, north up: {words}."
    where = f"{_coordinate(low, crs)} to {_coordinate(high, crs)}"
    return GroundPanel(svg(max(width + 2, 120), height + 28, label, shapes), f"{words}. {where}")


def _outlines(corners: NDArray[np.float64]) -> Iterator[str]:
    for ring in corners:
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in ring.tolist())
        yield f'<path d="M{path}Z"/>'


def _round_length(length: float) -> float:
    """Return the next smaller of 1, 2 and 5 times a power of ten."""
    size = 10.0 ** math.floor(math.log10(max(length, 1e-6)))
    return size * next(factor for factor in (5, 2, 1) if size * factor <= length * (1 + 1e-9))


def _coordinate(point: NDArray[np.float64], crs: pyproj.CRS) -> str:
    digits = 4 if crs.is_geographic else 0
    return f"{point[0]:.{digits}f}, {point[1]:.{digits}f}"
