"""Polygons of a raster that workers trace are those of one process, to the byte."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from common import slow
from polygons_common import blobs

import geopsp
from geopsp import raster_to_polygons
from geopsp.cluster import client as clients
from geopsp.cluster.client import connect
from geopsp.cluster.order import order_in_memory
from geopsp.errors import InputNotFoundError, OptionError, RasterError
from geopsp.polygons import dask_cells, polygonizer
from geopsp.polygons.class_raster import ClassRaster
from geopsp.vector import geoparquet, row_groups


@pytest.fixture
def small_cells(monkeypatch):
    """A raster of some cells."""
    monkeypatch.setattr(polygonizer, "TRACE_CELL", 32)


@pytest.fixture
def class_map(make_raster):
    """A raster of 4 x 3 cells of 32."""
    return make_raster("map.tif", blobs(120)[None, :90], nodata=255)


def rows_of(path):
    """All rows of the layer of a GeoPackage, with their numbers."""
    with closing(sqlite3.connect(path)) as database:
        return database.execute(f"SELECT * FROM {path.stem}").fetchall()


@pytest.mark.parametrize(
    "options",
    [
        slow({}),
        {"connectivity": 8, "drop": [0], "min_area": 20.0, "fill_holes": 20.0},
        slow({"dissolve": True}),
        {"keep": [7], "regularize": True},
    ],
)
def test_workers_trace_the_polygons_of_one_process(options, class_map, dask_client, small_cells, tmp_path):
    for name, client in (("one", None), ("many", dask_client)):
        raster_to_polygons(class_map, tmp_path / f"{name}.parquet", client=client, **options)
    one, many = tmp_path / "one.parquet", tmp_path / "many.parquet"
    assert pq.read_table(one).num_rows > 1
    assert one.read_bytes() == many.read_bytes()


@pytest.mark.parametrize("connectivity", [4, slow(8)])
def test_workers_compress_the_polygons_of_their_cells(
    connectivity, class_map, dask_client, small_cells, tmp_path, monkeypatch
):
    """They become row groups of their own; the rows are those of a file whose cells are small."""
    plain, one, many = (tmp_path / f"{name}.parquet" for name in ("plain", "one", "many"))
    raster_to_polygons(class_map, plain, connectivity=connectivity)
    monkeypatch.setattr(row_groups, "PACKED_BYTES", 1)
    raster_to_polygons(class_map, one, connectivity=connectivity)
    monkeypatch.setattr(geoparquet, "encode_rows", None)  # nothing is left to this process
    raster_to_polygons(class_map, many, connectivity=connectivity, client=dask_client)
    assert one.read_bytes() == many.read_bytes()
    assert pq.read_table(one).equals(pq.read_table(plain))
    assert (pq.read_metadata(plain).num_row_groups, pq.read_metadata(one).num_row_groups > 6) == (1, True)


def test_polygons_that_are_simplified_across_cells(make_raster, class_map, dask_client, monkeypatch, tmp_path):
    """And smoothed, with confidence, to GeoPackages."""
    monkeypatch.setattr(polygonizer, "GENERALIZED_CELL", 64)
    values = np.random.default_rng(0).random((1, 90, 120)).astype("float32")
    options = {"simplify": 3.0, "smooth": 1, "confidence": make_raster("sure.tif", values)}
    for name, client in (("one", None), ("many", dask_client)):
        raster_to_polygons(class_map, tmp_path / f"{name}.gpkg", client=client, **options)
    rows = rows_of(tmp_path / "one.gpkg")
    assert rows == rows_of(tmp_path / "many.gpkg")
    assert len(rows) > 10


def test_a_raster_of_other_values_at_a_relative_path(make_raster, dask_client, small_cells, tmp_path, monkeypatch):
    """Its values are numbered here; workers have another folder of work."""
    codes = blobs(70)[None].astype("int32") * 1000
    make_raster("far.tif", codes)
    monkeypatch.chdir(tmp_path)
    for name, client in (("one", None), ("many", dask_client)):
        raster_to_polygons("far.tif", f"{name}.parquet", nodata=255_000, client=client)
    assert Path("one.parquet").read_bytes() == Path("many.parquet").read_bytes()
    monkeypatch.chdir("/")
    with ClassRaster.open(tmp_path / "far.tif") as raster:
        again = raster.__reduce__()
        assert again[0](*again[1]).path == str(tmp_path / "far.tif")


def test_a_cell_that_fails_ends_it_and_leaves_nothing(class_map, dask_client, small_cells, tmp_path, monkeypatch):
    monkeypatch.setattr("geopsp.cluster.tasks.RETRIES", 0)
    read = ClassRaster.read

    def fail(self, window):
        if window.row > 30:
            raise RasterError("map.tif is damaged")
        return read(self, window)

    monkeypatch.setattr(ClassRaster, "read", fail)
    with pytest.raises(RasterError, match="is damaged"):
        raster_to_polygons(class_map, tmp_path / "out.gpkg", client=dask_client)
    assert [path.name for path in tmp_path.iterdir()] == ["map.tif"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (Path.unlink, InputNotFoundError, "does not see the raster .*all machines share"),
        (lambda path: os.utime(path, (1, 1)), RasterError, "sees a raster that differs"),
    ],
)
def test_a_worker_that_does_not_see_the_raster_is_named(change, error, message, class_map, monkeypatch):
    monkeypatch.setattr("distributed.get_worker", lambda: SimpleNamespace(address="tcp://far:1"))
    files = (str(class_map),)
    order = order_in_memory(dask_cells.TracingJob(len, len, files, dask_cells._fingerprint(files)))
    assert dask_cells._open_job.__wrapped__(order).files == files
    change(class_map)
    with pytest.raises(error, match=f"The worker tcp://far:1.*{message}"):
        dask_cells._open_job.__wrapped__(order)


def test_a_worker_of_another_version_opens_nothing(class_map, monkeypatch):
    monkeypatch.setattr("distributed.get_worker", lambda: SimpleNamespace(address="tcp://far:1"))
    order = order_in_memory(dask_cells.TracingJob(len, len, (), ()))
    monkeypatch.setattr(geopsp, "__version__", "0.0.1")
    with pytest.raises(OptionError, match=r"tcp://far:1 has geopsp 0\.0\.1, but this process has \d"):
        dask_cells._open_job.__wrapped__(order)


def test_a_client_and_an_address_exclude_each_other(class_map, dask_client, tmp_path):
    with pytest.raises(OptionError, match="`client` and `scheduler` are both given"):
        raster_to_polygons(class_map, tmp_path / "out.gpkg", client=dask_client, scheduler="local")


@dataclass(frozen=True)
class Deadly:
    """Traces cells and compresses their polygons; kills the process below the first row of cells, once."""

    trace: Callable[..., object]
    killed: Path

    def __call__(self, window):
        row_groups.PACKED_BYTES = 1
        if window.row > 0 and not self.killed.exists():
            self.killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.trace(window)


@pytest.mark.slow
def test_a_worker_that_dies_costs_nothing(class_map, small_cells, tmp_path, monkeypatch):
    """Polygons that it had compressed are compressed again."""
    killed, trace_on_cluster = tmp_path / "killed", polygonizer.trace_on_cluster
    monkeypatch.setattr(row_groups, "PACKED_BYTES", 1)
    raster_to_polygons(class_map, tmp_path / "one.parquet")
    monkeypatch.setattr(
        polygonizer,
        "trace_on_cluster",
        lambda trace, *rest, **more: trace_on_cluster(Deadly(trace, killed), *rest, **more),
    )
    monkeypatch.setattr(clients, "cpu_count", lambda: 2)
    monkeypatch.setattr(clients, "PROCESS_BYTES", 1)
    with connect("local") as client:
        assert len(client.nthreads()) == 2
        raster_to_polygons(class_map, tmp_path / "many.parquet", client=client)
    assert killed.exists()
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "many.parquet").read_bytes()
    assert pq.read_metadata(tmp_path / "many.parquet").num_row_groups > 6
