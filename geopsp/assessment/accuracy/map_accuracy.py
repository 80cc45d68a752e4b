"""The accuracy of a map and the areas of its classes, as tables, text and files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from geopsp.assessment.accuracy.accuracy_page import accuracy_body, accuracy_page
from geopsp.assessment.accuracy.accuracy_tables import AccuracyTables
from geopsp.assessment.accuracy.accuracy_text import accuracy_rows, accuracy_text
from geopsp.core.escape import csv_text
from geopsp.core.output import atomic_output
from geopsp.errors import OptionError

ENDINGS = (".json", ".csv", ".html")
"""Of the files that `save` writes."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class MapAccuracy(AccuracyTables):
    """What a reference tells of a map, as tables, text and files.

    Frames of estimates have the columns estimate, standard_error, lower and upper; NaN is unknown. Accuracies are
    fractions of area, areas hectares on the ellipsoid. Intervals are cut off at 0, and those of accuracies at 1.
    """

    def text(self) -> str:
        """Return all results as text."""
        return accuracy_text(self)

    def to_json(self) -> dict[str, Any]:
        """Return all results for JSON; None where a value is unknown."""
        content = {
            "map": self.map_name,
            "reference": self.reference_name,
            "design": self.design,
            "method": self.method,
            "confidence_level": self.confidence_level,
            "points": self.num_points,
            "unlabelled": self.num_unlabelled,
            "area_ha": self.total_area,
            "classes": [{"name": name, "color": color} for name, color in self.colors.items()],
            "overall_accuracy": self.overall.to_dict(),
            "users_accuracy": self.users.to_dict("index"),
            "producers_accuracy": self.producers.to_dict("index"),
            "f1": self.f1.to_dict("index"),
            "areas_ha": self.areas.to_dict("index"),
            "error_matrix": {"classes": self.classes, "rows_map": self.error_matrix.to_numpy().tolist()},
            "area_shares": {"classes": self.classes, "rows_map": self.area_shares.to_numpy().tolist()},
            "strata": self.strata.reset_index().to_dict("records"),
            "zones": self.zones.reset_index().to_dict("records"),
            "zone_areas_ha": self.zone_areas.to_dict("records"),
            "warnings": list(self.warnings),
        }
        found: dict[str, Any] = _without_nan(content)
        return found

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write all results as JSON, CSV (one row per number) or an HTML page, by the ending, and return the path.

        Raises:
            OptionError: if the file has another ending.
            OutputError: if it exists and `overwrite` is False, or cannot be written.
        """
        path = Path(path)
        require_ending(path)
        with atomic_output(path, overwrite=overwrite) as partial:
            partial.write_text(self._as_file(path.suffix.lower()), encoding="utf-8", newline="")
        return path

    def _as_file(self, ending: str) -> str:
        if ending == ".json":
            return json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        if ending == ".html":
            return accuracy_page(self)
        rows = pd.DataFrame(accuracy_rows(self))
        names = rows.select_dtypes(exclude="number").columns
        rows[names] = rows[names].map(lambda cell: csv_text(cell) if isinstance(cell, str) else cell)
        return str(rows.to_csv(index=False, lineterminator="\r\n"))

    def _repr_html_(self) -> str:
        return accuracy_body(self)

    def __repr__(self) -> str:
        value = self.overall["estimate"]
        return f"<MapAccuracy of {self.map_name} by {self.reference_name}: overall accuracy {value:.3f}>"


def require_ending(path: Path) -> None:
    """Check that results can be written to a file of this name.

    Raises:
        OptionError: if it has another ending.
    """
    if path.suffix.lower() not in ENDINGS:
        raise OptionError(f"{path} ends in {path.suffix or 'nothing'!r}, but must end in {', '.join(ENDINGS)}.")


def _without_nan(value: Any) -> Any:
    """Return a value with None in place of NaN, and numpy's numbers as Python's, all the way down."""
    if isinstance(value, Mapping):
        return {str(key): _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
