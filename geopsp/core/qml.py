"""XML documents of layer styles (QGIS's QML) and of class tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree as ET

from geopsp.core.escape import xml_text
from geopsp.core.output import atomic_output

DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"


HEAD = DOCTYPE + '<qgis version="3.22.0" styleCategories="Symbology"'
"""How all styles begin that are written here; QGIS itself writes its version in other words."""


def new_qml(categories: str = "Symbology") -> ET.Element:
    """Return the root of a style of QGIS 3, to be filled with these categories."""
    return ET.Element("qgis", version="3.22.0", styleCategories=categories)


def add_drop_down(fields: ET.Element, name: str, choices: Iterable[tuple[str, str]]) -> None:
    """Add to the fields of a form one that is chosen from a list, of pairs of what is shown and what is stored."""
    field = ET.SubElement(fields, "field", name=name, configurationFlags="None")
    config = ET.SubElement(ET.SubElement(field, "editWidget", type="ValueMap"), "config")
    options = ET.SubElement(ET.SubElement(config, "Option", type="Map"), "Option", name="map", type="List")
    for label, value in choices:
        choice = ET.SubElement(options, "Option", type="Map")
        ET.SubElement(choice, "Option", name=label, type="QString", value=value)


def qml_document(root: ET.Element) -> str:
    """Return a style as text, as `xml_document`."""
    return DOCTYPE + xml_document(root)


def write_qml(path: Path, root: ET.Element) -> bool:
    """Write a style, unless a file is there that is not one of ours; return True if it is written.

    QGIS takes NAME.qml for a raster NAME.tif and for polygons NAME.fgb, and reads from it what suits the layer. So the
    style of a raster keeps that of polygons in the same file, and the other way round.

    Raises:
        OutputError: if it cannot be written.
    """
    if path.exists():
        try:
            text = path.read_text(encoding="utf-8")
            if not text.startswith(HEAD):
                return False
            old = ET.fromstring(text)  # noqa: S314 (our head leaves no place for entities)
        except (OSError, ValueError, ET.ParseError):
            return False
        root.extend(part for part in old if root.find(part.tag) is None)
    with atomic_output(path, overwrite=True) as partial:
        partial.write_text(qml_document(root), encoding="utf-8")
    return True


def xml_document(root: ET.Element) -> str:
    """Return indented XML; characters that it cannot hold, e.g. in the name of a class, are left out."""
    for element in root.iter():
        element.text = element.text and xml_text(element.text)
        for name, value in element.items():
            element.set(name, xml_text(value))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"
