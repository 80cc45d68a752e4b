import json

import numpy as np
import pytest
import rasterio

from geopsp.core.legend import CLASSES_TAG, DEFAULT_COLORS, Legend
from geopsp.errors import RasterError
from geopsp.raster.legend_io import _classes_of, read_class_table, read_legend


def table(fields, rows):
    """A GDAL attribute table: fields are (name, type, usage)."""
    heads = "".join(
        f'<FieldDefn index="{i}"><Name>{n}</Name><Type>{t}</Type><Usage>{u}</Usage></FieldDefn>'
        for i, (n, t, u) in enumerate(fields)
    )
    body = "".join(f'<Row index="{i}">{"".join(f"<F>{cell}</F>" for cell in row)}</Row>' for i, row in enumerate(rows))
    return f"<GDALRasterAttributeTable>{heads}{body}</GDALRasterAttributeTable>"


@pytest.fixture
def class_file(make_raster):
    """A function that makes a class raster with an .aux.xml and a colour table."""

    def make(text="", colors=None):
        path = make_raster("c.tif", np.ones((1, 6, 5), np.uint8))
        if colors:
            with rasterio.open(path, "r+") as dataset:
                dataset.write_colormap(1, colors)
        if text:
            beside = f'<PAMDataset><PAMRasterBand band="1">{text}</PAMRasterBand></PAMDataset>'
            path.with_name("c.tif.aux.xml").write_text(beside)
        return path

    return make


def rows(path):
    return [(c.code, c.name, c.color) for c in read_legend(path) or ()]


def test_category_names_with_the_colour_table(class_file):
    names = "<CategoryNames><Category>none</Category><Category></Category><Category>boat</Category></CategoryNames>"
    found = rows(class_file(names, {2: (10, 20, 30, 255), 3: (1, 1, 1, 255)}))
    assert [row[:2] for row in found] == [(0, "none"), (2, "boat")]
    assert found[1][2] == "#0a141e"


def test_a_table_as_arcgis_writes_it(class_file):
    fields = [("OBJECTID", 0, 0), ("Value", 0, 0), ("Count", 1, 0), ("Class_Name", 2, 0),
              ("Red", 0, 0), ("Green", 0, 0), ("Blue", 0, 0)]  # fmt: skip
    path = class_file(
        table(fields, [(1, 3, 9.0, "Car", 255, 0, 16), (2, 7, 1.0, "Road", 1, 2, 3), (3, 300, 1, "x", 0, 0, 0)])
    )
    assert rows(path) == [(3, "Car", "#ff0010"), (7, "Road", "#010203")]


def test_a_table_as_qgis_writes_it_goes_before_category_names(class_file):
    fields = [("v", 1, 5), ("kind", 2, 2), ("r", 1, 6), ("g", 1, 7), ("b", 1, 8), ("a", 0, 9)]
    names = "<CategoryNames><Category>none</Category><Category>else</Category></CategoryNames>"
    path = class_file(names + table(fields, [(1, "lake", 0, 128, 255, 9), (1.5, "y", 0, 0, 0, 0)]))
    assert rows(path)[1] == (1, "lake", "#0080ff")
    assert [row[1] for row in rows(path)] == ["none", "lake"]


def test_colours_as_shares_of_one(class_file):
    fields = [("Value", 0, 0), ("Name", 2, 2), ("Red", 1, 0), ("Green", 1, 0), ("Blue", 1, 0)]
    assert rows(class_file(table(fields, [(1, "lake", 0.0, 0.5, 1.0)]))) == [(1, "lake", "#0080ff")]


def test_whole_numbers_are_never_shares_of_one(class_file):
    """A ramp of grey for a mask: 1 of 255."""
    fields = [("Value", 0, 0), ("Name", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8)]
    found = rows(class_file(table(fields, [(0, "none", 0, 0, 0), (1, "boat", 1, 1, 1)])))
    assert found == [(0, "none", "#000000"), (1, "boat", "#010101")]


def test_a_row_without_a_colour_is_not_black(class_file):
    fields = [("Value", 0, 0), ("Name", 2, 2), ("Red", 2, 0), ("Green", 2, 0), ("Blue", 2, 0)]
    found = rows(class_file(table(fields, [(1, "water", "", "", ""), (2, "ice", 0.5, 0.5, 1.0)])))
    assert found == [(1, "water", DEFAULT_COLORS["water"]), (2, "ice", "#8080ff")]


def test_a_black_class_is_black(class_file):
    """With a name, or as the only black one; several black ones without a name pad the table."""
    names = "<CategoryNames><Category>night</Category><Category>day</Category></CategoryNames>"
    assert rows(class_file(names, {0: (0, 0, 0, 255), 1: (250, 250, 9, 255)}))[0] == (0, "night", "#000000")
    path = class_file(colors={0: (0, 0, 0, 255), 1: (250, 250, 9, 255)})
    names, colors = read_class_table(path)
    assert names == {1: "class 1"}  # a TIFF has 256 colours
    assert (colors[0], colors[1]) == ("#000000", "#fafa09")
    assert _classes_of({0: "#000000", 1: "#fafa09"}) == [0, 1]


def test_codes_beyond_a_byte_have_names_too(class_file):
    fields = [("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8)]
    path = class_file(table(fields, [(112, "city", 255, 0, 0), (1112, "wood", 0, 255, 0)]))
    assert read_class_table(path) == ({112: "city", 1112: "wood"}, {112: "#ff0000", 1112: "#00ff00"})
    assert rows(path) == [(112, "city", "#ff0000")]


def test_rows_without_a_value_count_from_zero(class_file):
    assert [row[:2] for row in rows(class_file(table([("Class", 2, 2)], [("a",), ("b",)])))] == [(0, "a"), (1, "b")]


def test_colours_alone_make_classes_without_names(class_file):
    assert rows(class_file(colors={4: (1, 2, 3, 255), 5: (0, 0, 0, 255)})) == [(4, "class 4", "#010203")]


def test_our_own_tag_wins(class_file):

    path, legend = class_file("<CategoryNames><Category>a</Category></CategoryNames>"), Legend.from_names({1: "mine"})
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(**{CLASSES_TAG: json.dumps(legend.to_json())})
    assert read_legend(path) == legend


def test_a_picture_tells_of_no_classes(make_raster, class_file):
    assert read_legend(make_raster()) is None
    assert read_legend(class_file()) is None


@pytest.mark.parametrize("text", ["{", "5", "[1]", '[{"code": 1}]', '[{"code": "x", "name": "a", "color": "#112233"}]'])
def test_a_damaged_tag_is_said_to_be(text, make_raster):
    path = make_raster("a.tif", np.ones((1, 2, 2), np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(GEOPSP_CLASSES=text)
    with pytest.raises(RasterError, match=r"Cannot read the tag GEOPSP_CLASSES of .*a\.tif: "):
        read_legend(path)
