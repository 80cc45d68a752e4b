"""Time and size of polygons, from the middle of the raster."""

from __future__ import annotations

import numpy as np

from geopsp.polygons import estimate_polygons as module
from geopsp.polygons.estimate_polygons import estimate_polygons
from geopsp.polygons.options import PolygonOptions
from geopsp.polygons.raster_to_polygons import raster_to_polygons


def test_a_raster_that_is_alike_everywhere_costs_what_its_middle_costs(make_raster, tmp_path, monkeypatch):
    """FlatGeobuf is as large as its features are many; values may be any."""
    monkeypatch.setattr(module, "SIDE", 64)
    codes = np.kron(np.indices((64, 64)).sum(axis=0) % 2, np.ones((4, 4)))[None].astype(np.uint16) * 700
    path = make_raster("codes.tif", data=codes)
    found = estimate_polygons(path, ".fgb", PolygonOptions(nodata="none", keep=["700"]))
    out = raster_to_polygons(path, tmp_path / "all.fgb", nodata="none")
    assert found.seconds > 0
    assert 0.8 < found.num_bytes / out.stat().st_size < 1.25
