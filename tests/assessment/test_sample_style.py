"""The form of a sample offers the classes, and does not tell what the map says."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from xml.etree import ElementTree as ET

import pyogrio
import pytest
from assessment_common import CLASSES, example_sample
from hypothesis import given
from hypothesis import strategies as st

from geopsp.assessment.sampling.sample_file import POINT_SCHEMA, write_sample
from geopsp.assessment.sampling.sample_style import QGIS_NULL, sample_style
from geopsp.core.legend import ClassInfo

TELLING = {"map_class", "map_code", "confidence", "stratum"}


def widgets(qml):
    """{field: kind of its widget}"""
    fields = ET.fromstring(qml).findall("fieldConfiguration/field")
    return {field.get("name"): field.find("editWidget").get("type") for field in fields}


def choices(qml):
    """[(label, value)] of the drop-down, in its order."""
    (field,) = ET.fromstring(qml).findall("fieldConfiguration/field[@name='reference']")
    entries = field.findall("editWidget/config/Option/Option[@name='map']/Option/Option")
    return [(entry.get("name"), entry.get("value")) for entry in entries]


def test_the_form_is_blind():
    found = widgets(sample_style(CLASSES, show_map_class=False))
    assert set(found) == {"fid", *POINT_SCHEMA.names}
    assert {name for name, kind in found.items() if kind != "Hidden"} == {"id", "reference", "note"}
    assert (found["reference"], found["note"]) == ("ValueMap", "TextEdit")


def test_the_form_shows_the_map_if_asked():
    found = widgets(sample_style(CLASSES, show_map_class=True))
    assert {name for name, kind in found.items() if kind == "TextEdit"} == {"id", "note", *TELLING}


@pytest.mark.parametrize("show_map_class", [True, False])
def test_the_table_hides_what_the_form_hides(show_map_class):
    qml = sample_style(CLASSES, show_map_class=show_map_class)
    columns = ET.fromstring(qml).findall("attributetableconfig/columns/column")
    hidden = {column.get("name") for column in columns if column.get("hidden") == "1"}
    assert hidden == {name for name, kind in widgets(qml).items() if kind == "Hidden"}


def test_only_labels_and_notes_can_be_edited():
    fields = ET.fromstring(sample_style(CLASSES, show_map_class=True)).findall("editable/field")
    assert {field.get("name") for field in fields if field.get("editable") == "1"} == {"reference", "note"}


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), min_size=1, unique=True))
def test_the_drop_down_has_the_classes(names):
    classes = [ClassInfo(code, name, "#123456") for code, name in enumerate(names)]
    found = choices(sample_style(classes, show_map_class=False))
    assert found[0] == ("(cannot tell)", QGIS_NULL)
    expected = [ET.fromstring(f"<a>{ET.tostring(_text(name), encoding='unicode')}</a>")[0].get("n") for name in names]
    assert [value for _, value in found[1:]] == expected


def _text(name):
    return ET.Element("b", n="".join(c for c in name if c not in "\ufffe\uffff"))


def test_labelled_points_differ():
    renderer = ET.fromstring(sample_style(CLASSES, show_map_class=False)).find("renderer-v2[@type='RuleRenderer']")
    rules = renderer.findall("rules/rule")
    assert [rule.get("label") for rule in rules] == ["labelled", "not labelled"]
    assert rules[1].get("filter") == "ELSE"
    colors = {
        symbol.get("name"): symbol.find("layer/Option/Option[@name='color']").get("value")
        for symbol in renderer.findall("symbols/symbol[@type='marker']")
    }
    assert colors[rules[0].get("symbol")] != colors[rules[1].get("symbol")]
    for info in CLASSES:
        assert info.color not in ET.tostring(renderer, encoding="unicode")  # the colour would tell the class


def test_the_style_is_in_the_file(tmp_path):
    qml = sample_style(CLASSES, show_map_class=False)
    path = write_sample(example_sample(), tmp_path / "points.gpkg", qml=qml)
    with closing(sqlite3.connect(path)) as base:
        rows = base.execute("SELECT f_table_name, styleQML, useAsDefault FROM layer_styles").fetchall()
    assert rows == [("points", qml, 1)]
    assert "layer_styles" in {str(name) for name in pyogrio.list_layers(path)[:, 0]}
