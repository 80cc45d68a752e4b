"""A map is a path in every respect, and shows its overview in a notebook."""

from __future__ import annotations

import json
import pickle
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import rasterio
from notebook_common import parse_html, texts
from PIL import Image

from geopsp.core.legend import CLASSES_TAG, IGNORE_INDEX, Legend
from geopsp.errors import InputNotFoundError, RasterError
from geopsp.raster.class_map import ClassMap, read_overview

LEGEND = Legend.from_names({1: "water", 4: "<b>road</b>", 7: "forest"})


@pytest.fixture
def make_map(make_raster):
    """A class raster with a legend, 255 where nothing is known."""

    def make(codes, **options):
        path = make_raster("map.tif", codes[None].astype("uint8"), nodata=IGNORE_INDEX, **options)
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(**{CLASSES_TAG: json.dumps(LEGEND.to_json())})
        return ClassMap(path)

    return make


@pytest.fixture
def codes():
    codes = np.full((60, 90), 1)
    codes[:30, :30], codes[30:, 60:], codes[:10, 80:] = 4, 7, IGNORE_INDEX
    return codes


def test_it_is_the_path_that_it_was(make_map, codes):
    found = make_map(codes)
    path = Path(str(found))
    assert isinstance(found, Path)
    assert found == path
    assert path == found
    assert hash(found) == hash(path)
    assert {path: 1}[found] == 1
    assert (str(found), found.name, found.parent, found.suffix) == (str(path), path.name, path.parent, ".tif")
    assert Path(found) == path
    assert found.with_suffix(".gpkg") == path.with_suffix(".gpkg")
    assert found.exists()
    assert pickle.loads(pickle.dumps(found)) == path
    assert repr(found) == f"ClassMap('{path}')"
    assert min(found, path.with_name("a")).name == "a"
    with rasterio.open(found) as dataset:
        assert dataset.shape == codes.shape


def test_a_small_map_is_read_as_it_is(make_map, codes):
    overview = read_overview(make_map(codes), 1000)
    np.testing.assert_array_equal(overview.codes, codes)
    assert overview.grid == overview.file_grid
    shares = overview.shares()
    known = codes != IGNORE_INDEX
    assert [shares[code] for code in (1, 4, 7)] == pytest.approx([(codes == c).sum() / known.sum() for c in (1, 4, 7)])
    assert shares[IGNORE_INDEX] == 0
    colors = overview.colors()
    for info in LEGEND:
        assert (colors[codes == info.code] == (*info.rgb, 255)).all()
    assert (colors[codes == IGNORE_INDEX, 3] == 0).all()


def test_a_large_map_is_read_from_its_overviews(make_map, codes):
    path = make_map(np.kron(codes, np.ones((16, 16))), tiled=True, blockxsize=256, blockysize=256)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4, 8, 16], rasterio.enums.Resampling.mode)
    overview = read_overview(path, 90)
    np.testing.assert_array_equal(overview.codes, codes)
    assert overview.grid.bounds() == pytest.approx(overview.file_grid.bounds())
    assert overview.file_grid.width == 90 * 16


def test_a_warped_overview_covers_the_same_ground(make_map, codes):
    overview = read_overview(make_map(codes), 400, crs="EPSG:3857")
    own = overview.file_grid
    assert overview.grid.crs.to_epsg() == 3857
    left, bottom, right, top = rasterio.warp.transform_bounds(own.crs, "EPSG:3857", *own.bounds())
    cell = overview.grid.cell_size[0]
    assert overview.grid.bounds() == pytest.approx((left, bottom, right, top), abs=2 * cell)
    shares = overview.shares()
    assert [shares[code] for code in (1, 4, 7)] == pytest.approx(
        [(codes == c).sum() / (codes != IGNORE_INDEX).sum() for c in (1, 4, 7)], abs=0.02
    )


def test_a_notebook_shows_its_colours_and_classes(make_map, codes):
    root = parse_html(make_map(codes)._repr_html_())
    (image,) = root.iter("img")
    pixels = np.asarray(Image.open(BytesIO(b64decode(image.get("src").partition(",")[2]))))
    assert pixels.shape == (60, 90, 4)
    assert pixels[0, 0].tolist() == [*LEGEND.classes[1].rgb, 255]
    assert pixels[0, 89, 3] == 0
    rows = texts(root, "tr")
    assert rows[:4] == ["classshare (about)", "water66.0%", "<b>road</b>17.0%", "forest17.0%"]
    assert not list(root.iter("b"))


def test_a_path_without_a_map_is_shown_as_a_path(tmp_path, make_raster):
    assert ClassMap(tmp_path / "planned.tif")._repr_html_() is None
    assert ClassMap(make_raster("image.tif"))._repr_html_() is None
    with pytest.raises(InputNotFoundError):
        read_overview(tmp_path / "planned.tif", 10)
    with pytest.raises(RasterError, match="has no class names or colours"):
        read_overview(make_raster("image.tif"), 10)
