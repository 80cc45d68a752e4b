"""Row groups that are encoded elsewhere, and the files that are joined of them."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geopsp.vector import row_groups
from geopsp.vector.geoparquet import write_parquet
from geopsp.vector.parquet_footer import read_footer
from geopsp.vector.row_groups import RowGroups, encode_rows, file_columns, pack_rows
from geopsp.vector.wkb_boxes import boxes_of_wkb

SCHEMA = pa.schema([("code", pa.int16()), ("name", pa.string()), ("area_m2", pa.float64()), ("geometry", pa.binary())])
CRS = pyproj.CRS.from_epsg(32632)


def batch_of(count, *, seed=0):
    """Squares with a hole."""
    rng = np.random.default_rng(seed)
    x, y = rng.random((2, count)) * 1e6
    shapes = shapely.difference(shapely.box(x, y, x + 6, y + 7), shapely.box(x + 1, y + 1, x + 2, y + 2))
    codes = np.arange(count) % 3
    values = pa.array([None if i % 5 == 4 else value for i, value in enumerate(rng.random(count))], pa.float64())
    columns = [pa.array(codes, pa.int16()), pa.array([f"class {code}" for code in codes], pa.string()), values]
    return pa.record_batch([*columns, pa.array(shapely.to_wkb(shapes), pa.binary())], schema=SCHEMA)


def written(path, batches):
    write_parquet(iter(batches), SCHEMA, path, crs=CRS, kind="Polygon")
    return pq.ParquetFile(path)


@given(sizes=st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=20))
@settings(max_examples=25, deadline=None)
def test_a_joined_file_holds_all_rows_in_order(sizes, tmp_path_factory):
    """More than 15 row groups, whose number takes other bytes in a footer, and none at all."""
    batches = [batch_of(count, seed=seed) for seed, (count, _) in enumerate(sizes)]
    packs = [packed and count > 0 for count, packed in sizes]
    given_rows = [encode_rows([b], SCHEMA) if packs[number] else b for number, b in enumerate(batches)]
    file = written(tmp_path_factory.mktemp("joined") / "a.parquet", given_rows)
    expected = pa.Table.from_batches(batches, SCHEMA)
    assert file.read(SCHEMA.names).equals(expected)
    assert file.metadata.num_rows == expected.num_rows
    assert {column.type for column in file.schema_arrow} == {column.type for column in file_columns(SCHEMA)}


def test_a_joined_file_is_as_pyarrow_would_write_it_but_for_its_footer(tmp_path):
    """The columns of each row group, their statistics and where they lie are those of a file written at once."""
    batches = [batch_of(count, seed=count) for count in (30, 20, 25)]
    file = written(tmp_path / "a.parquet", [encode_rows([batch], SCHEMA) for batch in batches])
    with_boxes = []
    for batch in batches:
        boxes, _ = row_groups._boxes(batch)
        with_boxes.append(pa.Table.from_batches([pa.record_batch([*batch.columns, boxes], file_columns(SCHEMA))]))
    plain = io.BytesIO()
    options = {"compression": "zstd", "use_dictionary": ["code", "name"], "store_schema": False}
    with pq.ParquetWriter(plain, file_columns(SCHEMA), **options) as writer:
        for table in with_boxes:
            writer.write_table(table)
    one, other = file.metadata.to_dict(), pq.ParquetFile(plain).metadata.to_dict()
    assert one["row_groups"] == other["row_groups"]
    assert one["created_by"] == other["created_by"]
    size = read_footer(memoryview(plain.getvalue())).start
    assert (tmp_path / "a.parquet").read_bytes()[:size] == plain.getvalue()[:size]


def test_batches_of_some_size_become_row_groups_of_their_own(monkeypatch, tmp_path):
    batches = [batch_of(count, seed=count) for count in (3, 4, 60, 5, 50, 6)]
    monkeypatch.setattr(row_groups, "PACKED_BYTES", batch_of(50).nbytes)
    packed = [pack_rows(batch, SCHEMA) for batch in batches]
    assert [isinstance(batch, RowGroups) for batch in packed] == [False, False, True, False, True, False]
    assert packed[2].codes == {0, 1, 2}
    metadata = written(tmp_path / "a.parquet", packed).metadata
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [7, 60, 5, 50, 6]


def test_a_footer_of_another_kind_is_an_error():
    unknown = bytes([0x1B, 0x00, 0x00])  # a map
    content = b"PAR1" + unknown + len(unknown).to_bytes(4, "little") + b"PAR1"
    with pytest.raises(ValueError, match="type 11"):
        read_footer(memoryview(content))


def random_shapes(rng, count):
    """Stars with and without a hole, some of two parts, in either direction, far from the origin."""
    angles = (np.arange(9) + rng.random((count, 1))) / 9 * 2 * np.pi
    radii, centres = rng.random((count, 9)) + 0.5, rng.random((count, 1, 2)) * 1e3 + [6e5, 5e6]
    xy = np.stack([np.cos(angles), np.sin(angles)], axis=-1) * radii[..., None] * 10 + centres
    shapes = shapely.polygons(xy)
    shapes = shapely.difference(shapes, shapely.buffer(shapely.point_on_surface(shapes), 0.3))
    shapes = shapes[shapely.get_type_id(shapes) == shapely.GeometryType.POLYGON]
    shapes = shapely.orient_polygons(shapes, exterior_cw=bool(rng.integers(2)))
    pairs = shapely.multipolygons(shapes[: shapes.size // 4].reshape(-1, 1)[: shapes.size // 8 * 2].reshape(-1, 2))
    return np.concatenate([shapes, pairs, [shapely.Polygon()]])


@pytest.mark.parametrize("seed", range(6))
def test_boxes_and_directions_are_those_of_geos(seed):
    shapes = random_shapes(np.random.default_rng(seed), 40)
    rings, owner = shapely.get_rings(shapely.get_parts(shapes), return_index=True)
    counterclockwise = (shapely.is_ccw(rings) == (np.diff(owner, prepend=-1) > 0)).all()
    column = pa.array(shapely.to_wkb(shapes, byte_order=1), pa.binary())
    boxes, found = boxes_of_wkb(column)
    np.testing.assert_array_equal(boxes, shapely.bounds(shapes))
    assert found == counterclockwise
    np.testing.assert_array_equal(boxes_of_wkb(column[5:9])[0], shapely.bounds(shapes[5:9]))
