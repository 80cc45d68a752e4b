"""What was cut so far: index rows, counts and statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from geopsp.chips.chip import SKIP_REASONS, Chip, count_codes, fraction_true, skip_reason
from geopsp.chips.labelled_scenes import LabelledScenes
from geopsp.chips.options import ChipSpec
from geopsp.core.bands import BandStats
from geopsp.core.grid import Grid, Window
from geopsp.core.legend import IGNORE_INDEX, Legend

LABEL_COUNTS = ("repaired", "not_polygons", "without_class", "dropped")
"""What labels count beside polygons."""


FRAME_ROWS = 10_000
"""Rows of the index that become a frame at a time; a frame for each few would take longer than cutting them."""


Position = tuple[int, int, int]
"""Number of the scene, first column and first row of a chip."""


@dataclass(frozen=True, slots=True, eq=False)
class CandidateChip:
    """A chip that may be kept, and where it was cut."""

    scene: int
    """Number of its scene."""

    window: Window
    angle: float
    """Rotation in degrees."""

    chip: Chip
    counts: NDArray[np.int64]
    """(256,) pixels by code."""

    valid: float
    """Fraction of valid pixels."""

    @classmethod
    def from_chip(
        cls, inputs: LabelledScenes, scene: int, window: Window, chip: Chip, angle: float = 0.0
    ) -> CandidateChip:
        """Count the pixels of a chip."""
        return cls(scene, window, angle, chip, count_codes(chip.codes, inputs.legend), fraction_true(chip.patch.valid))

    @property
    def position(self) -> Position:
        return self.scene, self.window.col, self.window.row

    def skip_reason(self, inputs: LabelledScenes, spec: ChipSpec) -> str | None:
        """Return why the chip is skipped; see `chip.skip_reason`."""
        return skip_reason(self.counts, inputs.legend, spec, valid=self.valid, inside=self.chip.inside)

    def index_row(self, inputs: LabelledScenes, image: str | None = None, label: str | None = None) -> dict[str, Any]:
        """Return the row of the index; without names of files, of a chip that is only counted."""
        return {
            "chip": image,
            "label": label,
            "scene": self.scene,
            "source": inputs.scenes[self.scene].name,
            "col": self.window.col,
            "row": self.window.row,
            "angle": self.angle,
            "valid": self.valid,
            "labelled": 1 - int(self.counts[IGNORE_INDEX]) / int(self.counts.sum()),
            **{f"pixels_{code}": int(self.counts[code]) for code in inputs.legend.codes},
        }


@dataclass(slots=True, eq=False)
class RowResult:
    """What cutting one row of chips gave: index rows, counts and band statistics."""

    stats: BandStats
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the index, one per chip; `chip` is None for chips that are counted but not kept."""

    counts: Counter[str] = field(default_factory=Counter)
    """skipped_REASON, conflict_pixels, empty, random_chips, draws, and `LABEL_COUNTS`."""

    polygons: Counter[int] = field(default_factory=Counter)
    """By class code."""

    @property
    def num_unrotated(self) -> int:
        """Chips that are kept, without rotated copies."""
        return sum(row["chip"] is not None and not row["angle"] for row in self.rows)

    def add(self, chips: RowResult) -> None:
        """Add what writing chips of the row gave."""
        self.rows += chips.rows
        self.counts.update(chips.counts)
        self.stats = self.stats.merge(chips.stats)

    def to_json(self) -> dict[str, Any]:
        polygons = {str(code): n for code, n in self.polygons.items()}
        return {"stats": self.stats.to_json(), "rows": self.rows, "counts": dict(self.counts), "polygons": polygons}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> RowResult:
        polygons = Counter({int(code): n for code, n in row["polygons"].items()})
        return cls(BandStats.from_json(row["stats"]), row["rows"], Counter(row["counts"]), polygons)


@dataclass(slots=True, eq=False)
class ExportTotals:
    """The results of all rows of chips together."""

    legend: Legend
    stats: BandStats
    counts: Counter[str] = field(default_factory=Counter)
    """As of `RowResult`."""

    polygons: Counter[int] = field(default_factory=Counter)
    """By class code."""

    num_chips: int = 0
    """Chips that are kept, with rotated copies."""

    num_unrotated: int = 0
    """Chips that are kept, without rotated copies."""

    _frames: list[pd.DataFrame] = field(default_factory=list)
    _rows: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the index that are in no frame yet."""

    @classmethod
    def empty(cls, inputs: LabelledScenes) -> ExportTotals:
        """Return the totals of no rows."""
        return cls(inputs.legend, BandStats.empty(len(inputs.scenes[0].bands)))

    def add(self, result: RowResult) -> None:
        """Add the result of a row."""
        self.stats = self.stats.merge(result.stats)
        self.counts.update(result.counts)
        self.polygons.update(result.polygons)
        self._rows += result.rows
        self.num_chips += sum(row["chip"] is not None for row in result.rows)
        self.num_unrotated += result.num_unrotated
        if len(self._rows) >= FRAME_ROWS:
            self._make_frame()

    def _make_frame(self) -> None:
        if self._rows:
            self._frames.append(pd.DataFrame.from_records(self._rows))
            self._rows = []

    def frame(self) -> pd.DataFrame:
        """Return the index rows of all chips, kept or only counted."""
        self._make_frame()
        if len(self._frames) > 1:
            self._frames = [pd.concat(self._frames, ignore_index=True)]
        return self._frames[0] if self._frames else pd.DataFrame()

    def positions(self) -> set[Position]:
        """Return the positions of all chips that are kept."""
        frame = self.frame()
        kept = frame[frame["chip"].notna()] if len(frame) else frame
        return set(zip(kept["scene"], kept["col"], kept["row"], strict=True)) if len(kept) else set()

    def index(self, grids: Sequence[Grid], size: int) -> gpd.GeoDataFrame:
        """Return the index of the chips that are kept, with footprints in the CRS of the first scene that has one.

        Chips of scenes without georeference have no footprint.

        Args:
            grids: Of the scenes.
            size: Side of a chip in pixels.
        """
        frame = self.frame()
        frame = frame[frame["chip"].notna()].reset_index(drop=True)
        crs = next((grid.crs for grid in grids if grid.crs), None)
        names = [grid.crs.to_string() if grid.crs else "" for grid in grids]
        frame["crs"] = [names[number] for number in frame["scene"]]
        shapes = np.empty(len(frame), object)
        for number, grid in enumerate(grids):
            in_scene = (frame["scene"] == number).to_numpy()
            if grid.crs and in_scene.any():
                positions = frame.loc[in_scene, ["col", "row", "angle"]].to_numpy(float)
                outlines = gpd.GeoSeries(footprints(grid, positions, size), crs=grid.crs)
                shapes[in_scene] = outlines.to_crs(crs).to_numpy()
        return gpd.GeoDataFrame(frame.drop(columns="scene"), geometry=shapes, crs=crs)

    def report(self, labels: Mapping[str, Any], notes: Sequence[str]) -> dict[str, Any]:
        """Return the report of an export for chips.json.

        Args:
            labels: The report of the labels.
            notes: Remarks on the input, in words.
        """
        names = {info.code: info.name for info in self.legend}
        label_counts = {name: self.counts[name] for name in LABEL_COUNTS if name in self.counts}
        return {
            "chips": self.num_chips,
            "skipped": {reason: self.counts[f"skipped_{reason}"] for reason in SKIP_REASONS},
            "empty": self.counts["empty"],
            "conflict_pixels": self.counts["conflict_pixels"],
            "polygons": {names[code]: n for code, n in sorted(self.polygons.items()) if code in names},
            "labels": {**labels, **label_counts},
            "notes": list(notes),
        }


def footprints(grid: Grid, positions: NDArray[np.float64], size: int) -> NDArray[np.object_]:
    """Return the outlines of chips in the grid's CRS.

    Args:
        grid: Of the scene.
        positions: (chips, 3) first column, first row and rotation in degrees.
        size: Side of a chip in pixels.
    """
    col, row, angle = positions.T[:, :, None]
    middle = size / 2
    x, y = (np.array(ring) - middle for ring in ([0, size, size, 0], [0, 0, size, size]))
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    cos, sin = (np.where(np.isclose(np.abs(v) % 1, 0), np.round(v), v) for v in (cos, sin))
    cols, rows = col + middle + x * cos - y * sin, row + middle + x * sin + y * cos
    t = grid.transform
    corners = np.stack([t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f], axis=-1)
    return np.asarray(shapely.polygons(corners), object)
