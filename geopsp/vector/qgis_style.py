"""QGIS styles in a GeoPackage or beside a file; that of polygons: colours and names of their classes."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree as ET

from geopsp.core.legend import ClassInfo
from geopsp.core.qml import new_qml, qml_document, write_qml

logger = logging.getLogger(__name__)

OUTLINE_WIDTH = "0.1"
"""Millimetres; in the fill's colour, so that the background does not show between neighbours."""


CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS layer_styles (
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
    "INSERT OR IGNORE INTO gpkg_contents (table_name, data_type, identifier) VALUES ('layer_styles', 'attributes', ?)"
)


INSERT_STYLE = """
INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, styleQML,
                          styleSLD, useAsDefault, description, owner)
SELECT '', '', table_name, column_name, ?, ?, '', 1, ?, '' FROM gpkg_geometry_columns
WHERE table_name = ifnull(?, table_name)
"""


def add_style(package: str | Path, classes: Iterable[ClassInfo]) -> None:
    """Add the default style of a GeoPackage's layer, in the colours of the classes.

    After an error the file may be damaged.

    Raises:
        sqlite3.Error: if it cannot be written.
    """
    add_qml(package, polygon_style(classes), name="classes", description="Class colours")


def add_qml(package: str | Path, qml: str, *, name: str, description: str, layer: str | None = None) -> None:
    """Add a default style of a layer of a GeoPackage that has none yet.

    After an error the file may be damaged.

    Args:
        package: The file.
        qml: The style as QGIS writes it.
        name: Of the style, at most 30 characters.
        description: Of the style.
        layer: The layer; None: the only one.

    Raises:
        sqlite3.Error: if it cannot be written.
    """
    with closing(sqlite3.connect(package)) as base, base:
        for pragma in FAST_PRAGMAS:
            base.execute(pragma)
        base.execute(CREATE_TABLE)
        base.execute(INSERT_CONTENTS, ("layer_styles",))
        base.execute(INSERT_STYLE, (name, qml, description, layer))


def write_style(path: Path, classes: Iterable[ClassInfo]) -> None:
    """Write the style of a vector file beside it, as NAME.qml; a style that is not ours stays.

    Raises:
        OutputError: if it cannot be written.
    """
    target = path.with_suffix(".qml")
    if not write_qml(target, _style(classes)):
        logger.info(
            "%s is kept, as geopsp did not write it, and QGIS takes it as the style of %s. Rename it to get a style of "
            "the classes with the next file.",
            target.name, path.name,
        )  # fmt: skip


def polygon_style(classes: Iterable[ClassInfo]) -> str:
    """Return a QGIS 3 style with a fill and a label for each class, by the column `code`."""
    return qml_document(_style(classes))


def _style(classes: Iterable[ClassInfo]) -> ET.Element:
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
    for number, info in enumerate(classes):
        entry = {
            "value": str(info.code), "type": "long", "symbol": str(number), "render": "true", "label": info.name,
        }  # fmt: skip
        ET.SubElement(categories, "category", entry)
        _add_fill(symbols, str(number), info)
    ET.SubElement(root, "blendMode").text = "0"
    ET.SubElement(root, "layerOpacity").text = "1"
    ET.SubElement(root, "layerGeometryType").text = "2"
    return root


def _add_fill(symbols: ET.Element, name: str, info: ClassInfo) -> None:
    """Add the symbol of a class, with properties for QGIS from 3.26 on (Option) and for older ones (prop)."""
    color = ",".join(map(str, (*info.rgb, info.alpha)))
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


def style_by_text(attribute: str, classes: Iterable[ClassInfo]) -> ET.Element:
    """Return a QGIS 3 style with a fill and a label for each class, by a column that holds its name."""
    listed = list(classes)
    root = _style(listed)
    for renderer in root.iter("renderer-v2"):
        renderer.set("attr", attribute)
    for category, info in zip(root.iter("category"), listed, strict=True):
        category.set("value", info.name)
        category.set("type", "string")
    return root
