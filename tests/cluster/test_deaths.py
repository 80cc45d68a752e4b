"""A worker process that dies costs its tasks alone: chips and polygons are those of one process."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import dask
import geopandas as gpd
import numpy as np
import pyarrow as pa
import pytest
from common import square
from distributed import Client, LocalCluster
from distributed.utils import get_mp_context
from polygons_common import blobs

from geopsp.chips import dask_cutter
from geopsp.chips.export import Export
from geopsp.chips.labelled_scenes import LabelledScenes
from geopsp.chips.options import ChipSpec
from geopsp.core.jit import compile_ahead
from geopsp.polygons.attributes import AttributeTable, legend_for
from geopsp.polygons.borders.trace_raster import trace_raster
from geopsp.polygons.class_raster import ClassRaster
from geopsp.polygons.dask_cells import trace_on_cluster
from geopsp.polygons.ground_metric import GroundMetric
from geopsp.polygons.options import PolygonSettings
from geopsp.polygons.polygonizer import compiled_modules
from geopsp.raster.scene import Scene

pytestmark = pytest.mark.slow


def die_once(folder):
    """Kill this process, unless one was killed already."""
    with suppress(FileExistsError):
        (folder / "killed").touch(exist_ok=False)
        os.kill(os.getpid(), signal.SIGKILL)


class DeadlyScene(Scene):
    """Kills the process that reads below row 30, the first time."""

    __slots__ = ()

    def read(self, window=None):
        if window.row > 30:
            die_once(Path(self.sources[0].path).parent)
        return Scene.read(self, window)


class DeadlyRaster(ClassRaster):
    """Kills the process that reads below row 60, the first time."""

    __slots__ = ()

    def read(self, window):
        if window.row > 60:
            die_once(Path(self.path).parent)
        return ClassRaster.read(self, window)


@pytest.fixture(scope="module")
def processes():
    """A client of two worker processes, forked from one that has imported what they need."""
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context().set_forkserver_preload(["distributed", "geopsp.chips.dask_rows", "geopsp.polygons.dask_cells"])
        cluster = LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL
        )
        with cluster, Client(cluster, set_as_default=False) as client:
            yield client


def test_chips(make_raster, processes, tmp_path, monkeypatch):
    monkeypatch.setattr(dask_cutter, "MAX_CHIPS", 1)
    monkeypatch.setattr(dask_cutter, "MAX_ROWS_PER_BLOCK", 0)
    labels = gpd.GeoDataFrame({"kind": ["a"]}, geometry=[square(601250, 5301700, 60)], crs="EPSG:32632")
    inputs = LabelledScenes.open(make_raster(), labels, class_field="kind")
    (scene,) = inputs.scenes
    deadly = DeadlyScene(**{each.name: getattr(scene, each.name) for each in fields(scene) if each.init})
    found = []
    for name, source, client in (("one", scene, None), ("many", deadly, processes)):
        export = Export(replace(inputs, scenes=(source,)), ChipSpec(16), "tif", {}, None, None, client)
        export.run(tmp_path / name, overwrite=False)
        files = [path for path in sorted((tmp_path / name).rglob("*")) if path.is_file()]
        found.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
    assert (tmp_path / "killed").exists()
    assert found[0] == found[1]


def test_polygons(make_raster, processes):
    compile_ahead(compiled_modules(PolygonSettings()))
    path = make_raster("map.tif", blobs(120)[None], nodata=255)
    tables = []
    for kind, client in ((ClassRaster, None), (DeadlyRaster, processes)):
        with kind.open(path) as raster:
            metric = GroundMetric.from_grid(raster.grid)
            table = AttributeTable(raster.grid, metric, legend_for(path))
            there = partial(trace_on_cluster, client=client, files=[str(path)], close=raster.close)
            batches = trace_raster(raster, metric, table.to_batch, cell_size=32, map_cells=client and there)
            tables.append(pa.Table.from_batches(list(batches)))
    assert (path.parent / "killed").exists()
    assert tables[0].num_rows > 10
    assert tables[0].equals(tables[1])
    assert np.isfinite(tables[0]["area_m2"].to_numpy()).all()
