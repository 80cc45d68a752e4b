import os
import shutil
import zipfile

import geopandas as gpd
import pytest
import shapely
from common import square

from geopsp.core import paths
from geopsp.errors import InputNotFoundError, LabelError, OptionError
from geopsp.vector import layer
from geopsp.vector.open import open_layer, read_vector

LEFT, TOP = 601234.0, 5301717.0
SHAPES = [square(LEFT + 20 * i, TOP - 10 * i, 8) for i in range(6)]
FRAME = gpd.GeoDataFrame(
    {"kind": list("abcabc"), "height": [1.5, 2, None, 4, 5, 6], "n": range(6)}, geometry=SHAPES, crs="EPSG:32632"
)


@pytest.fixture(params=["gpkg", "geojson", "shp", "fgb", "parquet", "covered.parquet", "zip", "frame"])
def source(request, tmp_path):
    if request.param == "frame":
        return FRAME
    path = tmp_path / f"labels.{request.param}"
    if path.suffix == ".parquet":
        FRAME.to_parquet(path, write_covering_bbox=request.param.startswith("covered"), schema_version="1.1.0")
    elif path.suffix == ".zip":
        FRAME.to_file(tmp_path / "inner.shp")
        with zipfile.ZipFile(path, "w") as archive:
            for part in tmp_path.glob("inner.*"):
                archive.write(part, part.name)
    else:
        FRAME.to_file(path)
    return path


def test_a_box_reads_what_meets_it(source):
    layer = open_layer(source)
    left, bottom, right, top = box = shapely.total_bounds(SHAPES[1:3])
    if layer.crs.is_geographic:
        box = gpd.GeoSeries([shapely.box(*box)], crs=32632).to_crs(4326).buffer(-1e-5).total_bounds
    else:
        box = (left + 1, bottom + 1, right - 1, top - 1)
    whole = layer.read(["kind"])
    assert sorted(whole["kind"]) == sorted("abcabc")
    assert whole.index.is_monotonic_increasing
    assert not layer.reads_by_bbox
    part = layer.read(["kind"], box=tuple(box))
    assert sorted(part["kind"]) == ["b", "c"]
    assert len(layer.read([], most=1)) == 1


def test_a_query_reads_what_it_chooses(source):
    layer = open_layer(source, where="kind = 'b' OR height > 5")
    assert sorted(layer.read(["kind"])["kind"]) == ["b", "b", "c"]
    assert sorted(value for batch in layer.batches("kind") for value in batch) == ["b", "b", "c"]
    with pytest.raises(LabelError, match=r"does not work for .* Fields: kind, height, n\. Write it as an SQL"):
        open_layer(source, where="n = = 3").read()
    for query in ("nothing = 3", "height > 2 AND nothing = 'it''s'"):
        with pytest.raises(LabelError, match=r"no field 'nothing'\. Fields: kind, height, n\."):
            open_layer(source, where=query).read()


def test_a_column_comes_whole(source):
    assert sorted(value for batch in open_layer(source).batches("n") for value in batch) == list(range(6))


def test_a_stamp_changes_with_the_input(source, tmp_path):
    before = open_layer(source).fingerprint()
    assert before == open_layer(source).fingerprint()
    other = FRAME.assign(kind="z")
    if isinstance(source, gpd.GeoDataFrame):
        assert open_layer(other).fingerprint() != before
    else:
        source.write_bytes(source.read_bytes() + b" ")
        assert paths.file_fingerprint(str(source), before[1]) != before


@pytest.mark.parametrize("ending", ["shp", "gpkg", "gdb", "/vsizip", "file"])
def test_a_stamp_knows_the_files_beside_and_behind(ending, tmp_path):
    path = tmp_path / f"labels.{ending if ending in {'shp', 'gpkg', 'gdb'} else 'shp'}"
    FRAME[["kind", "geometry"]].to_file(path, **({"driver": "OpenFileGDB"} if ending == "gdb" else {}))
    name, touched = str(path), path.with_suffix(".dbf")
    if ending == "gpkg":
        touched = path.with_name("labels.gpkg-wal")
    if ending == "gdb":
        touched = next(path.glob("*.gdbtable"))
    if ending == "/vsizip":
        touched = shutil.make_archive(tmp_path / "packed", "zip", tmp_path)
        name = f"/vsizip/{touched}/labels.shp"
    if ending == "file":
        name = path.as_uri()
    layer = open_layer(name)
    before = layer.fingerprint()
    assert before == layer.fingerprint()
    if ending == "gpkg":
        touched.write_bytes(b"log")
    else:
        os.utime(touched, (1e9, 1e9))
    assert layer.fingerprint() != before
    assert str(tmp_path) in before[0]


def test_a_stamp_leaves_other_files_out(tmp_path):
    FRAME.to_file(tmp_path / "labels.shp")
    layer = open_layer(tmp_path / "labels.shp")
    before = layer.fingerprint()
    (tmp_path / "labels.tif").write_bytes(b"another")
    assert layer.fingerprint() == before
    assert paths.local_file("https://example.org/a.gpkg") is None
    assert paths.local_file("/vsicurl/https://example.org/a.gpkg") is None


def test_what_is_no_layer():
    for given in ([FRAME], FRAME.geometry, None):
        with pytest.raises(OptionError, match="must be a path, a URL or a GeoDataFrame"):
            open_layer(given)
    for where in ("", " ", 3):
        with pytest.raises(OptionError, match="must be a condition"):
            open_layer(FRAME, where=where)


def test_a_query_passes_over_columns_that_sql_does_not_know():
    odd = FRAME.assign(many=[[1, 2]] * 6, table=[{}] * 6, place=FRAME.geometry.centroid)
    assert len(open_layer(odd, where="kind = 'b'").read()) == 2


def test_the_layer_of_polygons_is_taken_and_the_others_are_noted(make_labels):
    make_labels("l.gpkg", [shapely.Point(LEFT, TOP)], layer="points")
    path = make_labels("l.gpkg", SHAPES, layer="fields")
    assert open_layer(path).source.endswith("(layer fields)")
    assert open_layer(path).notes == (f"{path} (layer fields) is used; the file has other layers: points",)
    assert open_layer(f"{path}|layername=points").notes == ()


def test_what_is_too_large_is_read_by_box_where_it_has_an_index(monkeypatch, tmp_path):
    for name in ("a.gpkg", "a.geojson"):
        FRAME.to_file(tmp_path / name)
    monkeypatch.setattr(layer, "READ_WHOLE_BYTES", 10)
    indexed, plain = open_layer(tmp_path / "a.gpkg"), open_layer(tmp_path / "a.geojson")
    assert indexed.reads_by_bbox
    assert indexed.notes == ()
    assert not plain.reads_by_bbox
    assert "has no spatial index, so it is read into memory; a GeoPackage is faster" in plain.notes[0]
    monkeypatch.setattr(layer, "READ_WHOLE_UNINDEXED_BYTES", 10)
    assert plain.reads_by_bbox
    assert "each window reads all of it" in plain.notes[0]
    FRAME.to_parquet(tmp_path / "a.parquet")
    assert "no column of bounding boxes" in open_layer(tmp_path / "a.parquet").notes[0]


def test_read_vector_tells_where_from(make_labels, tmp_path):
    path = make_labels("l.gpkg", SHAPES, {"kind": list("abcabc")}, layer="cover")
    frame, words = read_vector(path)
    assert len(frame) == 6
    assert words == f"{path} (layer cover)"
    with pytest.raises(InputNotFoundError, match="No such file"):
        read_vector(tmp_path / "none.gpkg")
    with pytest.raises(LabelError, match="contains no polygons"):
        read_vector(FRAME[:0])
