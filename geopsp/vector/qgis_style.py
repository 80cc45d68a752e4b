"""QGIS style of the polygons in a GeoPackage: colours and names of their classes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree as ET

from geopsp.core.legend import ClassInfo, Legend
from geopsp.core.qml import new_qml, qml_document

OUTLINE_WIDTH = "0.1"
"""Millimetres; in the fill's colour, so that the background does not show between neighbours."""


CREATE_TABLE = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), f_table_schema TEXT(256),
    f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
    useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),
    update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
)
"""
"""QGIS's table of styles."""


FAST_PRAGMAS = ("PRAGMA synchronous = OFF", "PRAGMA journal_mode = MEMORY")
"""As GDAL sets them for a new file; by default SQLite would wait for the disk."""


INSERT_CONTENTS = (
    "INSERT INTO gpkg_contents (table_name, data_type, identifier) VALUES ('layer_styles', 'attributes', ?)"
)


INSERT_STYLE = """
INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, styleQML,
                          styleSLD, useAsDefault, description, owner)
SELECT '', '', table_name, column_name, 'classes', ?, '', 1, 'Class colours', '' FROM gpkg_geometry_columns
"""


def add_style(package: str | Path, legend: Legend) -> None:
    """Add the default style of a GeoPackage's layer, in the colours of the legend.

    After an error the file may be damaged.

    Raises:
        sqlite3.Error: if it cannot be written.
    """
    with closing(sqlite3.connect(package)) as base, base:
        for pragma in FAST_PRAGMAS:
            base.execute(pragma)
        base.execute(CREATE_TABLE)
        base.execute(INSERT_CONTENTS, ("layer_styles",))
        base.execute(INSERT_STYLE, (polygon_style(legend),))


def polygon_style(legend: Legend) -> str:
    """Return a QGIS 3 style with a fill and a label for each class, by the column `code`."""
    root = new_qml()
    attributes = {
        "type": "categorizedSymbol",
        "attr": "code",
        "symbollevels": "0",
        "enableorderby": "0",
        "forceraster": "0",
    }
    renderer = ET.SubElement(root, "renderer-v2", attributes)
    categories, symbols = ET.SubElement(renderer, "categories"), ET.SubElement(renderer, "symbols")
    for number, info in enumerate(legend):
        entry = {
            "value": str(info.code), "type": "long", "symbol": str(number), "render": "true", "label": info.name,
        }  # fmt: skip
        ET.SubElement(categories, "category", entry)
        _add_fill(symbols, str(number), info)
    ET.SubElement(root, "blendMode").text = "0"
    ET.SubElement(root, "layerOpacity").text = "1"
    ET.SubElement(root, "layerGeometryType").text = "2"
    return qml_document(root)


def _add_fill(symbols: ET.Element, name: str, info: ClassInfo) -> None:
    """Add the symbol of a class, with properties for QGIS from 3.26 on (Option) and for older ones (prop)."""
    color = ",".join(map(str, (*info.rgb, 255)))
    fill = {"color": color, "style": "solid"}
    outline = {
        "outline_color": color, "outline_style": "solid", "outline_width": OUTLINE_WIDTH, "outline_width_unit": "MM",
    }  # fmt: skip
    symbol = ET.SubElement(symbols, "symbol", {"type": "fill", "name": name, "alpha": "1", "force_rhr": "0"})
    layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "pass": "0", "locked": "0"})
    options = ET.SubElement(layer, "Option", type="Map")
    for key, value in (fill | outline).items():
        ET.SubElement(options, "Option", name=key, type="QString", value=value)
        ET.SubElement(layer, "prop", k=key, v=value)
