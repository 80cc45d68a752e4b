"""What was cut so far, unit by unit, in memory and in a ledger on disk from which a killed export goes on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from geopsp.chips.chip import Chip, count_codes, fraction_true, skip_reason
from geopsp.chips.labelled_scenes import LabelledScenes
from geopsp.chips.options import ChipSpec
from geopsp.core.bands import BandStats
from geopsp.core.grid import Grid, Window
from geopsp.core.legend import IGNORE_INDEX, Legend

LABEL_COUNTS = ("repaired", "not_polygons", "without_class", "dropped")
"""What labels count beside polygons."""


@dataclass(frozen=True, slots=True, eq=False)
class CandidateChip:
    """A chip, where it was cut, and what it shows."""

    scene: int
    """Number of its scene."""

    window: Window
    angle: float
    """Degrees by which it is turned."""

    chip: Chip
    counts: NDArray[np.int64]
    """(256,) pixels by code."""

    valid: float
    """Share of valid pixels."""

    @classmethod
    def of(cls, ground: LabelledScenes, scene: int, window: Window, chip: Chip, angle: float = 0.0) -> CandidateChip:
        return cls(scene, window, angle, chip, count_codes(chip.codes, ground.legend), fraction_true(chip.patch.valid))

    @property
    def place(self) -> tuple[int, int, int]:
        """Number of its scene, first column and row."""
        return self.scene, self.window.col, self.window.row

    def judged(self, ground: LabelledScenes, spec: ChipSpec) -> str | None:
        """As `judge`."""
        return skip_reason(self.counts, ground.legend, spec, valid=self.valid, inside=self.chip.inside)

    def row(self, ground: LabelledScenes, image: str | None = None, label: str | None = None) -> dict[str, Any]:
        """Its row in the index; without files it is counted only."""
        return {
            "chip": image,
            "label": label,
            "scene": self.scene,
            "source": ground.scenes[self.scene].name,
            "col": self.window.col,
            "row": self.window.row,
            "angle": self.angle,
            "valid": self.valid,
            "labelled": 1 - int(self.counts[IGNORE_INDEX]) / int(self.counts.sum()),
            **{f"pixels_{code}": int(self.counts[code]) for code in ground.legend.codes},
        }


@dataclass(slots=True, eq=False)
class RowResult:
    """The chips of one unit of work, and what was left out."""

    stats: BandStats
    rows: list[dict[str, Any]] = field(default_factory=list)
    """One a chip, as in the index; of chips that are counted but not kept, `chip` is None."""

    counts: Counter[str] = field(default_factory=Counter)
    """skipped_REASON, conflict_pixels, empty, and what labels count: repaired, without_class and so on."""

    polygons: Counter[int] = field(default_factory=Counter)
    """By class code."""

    def to_json(self) -> dict[str, Any]:
        polygons = {str(code): n for code, n in self.polygons.items()}
        return {"stats": self.stats.to_json(), "rows": self.rows, "counts": dict(self.counts), "polygons": polygons}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> RowResult:
        polygons = Counter({int(code): n for code, n in row["polygons"].items()})
        return cls(BandStats.from_json(row["stats"]), row["rows"], Counter(row["counts"]), polygons)


@dataclass(slots=True, eq=False)
class ExportTotals:
    """All hauls together."""

    legend: Legend
    stats: BandStats
    counts: Counter[str] = field(default_factory=Counter)
    polygons: Counter[int] = field(default_factory=Counter)
    kept: int = 0
    """Chips, turned copies among them."""

    numbered: int = 0
    """Chips, turned copies apart."""

    _frames: list[pd.DataFrame] = field(default_factory=list)

    @classmethod
    def empty(cls, ground: LabelledScenes) -> ExportTotals:
        """As yet nothing."""
        return cls(ground.legend, BandStats.empty(len(ground.scenes[0].bands)))

    def add(self, haul: RowResult) -> None:
        self.stats = self.stats.merge(haul.stats)
        self.counts.update(haul.counts)
        self.polygons.update(haul.polygons)
        if haul.rows:
            self._frames.append(pd.DataFrame.from_records(haul.rows))
            kept = [row["angle"] for row in haul.rows if row["chip"] is not None]
            self.kept, self.numbered = self.kept + len(kept), self.numbered + kept.count(0)

    def frame(self) -> pd.DataFrame:
        """One row a chip, kept or only counted."""
        if len(self._frames) > 1:
            self._frames = [pd.concat(self._frames, ignore_index=True)]
        return self._frames[0] if self._frames else pd.DataFrame()

    def places(self) -> set[tuple[int, int, int]]:
        """Scene, first column and first row of each chip that is kept."""
        frame = self.frame()
        kept = frame[frame["chip"].notna()] if len(frame) else frame
        return set(zip(kept["scene"], kept["col"], kept["row"], strict=True)) if len(kept) else set()

    def index(self, grids: Sequence[Grid], size: int) -> gpd.GeoDataFrame:
        """The kept chips with their footprints, in the CRS of the first scene."""
        frame = self.frame()
        frame = frame[frame["chip"].notna()].reset_index(drop=True)
        frame["crs"] = [grids[number].crs.to_string() for number in frame["scene"]]
        shapes = np.empty(len(frame), object)
        for number, grid in enumerate(grids):
            here = (frame["scene"] == number).to_numpy()
            if here.any():
                place = frame.loc[here, ["col", "row", "angle"]].to_numpy(float)
                own = gpd.GeoSeries(footprints(grid, place, size), crs=grid.crs)
                shapes[here] = own.to_crs(grids[0].crs).to_numpy()
        return gpd.GeoDataFrame(frame.drop(columns="scene"), geometry=shapes, crs=grids[0].crs)

    def report(self, labels: Mapping[str, Any], notes: Sequence[str]) -> dict[str, Any]:
        """What was found on the way, for people and for chips.json."""
        names = {info.code: info.name for info in self.legend}
        skipped = {reason: self.counts[f"skipped_{reason}"] for reason in ("invalid", "unlabelled", "empty", "outside")}
        own = {name: self.counts[name] for name in LABEL_COUNTS if name in self.counts}
        return {
            "chips": self.kept,
            "skipped": skipped,
            "empty": self.counts["empty"],
            "conflict_pixels": self.counts["conflict_pixels"],
            "polygons": {names[code]: n for code, n in sorted(self.polygons.items()) if code in names},
            "labels": {**labels, **own},
            "notes": list(notes),
        }


def footprints(grid: Grid, place: NDArray[np.float64], size: int) -> NDArray[np.object_]:
    """Outlines in the grid's CRS of chips at (chips, 3) columns, rows and degrees."""
    col, row, angle = place.T[:, :, None]
    middle = size / 2
    x, y = (np.array(ring) - middle for ring in ([0, size, size, 0], [0, 0, size, size]))
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    cos, sin = (np.where(np.isclose(np.abs(v) % 1, 0), np.round(v), v) for v in (cos, sin))
    cols, rows = col + middle + x * cos - y * sin, row + middle + x * sin + y * cos
    t = grid.transform
    corners = np.stack([t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f], axis=-1)
    return np.asarray(shapely.polygons(corners), object)


class ExportJournal:
    """A file to which each finished unit of work is added; what it holds for the same job is not done again."""

    def __init__(self, path: Path, key: str) -> None:
        """The ledger of a job is opened or begun; one of another job is begun anew."""
        found = _lines(path)
        if not found or found[0].get("key") != key:
            found = [{"key": key}]
        self.hauls = [RowResult.from_json(row) for row in found[1:]]
        """What was there when it was opened."""

        self.empty = not self.hauls
        self._path = path
        whole = path.with_name(f"{path.name}.whole")  # without the last line, if a kill has torn it
        whole.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
        whole.replace(path)

    def add(self, haul: RowResult) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(haul.to_json()) + "\n")
        self.empty = False

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def _lines(path: Path) -> list[dict[str, Any]]:
    """What a ledger holds, up to a line that is torn."""
    found: list[dict[str, Any]] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                break
            if not isinstance(row, dict):
                break
            found.append(row)
    return found
