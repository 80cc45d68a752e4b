"""QGIS style and form of a sample: a drop-down of class names, and what would tell the mapped class hidden."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree import ElementTree as ET

from geopsp.core.legend import ClassInfo
from geopsp.core.qml import add_drop_down, new_qml, qml_document

QGIS_NULL = "{2839923C-8B7D-419E-B84B-CA2FE9B80EC7}"
"""What QGIS writes for NULL among the values of a drop-down."""


CANNOT_TELL = "(cannot tell)"


CATEGORIES = "Symbology|Fields|Forms|AttributeTable"


ALWAYS_HIDDEN = ("fid", "inclusion_probability", "cluster", "pixel_row", "pixel_col", "pixel_area")


HIDDEN_IF_BLIND = ("map_class", "map_code", "confidence", "stratum")


SHOWN = ("id", "reference", "note")


RULES = (("labelled", "reference IS NOT NULL AND reference <> ''", "46,160,67,255"),
         ("not labelled", "ELSE", "235,75,60,255"))  # fmt: skip
"""Label, condition and colour of the symbols."""


def sample_style(classes: Iterable[ClassInfo], *, show_map_class: bool) -> str:
    """Return the style, as QGIS 3 reads it, of a layer of points with the fields of a sample.

    Args:
        classes: The classes of the drop-down.
        show_map_class: True to show the fields that tell what the map says.
    """
    hidden = (*ALWAYS_HIDDEN, *(() if show_map_class else HIDDEN_IF_BLIND))
    shown = (*SHOWN, *(HIDDEN_IF_BLIND if show_map_class else ()))
    root = new_qml(CATEGORIES)
    _add_rules(root)
    _add_widgets(root, classes, shown, hidden)
    editable = ET.SubElement(root, "editable")
    for name in (*shown, *hidden):
        can_edit = "1" if name in {"reference", "note"} else "0"
        ET.SubElement(editable, "field", name=name, editable=can_edit)
    _add_columns(root, shown, hidden)
    ET.SubElement(root, "previewExpression").text = '"id"'
    ET.SubElement(root, "layerGeometryType").text = "0"
    return qml_document(root)


def _add_rules(root: ET.Element) -> None:
    """Add symbols: labelled points differ from the others, and no symbol tells the class."""
    renderer = ET.SubElement(
        root, "renderer-v2", type="RuleRenderer", symbollevels="0", enableorderby="0", forceraster="0"
    )
    rules, symbols = ET.SubElement(renderer, "rules", key="sample"), ET.SubElement(renderer, "symbols")
    for number, (label, condition, color) in enumerate(RULES):
        ET.SubElement(rules, "rule", key=label, label=label, filter=condition, symbol=str(number))
        symbol = ET.SubElement(
            symbols, "symbol", {"type": "marker", "name": str(number), "alpha": "1", "force_rhr": "0"}
        )
        layer = ET.SubElement(symbol, "layer", {"class": "SimpleMarker", "enabled": "1", "pass": "0", "locked": "0"})
        properties = {
            "name": "circle", "color": color, "size": "2.4", "size_unit": "MM", "outline_color": "255,255,255,255",
            "outline_style": "solid", "outline_width": "0.4", "outline_width_unit": "MM",
        }  # fmt: skip
        options = ET.SubElement(layer, "Option", type="Map")
        for key, value in properties.items():
            ET.SubElement(options, "Option", name=key, type="QString", value=value)
            ET.SubElement(layer, "prop", k=key, v=value)


def _add_widgets(root: ET.Element, classes: Iterable[ClassInfo], shown: Sequence[str], hidden: Sequence[str]) -> None:
    """Add the widgets of the form, one per field."""
    fields = ET.SubElement(root, "fieldConfiguration")
    for name in (*shown, *hidden):
        if name == "reference":
            add_drop_down(fields, name, [(CANNOT_TELL, QGIS_NULL), *((info.name, info.name) for info in classes)])
            continue
        field = ET.SubElement(fields, "field", name=name, configurationFlags="None")
        kind = "Hidden" if name in hidden else "TextEdit"
        config = ET.SubElement(ET.SubElement(field, "editWidget", type=kind), "config")
        options = ET.SubElement(config, "Option", type="Map")
        if kind == "TextEdit":
            ET.SubElement(options, "Option", name="IsMultiline", type="bool", value=str(name == "note").lower())
            ET.SubElement(options, "Option", name="UseHtml", type="bool", value="false")


def _add_columns(root: ET.Element, shown: Sequence[str], hidden: Sequence[str]) -> None:
    """Add the columns of the attribute table, in the order of the points."""
    table = ET.SubElement(
        root, "attributetableconfig", actionWidgetStyle="dropDown", sortExpression='"id"', sortOrder="0"
    )
    columns = ET.SubElement(table, "columns")
    for name in (*shown, *hidden):
        ET.SubElement(columns, "column", type="field", name=name, width="-1", hidden=str(int(name in hidden)))
