"""Views and conditions that never end are told after the seconds that the user allows; all others work."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

import geopandas as gpd
import pytest
import shapely
from common import SOON

from geopsp.core.time_limit import time_limit
from geopsp.errors import LabelError, OptionError
from geopsp.vector.open import open_layer

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c"

SHAPES = [shapely.box(0, 0, 1, 1), shapely.box(2, 2, 3, 3)]


@pytest.fixture
def package(tmp_path):
    path = tmp_path / "fields.gpkg"
    gpd.GeoDataFrame({"kind": ["a", "b"]}, geometry=SHAPES, crs="EPSG:32632").to_file(path, layer="fields")
    return path


def add_view(path, name, query):
    """Add a view as a layer of the file."""
    with closing(sqlite3.connect(path)) as base, base:
        base.execute(f'CREATE VIEW "{name}" AS {query}')
        base.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, srs_id) VALUES (?, 'features', ?, 32632)",
            (name, name),
        )
        base.execute(
            "INSERT INTO gpkg_geometry_columns SELECT ?, column_name, geometry_type_name, srs_id, z, m "
            "FROM gpkg_geometry_columns WHERE table_name = 'fields'",
            (name,),
        )


@pytest.mark.parametrize(
    "query",
    [
        f"SELECT fid, geom, kind FROM fields WHERE fid IN ({ENDLESS} WHERE x < 0)",
        f"SELECT fid, geom, ({ENDLESS} WHERE x < 0) AS kind FROM fields",
        f"SELECT c.x AS fid, geom, kind FROM fields, ({ENDLESS}) AS c",
        f"SELECT fid, geom, ST_GeometryType(geom) AS kind FROM fields WHERE fid IN ({ENDLESS} WHERE x < 0)",
    ],
)
def test_an_endless_view_is_told_whatever_layer_is_read(package, query):
    add_view(package, "trap", query)
    for layer in (package, f"{package}|layername=trap", f"{package}|layername=fields"):
        start = time.monotonic()
        with time_limit(0.3), pytest.raises(LabelError, match=r"view trap .*within 0\.3 s.*GEOPSP_TIMEOUT"):
            open_layer(layer)
        assert time.monotonic() - start < SOON


def test_a_view_that_ends_is_read(package):
    add_view(package, "some", "SELECT fid, geom, kind FROM fields WHERE ST_IsEmpty(geom) = 0 AND kind = 'b'")
    assert open_layer(f"{package}|layername=some").read()["kind"].tolist() == ["b"]


@pytest.mark.parametrize("ending", ["gpkg", "parquet", "frame"])
def test_an_endless_condition_is_told(tmp_path, package, ending):
    frame = gpd.read_file(package)
    labels = frame if ending == "frame" else tmp_path / f"labels.{ending}"
    if ending == "parquet":
        frame.to_parquet(labels)
    elif ending == "gpkg":
        labels = package
    where = f"kind = 'a' AND 1 IN ({ENDLESS} WHERE x < 0)"
    with time_limit(0.3), pytest.raises(LabelError, match=r"does not end within 0\.3 s"):
        open_layer(labels, where=where).read()
    assert open_layer(labels, where="kind = 'a'").read()["kind"].tolist() == ["a"]


@pytest.mark.parametrize("text", ["soon", "-1", "0", "inf", "nan"])
def test_a_time_limit_is_a_positive_number(package, monkeypatch, text):
    monkeypatch.setenv("GEOPSP_TIMEOUT", text)
    with pytest.raises(OptionError, match="must be a positive number of seconds"):
        open_layer(package)
