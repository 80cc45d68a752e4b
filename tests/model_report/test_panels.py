"""Pictures, charts and panels: their numbers, and that large inputs stay small."""

from __future__ import annotations

import json
from base64 import b64decode
from io import BytesIO

import numpy as np
import pyproj
import pytest
import rasterio
from PIL import Image
from rasterio.enums import Resampling
from report_common import square

from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.core.pictures import class_palette, png_of_classes, stretch
from geopsp.errors import GridError, InputNotFoundError, RasterError
from geopsp.model_report.charts import Axis
from geopsp.model_report.ground_map import ground_panels
from geopsp.model_report.map_panel import read_map_panel
from geopsp.models.spectral_bands import rgb_bands
from geopsp.models.training_record import Footprints

LEGEND = Legend.from_names({0: "a", 1: "b", 2: "c"}, {0: "#ffffff", 1: "#ffffff", 2: "#ff00fe"})


def pixels_of(address):
    return np.array(Image.open(BytesIO(b64decode(address.partition(",")[2]))).convert("RGBA"))


def test_classes_come_back_from_a_picture_by_their_colours():
    """Also those that look alike."""
    palette = class_palette(LEGEND)
    assert palette[0] == (255, 255, 255)
    assert len(set(palette)) == 3
    assert all(abs(one - other) <= 2 for one, other in zip(palette[1], (255, 255, 255), strict=True))
    indices = np.array([[0, 1, 2, IGNORE_INDEX]], np.uint8)
    found = pixels_of(png_of_classes(indices, LEGEND))[0]
    assert [tuple(pixel[:3]) for pixel in found[:3].tolist()] == palette
    assert found[:, 3].tolist() == [255, 255, 255, 0]
    same = Legend.from_names(dict.fromkeys(range(255), ""), dict.fromkeys(range(255), "#123456"))
    assert len(set(class_palette(same))) == 255


def test_bands_and_stretch():
    assert rgb_bands(["nir", "Red", "green", "blue"]) == (1, 2, 3)
    assert rgb_bands([f"B{number}" for number in range(1, 13)]) == (3, 2, 1)  # Sentinel-2
    assert rgb_bands(["SR_B4", "SR_B3", "SR_B2", "SR_B6"]) == (0, 1, 2)
    assert rgb_bands(["x", "y", "z", "w"]) == (0, 1, 2)
    assert rgb_bands(["a", "b"]) == (0, 0, 0)
    found = stretch(np.array([[[0.0, 5, 10, np.nan]]] * 3), [0, 0, 0], [10, 10, 5])
    assert found[0].tolist() == [[0, 0, 0], [128, 128, 255], [255, 255, 255], [0, 0, 0]]


def test_ticks_are_round_and_within():
    assert Axis(0, 1, 0, 100).ticks() == [0, 0.25, 0.5, 0.75, 1]
    assert Axis(0, 0.0021, 0, 100).ticks() == [0, 0.001, 0.002]
    assert Axis(1, 6, 0, 100).ticks() == [2, 4, 6]
    assert Axis(0, 1, 10, 110)(2.0) == 110


def test_groups_that_lie_apart_have_panels_of_their_own():
    near = [square(x * 64, 0) for x in range(20)]
    far = [square(1e6 + x * 64, 5e5) for x in range(5)]
    panels, more = ground_panels(Footprints(crs="EPSG:32632", train=near, valid=far, shown=25, total=25))
    assert more == 0
    assert [panel.caption.partition(".")[0] for panel in panels] == ["20 training", "5 validation"]
    many = [square(i * 1e5, 0) for i in range(9)]
    assert ground_panels(Footprints(crs="EPSG:32632", train=many, shown=9, total=9))[1] == 3
    assert ground_panels(None) == ([], 0)


def test_chips_of_another_crs_are_drawn_in_place():
    """A square at the same place, in degrees."""
    to_degrees = pyproj.Transformer.from_crs(32632, 4326, always_xy=True)
    ring = np.array(square(6e5, 53e5)).reshape(4, 2)
    other = np.column_stack(to_degrees.transform(*ring.T)).ravel().tolist()
    train = Footprints(crs="EPSG:32632", train=[square(6e5, 53e5)], shown=1, total=1)
    test = Footprints(crs="EPSG:4326", valid=[other], shown=1, total=1)
    (panel,), _ = ground_panels(train, test)
    one, again = (part.partition('"')[0] for part in str(panel.picture).split('<path d="')[1:3])
    assert one == again


def write(path, data, *, cell=2.0, epsg=32632, **profile):
    transform = rasterio.transform.from_origin(600_000, 5_300_000, cell, cell)
    count, height, width = data.shape
    with rasterio.open(path, "w", driver="GTiff", width=width, height=height, count=count, dtype=data.dtype,
                       crs=f"EPSG:{epsg}", transform=transform, **profile) as dataset:  # fmt: skip
        dataset.write(data)


def test_a_map_is_shown_beside_its_image(tmp_path, monkeypatch):
    monkeypatch.setattr("geopsp.model_report.map_panel.MAX_SIDE", 50)
    codes = np.zeros((1, 60, 100), np.uint8)
    codes[:, :, 50:], codes[:, :6] = 2, 255
    write(tmp_path / "map.tif", codes, nodata=255)
    image = np.zeros((3, 60, 100), np.uint8)
    image[0, :, 50:] = 200
    write(tmp_path / "image.tif", image)
    panel = read_map_panel(tmp_path / "map.tif", tmp_path / "image.tif", LEGEND)
    assert (panel.width, panel.height, panel.crs) == (50, 30, "EPSG:32632")
    assert [found.share for found in panel.classes] == [0.5, 0, 0.5]
    found = pixels_of(panel.picture)
    assert found[0, :, 3].tolist() == [0] * 50
    assert tuple(found[9, 40, :3]) == class_palette(LEGEND)[2]
    shown = pixels_of(panel.image).astype(int)
    assert shown[9, 40, 0] - shown[9, 10, 0] > 200
    geometry = json.loads(panel.geometry)
    assert geometry["transform"] == [4, 0, 600_000, 0, -4, 5_300_000]
    expected = pyproj.Transformer.from_crs(32632, 4326, always_xy=True).transform(600_200, 5_300_000 - 120)
    np.testing.assert_allclose(geometry["degrees"][-1][-1], expected, atol=1e-6)


def test_a_large_map_is_read_from_its_overviews(tmp_path, monkeypatch):
    monkeypatch.setattr("geopsp.model_report.map_panel.MAX_SIDE", 64)
    write(tmp_path / "map.tif", np.ones((1, 1024, 1024), np.uint8), tiled=True, blockxsize=256, blockysize=256)
    with rasterio.open(tmp_path / "map.tif", "r+") as dataset:
        dataset.build_overviews([2, 4, 8, 16], Resampling.nearest)
    with rasterio.open(tmp_path / "map.tif", "r+") as dataset:
        dataset.write(np.zeros((1, 1024, 1024), np.uint8))
    panel = read_map_panel(tmp_path / "map.tif", None, LEGEND)
    assert [found.share for found in panel.classes] == [0, 1, 0]
    assert panel.image == ""


def test_what_is_no_map_is_refused(tmp_path):
    write(tmp_path / "image.tif", np.zeros((3, 8, 8), np.float32))
    with pytest.raises(RasterError, match=r"3 band\(s\) of float32, but a map has one band of class codes"):
        read_map_panel(tmp_path / "image.tif", None, LEGEND)
    with pytest.raises(InputNotFoundError):
        read_map_panel(tmp_path / "none.tif", None, LEGEND)
    write(tmp_path / "map.tif", np.zeros((1, 8, 8), np.uint8))
    write(tmp_path / "far.tif", np.zeros((3, 8, 8), np.uint8), epsg=32633)
    with pytest.raises(GridError, match="do not overlap the map"):
        read_map_panel(tmp_path / "map.tif", tmp_path / "far.tif", LEGEND)
