"""The result of comparing two maps: areas from class to class, gains and losses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geopsp.assessment.result_files import json_text, save_results
from geopsp.core.escape import csv_text, printable, printable_lines
from geopsp.core.text import format_count

if TYPE_CHECKING:
    from geopsp.assessment.accuracy.map_accuracy import MapAccuracy

HECTARE = 10_000
"""Square metres."""

FORMAT, VERSION = "geopsp change", 1

INTERVAL = ("estimate", "standard_error", "lower", "upper")
"""Columns of estimated areas, in hectares."""

MAX_LISTED = 20
"""Changes that the text lists."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class MapChange:
    """The change from one map to another, on ground that both show. Areas are on the ellipsoid."""

    map_a: str
    map_b: str
    out: Path
    """The raster of changes."""

    classes: tuple[str, ...]
    pixels: NDArray[np.int64]
    """(classes, classes) pixels by class in the first map (row) and class in the second map (column)."""

    hectares: NDArray[np.float64]
    """(classes, classes) hectares, as `pixels`."""

    codes: NDArray[np.uint8]
    """(classes, classes) codes in the raster."""

    names: tuple[tuple[str, ...], ...]
    """(classes, classes) names of the transitions, as in the raster's class table."""

    only_a_ha: float
    """Hectares on the common grid of which the first map alone shows a class."""

    only_b_ha: float
    """The same of the second map."""

    min_area: float = 0.0
    """In m2; smaller changed regions count as unchanged."""

    removed_ha: float = 0.0
    """Hectares of these small regions."""

    polygons: Path | None = None
    notes: tuple[str, ...] = ()
    """How the maps were made comparable."""

    accuracy: MapAccuracy | None = None
    """`MapAccuracy` of the raster of changes, if a reference sample was given."""

    confidence_level: float = 0.95
    """Probability of the intervals of estimated areas."""

    @property
    def total_ha(self) -> float:
        """Hectares of which both maps show a class."""
        return float(self.hectares.sum())

    @property
    def changed_ha(self) -> float:
        """Hectares of which the maps show different classes."""
        return float(self.hectares.sum() - np.trace(self.hectares))

    def from_to(self) -> pd.DataFrame:
        """Return hectares by class in the first map (row) and class in the second map (column)."""
        names = list(self.classes)
        return pd.DataFrame(self.hectares, index=pd.Index(names, name="from"), columns=pd.Index(names, name="to"))

    def transitions(self) -> pd.DataFrame:
        """Return one row per transition that occurs, the largest change first, then the unchanged classes.

        Columns: code, name, from_class, to_class, changed, pixels, area_ha, share (of the ground that both maps show);
        with a reference sample also estimate, standard_error, lower and upper in hectares, NaN for transitions that
        share a code in the raster, as it has too many. Transitions that only the reference has are listed, too, with 0
        pixels.
        """
        before, after = np.nonzero((self.pixels > 0) | self._only_in_reference())
        frame = pd.DataFrame(
            {
                "code": self.codes[before, after].astype(int),
                "name": [self.names[i][j] for i, j in zip(before, after, strict=True)],
                "from_class": [self.classes[i] for i in before],
                "to_class": [self.classes[j] for j in after],
                "changed": before != after,
                "pixels": self.pixels[before, after],
                "area_ha": self.hectares[before, after],
                "share": self.hectares[before, after] / self.total_ha,
            }
        )
        frame = frame.sort_values(["changed", "area_ha"], ascending=False, kind="stable").reset_index(drop=True)
        return frame if self.accuracy is None else frame.join(self._estimates(), on="name")

    def per_class(self) -> pd.DataFrame:
        """Return one row per class with hectares.

        Columns: area_a_ha, area_b_ha, gain_ha, loss_ha, net_ha (gain - loss), gross_ha (gain + loss), swap_ha (gross -
        the absolute net: change of place, not of quantity), net_share (of area_a_ha; NaN for a new class).

        Source: Pontius, Shusas and McEachern, "Detecting important categorical land changes while accounting for
        persistence" (2004), equations 1 to 4.
        """
        stays = np.diag(self.hectares)
        area_a, area_b = self.hectares.sum(axis=1), self.hectares.sum(axis=0)
        gain, loss = area_b - stays, area_a - stays
        net = area_b - area_a
        columns = {
            "area_a_ha": area_a, "area_b_ha": area_b, "gain_ha": gain, "loss_ha": loss, "net_ha": net,
            "gross_ha": gain + loss, "swap_ha": gain + loss - np.abs(net),
            "net_share": np.divide(net, area_a, out=np.full_like(net, np.nan), where=area_a > 0),
        }  # fmt: skip
        return pd.DataFrame(columns, index=pd.Index(self.classes, name="class"))

    def _only_in_reference(self) -> NDArray[np.bool_]:
        """Return (classes, classes) True for transitions that the reference has, but no pixel of the raster."""
        known = set() if self.accuracy is None else set(self.accuracy.areas.query("estimate > 0").index)
        named = np.array([[name in known for name in row] for row in self.names], bool)
        only: NDArray[np.bool_] = named & (self.pixels == 0)
        return only

    def _estimates(self) -> pd.DataFrame:
        """Return estimated hectares by name of a transition, with standard error and interval."""
        assert self.accuracy is not None
        areas: pd.DataFrame = self.accuracy.areas[list(INTERVAL)]
        return areas

    def text(self) -> str:
        """Return changes, classes and notes as tables."""
        share = self.changed_ha / self.total_ha
        lines = [
            f"{self.map_a} -> {self.map_b}",
            f"  compared   {self.total_ha:,.2f} ha, of which {self.changed_ha:,.2f} ha changed ({share:.2%})",
        ]
        alone = [f"{area:,.2f} ha in {name} alone" for area, name in ((self.only_a_ha, "the first map"),
                 (self.only_b_ha, "the second map")) if area]  # fmt: skip
        lines += [f"  left out   {', '.join(alone)}"] if alone else []
        if self.min_area:
            lines.append(f"  small      {self.removed_ha:,.2f} ha of changed regions below {self.min_area:,.10g} m2 "
                         "count as unchanged")  # fmt: skip
        if self.accuracy is not None:
            value, error = self.accuracy.overall[["estimate", "standard_error"]]
            points = format_count(self.accuracy.num_points, "point")
            lines.append(f"  reference  {points}: overall accuracy {value:.1%} (standard error {error:.1%})")
        lines += [f"  note       {note}" for note in self.notes]
        lines += ["", *self._change_lines(), "", *self._class_lines()]
        return printable_lines(lines)

    def _change_lines(self) -> list[str]:
        frame = self.transitions()
        changes = frame[frame["changed"]]
        if not len(changes):
            return ["No pixel changed."]
        shown = changes.head(MAX_LISTED)[["name", "pixels", "area_ha", *INTERVAL[: 4 * (self.accuracy is not None)]]]
        if self.accuracy is not None:
            shown = shown.rename(columns={"estimate": "estimate_ha"})
        lines = _table(shown.set_index("name")).split("\n")
        if (more := len(changes) - MAX_LISTED) > 0:
            lines.append(f"... and {format_count(more, 'smaller change')}")
        return lines

    def _class_lines(self) -> list[str]:
        frame = self.per_class()[["area_a_ha", "area_b_ha", "gain_ha", "loss_ha", "net_ha"]]
        return _table(frame).split("\n")

    def to_json(self) -> dict[str, Any]:
        """Return all tables, for JSON."""
        accuracy = None if self.accuracy is None else self.accuracy.to_json()
        return {
            "format": FORMAT,
            "version": VERSION,
            "map_a": self.map_a,
            "map_b": self.map_b,
            "raster": str(self.out),
            "polygons": None if self.polygons is None else str(self.polygons),
            "total_ha": self.total_ha,
            "changed_ha": self.changed_ha,
            "only_a_ha": self.only_a_ha,
            "only_b_ha": self.only_b_ha,
            "min_area_m2": self.min_area,
            "removed_ha": self.removed_ha,
            "classes": list(self.classes),
            "from_to_ha": self.hectares.tolist(),
            "from_to_pixels": self.pixels.tolist(),
            "transitions": _records(self.transitions()),
            "per_class": _records(self.per_class().reset_index()),
            "notes": list(self.notes),
            "confidence_level": None if self.accuracy is None else self.confidence_level,
            "accuracy": accuracy,
        }

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write all tables as JSON (`.json`), or the transitions as CSV (`.csv`); return the path.

        Raises:
            OptionError: if the file has another ending.
            OutputError: if it exists and `overwrite` is False, or cannot be written.
        """
        forms = {".json": lambda: json_text(self.to_json()), ".csv": self._csv}
        return save_results(path, forms, overwrite=overwrite)

    def _csv(self) -> str:
        table = self.transitions()
        texts = {name: table[name].map(csv_text) for name in ("name", "from_class", "to_class")}
        return str(table.assign(**texts).to_csv(index=False))

    def __repr__(self) -> str:
        share = self.changed_ha / self.total_ha
        return printable(f"<Change of {self.changed_ha:,.2f} of {self.total_ha:,.2f} ha ({share:.2%}): {self.out}>")


def _table(frame: pd.DataFrame) -> str:
    """Return a frame as text, with hectares to two decimals."""
    shown = frame.rename(index=printable)
    text: str = shown.to_string(float_format=lambda value: f"{value:,.2f}", formatters={"pixels": "{:,}".format})
    return text


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame; None for NaN."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict(orient="records")
    return [{str(key): value.item() if isinstance(value, np.generic) else value for key, value in row.items()}
            for row in rows]  # fmt: skip
