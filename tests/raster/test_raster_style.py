"""Styles of fractions say which band is shown, in which colours, and from which value to which."""

from xml.etree import ElementTree as ET

import pytest

from geopsp.core.legend import ClassInfo, Legend
from geopsp.raster.raster_style import (
    SURE_TO_UNSURE,
    class_style,
    write_confidence_style,
    write_disagreement_style,
    write_probability_style,
)

LAND = Legend.from_names({0: "background", 3: "boat & <car>", 7: "water"}, {3: "#010203"})


def renderer_of(write, legend, tmp_path):
    """The renderer, and its stops: [(value, colour, alpha)]."""
    write(tmp_path / "map.v2.tif", legend)
    assert [path.name for path in tmp_path.iterdir()] == ["map.v2.qml"]
    renderer = ET.parse(tmp_path / "map.v2.qml").getroot().find("pipe/rasterrenderer[@type='singlebandpseudocolor']")
    items = renderer.findall("rastershader/colorrampshader[@colorRampType='INTERPOLATED'][@clip='0']/item")
    stops = [(float(item.get("value")), item.get("color"), int(item.get("alpha"))) for item in items]
    assert float(renderer.get("classificationMin")) == stops[0][0]
    assert float(renderer.get("classificationMax")) == stops[-1][0]
    require_same_ramp(renderer.find("rastershader/colorrampshader/colorramp[@type='gradient']"), stops)
    return renderer, stops


def require_same_ramp(ramp, stops):
    """The ramp that the legend shows has the colours of the items, in options and in properties."""
    options = {option.get("name"): option.get("value") for option in ramp.findall("Option/Option")}
    assert options == {prop.get("k"): prop.get("v") for prop in ramp.findall("prop")}
    middle = [stop.split(";") for stop in filter(None, options["stops"].split(":"))]
    colors = [options["color1"], *(color for _, color in middle), options["color2"]]
    assert colors == [",".join(map(str, (*bytes.fromhex(color[1:]), alpha))) for _, color, alpha in stops]
    low, high = stops[0][0], stops[-1][0]
    positions = [low + (high - low) * float(share) for share, _ in middle]
    assert positions == pytest.approx([value for value, *_ in stops[1:-1]], abs=1e-3)


@pytest.mark.parametrize(
    ("legend", "band", "color"),
    [
        (LAND, "2", "#010203"),
        (Legend.from_names({1: "water", 2: "background"}, {1: "#112233"}), "1", "#112233"),
        (Legend.from_names({0: "Background"}), "1", "#1b1b1b"),
    ],
)
def test_probabilities_show_the_first_class_that_is_not_background(legend, band, color, tmp_path):
    renderer, stops = renderer_of(write_probability_style, legend, tmp_path)
    assert renderer.get("band") == band
    assert stops == [(0, color, 0), (1, color, 255)]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_confidence_begins_at_the_least_that_is_possible(count, tmp_path):
    legend = Legend(tuple(ClassInfo(code, f"class {code}", "#123456") for code in range(count)))
    renderer, stops = renderer_of(write_confidence_style, legend, tmp_path)
    assert renderer.get("band") == "1"
    assert stops[0][0] == pytest.approx(1 / max(count, 2), abs=1e-4)
    assert stops[-1][0] == 1
    assert [color for _, color, _ in stops] == list(SURE_TO_UNSURE[::-1])


def test_what_is_unsure_is_dark_in_both(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    _, confidence = renderer_of(write_confidence_style, LAND, tmp_path / "a")
    _, disagreement = renderer_of(write_disagreement_style, LAND, tmp_path / "b")
    assert confidence[0][1] == disagreement[-1][1] == SURE_TO_UNSURE[-1]
    assert [value for value, *_ in disagreement] == [0, 0.125, 0.25, 0.375, 0.5]


@pytest.mark.parametrize("write", [write_probability_style, write_confidence_style, write_disagreement_style])
def test_a_style_of_an_earlier_run_is_replaced_and_that_of_a_user_stays(write, tmp_path, capsys):
    path = tmp_path / "map.qml"
    path.write_text(class_style(LAND), encoding="utf-8")
    write(tmp_path / "map.tif", LAND)
    assert ET.parse(path).getroot().find("pipe/rasterrenderer").get("type") == "singlebandpseudocolor"
    mine = path.read_text(encoding="utf-8").replace('version="3.22.0"', 'version="3.34.1-Prizren"')
    path.write_text(mine, encoding="utf-8")
    write(tmp_path / "map.tif", LAND)
    assert path.read_text(encoding="utf-8") == mine
    assert "map.qml is kept" in capsys.readouterr().err
