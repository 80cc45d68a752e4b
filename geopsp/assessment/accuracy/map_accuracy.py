"""The accuracy of a map and the areas of its classes, as tables, text and files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from geopsp.assessment.accuracy.accuracy_page import accuracy_body, accuracy_page
from geopsp.assessment.accuracy.accuracy_tables import AccuracyTables
from geopsp.assessment.accuracy.accuracy_text import accuracy_rows, accuracy_text
from geopsp.assessment.result_files import json_text, save_results, without_nan
from geopsp.core.escape import csv_text


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
        found: dict[str, Any] = without_nan(content)
        return found

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write all results as JSON, CSV (one row per number) or an HTML page, by the ending, and return the path.

        Raises:
            OptionError: if the file has another ending.
            OutputError: if it exists and `overwrite` is False, or cannot be written.
        """
        forms = {
            ".json": lambda: json_text(self.to_json()), ".csv": self._csv, ".html": lambda: accuracy_page(self),
        }  # fmt: skip
        return save_results(path, forms, overwrite=overwrite)

    def _csv(self) -> str:
        rows = pd.DataFrame(accuracy_rows(self))
        names = rows.select_dtypes(exclude="number").columns
        rows[names] = rows[names].map(lambda cell: csv_text(cell) if isinstance(cell, str) else cell)
        return str(rows.to_csv(index=False, lineterminator="\r\n"))

    def _repr_html_(self) -> str:
        return accuracy_body(self)

    def __repr__(self) -> str:
        value = self.overall["estimate"]
        return f"<MapAccuracy of {self.map_name} by {self.reference_name}: overall accuracy {value:.3f}>"
