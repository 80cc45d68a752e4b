"""The style of a GeoPackage says of each class which colour and name it has, where QGIS looks for it."""

import sqlite3
from contextlib import closing
from xml.etree import ElementTree as ET

import geopandas as gpd
import pyogrio
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st

from geopsp.core.legend import ClassInfo, Legend
from geopsp.vector.qgis_style import add_qml, add_style, polygon_style

colors = st.integers(0, 2**24 - 1).map("#{:06x}".format)
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)
legends = st.dictionaries(st.integers(0, 254), st.tuples(texts, colors), max_size=6).map(
    lambda found: Legend(tuple(ClassInfo(code, *found[code]) for code in sorted(found)))
)


def fits(sign):
    """By the reader, not by the rule."""
    try:
        ET.fromstring(f"<a>&#{ord(sign)};</a>")
    except ET.ParseError:
        return False
    return True


def shown(qml):
    """{code: (label, colour)} as QGIS would show it; of options and of properties, which must agree."""
    root = ET.fromstring(qml)
    renderer = root.find("renderer-v2[@type='categorizedSymbol'][@attr='code']")
    fills = {}
    for symbol in renderer.findall("symbols/symbol[@type='fill']"):
        options = {option.get("name"): option.get("value") for option in symbol.findall("layer/Option/Option")}
        assert options == {prop.get("k"): prop.get("v") for prop in symbol.findall("layer/prop")}
        *rgb, alpha = map(int, options["color"].split(","))
        assert (options["style"], alpha) == ("solid", 255)
        fills[symbol.get("name")] = f"#{bytes(rgb).hex()}"
    categories = renderer.findall("categories/category[@render='true']")
    return {int(c.get("value")): (c.get("label"), fills[c.get("symbol")]) for c in categories}


@given(legends)
@settings(deadline=None)
def test_each_class_has_its_name_and_colour(legend):
    assert shown(polygon_style(legend)) == {info.code: (info.name, info.color) for info in legend}


@given(names=st.lists(st.text(), min_size=1, max_size=4))
@settings(deadline=None)
@example(names=["a\x01b", "\x00", "c\x1b[0m\ufffe"])
@example(names=["tab\tline\nreturn\r", "\ud7ff\ue000\ufffd\U00010000\U0010ffff", "lone \ud800"])
def test_any_name_gives_a_style_that_can_be_read(names):
    """Without what XML cannot hold, and with all else."""
    found = shown(polygon_style(Legend(tuple(ClassInfo(code, name, "#123456") for code, name in enumerate(names)))))
    for code, name in enumerate(names):
        assert found[code][0] == "".join(sign for sign in name if fits(sign))


@pytest.mark.parametrize("layer", ["fields", "a \"b\" 'c'"])
def test_the_style_is_the_default_of_the_layer(layer, tmp_path):
    package, legend = tmp_path / "a.gpkg", Legend.from_names({0: "water", 7: "wald & wiese"})
    frame = gpd.GeoDataFrame({"code": [7]}, geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:32632")
    frame.to_file(package, layer=layer)
    add_style(package, legend)
    assert pyogrio.list_layers(package).tolist() == [[layer, "Polygon"], ["layer_styles", None]]
    row = pyogrio.read_dataframe(package, layer="layer_styles").iloc[0]
    assert (row.f_table_catalog, row.f_table_schema, row.f_table_name) == ("", "", layer)
    assert row.f_geometry_column == pyogrio.read_info(package, layer=layer)["geometry_name"]
    assert row.useAsDefault
    assert shown(row.styleQML) == {0: ("water", "#2b6cb0"), 7: ("wald & wiese", legend.classes[1].color)}
    assert pyogrio.read_dataframe(package, layer=layer).code.tolist() == [7]


def test_the_table_is_known_to_the_package(tmp_path):
    package = tmp_path / "a.gpkg"
    gpd.GeoDataFrame({"code": [7]}, geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:32632").to_file(package)
    add_style(package, Legend.from_names({7: "a"}))
    with closing(sqlite3.connect(package)) as base:
        found = base.execute("SELECT data_type, identifier, srs_id FROM gpkg_contents WHERE table_name LIKE 'layer_%'")
        assert found.fetchall() == [("attributes", "layer_styles", None)]
        assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_layers_share_the_table(tmp_path):
    package = tmp_path / "a.gpkg"
    for code, layer in enumerate(("a", "b")):
        frame = gpd.GeoDataFrame({"code": [code]}, geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:32632")
        frame.to_file(package, layer=layer)
        add_qml(package, polygon_style(Legend.from_names({code: layer})), name=layer, description="", layer=layer)
    styles = pyogrio.read_dataframe(package, layer="layer_styles")
    assert styles.f_table_name.tolist() == ["a", "b"]
    assert [list(shown(qml)) for qml in styles.styleQML] == [[0], [1]]


def test_what_is_no_package_gets_no_style(tmp_path):
    with pytest.raises(sqlite3.Error, match="gpkg_contents"):
        add_style(tmp_path / "a.gpkg", Legend(()))
