"""Read and write the classes of a class raster.

Read: our own tag, else the attribute table, category names and colour table that GDAL, QGIS and ArcGIS write.
Written: the `.aux.xml` of GDAL and the `.qml` style of QGIS beside the raster.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import rasterio.shutil
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile

from geopsp.core.documents import parse_json
from geopsp.core.legend import CLASSES_TAG, IGNORE_INDEX, Legend
from geopsp.core.output import atomic_output
from geopsp.core.qml import xml_document
from geopsp.core.schema import ClassEntries, Schema, require_fit
from geopsp.core.text import format_error
from geopsp.errors import RasterError
from geopsp.raster.open import GDAL_ERRORS, gdal_env, open_raster, read_tags
from geopsp.raster.raster_style import write_class_style

BLACK = "#000000"


NAME, VALUES, COLORS = "2", {"3", "5"}, ("6", "7", "8")
"""GDAL's numbers for the usage of a column: GFU_Name; GFU_Min or GFU_MinMax; GFU_Red, GFU_Green, GFU_Blue."""


NAME_COLUMNS = ("class_name", "classname", "class_names", "category", "label", "name", "class", "type", "description")
"""Names of columns that may hold class names, the most likely first."""


MAX_CODE = 2**31 - 1
"""The largest code of a class table; a table that counts further is no table of classes."""


def read_legend(path: str | Path) -> Legend | None:
    """Read the classes of a class raster; None if it has no class table.

    From our own tag; else from the attribute table or category names, in the file or its `.aux.xml`, and the colour
    table.

    Raises:
        InputNotFoundError, RasterError: if the raster does not exist, or our tag is damaged.
    """
    names, colors = read_class_table(path)
    names = {code: name for code, name in names.items() if code < IGNORE_INDEX}
    return Legend.from_names(names, colors) if names else None


def read_class_table(path: str | Path) -> tuple[dict[int, str], dict[int, str]]:
    """Return the names and colours of a class raster by code, which may be any number from 0 on.

    Colours may be of more codes than names. Of a colour table without names, each colour is a class but for black ones:
    where there are several, they only pad the table.

    Raises:
        InputNotFoundError, RasterError: as `read_legend`.
    """
    with gdal_env(path), open_raster(path) as dataset:
        text = read_tags(dataset).get(CLASSES_TAG)
        if text:
            legend = _parse_tag(text, path)
            return dict(zip(legend.codes, legend.names, strict=True)), {info.code: info.color for info in legend}
        if dataset.count != 1 and dataset.colorinterp[-1] != ColorInterp.alpha:
            return {}, {}
        palette = _read_color_table(dataset)
        names, colors = _read_attribute_table(dataset)
    if not names:
        names = {code: f"class {code}" for code in _classes_of(palette)}
    return names, palette | colors


class ClassTable(Schema):
    """The classes in a tag."""

    classes: ClassEntries


def _parse_tag(text: str, path: str | Path) -> Legend:
    try:
        content = parse_json(text)
        require_fit({"classes": content}, ClassTable)
        return Legend.from_json(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RasterError(
            f"Cannot read the tag {CLASSES_TAG} of {path}: {format_error(error)}. It must be a JSON list of codes, "
            "names and colours. Remove the tag from the file, or classify again."
        ) from error


def _read_color_table(dataset: rasterio.DatasetReader) -> dict[int, str]:
    """Return colours by code, without transparent ones; {} if all are black."""
    try:
        entries = dataset.colormap(1)
    except ValueError:
        return {}
    colors = {code: _hex_color(*rgb) for code, (*rgb, alpha) in entries.items() if alpha}
    return colors if set(colors.values()) - {BLACK} else {}


def _classes_of(palette: Mapping[int, str]) -> list[int]:
    """Return the codes of a colour table that are classes."""
    is_padded = list(palette.values()).count(BLACK) > 1
    return [code for code, color in palette.items() if code < IGNORE_INDEX and not (is_padded and color == BLACK)]


def _read_attribute_table(dataset: rasterio.DatasetReader) -> tuple[dict[int, str], dict[int, str]]:
    """Return names and colours by code; the attribute table takes precedence over category names."""
    try:
        with MemoryFile(ext=".vrt") as file:  # only as XML does GDAL give both for any format
            rasterio.shutil.copy(dataset, file.name, driver="VRT")
            band = ET.fromstring(file.read()).find("VRTRasterBand")  # noqa: S314 (GDAL wrote it)
    except (*GDAL_ERRORS, ET.ParseError):
        return {}, {}
    if band is None:
        return {}, {}
    texts = [(entry.text or "").strip() for entry in band.iterfind("CategoryNames/Category")]
    names, colors = {code: text for code, text in enumerate(texts) if text}, {}
    attributes = band.find("GDALRasterAttributeTable")
    for code, name, color in _parse_rows(attributes) if attributes is not None else ():
        if name:
            names[code] = name
        if color:
            colors[code] = color
    return names, {code: color for code, color in colors.items() if code in names}


def _parse_rows(table: ET.Element) -> Iterator[tuple[int, str, str]]:
    """Yield code, name and colour of each row with a single integer code; "" where there is no name or colour."""
    definitions = table.findall("FieldDefn")
    fields = [(each.findtext("Name", "").strip().lower(), each.findtext("Usage", "0")) for each in definitions]
    value = _find_column(fields, VALUES, ("value", "code", "class_value", "classvalue", "id"))
    name = _find_column(fields, {NAME}, NAME_COLUMNS)
    rgb = [_find_column(fields, {usage}, (word,)) for usage, word in zip(COLORS, ("red", "green", "blue"), strict=True)]
    columns = [column for column in rgb if column is not None]
    rows = [[cell.text or "" for cell in row.iterfind("F")] for row in table.iterfind("Row")]
    cells = [[_parse_number(row[column]) for column in columns] for row in rows]
    whole = all(definitions[column].findtext("Type") == str(INTEGER) for column in columns)
    # some tools write colours from 0 to 1, in columns of real numbers
    scale = 255 if not whole and all(cell <= 1 for row in cells for cell in row) else 1
    for number, (row, levels) in enumerate(zip(rows, cells, strict=True)):
        code = _parse_number(row[value]) if value is not None else number
        if code == int(code) and 0 <= code <= MAX_CODE:
            has_color = len(levels) == 3 and min(levels) >= 0
            yield (
                int(code),
                row[name].strip() if name is not None else "",
                _hex_color(*(round(level * scale) for level in levels)) if has_color else "",
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


def sidecar_path(path: Path) -> Path:
    """Return the path of GDAL's file beside a raster, for what its format has no place for."""
    return path.with_name(f"{path.name}.aux.xml")


def write_class_files(path: str | Path, legend: Legend) -> None:
    """Write the attribute table and category names to NAME.tif.aux.xml, and QGIS's style to NAME.qml.

    A style that is not ours stays.

    Raises:
        OutputError: if they cannot be written.
    """
    path = Path(path)
    with atomic_output(sidecar_path(path), overwrite=True) as partial:
        partial.write_text(attribute_table(legend), encoding="utf-8")
    write_class_style(path, legend)


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
