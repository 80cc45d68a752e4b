from xml.etree import ElementTree as ET

import numpy as np
import pytest
from common import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geopsp.core.legend import ClassInfo, Legend
from geopsp.errors import OutputError
from geopsp.raster.legend_io import attribute_table, read_legend, write_class_files
from geopsp.raster.raster_style import class_style as style
from geopsp.raster.raster_style import write_confidence_style
from geopsp.vector.qgis_style import polygon_style, write_style

LEGEND = Legend.from_names({0: "background", 3: "boat & <car>", 7: "Äcker"}, {3: "#010203"})

NAMES = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc", "Cn"]), min_size=1).map(str.strip)
CLASSES = st.builds(ClassInfo, st.integers(0, 254), NAMES.filter(bool), st.from_regex("#[0-9a-f]{6}", fullmatch=True))
LEGENDS = st.lists(CLASSES, max_size=6, unique_by=lambda info: info.code).map(
    lambda found: Legend(tuple(sorted(found, key=lambda info: info.code)))
)


@given(legend=LEGENDS.filter(len))
@settings(max_examples=examples(12), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_gdal_reads_names_and_colours(legend, make_raster):
    path = make_raster("map.tif", np.zeros((1, 5, 7), np.uint8), nodata=255)
    write_class_files(path, legend)
    assert read_legend(path) == legend


@given(LEGENDS)
def test_the_style_has_an_entry_for_each_class(legend):
    text = style(legend)
    assert text.startswith("<!DOCTYPE qgis")
    entries = ET.fromstring(text).findall("pipe/rasterrenderer[@type='paletted'][@band='1']/colorPalette/paletteEntry")
    found = [ClassInfo(int(entry.get("value")), entry.get("label"), entry.get("color")) for entry in entries]
    assert found == list(legend)
    assert {entry.get("alpha") for entry in entries} <= {"255"}


def test_the_attribute_table_by_hand():
    band = ET.fromstring(attribute_table(LEGEND)).find("PAMRasterBand[@band='1']")
    names = [category.text or "" for category in band.iterfind("CategoryNames/Category")]
    assert names == ["background", "", "", "boat & <car>", "", "", "", "Äcker"]
    table = band.find("GDALRasterAttributeTable[@tableType='thematic']")
    fields = [tuple(field.findtext(key) for key in ("Name", "Type", "Usage")) for field in table.iterfind("FieldDefn")]
    assert fields == [
        ("Value", "0", "5"),
        ("Class", "2", "2"),
        ("Red", "0", "6"),
        ("Green", "0", "7"),
        ("Blue", "0", "8"),
    ]
    rows = [[cell.text for cell in row] for row in table.iterfind("Row")]
    assert rows[1] == ["3", "boat & <car>", "1", "2", "3"]
    assert len(rows) == 3


def test_they_lie_beside_the_raster_and_take_the_place_of_old_ones(tmp_path):
    (tmp_path / "map.v2.qml").write_text(style(Legend.from_names({9: "old"})), encoding="utf-8")
    (tmp_path / "map.v2.tif.aux.xml").write_text("old")
    write_class_files(tmp_path / "map.v2.tif", LEGEND)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.v2.qml", "map.v2.tif.aux.xml"]
    assert (tmp_path / "map.v2.qml").read_text(encoding="utf-8") == style(LEGEND)
    assert (tmp_path / "map.v2.tif.aux.xml").read_text(encoding="utf-8") == attribute_table(LEGEND)


@pytest.mark.parametrize("text", ["mine", "", "<qgis version='3.34.1-Prizren'><pipe/></qgis>", b"\xff\xfe\x00"])
def test_a_style_that_is_not_ours_stays(text, tmp_path, capsys):
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "map.qml").write_bytes(content)
    write_class_files(tmp_path / "map.tif", LEGEND)
    write_confidence_style(tmp_path / "map.tif", LEGEND)
    write_style(tmp_path / "map.fgb", LEGEND)
    assert (tmp_path / "map.qml").read_bytes() == content
    assert "map.qml is kept" in capsys.readouterr().err


@pytest.mark.parametrize("raster_first", [True, False])
def test_a_raster_and_polygons_of_one_name_share_a_style(raster_first, tmp_path):
    """QGIS takes map.qml for both, and finds in it what suits a raster and what suits polygons."""
    writers = [
        lambda: write_class_files(tmp_path / "map.tif", LEGEND),
        lambda: write_style(tmp_path / "map.fgb", LEGEND),
    ]
    for write in writers if raster_first else writers[::-1]:
        for _ in range(2):
            write()
    root = ET.parse(tmp_path / "map.qml").getroot()
    assert sorted(part.tag for part in root) == sorted(
        ["pipe", "renderer-v2", "blendMode", "layerOpacity", "layerGeometryType"]
    )
    assert len(root.findall("pipe/rasterrenderer/colorPalette/paletteEntry")) == len(LEGEND)
    assert len(root.findall("renderer-v2/categories/category")) == len(LEGEND)


def test_a_background_without_a_colour_of_its_own_is_transparent():
    legend = Legend.from_names({0: "Background", 1: "field"})
    chosen = Legend.from_names({0: "background", 1: "field"}, {0: "#000000"})
    for classes, alphas in ((legend, ["0", "255"]), (chosen, ["255", "255"])):
        assert [each.get("alpha") for each in ET.fromstring(style(classes)).iter("paletteEntry")] == alphas
        fills = [
            each.get("v") for each in ET.fromstring(polygon_style(classes)).iter("prop") if each.get("k") == "color"
        ]
        assert [fill.rpartition(",")[2] for fill in fills] == alphas


def test_a_place_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot create"):
        write_class_files(tmp_path / "file" / "map.tif", LEGEND)


@pytest.mark.parametrize("document", [attribute_table, style])
def test_names_that_xml_cannot_hold_give_xml_all_the_same(document):
    """Without the characters that it cannot hold."""
    names = ["a\x01b", "c\x1b[0m\ufffe", "lone \ud800", "tab\tä & <d>"]
    root = ET.fromstring(document(Legend(tuple(ClassInfo(code, name, "#123456") for code, name in enumerate(names)))))
    texts = [text for element in root.iter() for text in (element.text, element.get("label")) if text]
    assert {"ab", "c[0m", "lone ", "tab\tä & <d>"} <= set(texts)
