"""Memory for cleaning, dissolving and right angles does not grow with the map."""

import tracemalloc

import numpy as np
import pytest
from common import slow

from geopsp.core import disk_array
from geopsp.polygons import class_raster, polygonizer, regular_features
from geopsp.polygons.borders import conflicts
from geopsp.polygons.raster_to_polygons import raster_to_polygons
from geopsp.polygons.regions import clean, merge_small

WAYS = {
    "min_area": {"min_area": 500},
    "fill_holes": {"fill_holes": 500},
    "both": {"min_area": 500, "fill_holes": 500},
    "dissolve": {"dissolve": True},
    "regularize": {"regularize": True, "keep": [1]},
    "regularize and dissolve": {"regularize": True, "keep": [1, 2], "dissolve": True},
}


QUICKLY = {"both", "dissolve", "regularize"}
"""What the others are made of."""


@pytest.fixture
def small_steps(monkeypatch):
    """Little is in memory at a time, so that a small map has many steps."""
    monkeypatch.setattr(disk_array, "CHUNK", 512)
    monkeypatch.setattr(class_raster, "VALUES_BLOCK", 64)
    monkeypatch.setattr(polygonizer, "TRACE_CELL", 64)
    monkeypatch.setattr(polygonizer, "IN_MEMORY", 4096)
    monkeypatch.setattr(regular_features, "BLOCK", 200)
    monkeypatch.setattr(conflicts, "PIECE", 100)
    monkeypatch.setattr(merge_small, "BATCH", 400)
    monkeypatch.setattr(clean, "IN_MEMORY", 4096)
    monkeypatch.setitem(clean.clean_raster.__kwdefaults__, "cell_size", 64)


def peak(run):
    """Return the bytes that numpy and Python hold at most while `run` runs."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("way", [way if way in QUICKLY else slow(way) for way in WAYS])
def test_memory_does_not_grow_with_the_map(way, make_raster, tmp_path):
    codes = np.random.default_rng(0).integers(0, 4, (4 * 256, 128)).astype(np.uint8)
    codes = np.kron(codes, np.ones((2, 2), np.uint8))
    peaks = []
    for rows in (256, 256, 4 * 256):  # the first one loads what is needed once
        raster = make_raster(f"{rows}.tif", codes[None, :rows], nodata=255)
        out = tmp_path / f"{rows}.gpkg"
        peaks.append(peak(lambda raster=raster, out=out: raster_to_polygons(raster, out, **WAYS[way], overwrite=True)))
    assert peaks[2] < 1.3 * peaks[1] + 200_000, peaks
