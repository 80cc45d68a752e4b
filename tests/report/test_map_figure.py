"""Figures and views of maps."""

from __future__ import annotations

import json
import sys

import geopandas as gpd
import matplotlib as mpl
import numpy as np
import pytest
import rasterio
import shapely
from notebook_common import parse_html

import geopsp
from geopsp.core.legend import CLASSES_TAG, IGNORE_INDEX, Legend
from geopsp.errors import GridError, OptionError
from geopsp.raster.class_map import read_overview
from geopsp.report.map_polygons import read_map_polygons

mpl.use("agg")

LEGEND = Legend.from_names({1: "water", 4: "<b>road</b>"})


@pytest.fixture
def world(make_raster, make_labels):
    """A map, its image, which is larger, and polygons in another CRS."""
    codes = np.full((1, 60, 80), 1, "uint8")
    codes[0, :, 40:], codes[0, :6] = 4, IGNORE_INDEX
    path = make_raster("map.tif", codes, nodata=IGNORE_INDEX)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(**{CLASSES_TAG: json.dumps(LEGEND.to_json())})
    image = make_raster("image.tif", size=(90, 120))
    left, top = 601234.0, 5301717.0
    shapes = [
        shapely.box(left + 80, top - 120, left + 160, top - 12),
        shapely.box(left + 10, top - 60, left + 20, top - 50),
    ]
    frame = gpd.GeoDataFrame({"name": ["<b>road</b>", "water"], "area": [1.0, 2.5]}, geometry=shapes, crs="EPSG:32632")
    return path, image, frame.to_crs("EPSG:4326")


def panels(figure):
    return [axes for axes in figure.axes if axes.images]


def test_a_map_is_drawn_in_the_colours_of_its_classes(world):
    figure = geopsp.show_map(world[0])
    (axes,) = panels(figure)
    (layer,) = axes.images
    pixels = layer.get_array()
    assert pixels[30, 10].tolist() == [*LEGEND.classes[0].rgb, 255]
    assert pixels[30, 70].tolist() == [*LEGEND.classes[1].rgb, 255]
    assert pixels[0, 0, 3] == 0
    assert layer.get_extent() == [601234.0, 601394.0, 5301597.0, 5301717.0]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["water 50.0%", "<b>road</b> 50.0%"]
    figure.canvas.draw()


def test_images_and_polygons_lie_on_the_same_ground(world):
    path, image, frame = world
    figure = geopsp.show_map(path, image, frame, rgb_bands=[3, 2, 1])
    left, right = panels(figure)
    assert [len(axes.images) for axes in (left, right)] == [1, 2]
    assert {layer.get_extent()[0] for axes in (left, right) for layer in axes.images} == {601234.0}
    assert right.images[1].get_alpha() == 0.5
    shown = left.images[0].get_array()
    with rasterio.open(image) as dataset:
        raw = dataset.read([3, 2, 1])[:, :60, :80].astype(float)
    for band, values in enumerate(raw):
        assert np.corrcoef(shown[..., band].ravel(), values.ravel())[0, 1] > 0.99
    (lines,) = right.collections
    drawn = {tuple(corner) for corner in np.vstack([each.vertices for each in lines.get_paths()]).round().astype(int)}
    corners = shapely.get_coordinates(frame.to_crs("EPSG:32632").geometry).round().astype(int)
    assert drawn == {tuple(corner) for corner in corners}
    figure.canvas.draw()


def test_of_many_polygons_the_largest_are_drawn(world, caplog):
    grid = read_overview(world[0], 100).grid
    frame = world[2]
    with caplog.at_level("INFO"):
        (shown,) = read_map_polygons(frame, grid, most=1).itertuples()
    assert shown.name == "<b>road</b>"
    assert "1 polygon of 2 are shown" in caplog.text
    assert read_map_polygons(frame, grid, most=2).crs == grid.crs
    far = frame.set_geometry(frame.geometry.translate(10, 0))
    assert read_map_polygons(far, grid, most=2).empty
    assert "No polygon of the GeoDataFrame lies on the map." in caplog.text


def test_a_map_without_crs_has_no_images_or_polygons(make_raster, world):
    path = make_raster("bare.tif", np.ones((1, 9, 9), "uint8"), crs=None)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(**{CLASSES_TAG: json.dumps(LEGEND.to_json())})
    geopsp.show_map(path).canvas.draw()
    for more in ({"images": world[1]}, {"polygons": world[2]}):
        with pytest.raises(GridError, match="The map has no CRS"):
            geopsp.show_map(path, **more)


@pytest.mark.parametrize(("option", "value"), [("alpha", 2), ("alpha", "a"), ("pixels", 0)])
def test_wrong_options(world, option, value):
    with pytest.raises(OptionError, match=f"`{option}` is"):
        geopsp.show_map(world[0], **{option: value})


def test_exploring_needs_a_package(world, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipyleaflet", None)
    monkeypatch.setattr("geopsp.core.extras.find_spec", lambda name: None)
    with pytest.raises(
        OptionError, match=r'needs ipyleaflet, which is not installed. Run: pip install "geopsp\[notebook\]"'
    ):
        geopsp.explore(world[0])


def test_a_view_needs_no_network_and_shows_names_as_text(world):
    ipyleaflet = pytest.importorskip("ipyleaflet")
    path, image, frame = world
    view = geopsp.explore(path, frame, images=image)
    images = [layer for layer in view.layers if isinstance(layer, ipyleaflet.ImageOverlay)]
    assert [layer.name for layer in images] == ["image", "map.tif"]
    assert all(layer.url.startswith("data:image/png;base64,") for layer in images)
    assert not [layer for layer in view.layers if isinstance(layer, ipyleaflet.TileLayer)]
    (south, west), (north, east) = images[1].bounds
    with rasterio.open(path) as dataset:
        bounds = rasterio.warp.transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    assert (west, south, east, north) == pytest.approx(bounds, abs=1e-4)
    assert south < view.center[0] < north
    (polygons,) = (layer for layer in view.layers if isinstance(layer, ipyleaflet.GeoJSON))
    fills = [feature["properties"]["style"]["fillColor"] for feature in polygons.data["features"]]
    assert fills == [LEGEND.classes[1].color, LEGEND.classes[0].color]
    widgets = [control.widget for control in view.controls if isinstance(control, ipyleaflet.WidgetControl)]
    (slider, legend), facts = widgets[0].children, widgets[1]
    assert (slider.min, slider.max, slider.value) == (0, 1, 1)
    assert "&lt;b&gt;road&lt;/b&gt;" in legend.value
    polygons._hover_callbacks.callbacks[0](event="interaction", feature=polygons.data["features"][0],
                                           properties=polygons.data["features"][0]["properties"], id=None)  # fmt: skip
    assert "".join(parse_html(facts.value).itertext()) == "name<b>road</b>area1.00"


def test_a_basemap_is_asked_for(world):
    ipyleaflet = pytest.importorskip("ipyleaflet")
    view = geopsp.explore(world[0], basemap=True)
    assert [type(layer) for layer in view.layers] == [ipyleaflet.TileLayer, ipyleaflet.ImageOverlay]
