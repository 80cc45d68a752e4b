"""How QGIS shows the polygons of a GeoPackage: in the colours and with the names of their classes."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree as ET

from geopsp.core.legend import ClassInfo, Legend

DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"


HAIRLINE = "0.1"
"""Millimetres; in the fill's colour, so that no background shines through between neighbours."""


UNFIT = re.compile(r"[^\t\n\r -\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")
"""Characters that no XML 1.0 can hold. Source: https://www.w3.org/TR/xml/#charsets"""


STYLES = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), f_table_schema TEXT(256),
    f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
    useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),
    update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
)
"""
"""The table in which QGIS keeps styles, as QGIS makes it."""


FAST_PRAGMAS = ("PRAGMA synchronous = OFF", "PRAGMA journal_mode = MEMORY")
"""As GDAL has it in a new file; SQLite itself would wait until all of the file is on the disk."""


CONTENT = "INSERT INTO gpkg_contents (table_name, data_type, identifier) VALUES ('layer_styles', 'attributes', ?)"


STYLE = """
INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, styleQML,
                          styleSLD, useAsDefault, description, owner)
SELECT '', '', table_name, column_name, 'classes', ?, '', 1, 'Class colours', '' FROM gpkg_geometry_columns
"""


def add_style(package: str | Path, legend: Legend) -> None:
    """QGIS shows the layer of the GeoPackage in the legend's colours, unless told otherwise.

    After a failure the file may be damaged.

    Raises:
        sqlite3.Error: if it cannot be written.
    """
    with closing(sqlite3.connect(package)) as base, base:
        for pragma in FAST_PRAGMAS:
            base.execute(pragma)
        base.execute(STYLES)
        base.execute(CONTENT, ("layer_styles",))
        base.execute(STYLE, (style(legend),))


def style(legend: Legend) -> str:
    """A style of QGIS 3 with a fill and a label for each class, told by the column `code`.

    Labels are the names without what XML cannot hold.
    """
    root = ET.Element("qgis", version="3.22.0", styleCategories="Symbology")
    look = {"type": "categorizedSymbol", "attr": "code", "symbollevels": "0", "enableorderby": "0", "forceraster": "0"}
    renderer = ET.SubElement(root, "renderer-v2", look)
    categories, symbols = ET.SubElement(renderer, "categories"), ET.SubElement(renderer, "symbols")
    for number, info in enumerate(legend):
        entry = {"value": str(info.code), "type": "long", "symbol": str(number), "render": "true"}
        entry["label"] = UNFIT.sub("", info.name)
        ET.SubElement(categories, "category", entry)
        _add_fill(symbols, str(number), info)
    ET.SubElement(root, "blendMode").text = "0"
    ET.SubElement(root, "layerOpacity").text = "1"
    ET.SubElement(root, "layerGeometryType").text = "2"
    ET.indent(root)
    return DOCTYPE + ET.tostring(root, encoding="unicode") + "\n"


def _add_fill(symbols: ET.Element, name: str, info: ClassInfo) -> None:
    """The symbol of a class, its properties as QGIS writes them from 3.26 on, and as older ones do."""
    color = ",".join(map(str, (*info.rgb, 255)))
    filled = {"color": color, "style": "solid"}
    edged = {"outline_color": color, "outline_style": "solid", "outline_width": HAIRLINE, "outline_width_unit": "MM"}
    symbol = ET.SubElement(symbols, "symbol", {"type": "fill", "name": name, "alpha": "1", "force_rhr": "0"})
    layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "pass": "0", "locked": "0"})
    options = ET.SubElement(layer, "Option", type="Map")
    for key, value in (filled | edged).items():
        ET.SubElement(options, "Option", name=key, type="QString", value=value)
        ET.SubElement(layer, "prop", k=key, v=value)
