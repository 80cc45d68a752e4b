"""Read and write the classes of a class raster.

Read: our own tag, else the attribute table, category names and colour table that GDAL, QGIS and ArcGIS write.
Written: the `.aux.xml` of GDAL and the `.qml` style of QGIS beside the raster.
"""

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
from geopsp.core.text import format_error
from geopsp.errors import RasterError
from geopsp.raster.open import gdal_env, open_raster

NAME, VALUES, COLORS = "2", {"3", "5"}, ("6", "7", "8")
"""GDAL's numbers for the usage of a column: GFU_Name; GFU_Min or GFU_MinMax; GFU_Red, GFU_Green, GFU_Blue."""


NAME_COLUMNS = ("class_name", "classname", "class_names", "category", "label", "name", "class", "type", "description")
"""Names of columns that may hold class names, the most likely first."""


def read_legend(path: str | Path) -> Legend | None:
    """Read the classes of a class raster; None if it has no class table.

    From our own tag; else from the attribute table or category names, in the file or its `.aux.xml`, and the colour
    table.

    Raises:
        InputNotFoundError, RasterError: if the raster does not exist, or our tag is damaged.
    """
    with gdal_env(path), open_raster(path) as dataset:
        text = dataset.tags().get(CLASSES_TAG)
        if text:
            return _parse_tag(text, path)
        if dataset.count != 1:
            return None
        palette = _read_color_table(dataset)
        names, colors = _read_attribute_table(dataset)
    if not names:
        names = {code: f"class {code}" for code in palette}
    return Legend.from_names(names, palette | colors) if names else None


def _parse_tag(text: str, path: str | Path) -> Legend:
    try:
        return Legend.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RasterError(
            f"Cannot read the tag {CLASSES_TAG} of {path}: {format_error(error)}. It must be a JSON list of codes, "
            "names and colours. Remove the tag from the file, or classify again."
        ) from error


def _read_color_table(dataset: rasterio.DatasetReader) -> dict[int, str]:
    """Return colours by code, without black and transparent ones, which only pad the table."""
    try:
        entries = dataset.colormap(1)
    except ValueError:
        return {}
    return {
        code: _hex_color(red, green, blue)
        for code, (red, green, blue, alpha) in entries.items()
        if code < IGNORE_INDEX and alpha and (red or green or blue)
    }


def _read_attribute_table(dataset: rasterio.DatasetReader) -> tuple[dict[int, str], dict[int, str]]:
    """Return names and colours by code; the attribute table takes precedence over category names."""
    try:
        with MemoryFile(ext=".vrt") as file:  # only as XML does GDAL give both for any format
            rasterio.shutil.copy(dataset, file.name, driver="VRT")
            band = ET.fromstring(file.read()).find("VRTRasterBand")  # noqa: S314 (GDAL wrote it)
    except (RasterioError, ET.ParseError):
        return {}, {}
    if band is None:
        return {}, {}
    texts = [(entry.text or "").strip() for entry in band.iterfind("CategoryNames/Category")]
    names, colors = {code: text for code, text in enumerate(texts[:IGNORE_INDEX]) if text}, {}
    attributes = band.find("GDALRasterAttributeTable")
    for code, name, color in _parse_rows(attributes) if attributes is not None else ():
        if name:
            names[code] = name
        if color:
            colors[code] = color
    return names, {code: color for code, color in colors.items() if code in names}


def _parse_rows(table: ET.Element) -> Iterator[tuple[int, str, str]]:
    """Yield code, name and colour of each row with a single integer code; "" where there is no name or colour."""
    fields = [(f.findtext("Name", "").strip().lower(), f.findtext("Usage", "0")) for f in table.iterfind("FieldDefn")]
    value = _find_column(fields, VALUES, ("value", "code", "class_value", "classvalue", "id"))
    name = _find_column(fields, {NAME}, NAME_COLUMNS)
    rgb = [_find_column(fields, {usage}, (word,)) for usage, word in zip(COLORS, ("red", "green", "blue"), strict=True)]
    rows = [[cell.text or "" for cell in row.iterfind("F")] for row in table.iterfind("Row")]
    cells = [[row[column] for column in rgb if column is not None] for row in rows]
    fractions = all(_parse_number(cell) <= 1 for row in cells for cell in row)  # some tools write colours from 0 to 1
    for number, (row, color) in enumerate(zip(rows, cells, strict=True)):
        code = _parse_number(row[value]) if value is not None else number
        if code == int(code) and 0 <= code < IGNORE_INDEX:
            levels = [round(_parse_number(cell) * (255 if fractions else 1)) for cell in color]
            yield (
                int(code),
                row[name].strip() if name is not None else "",
                _hex_color(*levels) if len(levels) == 3 else "",
            )


def _find_column(fields: Sequence[tuple[str, str]], usages: set[str], names: Sequence[str]) -> int | None:
    """Return the first column with one of the usages, else the one with the first of the names."""
    by_name: Mapping[str, int] = {name: column for column, (name, _) in reversed(list(enumerate(fields)))}
    by_usage = [column for column, (_, usage) in enumerate(fields) if usage in usages]
    return next(iter([*by_usage, *(by_name[name] for name in names if name in by_name)]), None)


def _parse_number(text: str) -> float:
    """Parse a finite number; -1 if it is none."""
    try:
        number = float(text)
    except ValueError:
        return -1.0
    return number if math.isfinite(number) else -1.0


def _hex_color(red: int, green: int, blue: int) -> str:
    return "#" + "".join(f"{min(max(level, 0), 255):02x}" for level in (red, green, blue))


INTEGER, STRING = 0, 2
"""GDAL's field types: GFT_Integer, GFT_String."""


FIELDS = (("Value", INTEGER, 5), ("Class", STRING, 2), ("Red", INTEGER, 6), ("Green", INTEGER, 7), ("Blue", INTEGER, 8))
"""Name, type and usage of each column: GFU_MinMax, GFU_Name, GFU_Red, GFU_Green, GFU_Blue."""


def write_class_files(path: str | Path, legend: Legend, *, overwrite_style: bool = True) -> None:
    """Write the attribute table and category names to NAME.tif.aux.xml, and QGIS's style to NAME.qml.

    Args:
        path: The class raster.
        legend: Its classes.
        overwrite_style: False keeps a style that exists, as a user may have made it.

    Raises:
        OutputError: if they cannot be written.
    """
    path = Path(path)
    for target, text in (
        (path.with_name(path.name + ".aux.xml"), attribute_table(legend)),
        (path.with_suffix(".qml"), style(legend)),
    ):
        if target.suffix == ".qml" and target.exists() and not overwrite_style:
            continue
        with atomic_output(target, overwrite=True) as partial:
            partial.write_text(text, encoding="utf-8")


def attribute_table(legend: Legend) -> str:
    """Return GDAL's XML of the category names, one per code from 0, and of the attribute table, one row per class."""
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
    """Return a QGIS 3 style with a colour and a label for each class."""
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
