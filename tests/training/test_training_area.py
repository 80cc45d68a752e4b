"""Ground and time of the training chips go from images by chips into the model and its Item."""

from __future__ import annotations

import json
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from shapely.geometry import shape
from stac_common import require_valid

from geopsp import ChipSet, PSPNetClassifier, export_training_data, prepare_data
from geopsp.chips.chip_folder import MANIFEST
from geopsp.errors import ChipError
from geopsp.models.manifest import MODEL_ITEM
from geopsp.models.training_area import TRAINING_AREA, known_area
from geopsp.training.training_area import training_area, with_area

TIME = "2023-05-06T07:08:09Z"


@pytest.fixture(scope="module")
def dated(small_world, tmp_path_factory):
    """The small world with a time in its tags, as chips."""
    folder = tmp_path_factory.mktemp("dated")
    with rasterio.open(small_world["scene"]) as source:
        profile, data, names = source.profile, source.read(), source.descriptions
    with rasterio.open(folder / "scene.tif", "w", **profile) as target:
        target.write(data)
        target.descriptions = names
        target.update_tags(TIFFTAG_DATETIME="2023:05:06 07:08:09")
    export_training_data(folder / "scene.tif", small_world["labels"], folder / "chips", "kind", 32)
    return folder


def test_the_hull_holds_the_training_chips_and_is_no_larger(small_world):
    data = prepare_data(small_world["chips"])
    area = training_area(data)
    outlines = data.chips.index.iloc[data.train_rows].geometry.to_crs(4326)
    hull = shape(area["geometry"])
    assert outlines.within(hull.buffer(1e-6)).all()
    assert hull.within(outlines.union_all().convex_hull.buffer(1e-6))
    np.testing.assert_allclose(area["bbox"], outlines.total_bounds, atol=1e-6)
    assert (area["chips"], area["gsd"]) == (len(data.train_rows), pytest.approx(2, rel=2e-3))
    assert "start" not in area


def test_times_are_those_of_the_images(small_world, dated):
    manifest = json.loads((dated / "chips" / MANIFEST).read_text())
    assert manifest["exports"][0]["times"] == {str(dated / "scene.tif"): [TIME, TIME]}
    cut = prepare_data(images=dated / "scene.tif", labels=small_world["labels"], class_field="kind", tile_size=32)
    for data in (prepare_data(dated / "chips"), cut):
        area = training_area(data)
        assert (area["start"], area["end"]) == (TIME, TIME)
        assert known_area({TRAINING_AREA: area}) == area
    mixed = prepare_data([dated / "chips", small_world["chips"]])
    assert set(ChipSet.open([small_world["chips"], dated / "chips"]).times) == {str(dated / "scene.tif")}
    assert training_area(mixed)["chips"] == len(mixed.train_rows)


def test_times_that_are_none_are_refused(dated, tmp_path):
    manifest = json.loads((dated / "chips" / MANIFEST).read_text())
    manifest["exports"][0]["times"] = {"scene.tif": ["long ago", "now"]}
    before = (dated / "chips" / MANIFEST).read_text()
    (dated / "chips" / MANIFEST).write_text(json.dumps(manifest))
    try:
        with pytest.raises(ChipError, match="times"):
            ChipSet.open(dated / "chips")
    finally:
        (dated / "chips" / MANIFEST).write_text(before)


def test_a_trained_model_s_item_has_them(dated, tmp_path):
    data = prepare_data(dated / "chips", batch_size=8, workers=0)
    data = replace(data, train_rows=data.train_rows[:16], valid_rows=data.valid_rows[:4])
    model = PSPNetClassifier(data, "tu-test_resnet", encoder_weights=None)
    assert TRAINING_AREA not in model.model.settings
    model.fit(1, 1e-3)
    item = json.loads((model.save(tmp_path / "model", compute_metrics=False) / MODEL_ITEM).read_text())
    require_valid(item)
    area = training_area(data)
    assert (item["geometry"], item["bbox"]) == (area["geometry"], area["bbox"])
    assert item["properties"]["datetime"] == item["properties"]["start_datetime"] == TIME
    assert item["properties"]["gsd"] == area["gsd"]


def test_a_second_training_adds_its_ground(small_world):
    data = prepare_data(small_world["chips"])
    first = with_area({}, data, [])
    assert with_area(first, data, [{}]) == first
    box = shapely.box(20, 50, 21, 51)
    other = {"geometry": json.loads(gpd.GeoSeries([box]).to_json())["features"][0]["geometry"], "gsd": 7.0}
    other |= {"bbox": list(box.bounds), "start": TIME, "end": TIME}
    joined = with_area({TRAINING_AREA: other}, data, [{}])[TRAINING_AREA]
    assert "start" not in joined
    assert shape(joined["geometry"]).buffer(1e-6).covers(shapely.union(box, shape(first[TRAINING_AREA]["geometry"])))


@pytest.mark.parametrize("settings", [{}, {TRAINING_AREA: "anywhere"}])
def test_ground_that_is_not_known_is_not_told(small_world, settings):
    """A model of an earlier version learned elsewhere, too."""
    data = prepare_data(small_world["chips"])
    assert known_area(with_area(settings, data, [{}])) == {}


def test_chips_without_place_have_none(small_world):
    data = prepare_data(small_world["chips"])
    data.chips.index.geometry = [None] * len(data.chips)
    assert set(training_area(data)) == {"chips"}
