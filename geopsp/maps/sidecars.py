"""What lies beside a class raster: names and colours, where GDAL and QGIS look for them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from geopsp.legend import Legend
from geopsp.outputs import whole

INTEGER, STRING = 0, 2
"""GDAL's types of fields: GFT_Integer, GFT_String."""

FIELDS = (("Value", INTEGER, 5), ("Class", STRING, 2), ("Red", INTEGER, 6), ("Green", INTEGER, 7), ("Blue", INTEGER, 8))
"""Name, type and use: GFU_MinMax, GFU_Name, GFU_Red, GFU_Green, GFU_Blue."""

DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"


def class_files(path: str | Path, legend: Legend, *, restyle: bool = True) -> None:
    """Names of categories and an attribute table lie in NAME.tif.aux.xml, QGIS's style in NAME.qml.

    `restyle`: False leaves a style that is there as it is: somebody made it.

    Raises:
        OutputError: if they cannot be written.
    """
    path = Path(path)
    for place, text in (
        (path.with_name(path.name + ".aux.xml"), attribute_table(legend)),
        (path.with_suffix(".qml"), style(legend)),
    ):
        if place.suffix == ".qml" and place.exists() and not restyle:
            continue
        with whole(place, overwrite=True) as partial:
            partial.write_text(text, encoding="utf-8")


def attribute_table(legend: Legend) -> str:
    """GDAL's XML of the names of categories, one a code from 0, and of the attribute table, one row a class."""
    root = ET.Element("PAMDataset")
    band = ET.SubElement(root, "PAMRasterBand", band="1")
    categories = ET.SubElement(band, "CategoryNames")
    names = {info.code: info.name for info in legend}
    for code in range(max(names, default=-1) + 1):
        ET.SubElement(categories, "Category").text = names.get(code, "")
    table = ET.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for number, (name, kind, use) in enumerate(FIELDS):
        field = ET.SubElement(table, "FieldDefn", index=str(number))
        for key, value in (("Name", name), ("Type", kind), ("Usage", use)):
            ET.SubElement(field, key).text = str(value)
    for number, info in enumerate(legend):
        row = ET.SubElement(table, "Row", index=str(number))
        for value in (info.code, info.name, *info.rgb):
            ET.SubElement(row, "F").text = str(value)
    return _text(root)


def style(legend: Legend) -> str:
    """A style of QGIS 3 with a colour and a label for each class."""
    root = ET.Element("qgis", version="3.22.0", styleCategories="Symbology")
    pipe = ET.SubElement(root, "pipe")
    look = {"type": "paletted", "band": "1", "opacity": "1", "alphaBand": "-1", "nodataColor": ""}
    renderer = ET.SubElement(pipe, "rasterrenderer", look)
    ET.SubElement(renderer, "rasterTransparency")
    palette = ET.SubElement(renderer, "colorPalette")
    for info in legend:
        entry = {"value": str(info.code), "color": info.color, "alpha": "255", "label": info.name}
        ET.SubElement(palette, "paletteEntry", entry)
    ET.SubElement(root, "blendMode").text = "0"
    return DOCTYPE + _text(root)


def _text(root: ET.Element) -> str:
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"
