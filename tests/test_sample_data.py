"""The committed sample data are what their README says."""

from __future__ import annotations

import numpy as np
import pyogrio
import pytest
import rasterio
from common import SAMPLE

from geopsp.core.grid import Grid
from geopsp.core.legend import IGNORE_INDEX
from geopsp.labels.area import AreaOfInterest
from geopsp.labels.read_labels import read_labels

CLASSES = ["bare", "boat", "building", "car", "crop", "forest", "road", "water"]


@pytest.mark.parametrize("name", ["scene_west.tif", "scene_east.tif", "scene_test.tif"])
def test_scenes(name):
    with rasterio.open(SAMPLE / name) as dataset:
        assert dataset.crs.to_epsg() == 32632
        assert dataset.descriptions == ("red", "green", "blue", "nir")
        assert dataset.dtypes[0] == "uint16"
        assert dataset.res == (1, 1)
        assert dataset.profile["tiled"]
        assert dataset.transform.c % 100
        assert dataset.width != dataset.height
        invalid = dataset.dataset_mask() == 0
    assert 0.005 < invalid.mean() < 0.05


def test_it_is_small():
    assert sum(path.stat().st_size for path in SAMPLE.iterdir()) < 12e6


def test_training_labels_are_messy_on_purpose():
    labels = read_labels(f"{SAMPLE / 'labels.gpkg'}|layername=landcover", class_field="landcover")
    assert labels.legend.names == ["background", *CLASSES]
    assert labels.counts["repaired"] == 1
    assert pyogrio.read_info(SAMPLE / "labels.gpkg", layer="landcover")["crs"] == "EPSG:4326"


@pytest.mark.parametrize(
    ("scene", "labels", "outside"), [("scene_west.tif", "labels.gpkg", 0.12), ("scene_test.tif", "test_labels.gpkg", 0)]
)
def test_labels_cover_the_area_of_interest(scene, labels, outside):
    """Inside it every pixel has a class, boats lie in water and cars on roads; outside none has."""
    with rasterio.open(SAMPLE / scene) as dataset:
        grid = Grid(dataset.crs, dataset.transform, dataset.width, dataset.height)
        valid = dataset.dataset_mask() > 0
    found = read_labels(f"{SAMPLE / labels}|layername=landcover", class_field="landcover", background="ignore")
    codes, inside = found.burn(grid).codes, AreaOfInterest.read(SAMPLE / labels).inside(grid)
    assert (codes[inside & valid] != IGNORE_INDEX).mean() > 0.9999
    assert 1 - inside[valid].mean() == pytest.approx(outside, abs=0.02)
    shares = np.bincount(codes[inside & valid], minlength=9)[1:9] / (inside & valid).sum()
    assert shares.min() > 0.006


def test_boats_and_cars_look_alike():
    """Their pixels have the same spread in every band: no network can tell them apart one by one."""
    with rasterio.open(SAMPLE / "scene_west.tif") as dataset:
        data = dataset.read().astype(float)
        grid = Grid(dataset.crs, dataset.transform, dataset.width, dataset.height)
    legend_codes = read_labels(f"{SAMPLE / 'labels.gpkg'}|layername=landcover", class_field="landcover")
    codes = legend_codes.burn(grid).codes
    boat, car = (data[:, codes == legend_codes.legend.code_of(name)] for name in ("boat", "car"))
    assert np.abs(boat.mean(axis=1) - car.mean(axis=1)).max() < 0.25 * car.std(axis=1).min()
    assert np.allclose(boat.std(axis=1), car.std(axis=1), rtol=0.15)
