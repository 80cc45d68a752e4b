"""Tables of mask classes in all their spellings."""

import json

import pytest

from geopsp.errors import InputNotFoundError, OptionError
from geopsp.labels.class_mapping import ClassTarget, read_mapping
from geopsp.labels.mask_classes import read_mask_classes

EXPECTED = [("urban", 0x00FFFF, None), ("water", 0x0000FF, None), ("background", 0, None)]


def rows(table):
    return [(entry.name, entry.color, entry.value) for entry in read_mask_classes(table).classes]


@pytest.mark.parametrize(
    "text",
    [
        "name,r,g,b\nurban,0,255,255\nwater,0,0,255\nbackground,0,0,0\n",
        "\ufeffName, R, G, B\r\nurban, 0, 255, 255\r\n\r\nwater, 0, 0, 255\r\nBackground, 0, 0, 0\r\n",
        "class;red;green;blue\nurban;0;255;255\nwater;0;0;255\nbackground;0;0;0",
        "label\tcolor\nurban\t#00FFFF\nwater\t0x0000ff\nbackground\t0 0 0",
        'name,rgb\nurban,"(0, 255, 255)"\nwater,"0,0,255"\nbackground,#000000',
    ],
)
def test_files_of_lines(tmp_path, text):
    path = tmp_path / "class_dict.csv"
    path.write_text(text, encoding="utf-8")
    assert rows(path) == EXPECTED


@pytest.mark.parametrize(
    "table",
    [
        {"urban": "#00ffff", "water": [0, 0, 255], "background": (0, 0, 0)},
        {"#00ffff": "urban", "#0000ff": "water", "#000000": "background"},
        {"urban": {"color": "#00ffff"}, "water": {"r": 0, "g": 0, "b": 255}, "background": {"rgb": [0, 0, 0]}},
    ],
)
def test_dicts_and_json(tmp_path, table):
    assert rows(table) == EXPECTED
    (tmp_path / "c.json").write_text(json.dumps(table))
    assert rows(tmp_path / "c.json") == EXPECTED
    (tmp_path / "l.json").write_text(
        json.dumps([{"name": name, "color": f"#{color:06x}"} for name, color, _ in EXPECTED])
    )
    assert rows(tmp_path / "l.json") == EXPECTED


def test_codes():
    assert (
        rows({"water": 3, "wood": 255})
        == rows({3: "water", "255": "wood"})
        == [("water", None, 3), ("wood", None, 255)]
    )
    (only,) = rows({"water": {"code": 3, "color": "#0000ff"}})
    assert only == ("water", 0x0000FF, 3)


def test_classes_are_numbered_in_the_order_of_the_table():
    table = read_mask_classes({"wood": "#00ff00", "background": "#000000", "water": "#0000ff"})
    targets = table.targets({}, by_color=True)
    assert targets == {
        0x00FF00: ClassTarget("wood", 1, "#00ff00"),
        0: ClassTarget("background", 0, "#000000"),
        0x0000FF: ClassTarget("water", 2, "#0000ff"),
    }
    assert table.targets({}, by_color=False) == {}
    mapped = table.targets(read_mapping({"wood": "green", "water": None}), by_color=True)
    assert [target.name for target in mapped.values()] == ["green", "background", None]
    mapped = table.targets(read_mapping({"wood": "wood", "*": None}), by_color=True)
    assert [target.name for target in mapped.values()] == ["wood", None, None]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, "has no class"),
        ({"a": "red"}, "whose color or code cannot be read"),
        ({"a": "#ff0000", "b": [255, 0, 0]}, "gives the colour #ff0000 to 'a' and to 'b'"),
        ({"a": 3, "b": 3}, "gives the code 3 to 'a' and to 'b'"),
        ({"a": [1, 2]}, "whose color or code cannot be read"),
        ({"a": [0, 0, 256]}, "whose color or code cannot be read"),
        ({"a": {}}, "needs a name, and a color or code"),
    ],
)
def test_tables_that_cannot_be_used(table, words):
    with pytest.raises(OptionError, match=words):
        read_mask_classes(table)


@pytest.mark.parametrize("text", ["", "name,r,g,b\n", "urban,0,255,255\n", "name,r,g\na,1,2\n", "\x00\x01"])
def test_files_that_cannot_be_used(tmp_path, text):
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(OptionError, match="header name,r,g,b"):
        read_mask_classes(tmp_path / "c.csv")
    (tmp_path / "c.json").write_text("[" * 9999)
    with pytest.raises(OptionError, match="Cannot read"):
        read_mask_classes(tmp_path / "c.json")
    with pytest.raises(InputNotFoundError, match="mask_classes"):
        read_mask_classes(tmp_path / "none.csv")
