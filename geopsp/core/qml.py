"""XML documents of layer styles (QGIS's QML) and of class tables."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"


INVALID = re.compile(r"[^\t\n\r -\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")
"""Characters that XML 1.0 cannot hold. Source: https://www.w3.org/TR/xml/#charsets"""


def new_qml() -> ET.Element:
    """Return the root of a style of QGIS 3, to be filled."""
    return ET.Element("qgis", version="3.22.0", styleCategories="Symbology")


def qml_document(root: ET.Element) -> str:
    """Return a style as text, as `xml_document`."""
    return DOCTYPE + xml_document(root)


def xml_document(root: ET.Element) -> str:
    """Return indented XML; characters that it cannot hold, e.g. in the name of a class, are left out."""
    for element in root.iter():
        element.text = element.text and INVALID.sub("", element.text)
        for name, value in element.items():
            element.set(name, INVALID.sub("", value))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"
