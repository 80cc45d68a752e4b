"""Files of polygons: what is read back is what was written, and nothing half-written passes for a file."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyproj
import pytest
import shapely
from common import REPOSITORY, examples, slow
from geopandas.io.arrow import _create_metadata
from hypothesis import given, settings
from hypothesis import strategies as st
from inference_common import disk_of

from geopsp.core.legend import Legend
from geopsp.errors import LabelError, OptionError, OutputError, RasterError
from geopsp.inference.options import MapOptions
from geopsp.polygons.raster_to_polygons import raster_to_polygons
from geopsp.raster.open import open_raster
from geopsp.vector import formats, geoparquet, row_groups
from geopsp.vector import write as files
from geopsp.vector.antimeridian import decimals
from geopsp.vector.formats import FORMATS, VectorFormat, usual_endings
from geopsp.vector.open import open_layer
from geopsp.vector.write import check_vector_output, write_vector

ENDINGS = [".gpkg", ".parquet", ".fgb", ".geojson", ".shp"]
EXACT = [".gpkg", ".parquet", ".fgb"]
UTM = pyproj.CRS.from_epsg(32632)
UNLISTED = pyproj.CRS.from_proj4("+proj=laea +lat_0=41.5 +lon_0=-3.25 +ellps=GRS80 +units=m +type=crs")
LEGEND = Legend.from_names(dict(enumerate(["water", "wald & wiese", "straße", "rest"])))
WKB = {"ARROW:extension:name": "geoarrow.wkb"}
SCHEMA = pa.schema(
    [
        ("code", pa.int16()),
        ("name", pa.string()),
        ("area_m2", pa.float64()),
        ("perimeter_m", pa.float64()),
        pa.field("geometry", pa.binary(), metadata=WKB),
    ]
)
ORIGIN = (601234.0, 5301717.0)


def shapes_of(count, *, multi=False, origin=ORIGIN, seed=0):
    """Squares with a hole, in rows of seven; every third has a second part if `multi`."""
    rng = np.random.default_rng(seed)
    place = np.arange(count)
    x, y = origin[0] + place % 7 * 10 + rng.random(count), origin[1] + place // 7 * 10 + rng.random(count)
    squares = shapely.box(x, y, x + 6.1, y + 7.3)
    found = shapely.orient_polygons(shapely.difference(squares, shapely.box(x + 1, y + 1, x + 2.7, y + 2)))
    if multi:
        found[::3] = shapely.union(found[::3], shapely.box(x + 6.1, y + 7.3, x + 8, y + 9)[::3])
    return found


def batch_of(shapes, *, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.arange(len(shapes)) % 3
    perimeter = pa.array([None if i % 5 == 4 else value for i, value in enumerate(rng.random(len(shapes)) * 1e4)])
    columns = [codes, np.array(LEGEND.names)[codes], rng.random(len(shapes)) * 1e5, perimeter, shapely.to_wkb(shapes)]
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def written(out, batches, *, crs=UTM, **options):
    write_vector(iter(batches), SCHEMA, out, crs=crs, legend=LEGEND, **options)
    return out


def group_rows(monkeypatch, count):
    """Let row groups have so many rows."""
    for module in (geoparquet, row_groups):
        monkeypatch.setattr(module, "GROUP_ROWS", count)


def read(path):
    """The layer named like the file: a GeoPackage has its styles in another one."""
    if path.suffix.lower() == ".parquet":
        return gpd.read_parquet(path)
    return pyogrio.read_dataframe(path, layer=path.stem)


def in_order(frame):
    """By position: a FlatGeobuf sorts its features along a curve."""
    return frame.sort_values("area_m2", ignore_index=True)


def to_degrees(crs):
    """Where a point of the CRS lies: an ESRI WKT tells the same in other words."""
    return pyproj.Transformer.from_crs(crs, pyproj.CRS(crs).geodetic_crs, always_xy=True).transform(5e5, 5.3e6)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def change_format(monkeypatch, driver, **changes):
    changed = [replace(each, **changes) if each.driver == driver else each for each in FORMATS]
    monkeypatch.setattr(formats, "FORMATS", changed)


def failing(error, batch):
    yield batch
    yield batch
    raise error


@pytest.mark.parametrize("crs", [UTM, UNLISTED], ids=["EPSG", "unlisted"])
@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("ending", EXACT)
def test_what_is_read_is_what_was_written(ending, multi, crs, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WRITE_ROWS", 9)
    group_rows(monkeypatch, 50)
    shapes = shapes_of(80, multi=multi)
    batches = [batch_of(shapes[:33], seed=1), batch_of(shapes[33:34], seed=2), batch_of(shapes[34:], seed=3)]
    frame = in_order(read(written(tmp_path / f"a{ending}", batches, crs=crs, multi=multi)))
    told = in_order(pa.Table.from_batches(batches).to_pandas())
    for name in ("code", "name", "area_m2", "perimeter_m"):
        assert (frame[name].eq(told[name]) | (frame[name].isna() & told[name].isna())).all(), name
    wanted = shapely.from_wkb(told["geometry"].to_numpy())
    wanted = np.array([shapely.MultiPolygon([g]) if multi and g.geom_type == "Polygon" else g for g in wanted])
    assert (shapely.to_wkb(frame.geometry.to_numpy()) == shapely.to_wkb(wanted)).all()
    assert pyproj.CRS(frame.crs).equals(crs, ignore_axis_order=True)
    assert frame.code.dtype == "int16"
    assert names(tmp_path) == [f"a{ending}"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_polygons_are_a_file_too(ending, tmp_path):
    for batches in ([], [batch_of(shapes_of(0))]):
        frame = read(written(tmp_path / f"a{ending}", batches, overwrite=True))
        assert len(frame) == 0
        assert {"code", "name", "area_m2"} <= set(frame.columns) or ending == ".geojson"


@settings(max_examples=examples(10), deadline=None)
@given(counts=st.lists(st.integers(0, 12), max_size=5), piece=st.integers(1, 7), rows=st.integers(1, 20))
def test_the_sizes_of_batches_do_not_matter(counts, piece, rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sizes")
    whole = batch_of(shapes_of(sum(counts), multi=True))
    starts = np.cumsum([0, *counts])
    batches = [whole.slice(start, count) for start, count in zip(starts, counts, strict=False)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "WRITE_ROWS", piece)
        group_rows(patch, rows)
        for ending in (".gpkg", ".parquet"):
            frame = read(written(folder / f"a{ending}", batches, multi=True))
            assert frame.area_m2.tolist() == whole.column("area_m2").to_pylist()
            assert shapely.equals(frame.geometry.to_numpy(), shapes_of(sum(counts), multi=True)).all()


def test_geojson_is_in_wgs_84_with_right_handed_rings(tmp_path):
    shapes = shapes_of(20, multi=True)
    out = written(tmp_path / "a.geojson", [batch_of(shapes)], multi=True)
    frame = read(out)
    assert frame.crs == "EPSG:4326"
    assert "crs" not in json.loads(out.read_text())
    wanted = gpd.GeoSeries(shapes, crs=UTM).to_crs("EPSG:4326")
    assert shapely.hausdorff_distance(frame.geometry.to_numpy(), wanted.to_numpy()).max() < 1e-7
    parts = shapely.get_parts(frame.geometry.to_numpy())
    assert shapely.is_ccw(shapely.get_exterior_ring(parts)).all()
    assert not shapely.is_ccw(shapely.get_interior_ring(parts, 0)[:1]).any()
    assert frame.area_m2.tolist() == batch_of(shapes).column("area_m2").to_pylist()


def test_geojson_of_small_pixels_has_enough_decimals(tmp_path):
    """At 7 decimals, a centimetre, squares of a centimetre would lose a tenth of their area."""
    x, y = np.meshgrid(np.arange(20) * 0.01, np.arange(20) * 0.01)
    squares = shapely.box(ORIGIN[0] + x, ORIGIN[1] + y, ORIGIN[0] + x + 0.01, ORIGIN[1] + y + 0.01).ravel()
    frame = read(written(tmp_path / "a.geojson", [batch_of(squares)], resolution=0.01))
    np.testing.assert_allclose(frame.to_crs(UTM).area, 1e-4, rtol=0.02)
    assert [decimals(side) for side in (1e-9, 0.01, 1, 2, 30, 1e6)] == [15, 10, 8, 7, 7, 7]


def test_a_geopackage_is_of_a_version_that_all_readers_know(tmp_path):
    out = written(tmp_path / "a.gpkg", [batch_of(shapes_of(3))])
    with closing(sqlite3.connect(out)) as base:
        assert base.execute("PRAGMA user_version").fetchone() == (10300,)


def test_geojson_is_of_this_earth(tmp_path):
    mars = "+proj=eqc +a=3396190 +b=3376200 +units=m +type=crs"
    with pytest.raises(OutputError, match=r"Cannot transform .* to WGS 84, which a GeoJSON file needs"):
        written(tmp_path / "a.geojson", [batch_of(shapes_of(3))], crs=mars)
    assert len(read(written(tmp_path / "a.gpkg", [batch_of(shapes_of(3))], crs=mars))) == 3


@pytest.mark.parametrize("crs", [UTM, UNLISTED], ids=["EPSG", "unlisted"])
def test_a_shapefile_says_its_limits(crs, tmp_path, capsys):
    shapes, batch = shapes_of(20, multi=True), batch_of(shapes_of(20, multi=True))
    frame = read(written(tmp_path / "a.shp", [batch], crs=crs, multi=True))
    assert "perimeter for perimeter_m" in capsys.readouterr().err
    assert list(frame.columns) == ["code", "name", "area_m2", "perimeter", "geometry"]
    assert frame.name.tolist() == batch.column("name").to_pylist()
    np.testing.assert_allclose(frame.area_m2, batch.column("area_m2").to_numpy(), rtol=1e-14)
    assert frame.perimeter.isna().tolist() == [i % 5 == 4 for i in range(20)]
    assert shapely.equals(frame.geometry.to_numpy(), shapes).all()
    assert to_degrees(frame.crs) == pytest.approx(to_degrees(crs), abs=1e-12)
    assert names(tmp_path) == ["a.cpg", "a.dbf", "a.prj", "a.shp", "a.shx"]
    assert (tmp_path / "a.cpg").read_text() == "UTF-8"


def test_a_shapefile_never_exceeds_its_size(tmp_path, monkeypatch):
    change_format(monkeypatch, "ESRI Shapefile", max_bytes=20_000)
    monkeypatch.setattr(files, "WRITE_ROWS", 10)
    with pytest.raises(OutputError, match=r"more than .* size limit of a shapefile\. Write a GeoPackage"):
        written(tmp_path / "a.shp", [batch_of(shapes_of(300))])
    assert names(tmp_path) == []


def test_a_polygon_too_large_for_a_geopackage(tmp_path, monkeypatch):
    change_format(monkeypatch, "GPKG", max_geometry_bytes=150)
    with pytest.raises(OutputError, match=r"but a GeoPackage holds at most .* Simplify the polygons with `simplify`"):
        written(tmp_path / "a.gpkg", [batch_of(shapes_of(3))])
    assert names(tmp_path) == []
    written(tmp_path / "a.fgb", [batch_of(shapes_of(3))])


def test_geoparquet_says_what_geopandas_would_say(tmp_path):
    batch = batch_of(shapes_of(30))
    out = written(tmp_path / "a.parquet", [batch])
    told = json.loads(pq.read_metadata(out).metadata[b"geo"])
    frame = gpd.GeoDataFrame(geometry=shapes_of(30), crs=UTM)
    wanted = _create_metadata(frame, "1.1.0", write_covering_bbox=True)
    del wanted["creator"]
    assert told["columns"]["geometry"].pop("orientation") == "counterclockwise"
    wanted["columns"]["geometry"].pop("orientation", None)
    assert told == wanted


def test_geoparquet_of_clockwise_shells_claims_no_orientation(tmp_path):
    shapes = shapely.orient_polygons(shapes_of(5), exterior_cw=True)
    out = written(tmp_path / "a.parquet", [batch_of(shapes)])
    assert "orientation" not in json.loads(pq.read_metadata(out).metadata[b"geo"])["columns"]["geometry"]


def test_older_readers_know_the_parts_of_a_compound_crs(tmp_path):
    crs = pyproj.CRS("EPSG:4326+5773")
    out = written(tmp_path / "a.parquet", [batch_of(shapes_of(5))], crs=crs)
    told = json.loads(pq.read_metadata(out).metadata[b"geo"])["columns"]["geometry"]["crs"]
    members = told["components"][0]["datum_ensemble"]["members"]
    assert len(members) > 5
    assert not any("id" in member for member in members)
    assert pyproj.CRS(read(out).crs).equals(crs)


def test_geoparquet_is_read_by_box(tmp_path, monkeypatch):
    group_rows(monkeypatch, 20)
    shapes = shapes_of(70)
    out = written(tmp_path / "a.parquet", [batch_of(shapes)])
    assert pq.read_metadata(out).num_row_groups == 4
    box = shapes[40].bounds
    found = gpd.read_parquet(out, bbox=box)
    assert shapes[40] in found.geometry.tolist()
    assert len(found) < 5
    layer = open_layer(out)
    assert layer.has_index
    assert layer.fields == ("code", "name", "area_m2", "perimeter_m")
    assert layer.bounds() == tuple(shapely.total_bounds(shapes))
    assert shapes[40] in layer.read(box=box).geometry.tolist()


@pytest.mark.parametrize("ending", [".gpkg", ".fgb"])
def test_files_have_a_spatial_index(ending, tmp_path):
    out = written(tmp_path / f"a{ending}", [batch_of(shapes_of(30))])
    assert pyogrio.read_info(out, layer="a")["capabilities"]["fast_spatial_filter"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_error_of_the_maker_comes_out_as_it_is(ending, tmp_path):
    batch = batch_of(shapes_of(9))
    for error in (RasterError("the block 3 is damaged"), ZeroDivisionError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught:
            written(tmp_path / f"a{ending}", failing(error, batch))
        assert caught.value is error
    assert names(tmp_path) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_was_there_stays_unless_it_may_go(ending, tmp_path):
    out, batch = tmp_path / f"a{ending}", batch_of(shapes_of(9))
    written(out, [batch])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputError, match="already exists"):
        written(out, [batch])
    with pytest.raises(RasterError):
        written(out, failing(RasterError("damaged"), batch), overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    written(out, [batch, batch], overwrite=True)
    assert len(read(out)) == 18
    assert names(tmp_path) == sorted(before)


def test_remains_of_an_older_file_do_not_spoil_the_new_one(tmp_path):
    for name in ("a.gpkg", "a.gpkg-wal", "a.gpkg-journal", "a.shp", "a.qix", "a.sbn", "a.qml"):
        (tmp_path / name).write_text("old")
    for ending in (".gpkg", ".shp"):
        written(tmp_path / f"a{ending}", [batch_of(shapes_of(9))], overwrite=True)
        assert len(read(tmp_path / f"a{ending}")) == 9
    assert names(tmp_path) == ["a.cpg", "a.dbf", "a.gpkg", "a.prj", "a.qml", "a.shp", "a.shx"]


@pytest.mark.parametrize(
    ("out", "lone"),
    [("a.shp", ["a.dbf", "a.prj"]), ("a.SHP", ["a.shp.xml"]), ("a.b.shp", ["a.b.sbn"]), ("a.gpkg", ["a.gpkg-wal"])],
)
def test_what_would_belong_to_a_file_stays_too(out, lone, tmp_path):
    """A table without shapes may be somebody's work."""
    for name in [*lone, "a.txt", "b.dbf", "a.gpkg-x"]:
        (tmp_path / name).write_text("precious")
    before, batches = names(tmp_path), [batch_of(shapes_of(9))]
    for attempt in (check_vector_output, lambda path: written(path, batches)):
        with pytest.raises(OutputError, match=rf"already exist.*{', '.join(lone)}.*`overwrite=True`"):
            attempt(tmp_path / out)
    assert names(tmp_path) == before
    assert {path.read_text() for path in tmp_path.iterdir()} == {"precious"}
    for name in ("a.fgb", "a.geojson"):
        check_vector_output(tmp_path / name)
    assert len(read(written(tmp_path / out, batches, overwrite=True))) == 9


@pytest.mark.parametrize("rows", [0, 40])
@pytest.mark.parametrize("part", [".shp", ".shx", ".dbf", ".prj", ".cpg"])
def test_an_empty_part_of_a_shapefile_is_found(part, rows, tmp_path, monkeypatch):
    """As a full disk may leave it: an empty file tells a length of 0 bytes."""

    def emptied(data, place, write=pyogrio.write_arrow, **options):
        write(data, place, **options)
        os.truncate(place.with_suffix(part), 0)

    monkeypatch.setattr(pyogrio, "write_arrow", emptied)
    with pytest.raises(OutputError, match="cut off at its end"):
        written(tmp_path / "a.shp", [batch_of(shapes_of(rows))])
    assert names(tmp_path) == []


@pytest.mark.parametrize("part", [".shp", ".shx"])
def test_a_head_that_tells_of_nothing_but_itself_is_found(part, tmp_path, monkeypatch):
    """As GDAL writes it first."""

    def beheaded(data, place, write=pyogrio.write_arrow, **options):
        write(data, place, **options)
        with place.with_suffix(part).open("r+b") as file:
            file.truncate(100)
            file.seek(24)
            file.write((50).to_bytes(4, "big"))

    monkeypatch.setattr(pyogrio, "write_arrow", beheaded)
    written(tmp_path / "empty.shp", [])
    with pytest.raises(OutputError, match="cut off at its end"):
        written(tmp_path / "a.shp", [batch_of(shapes_of(40))])


@pytest.mark.parametrize("name", ["layer_styles", "Layer_Styles", "gpkg_contents", "GPKGx", "sqlite_a", "rtree_a"])
def test_a_name_that_a_geopackage_keeps_is_told_before_any_work(name, tmp_path):
    with pytest.raises(OptionError, match=f"layer named {name}.*Choose another name"):
        check_vector_output(tmp_path / f"{name}.gpkg")
    assert len(read(written(tmp_path / f"{name}.fgb", [batch_of(shapes_of(9))]))) == 9


@pytest.mark.parametrize("name", ["layer_styles_2", "a_gpkg", "sqlite", "my.rtree_a"])
def test_a_name_that_resembles_one_that_is_kept_is_a_name(name, tmp_path):
    out = check_vector_output(tmp_path / f"{name}.gpkg")
    assert len(read(written(out, [batch_of(shapes_of(9))]))) == 9


def test_old_shapes_never_lie_beside_a_new_table(tmp_path, monkeypatch):
    out = written(tmp_path / "a.shp", [batch_of(shapes_of(9))])

    def replace(self, target, move=Path.replace):
        if target == out:
            raise OSError("broken off")
        return move(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OutputError, match="broken off"):
        written(out, [batch_of(shapes_of(5))], overwrite=True)
    assert not out.exists()


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_is_an_error_wherever_it_strikes(ending, tmp_path):
    """Also when the last bytes are written, of which GDAL tells nobody."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    out, batches = tmp_path / f"a{ending}", [batch_of(shapes_of(100))] * 3
    sizes = {path.stat().st_size for path in (written(out, batches), *tmp_path.iterdir()) if path.suffix != ".cpg"}
    before = names(tmp_path)
    for size in sizes:
        for limit in (size // 2, size - 4000, size - 100, size - 1):
            if limit <= 0:
                continue
            with pytest.raises(OutputError, match="Is the disk full"), disk_of(limit):
                written(out, batches, overwrite=True)
            assert names(tmp_path) == before
            assert len(read(out)) == 300


KILLED = """
import os, signal, sys
import pyarrow as pa, shapely
from geopsp.core.legend import Legend
from geopsp.vector.write import write_vector
schema = pa.schema([("code", pa.int16()), pa.field("geometry", pa.binary())])
def batches():
    shape = shapely.to_wkb(shapely.box(5e5, 5e6, 5.1e5, 5.1e6))
    for _ in range(20):
        yield pa.record_batch([pa.array([1] * 100, pa.int16()), pa.array([shape] * 100)], schema=schema)
    os.kill(os.getpid(), signal.SIGKILL)
write_vector(batches(), schema, sys.argv[1], crs="EPSG:32632", legend=Legend(()), overwrite=True)
"""


@pytest.mark.parametrize("ending", [".gpkg", ".shp"])
def test_a_kill_leaves_what_was_there(ending, tmp_path):
    out = tmp_path / f"a{ending}"
    written(out, [batch_of(shapes_of(9))])
    before = names(tmp_path)
    done = subprocess.run([sys.executable, "-c", KILLED, out], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(read(out)) == 9
    remains, *others = names(tmp_path)
    assert remains.startswith(f".partial-a{ending}-")
    assert others == before
    written(out, [batch_of(shapes_of(5))], overwrite=True)
    assert len(read(out)) == 5
    assert names(tmp_path) == before


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot create"):
        written(tmp_path / "file" / "a.gpkg", [])
    with pytest.raises(OptionError, match=r"ends in '\.kml', but must end in \.gpkg"):
        written(tmp_path / "a.kml", [])
    for ending in (ending for vector_format in formats.FORMATS for ending in vector_format.endings):
        assert check_vector_output(tmp_path / f"new{ending.upper()}").parent.is_dir()


@pytest.mark.parametrize("ending", ENDINGS)
def test_endings_may_be_capitals(ending, tmp_path):
    out = written(tmp_path / f"a.b{ending.upper()}", [batch_of(shapes_of(9))])
    assert out.exists()
    assert len(read(out)) == 9


def test_a_new_format_is_one_entry(tmp_path, monkeypatch):
    """It is written, checked, found by its ending and listed in messages."""
    new = VectorFormat(
        name="MapInfo file", driver="MapInfo File", endings=(".tab",), companion_endings=(".dat", ".map", ".id"),
        column_names={"perimeter_m": "perimeter"}, reserved_names=re.compile("mine$"),
    )  # fmt: skip
    with pytest.raises(OptionError, match=r"must end in \.gpkg, \.parquet, \.fgb, \.geojson or \.shp\."):
        check_vector_output(tmp_path / "a.tab")
    monkeypatch.setattr(formats, "FORMATS", [*FORMATS, new])
    assert usual_endings() == [".gpkg", ".parquet", ".fgb", ".geojson", ".shp", ".tab"]
    with pytest.raises(OptionError, match="which a MapInfo file reserves"):
        check_vector_output(tmp_path / "mine.tab")
    shapes = shapes_of(20)
    out = written(check_vector_output(tmp_path / "a.tab"), [batch_of(shapes)])
    frame = read(out)
    assert names(tmp_path) == ["a.dat", "a.id", "a.map", "a.tab"]
    assert list(frame.columns) == ["code", "name", "area_m2", "perimeter", "geometry"]
    assert shapely.hausdorff_distance(frame.geometry.to_numpy(), shapes).max() < 0.01
    (tmp_path / "a.tab").unlink()
    with pytest.raises(OutputError, match=r"already exist .*a\.dat, a\.map, a\.id"):
        check_vector_output(tmp_path / "a.tab")

    def lose_rows(data, path, write=pyogrio.write_arrow, **options):
        write(pa.table(data.read_all()).slice(0, 3), path, **options)

    monkeypatch.setattr(pyogrio, "write_arrow", lose_rows)
    with pytest.raises(OutputError, match="was cut off at its end"):
        written(tmp_path / "b.tab", [batch_of(shapes)])


def test_endings_are_distinct_and_each_format_is_found_by_its_own():
    endings = [ending for vector_format in FORMATS for ending in vector_format.endings]
    assert len(set(endings)) == len(endings)
    for vector_format in FORMATS:
        assert {formats.format_of(f"a{ending.upper()}") for ending in vector_format.endings} == {vector_format}


def test_texts_list_the_endings():
    for text in (raster_to_polygons.__doc__, MapOptions.__dataclass_fields__["polygons"].metadata["option"].help):
        assert formats.ENDINGS in text
    guide = (REPOSITORY / "docs" / "guide" / "polygons.md").read_text()
    for vector_format in FORMATS:
        assert f"`{vector_format.endings[0]}`" in guide


def test_the_table_of_formats_is_light():
    """The shell reads it for its help."""
    heavy = {"pyogrio", "pyarrow", "numpy", "geopandas"}
    code = f"import sys, geopsp.vector.formats; sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", code], check=True)


OPTION = "OGR_SQLITE_PRAGMA"


def page_size(package):
    with closing(sqlite3.connect(package)) as base:
        return base.execute("PRAGMA page_size").fetchone()[0]


def test_options_for_all_threads_hold_only_while_a_file_is_opened(tmp_path):
    seen = []

    def batches():
        seen.append(pyogrio.get_gdal_config_option(OPTION))
        yield batch_of(shapes_of(9))

    out = written(tmp_path / "a.gpkg", batches())
    assert page_size(out) == 16384
    with pytest.raises(RasterError):
        written(tmp_path / "b.gpkg", failing(RasterError("damaged"), batch_of(shapes_of(9))))
    with pytest.raises(OutputError, match="Cannot write"), disk_of(0):
        written(tmp_path / "c.gpkg", batches())
    assert [*seen, pyogrio.get_gdal_config_option(OPTION)] == [None] * (len(seen) + 1)


@pytest.mark.parametrize("given", [None, "1000000"])
def test_the_memory_of_spatial_indices_is_bounded(given, tmp_path):
    """By a number of bytes, not by a share of the machine's; or as the user says."""
    (option,) = files.INDEX_OPTIONS
    pyogrio.set_gdal_config_options({option: given})
    try:
        written(tmp_path / "a.gpkg", [batch_of(shapes_of(9))])
        assert pyogrio.get_gdal_config_option(option) == int(given or 512 * 2**20)
    finally:
        pyogrio.set_gdal_config_options({option: None})


def test_options_of_the_user_stay(tmp_path):
    pyogrio.set_gdal_config_options({OPTION: "page_size=8192"})
    try:
        assert page_size(written(tmp_path / "a.gpkg", [batch_of(shapes_of(9))])) == 8192
        assert pyogrio.get_gdal_config_option(OPTION) == "page_size=8192"
    finally:
        pyogrio.set_gdal_config_options({OPTION: None})


def test_what_a_link_points_to_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    link, target = tmp_path / "a.gpkg", tmp_path / "there" / "b.gpkg"
    link.symlink_to(target)
    for count in (9, 5):
        written(link, [batch_of(shapes_of(count))], overwrite=count == 5)
        assert len(read(target)) == count
    assert names(tmp_path) == [link.name, "there"]
    assert link.is_symlink()


@pytest.mark.parametrize(("name", "target"), [("a.gpkg", "b.fgb"), ("a.gpkg", "b"), ("a.shp", "b.shp")])
def test_a_link_to_what_its_name_does_not_tell_is_refused(name, target, tmp_path):
    (tmp_path / name).symlink_to(tmp_path / target)
    with pytest.raises(OptionError, match="is a link to"):
        written(tmp_path / name, [batch_of(shapes_of(9))])
    assert names(tmp_path) == [name]


def test_a_name_with_quotes_is_a_layer(tmp_path):
    out = written(tmp_path / "a\"b'c d.gpkg", [batch_of(shapes_of(9))])
    assert pyogrio.list_layers(out).tolist() == [["a\"b'c d", "Polygon"], ["layer_styles", None]]


def test_a_geopackage_shows_its_classes(tmp_path):
    """Those that are there: the legend tells of one more."""
    out = written(tmp_path / "a.gpkg", [batch_of(shapes_of(9))])
    with closing(sqlite3.connect(out)) as base:
        ((qml, default),) = base.execute("SELECT styleQML, useAsDefault FROM layer_styles WHERE f_table_name = 'a'")
        assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert default == 1
    assert all(name.replace("&", "&amp;") in qml for name in LEGEND.names[:3])
    assert LEGEND.names[3] not in qml
    assert open_layer(out).source.endswith("(layer a)")


ODD_NAMES = ["!results", "a!results", ";a;b", "a:b", "zip:a", "a?", "~", "'q\"", "\\a", "a\nb", " a ", "é", "z.zip!a"]
ODD_NAMES += [*"[(#+@$=-*&%", ".a", "-a", "a|b", "{a}"]
ODD_FOLDERS = ["", "important!;\\?", "a:b", "file:a"]


def files_below(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("folder", [*ODD_FOLDERS[:2], *map(slow, ODD_FOLDERS[2:])])
def test_a_file_of_any_name_is_written_and_read_and_no_other_is_touched(folder, ending, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / folder).mkdir(exist_ok=True)
    for name in ODD_NAMES if not folder else ODD_NAMES[:2]:
        out = Path(folder, name + ending)
        other = name.rpartition("!")[2] + ending  # what pyogrio would take it for
        for path in {tmp_path / other, tmp_path / folder / other} - {tmp_path / out}:
            path.write_text("mine")
        before = files_below(tmp_path)
        written(out, [batch_of(shapes_of(3))], overwrite=out.exists())
        after = files_below(tmp_path)
        new = {path for path in after if before.get(path) != after[path]}
        assert tmp_path / out in new
        assert {(path.parent, path.name.startswith(name)) for path in new} == {(tmp_path / out.parent, True)}
        for layer in (open_layer(str(out)), open_layer(out, where="code = 1")):
            assert len(layer.read(["code"])) == (1 if layer.where else 3)
            assert sum(map(len, layer.batches("code"))) == (1 if layer.where else 3)
            layer.bounds()
    assert not list(tmp_path.rglob(".partial*"))


def test_two_slashes_begin_no_host(tmp_path):
    out = written(f"/{tmp_path}/a.gpkg", [batch_of(shapes_of(3))])
    assert len(open_layer(out).read()) == 3


def test_the_layer_of_a_geopackage_begins_with_a_letter(tmp_path):
    """GDAL takes no sign there."""
    for name, layer in (("-a b!", "a b!"), ("(", "polygons"), ("ä-1", "ä-1")):
        written(tmp_path / f"{name}.gpkg", [batch_of(shapes_of(3))])
        assert open_layer(tmp_path / f"{name}.gpkg").name == layer
    with pytest.raises(OptionError, match="a layer named gpkg"):
        check_vector_output(tmp_path / "-gpkg.gpkg")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such names")
def test_a_name_that_is_not_in_utf_8_is_told_before_any_work(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.gpkg")
    with pytest.raises(OutputError, match=r"caf\\udce9\.gpkg is not in UTF-8"):
        check_vector_output(path)
    path.write_bytes(b"")
    with pytest.raises(LabelError, match=r"caf\\udce9\.gpkg is not in UTF-8"):
        open_layer(path)
    with pytest.raises(RasterError, match=r"caf\\udce9\.gpkg is not in UTF-8"):
        open_raster(path)
