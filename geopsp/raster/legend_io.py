"""The classes that a raster file tells of: our own tag, else names and colours as GDAL, QGIS and ArcGIS keep them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import rasterio.shutil
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from geopsp.core.legend import CLASSES_TAG, IGNORE_INDEX, Legend
from geopsp.core.output import atomic_output
from geopsp.core.qml import new_qml, qml_document, xml_document
from geopsp.errors import RasterError
from geopsp.raster.open import gdal_env, open_raster

NAME, VALUES, COLORS = "2", {"3", "5"}, ("6", "7", "8")
"""Usages of an attribute table's columns, by GDAL's numbers: the name; the value or its lower end; red, green, blue."""


NAME_WORDS = ("class_name", "classname", "class_names", "category", "label", "name", "class", "type", "description")


def read_legend(path: str | Path) -> Legend | None:
    """The classes that a class raster says it holds; None if it says nothing.

    By our own tag; else by category names or an attribute table, in the file or the `.aux.xml` beside it, and by the
    colour table.

    Raises:
        InputNotFoundError, RasterError: if there is no such raster, or our tag is damaged.
    """
    with gdal_env(path), open_raster(path) as dataset:
        text = dataset.tags().get(CLASSES_TAG)
        if text:
            return _own(text, path)
        if dataset.count != 1:
            return None
        palette = _palette(dataset)
        names, colors = _table(dataset)
    if not names:
        names = {code: f"class {code}" for code in palette}
    return Legend.from_names(names, palette | colors) if names else None


def _own(text: str, path: str | Path) -> Legend:
    try:
        return Legend.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RasterError(
            f"{path} has a tag {CLASSES_TAG} that is no class table ({error}); needed a list of codes, names and "
            "colours as JSON. Take the tag out of the file, or classify again."
        ) from error


def _palette(dataset: rasterio.DatasetReader) -> dict[int, str]:
    """Colours by code; black and transparent ones fill a table up and tell nothing."""
    try:
        entries = dataset.colormap(1)
    except ValueError:
        return {}
    return {
        code: _hex(red, green, blue)
        for code, (red, green, blue, alpha) in entries.items()
        if code < IGNORE_INDEX and alpha and (red or green or blue)
    }


def _table(dataset: rasterio.DatasetReader) -> tuple[dict[int, str], dict[int, str]]:
    """Names and colours by code, of category names, and of the attribute table, which goes before."""
    try:
        with MemoryFile(ext=".vrt") as file:  # GDAL tells them in XML only, for any format
            rasterio.shutil.copy(dataset, file.name, driver="VRT")
            band = ET.fromstring(file.read()).find("VRTRasterBand")  # noqa: S314 (GDAL wrote it)
    except (RasterioError, ET.ParseError):
        return {}, {}
    if band is None:
        return {}, {}
    texts = [(entry.text or "").strip() for entry in band.iterfind("CategoryNames/Category")]
    names, colors = {code: text for code, text in enumerate(texts[:IGNORE_INDEX]) if text}, {}
    attributes = band.find("GDALRasterAttributeTable")
    for code, name, color in _rows(attributes) if attributes is not None else ():
        if name:
            names[code] = name
        if color:
            colors[code] = color
    return names, {code: color for code, color in colors.items() if code in names}


def _rows(table: ET.Element) -> Iterator[tuple[int, str, str]]:
    """Code, name and colour of each row that stands for one code; empty where there is none."""
    fields = [(f.findtext("Name", "").strip().lower(), f.findtext("Usage", "0")) for f in table.iterfind("FieldDefn")]
    value = _column(fields, VALUES, ("value", "code", "class_value", "classvalue", "id"))
    name = _column(fields, {NAME}, NAME_WORDS)
    rgb = [_column(fields, {usage}, (word,)) for usage, word in zip(COLORS, ("red", "green", "blue"), strict=True)]
    rows = [[cell.text or "" for cell in row.iterfind("F")] for row in table.iterfind("Row")]
    cells = [[row[column] for column in rgb if column is not None] for row in rows]
    unit = all(_number(cell) <= 1 for row in cells for cell in row)  # some write colours as shares of one
    for number, (row, color) in enumerate(zip(rows, cells, strict=True)):
        code = _number(row[value]) if value is not None else number
        if code == int(code) and 0 <= code < IGNORE_INDEX:
            levels = [round(_number(cell) * (255 if unit else 1)) for cell in color]
            yield int(code), row[name].strip() if name is not None else "", _hex(*levels) if len(levels) == 3 else ""


def _column(fields: Sequence[tuple[str, str]], usages: set[str], words: Sequence[str]) -> int | None:
    """The column that is meant so, else the one that is called so."""
    by_word: Mapping[str, int] = {name: column for column, (name, _) in reversed(list(enumerate(fields)))}
    meant = [column for column, (_, usage) in enumerate(fields) if usage in usages]
    return next(iter([*meant, *(by_word[word] for word in words if word in by_word)]), None)


def _number(text: str) -> float:
    """The number; -1 for what is none."""
    try:
        number = float(text)
    except ValueError:
        return -1.0
    return number if math.isfinite(number) else -1.0


def _hex(red: int, green: int, blue: int) -> str:
    return "#" + "".join(f"{min(max(level, 0), 255):02x}" for level in (red, green, blue))


INTEGER, STRING = 0, 2
"""GDAL's types of fields: GFT_Integer, GFT_String."""


FIELDS = (("Value", INTEGER, 5), ("Class", STRING, 2), ("Red", INTEGER, 6), ("Green", INTEGER, 7), ("Blue", INTEGER, 8))
"""Name, type and use: GFU_MinMax, GFU_Name, GFU_Red, GFU_Green, GFU_Blue."""


def write_class_files(path: str | Path, legend: Legend, *, restyle: bool = True) -> None:
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
        with atomic_output(place, overwrite=True) as partial:
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
    return xml_document(root)


def style(legend: Legend) -> str:
    """A style of QGIS 3 with a colour and a label for each class."""
    root = new_qml()
    pipe = ET.SubElement(root, "pipe")
    look = {"type": "paletted", "band": "1", "opacity": "1", "alphaBand": "-1", "nodataColor": ""}
    renderer = ET.SubElement(pipe, "rasterrenderer", look)
    ET.SubElement(renderer, "rasterTransparency")
    palette = ET.SubElement(renderer, "colorPalette")
    for info in legend:
        entry = {"value": str(info.code), "color": info.color, "alpha": "255", "label": info.name}
        ET.SubElement(palette, "paletteEntry", entry)
    ET.SubElement(root, "blendMode").text = "0"
    return qml_document(root)
