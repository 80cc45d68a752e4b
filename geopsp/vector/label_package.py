"""GeoPackages of windows to label: their outlines, polygons to correct, and the area that is done.

Layer `windows`: outlines with a status. Layer `labels`: polygons to correct. Layer `aoi`: a view of the windows whose
status is "done", so that the file is an area of interest that grows as one works. The first two have styles with
drop-downs for QGIS.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import geopandas as gpd
import pyogrio

from geopsp.core.legend import ClassInfo
from geopsp.core.qml import add_drop_down, qml_document
from geopsp.vector.formats import format_of
from geopsp.vector.geopackage import new_package
from geopsp.vector.qgis_style import FAST_PRAGMAS, add_qml, style_by_text

WINDOWS, LABELS, DONE_AREA = "windows", "labels", "aoi"
"""Names of the layers."""

STATUSES = (
    ClassInfo(0, "open", "#e07b39"), ClassInfo(1, "done", "#2f855a"), ClassInfo(2, "skipped", "#9aa0a6"),
    ClassInfo(3, "cut", "#2b6cb0"),
)  # fmt: skip
"""What the status of a window may be; done: corrected, to be cut as a chip; cut: its chip is there."""

DONE_VIEW = f"""
CREATE VIEW {DONE_AREA} AS SELECT fid AS OGC_FID, geometry, rank FROM {WINDOWS} WHERE status = 'done'
"""  # noqa: S608 (constants)

REGISTER_VIEW = (
    f"""
INSERT INTO gpkg_contents (table_name, data_type, identifier, description, min_x, min_y, max_x, max_y, srs_id)
SELECT '{DONE_AREA}', data_type, '{DONE_AREA}', 'Windows with the status done', min_x, min_y, max_x, max_y, srs_id
FROM gpkg_contents WHERE table_name = '{WINDOWS}'
""",  # noqa: S608
    f"""
INSERT INTO gpkg_geometry_columns (table_name, column_name, geometry_type_name, srs_id, z, m)
SELECT '{DONE_AREA}', column_name, geometry_type_name, srs_id, z, m
FROM gpkg_geometry_columns WHERE table_name = '{WINDOWS}'
""",  # noqa: S608
)


def write_label_package(
    out: Path, windows: gpd.GeoDataFrame, labels: gpd.GeoDataFrame, classes: Sequence[ClassInfo], *, overwrite: bool
) -> None:
    """Write the windows and the polygons to correct, whole or not at all.

    Args:
        out: The file; it ends in .gpkg.
        windows: Polygons with columns `rank` and `status`.
        labels: Polygons with a column `class`, in the same CRS; there may be none.
        classes: What the class may be.
        overwrite: True to replace `out`.

    Raises:
        OutputError: if it exists and `overwrite` is False, or cannot be written.
    """
    options = {"dataset_options": dict(format_of(out).file_options)}
    with new_package(out, overwrite=overwrite) as path:
        _write_layer(path, windows, WINDOWS, "Where to label next", options)
        _write_layer(path, labels, LABELS, "Polygons to correct", {"append": True})
        _add_view(path)
        for layer, field, values, description in (
            (WINDOWS, "status", STATUSES, "Status of the windows"), (LABELS, "class", classes, "Class colours"),
        ):  # fmt: skip
            add_qml(path, form_style(field, values), name=field, description=description, layer=layer)


def _write_layer(path: Path, frame: gpd.GeoDataFrame, name: str, description: str, options: Mapping[str, Any]) -> None:
    kinds = set(frame.geom_type)
    pyogrio.write_dataframe(
        frame,
        path,
        layer=name,
        driver="GPKG",
        geometry_type="MultiPolygon" if "MultiPolygon" in kinds else "Polygon",
        promote_to_multi="MultiPolygon" in kinds,
        layer_options={"DESCRIPTION": description, "GEOMETRY_NAME": "geometry", "SPATIAL_INDEX": "YES"},
        **options,
    )


def _add_view(path: Path) -> None:
    with closing(sqlite3.connect(path)) as base, base:
        for pragma in FAST_PRAGMAS:
            base.execute(pragma)
        base.execute(DONE_VIEW)
        for statement in REGISTER_VIEW:
            base.execute(statement)


def form_style(field: str, values: Sequence[ClassInfo]) -> str:
    """Return a QGIS style with a fill for each text of a field, and a drop-down of these texts in its form."""
    root = style_by_text(field, values)
    root.set("styleCategories", "Symbology|Fields|Forms")
    choices = [(info.name, info.name) for info in values]
    add_drop_down(ET.SubElement(root, "fieldConfiguration"), field, choices)
    return qml_document(root)
