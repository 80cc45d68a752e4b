"""Polygons of class rasters are exact and seamless, also when merged and simplified."""

import json
import os
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from common import examples, slow
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from polygons_common import blobs, trace_polygons
from rasterio.features import rasterize, shapes

from geopsp.core.legend import CLASSES_TAG, Legend
from geopsp.core.lock import output_lock
from geopsp.core.temporary_folder import temporary_folder
from geopsp.errors import GridError, InputNotFoundError, OptionError, OutputError, RasterError
from geopsp.polygons import polygonizer as maker
from geopsp.polygons import raster_to_polygons as making
from geopsp.polygons.raster_to_polygons import raster_to_polygons
from geopsp.polygons.regions.clean import clean_raster

UTM = "EPSG:32633"
NORTH_UP = Affine(10, 0, 500_000, 0, -10, 4_800_000)
TRANSFORMS = [
    NORTH_UP,
    Affine(10, 0, 500_000.3, 0, 10, 4_800_000),  # south up
    Affine(7.3, 0, 500_000, 0, -20.1, 4_800_000.7),  # oblong pixels
    Affine(8, 6, 500_000, 6, -8, 4_800_000),  # rotated
]
READERS = {
    ".gpkg": lambda path: geopandas.read_file(path, layer=path.stem),  # the style is a layer too
    ".fgb": geopandas.read_file,
    ".parquet": geopandas.read_parquet,
}

rasters = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 1, 2, 255]), fill=None
)
transforms = st.sampled_from(TRANSFORMS)
gently = settings(max_examples=examples(10), deadline=None)


def write(path, codes, *, transform=NORTH_UP, crs=UTM, nodata=255, tags=None, **profile):
    codes = np.atleast_3d(np.asarray(codes)) if np.ndim(codes) == 2 else np.asarray(codes)
    rows, cols, count = codes.shape
    profile = {"driver": "GTiff", "width": cols, "height": rows, "count": count, "dtype": codes.dtype} | profile
    with rasterio.open(path, "w", crs=crs, transform=transform, nodata=nodata, **profile) as dataset:
        dataset.write(codes.transpose(2, 0, 1))
        if tags:
            dataset.update_tags(**tags)
    return path


def vectorize(codes, *, transform=NORTH_UP, crs=UTM, nodata=255, **options):
    """Return the attribute table of a raster of these codes."""
    with tempfile.TemporaryDirectory() as folder:
        raster = write(Path(folder, "map.tif"), codes, transform=transform, crs=crs, nodata=nodata)
        return geopandas.read_parquet(raster_to_polygons(raster, Path(folder, "map.parquet"), **options))


def burn(table, codes, transform=NORTH_UP):
    pairs = list(zip(table.geometry, table.code, strict=True))
    return rasterize(pairs, codes.shape, fill=255, transform=transform, dtype="uint8") if pairs else codes * 0 + 255


def outlines(table):
    """Count pairs of code and polygon, without collinear vertices."""
    plain = shapely.normalize(shapely.simplify(table.geometry.values, 0))
    return Counter(zip(table.code, shapely.to_wkb(plain), strict=True))


def traced(codes, transform=NORTH_UP):
    """Count pairs of code and polygon, traced by rasterio."""
    found = list(shapes(codes, mask=codes != 255, connectivity=4, transform=transform))
    polygons = [shapely.geometry.shape(shape) for shape, _ in found]
    return outlines(geopandas.GeoDataFrame({"code": [int(code) for _, code in found]}, geometry=polygons))


def vertices(table):
    return shapely.get_num_coordinates(table.geometry.values).sum()


@gently
@given(codes=rasters, transform=transforms)
def test_burning_the_polygons_gives_the_raster(codes, transform):
    table = vectorize(codes, transform=transform)
    assert np.array_equal(burn(table, codes, transform), codes)


@gently
@given(codes=rasters, transform=transforms)
def test_polygons_are_those_of_rasterio(codes, transform):
    table = vectorize(codes, transform=transform)
    assert table.geometry.is_valid.all()
    assert outlines(table) == traced(codes, transform)


@gently
@given(codes=rasters, transform=transforms, connectivity=st.sampled_from([4, 8]))
def test_polygons_without_a_file_are_those_in_it(codes, transform, connectivity):
    table = vectorize(codes, transform=transform, connectivity=connectivity)
    with tempfile.TemporaryDirectory() as folder:
        raster = write(Path(folder, "map.tif"), codes, transform=transform)
        found, its_codes = trace_polygons(raster, connectivity=connectivity)
    assert its_codes.tolist() == table.code.tolist()
    # a file of multipolygons has no others
    assert shapely.equals_exact(*(shapely.get_parts(shapes) for shapes in (found, table.geometry.values))).all()


@gently
@given(codes=rasters, transform=transforms)
def test_polygons_share_their_edges(codes, transform):
    assert shapely.coverage_is_valid(vectorize(codes, transform=transform).geometry.values)


@gently
@given(codes=rasters, transform=transforms, tolerance=st.sampled_from([4.0, 9.0, 30.0, 500.0]))
def test_simplifying_leaves_no_gap_and_no_overlap(codes, transform, tolerance):
    before = vectorize(codes, transform=transform)
    after = vectorize(codes, transform=transform, simplify=tolerance)
    assert shapely.coverage_is_valid(after.geometry.values)
    assert after.geometry.is_valid.all()
    assert after.code.tolist() == before.code.tolist()
    assert after.area.sum() == pytest.approx(before.area.sum())
    moved = shapely.symmetric_difference(*(shapely.union_all(t.geometry.values) for t in (before, after)))
    assert moved.area == pytest.approx(0, abs=1e-3)  # the frame and the edge of nodata stay


@gently
@given(codes=rasters, transform=transforms, pixels=st.sampled_from([1.5, 3.5, 8.5]))
def test_merging_leaves_nothing_small_but_what_stands_alone(codes, transform, pixels):
    least = pixels * abs(transform.determinant)
    before = vectorize(codes, transform=transform)
    after = vectorize(codes, transform=transform, min_area=least)
    for i in after.index[after.area_m2 < least * 0.999]:
        assert not after.geometry.drop(i).intersection(after.geometry[i]).length.any()
    assert after.area_m2.sum() == pytest.approx(before.area_m2.sum())
    assert shapely.coverage_is_valid(after.geometry.values)


@gently
@given(codes=rasters, pixels=st.sampled_from([1.5, 3.5, 8.5]))
def test_merged_polygons_are_the_regions_of_the_merged_map(codes, pixels):
    after = vectorize(codes, min_area=pixels * 100)
    merged = burn(after, codes)
    assert np.array_equal(merged == 255, codes == 255)
    assert outlines(after) == traced(merged)


def test_of_several_neighbours_the_longest_border_takes_a_speck():
    codes = np.array(
        [
            [1, 1, 1, 2, 2],
            [1, 1, 3, 2, 2],
            [1, 1, 1, 2, 2],
            [4, 4, 4, 4, 4],
        ],
        np.uint8,
    )
    table = vectorize(codes, min_area=150)  # pixels of 100 m2; code 3 has three sides along code 1
    assert table.code.tolist() == [1, 2, 4]
    assert burn(table, codes)[1, 2] == 1


def test_merging_goes_on_until_nothing_is_small():
    table = vectorize(np.array([[1, 2, 3, 4, 5, 6, 7, 8]], np.uint8), min_area=750)
    assert table.area.tolist() == [800]


def test_two_polygons_that_a_merged_speck_joins_become_one():
    codes = np.array([[1, 1, 1, 2, 1, 1, 1], [1, 1, 1, 9, 1, 1, 1]], np.uint8)
    table = vectorize(codes, min_area=150)
    assert table.code.tolist() == [1]
    assert table.area.tolist() == [1400]


def test_specks_alone_in_nodata_stay():
    codes = np.full((5, 5), 255, np.uint8)
    codes[1, 1] = codes[2, 2] = codes[4, 4] = 1
    codes[4, 0:2], codes[4, 2] = 2, 3
    table = vectorize(codes, min_area=1e6)
    assert sorted(table.code) == [1, 1, 1, 2]  # 3 went to 2, and the two stay small


def test_a_large_map_merged_and_simplified_keeps_its_area_and_loses_vertices():
    codes = blobs()
    plain, merged = vectorize(codes), vectorize(codes, min_area=500)
    clean = vectorize(codes, min_area=500, simplify=15)
    for table in (plain, merged, clean):
        assert shapely.coverage_is_valid(table.geometry.values)
        assert table.area.sum() == pytest.approx(100 * (codes != 255).sum())
    assert len(merged) < len(plain) / 3
    assert len(clean) == len(merged)
    assert vertices(clean) < 0.6 * vertices(merged)


@pytest.mark.parametrize(("pixels", "smooth"), [(0.70, False), (0.72, True)])
def test_the_tolerance_is_the_root_of_a_triangle(pixels, smooth):
    """A step of a staircase is half a square pixel, the square of 0.71 pixels."""
    codes = np.tri(12, dtype=np.uint8)
    assert (vertices(vectorize(codes, simplify=10 * pixels)) < vertices(vectorize(codes))) == smooth


def ground_transform(crs, side):
    """The transform of a grid at 15 degrees east and 49 north whose pixels have this side on the ground, in metres."""
    to_crs = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    to_ground = pyproj.Proj("+proj=aeqd +lat_0=49 +lon_0=15 +datum=WGS84")
    (x, y), ends = to_crs.transform(15, 49), [to_ground(side, 0, inverse=True), to_ground(0, -side, inverse=True)]
    (right, _), (_, down) = (to_crs.transform(*end) for end in ends)
    return Affine(right - x, 0, x, 0, down - y, y)


FEET = "+proj=utm +zone=33 +datum=WGS84 +units=us-ft"


@pytest.mark.parametrize("cell", [16, 2048])
@pytest.mark.parametrize("options", [{"simplify": 4, "smooth": 2}, *map(slow, ({"simplify": 2}, {"smooth": 1}))])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", FEET])
def test_tolerances_are_metres_on_the_ground(crs, options, cell, monkeypatch):
    """The same ground has the same outlines, in pixels, in degrees, in Mercator and in feet."""
    monkeypatch.setattr(maker, "GENERALIZED_CELL", cell)
    codes, side = blobs(), 1.1
    utm = Affine(side, 0, 500_000, 0, -side, 5_427_000)
    expected = vectorize(codes, transform=utm, **options)
    transform = ground_transform(crs, side)
    found = vectorize(codes, transform=transform, crs=crs, **options)
    pixels = [
        shapely.transform(table.geometry.values, lambda xy, grid=grid: np.column_stack(~grid @ xy.T))
        for table, grid in ((expected, utm), (found, transform))
    ]
    assert vertices(expected) < vertices(vectorize(codes, transform=utm)) or "simplify" not in options
    assert shapely.hausdorff_distance(*pixels).max() < 1e-3


def test_a_tolerance_is_metres_in_every_row_of_a_large_map(monkeypatch):
    """Pixels of a map in degrees are narrower in the north: there, teeth of a pixel disappear, but not in the south."""
    monkeypatch.setattr(maker, "GENERALIZED_CELL", 16)
    codes = np.zeros((160, 16), np.uint8)
    codes[:, :8] = 1
    codes[::2, 7] = 0
    transform = Affine(0.5, 0, 10, 0, -0.5, 80)
    # half a pixel is as large as the square of the tolerance at 45.3 degrees, in a row of cells from 48 to 40 degrees
    table = vectorize(codes, transform=transform, crs="EPSG:4326", simplify=33_000)
    lat = shapely.get_coordinates(table.geometry.values[table.code == 1])[:, 1]
    assert (lat > 48.1).sum() <= 16 < 2 * 63
    assert ((lat > 0) & (lat < 47.9)).sum() == 2 * 95


@gently
@given(
    codes=rasters,
    transform=transforms,
    tolerance=st.sampled_from([0.0, 9.0, 30.0]),
    rounds=st.sampled_from([0, 2]),
    side=st.integers(2, 7),
)
def test_outlines_change_across_seams_without_a_gap(codes, transform, tolerance, rounds, side):
    """Cells of a few pixels: polygons, frame and the edge of nodata are those of the raw map."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maker, "GENERALIZED_CELL", side)
        after = vectorize(codes, transform=transform, simplify=tolerance, smooth=rounds)
    before = vectorize(codes, transform=transform)
    assert after.geometry.is_valid.all()
    assert shapely.coverage_is_valid(after.geometry.values)
    assert sorted(after.code) == sorted(before.code)
    assert after.area_m2.sum() == pytest.approx(before.area_m2.sum(), rel=1e-4)
    moved = shapely.symmetric_difference(*(shapely.union_all(t.geometry.values) for t in (before, after)))
    assert moved.area == pytest.approx(0, abs=1e-3)


def test_no_seam_is_seen_in_a_simplified_border():
    """A border that crosses a seam many times has hardly more vertices than one without a seam."""
    steps = np.random.default_rng(5).integers(-1, 2, 400)
    edge = 64 + np.convolve(steps, np.ones(5), "same").astype(int) // 2
    codes = (np.arange(128)[:, None] > edge).astype(np.uint8)
    counts = []
    for side in (64, 4096):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(maker, "GENERALIZED_CELL", side)
            counts.append(vertices(vectorize(codes, simplify=25)))
    assert counts[0] < 1.15 * counts[1] + 8
    assert vertices(vectorize(codes)) > 3 * counts[0]


def test_smoothing_rounds_what_is_between_two_classes():
    codes = np.full((40, 40), 1, np.uint8)
    codes[8:30, 10:34] = 2
    codes[20:30, 20:34] = 1
    before, after = vectorize(codes), vectorize(codes, smooth=3)
    assert vertices(after) > vertices(before)
    assert after.area.sum() == pytest.approx(before.area.sum())
    assert after.area.tolist() == pytest.approx(before.area.tolist(), rel=0.02)
    outline = shapely.get_coordinates(after.geometry[after.code == 2].values)
    turns = np.abs(np.diff(np.unwrap(np.arctan2(*np.diff(outline, axis=0).T))))
    assert turns.max() < np.pi / 4


def test_holes_are_filled_before_anything_is_merged():
    codes = np.full((12, 12), 1, np.uint8)
    codes[2:4, 2:4], codes[7:10, 7:10], codes[8, 8] = 255, 2, 3
    plain = vectorize(codes, fill_holes=500)  # 5 pixels
    assert burn(plain, codes)[3, 3] == 1
    assert burn(plain, codes)[8, 8] == 2
    assert burn(plain, codes)[7, 7] == 2
    assert set(vectorize(codes, fill_holes=5000).code) == {1}


@pytest.mark.parametrize(
    ("options", "codes_left"),
    [
        ({"keep": ["forest"]}, {2}),
        ({"keep": ["forest", 7]}, {2, 7}),
        ({"drop": ["water", "forest"]}, {1, 3, 7}),
    ],
)
def test_classes_are_chosen_once_all_else_is_done(tmp_path, options, codes_left):
    """Small regions of a selected class may join others, and shared borders are simplified for both classes."""
    codes = blobs(40)
    legend = Legend.from_names({0: "water", 1: "field", 2: "forest"})
    raster = write(tmp_path / "map.tif", codes, tags={CLASSES_TAG: json.dumps(legend.to_json())})
    shared = {"min_area": 400, "simplify": 12}
    whole, some = (
        geopandas.read_parquet(raster_to_polygons(raster, tmp_path / name, **shared, **more))
        for name, more in (("all.parquet", {}), ("some.parquet", options))
    )
    assert set(some.code) == codes_left & set(whole.code)
    assert outlines(some) == outlines(whole[whole.code.isin(codes_left)])


def test_a_class_becomes_one_feature():
    codes = blobs(30)
    whole, parts = vectorize(codes, dissolve=True), vectorize(codes)
    assert whole.code.tolist() == sorted(set(parts.code))
    assert set(whole.geom_type) <= {"MultiPolygon"}
    for name in ("area_m2", "perimeter_m"):
        assert whole[name].tolist() == pytest.approx(parts.groupby("code")[name].sum().tolist())
    assert whole.geometry.is_valid.all()
    assert shapely.contains_xy(whole.geometry.values, whole.point_x, whole.point_y).all()


def test_a_class_too_large_for_one_feature_is_told_before_all_is_traced(tmp_path, monkeypatch):
    monkeypatch.setattr(making, "MAX_BYTES", 5000)
    raster, out = write(tmp_path / "map.tif", blobs(60)), tmp_path / "map.gpkg"
    with pytest.raises(OutputError, match=r"The polygons of 'class 0' take more than 5,000 bytes.*without `dissolve`"):
        raster_to_polygons(raster, out, dissolve=True)
    assert [path.name for path in tmp_path.iterdir()] == ["map.tif"]


def test_each_class_tells_how_far_its_own_corners_moved():
    """Class 1 comes first and is a rectangle, which stays; class 0 is a tilted house."""
    ground = np.full((60, 90), 255, np.uint8)
    ground[2:10, 2:20] = 1
    tilted = shapely.affinity.rotate(shapely.box(0, 0, 240, 120), 24)
    rasterize([(shapely.affinity.translate(tilted, 500_400, 4_799_600), 0)], out=ground, transform=NORTH_UP)
    parts, whole = (vectorize(ground, keep=[0, 1], regularize=True, dissolve=dissolve) for dissolve in (False, True))
    assert parts.code.tolist() == [1, 0]
    assert whole.code.tolist() == [0, 1]
    assert whole.moved_m.tolist() == parts.moved_m.tolist()[::-1]
    assert whole.moved_m[0] > 0 == whole.moved_m[1]


@gently
@given(codes=rasters, transform=transforms)
def test_pixels_that_share_a_corner_can_be_one_feature(codes, transform):
    table = vectorize(codes, transform=transform, connectivity=8)
    theirs = list(shapes(codes, mask=codes != 255, connectivity=8))
    assert sorted(table.code) == sorted(int(code) for _, code in theirs)
    assert table.geometry.is_valid.all()
    assert np.array_equal(burn(table, codes, transform), codes)


def test_buildings_get_right_angles_and_tell_how_far_they_moved():
    ground = np.zeros((60, 60), np.uint8)
    tilted = shapely.affinity.rotate(shapely.box(0, 0, 240, 120), 24)
    house = shapely.affinity.translate(tilted, 500_200, 4_799_600)
    rasterize([(house, 1)], out=ground, transform=NORTH_UP)
    raw, made = vectorize(ground, keep=[1]), vectorize(ground, keep=[1], regularize=True)
    assert made.code.tolist() == [1]
    corners = shapely.get_coordinates(made.geometry.values)
    assert len(corners) == 5
    edges = np.diff(corners, axis=0)
    assert (edges[:-1] * edges[1:]).sum(axis=1) == pytest.approx(0, abs=1e-3)
    assert 0 < made.moved_m[0] <= 20.1
    assert made.moved_m[0] == pytest.approx(made.geometry[0].hausdorff_distance(raw.geometry[0]), rel=1e-3)
    assert made.geometry[0].intersection(house).area > 0.9 * made.geometry[0].union(house).area
    assert made.area_m2[0] == pytest.approx(raw.area_m2[0], rel=0.05)


def test_confidence_is_told_of_pixels_and_edges(tmp_path):
    codes, sure = blobs(30), np.random.default_rng(2).integers(0, 255, (30, 30)).astype(np.uint8)
    sure[5, 5:9] = 255
    raster, shares = write(tmp_path / "map.tif", codes), write(tmp_path / "sure.tif", sure)
    with rasterio.open(shares, "r+") as dataset:
        dataset.scales = (1 / 254,)
    table = geopandas.read_parquet(raster_to_polygons(raster, tmp_path / "map.parquet", confidence=shares))
    padded = np.pad(codes, 1, constant_values=255)
    edge = np.zeros(codes.shape, bool)
    for down, right in ((0, 1), (2, 1), (1, 0), (1, 2)):
        edge |= padded[down : down + 30, right : right + 30] != codes
    for row in table.itertuples():
        inside = rasterize([row.geometry], codes.shape, transform=NORTH_UP).astype(bool) & (sure != 255)
        if inside.any():
            assert row.confidence == pytest.approx(sure[inside].mean() / 254)
            assert row.edge_unsure == pytest.approx((sure[inside & edge] < 127).mean())
    other = write(tmp_path / "other.tif", sure[:20])
    with pytest.raises(GridError, match=r"other\.tif"):
        raster_to_polygons(raster, tmp_path / "again.parquet", confidence=other)


def test_a_run_that_is_killed_leaves_no_file_and_is_done_again(tmp_path):
    raster = write(tmp_path / "map.tif", blobs(400), tiled=True)
    out = raster_to_polygons(raster, tmp_path / "map.gpkg", min_area=500, simplify=15)
    expected = geopandas.read_file(out, layer="map")
    for wait in (0.02, 0.1, 0.3):
        out.unlink(missing_ok=True)
        if not (pid := os.fork()):
            try:
                raster_to_polygons(raster, out, min_area=500, simplify=15)
            finally:
                os._exit(0)
        time.sleep(wait)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert not out.exists() or len(geopandas.read_file(out, layer="map")) == len(expected)
    again = geopandas.read_file(raster_to_polygons(raster, out, min_area=500, simplify=15, overwrite=True), layer="map")
    assert again.equals(expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.gpkg", "map.tif"]


@pytest.mark.parametrize("ending", [".gpkg", ".parquet", ".shp"])
def test_a_second_run_onto_the_same_file_is_told_at_once(tmp_path, ending):
    """It does not touch files of the first run, which is still running."""
    raster, out = write(tmp_path / "map.tif", blobs(30)), tmp_path / "new" / f"map{ending}"
    out.parent.mkdir()
    with output_lock(out), temporary_folder(out) as folder:
        (folder / "half").write_text("made")
        before = sorted(out.parent.rglob("*"))
        with pytest.raises(OutputError, match=rf"Another run .*is writing to .*map\{ending}"):
            raster_to_polygons(raster, out, min_area=500, overwrite=True)
        assert sorted(out.parent.rglob("*")) == before
    raster_to_polygons(raster, out, min_area=500)
    assert not [path.name for path in out.parent.iterdir() if path.name.startswith(".")]


def test_nobody_else_writes_while_polygons_are_made(tmp_path, monkeypatch):
    """Also if the folder does not exist yet."""
    raster, out = write(tmp_path / "map.tif", blobs(30)), tmp_path / "a" / "b" / "map.gpkg"
    seen = []

    def checked(*args, **options):
        with pytest.raises(OutputError, match="Another run"), output_lock(out):
            pass
        seen.append(sorted(path.name for path in out.parent.iterdir()))
        return clean_raster(*args, **options)

    monkeypatch.setattr(making, "clean_raster", checked)
    raster_to_polygons(raster, out, fill_holes=500)
    assert [[name[:18] for name in names] for names in seen] == [[".map.gpkg.lock", ".partial-map.gpkg-"]]
    assert [path.name for path in out.parent.iterdir()] == ["map.gpkg"]


def test_files_of_one_name_are_made_side_by_side(tmp_path, monkeypatch):
    """Their temporary folders differ, so neither run deletes files of the other."""
    raster = write(tmp_path / "map.tif", blobs(30))

    def inner(*args, **options):
        monkeypatch.setattr(making, "clean_raster", clean_raster)
        raster_to_polygons(raster, tmp_path / "map.parquet", min_area=500)
        return clean_raster(*args, **options)

    monkeypatch.setattr(making, "clean_raster", inner)
    raster_to_polygons(raster, tmp_path / "map.gpkg", min_area=500)
    one, other = (READERS[ending](tmp_path / f"map{ending}") for ending in (".gpkg", ".parquet"))
    assert outlines(one) == outlines(other)


def test_a_name_like_that_of_the_temporary_folder_is_no_obstacle(tmp_path):
    raster, out = write(tmp_path / "map.tif", blobs(30)), tmp_path / "map.gpkg"
    (tmp_path / ".partial-map.gpkg").write_text("a file lies there")
    raster_to_polygons(raster, out, min_area=500)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".partial-map.gpkg", "map.gpkg", "map.tif"]
    assert (tmp_path / ".partial-map.gpkg").read_text() == "a file lies there"


@pytest.mark.parametrize("length", [251, 255, 256])
def test_a_name_too_long_for_what_lies_beside_it_is_told(tmp_path, length):
    raster = write(tmp_path / "map.tif", blobs(30))
    with pytest.raises(OutputError, match=r"Cannot (create|write) .*too long"):
        raster_to_polygons(raster, tmp_path / f"{'m' * (length - 5)}.gpkg", min_area=500)
    assert [path.name for path in tmp_path.iterdir()] == ["map.tif"]


def test_an_unknown_class_is_told_before_anything_is_read(tmp_path):
    raster = write(tmp_path / "map.tif", blobs(20))
    with pytest.raises(OptionError, match="has no class 'roof'"):
        raster_to_polygons(raster, tmp_path / "map.gpkg", keep=["roof"])
    assert [path.name for path in tmp_path.iterdir()] == ["map.tif"]


def test_where_three_meet_each_has_a_vertex():
    codes = np.array([[1, 1], [2, 3]], np.uint8)
    upper = vectorize(codes).geometry[0]
    assert (500_010.0, 4_799_990.0) in upper.exterior.coords
    assert len(upper.exterior.coords) == 6


def test_polygons_come_in_reading_order():
    codes = np.array([[5, 5, 2], [4, 5, 2], [4, 4, 2], [255, 3, 3]], np.uint8)
    assert vectorize(codes).code.tolist() == [5, 2, 4, 3]


@pytest.mark.parametrize("crs", [UTM, "EPSG:2048"])
def test_a_square_kilometre_measures_one(crs):
    """On the central meridian of UTM lengths are 0.9996 of those on the ground; of a Lo system, 1."""
    x, y = (500_000, 4_800_000) if crs == UTM else (0, 3_000_000)
    table = vectorize(np.ones((10, 10), np.uint8), transform=Affine(100, 0, x, 0, -100, y), crs=crs)
    assert table.area_m2[0] == pytest.approx(1e6 / (0.9996**2 if crs == UTM else 1), rel=1e-5)


def test_feet_measure_square_metres():
    table = vectorize(np.ones((10, 10), np.uint8), transform=Affine(100, 0, 6e6, 0, -100, 2e6), crs="EPSG:2225")
    assert table.area_m2[0] == pytest.approx(1e6 * 0.3048**2, rel=1e-3)


def test_degrees_measure_what_pyproj_says():
    table = vectorize(np.ones((2, 3), np.uint8), transform=Affine(0.01, 0, 15, 0, -0.01, 60), crs="EPSG:4326")
    lon, lat = [15, 15.03, 15.03, 15], [59.98, 59.98, 60, 60]
    expected = pyproj.Geod(ellps="WGS84").polygon_area_perimeter(lon, lat)[0]
    assert table.area_m2[0] == pytest.approx(expected, rel=1e-5)


def test_a_world_map_measures_the_whole_earth():
    """One polygon covers more than half of it, with the rest as holes."""
    codes = np.ones((18, 36), np.uint8)
    codes[4:10, 5:20] = 2
    transform = Affine(10, 0, -180, 0, -10, 90)
    table = vectorize(codes, transform=transform, crs="EPSG:4326")
    assert table.area_m2.sum() == pytest.approx(5.10065622e14, rel=1e-6)
    band = 2 * np.pi * 6_378_137 * 6_356_752 * 15 / 36  # between parallels, to half a percent
    assert table.area_m2[1] == pytest.approx(band * (np.sin(np.radians(50)) + np.sin(np.radians(10))), rel=5e-3)


def test_a_map_of_nothing_is_an_empty_layer(tmp_path):
    raster = write(tmp_path / "map.tif", np.full((3, 4), 255, np.uint8))
    for ending, read in READERS.items():
        table = read(raster_to_polygons(raster, tmp_path / f"map{ending}", simplify=5, min_area=5))
        assert len(table) == 0
        numbers = ["area_m2", "perimeter_m", "point_x", "point_y"]
        assert list(table.columns) == ["code", "name", "color", *numbers, "geometry"]
        assert table.crs == UTM


@pytest.mark.parametrize("ending", READERS)
def test_every_format_reads_back_the_same(tmp_path, ending):
    codes = blobs(20)
    legend = Legend.from_names({0: "water", 1: "Grünland", 2: "forest", 3: "road"}, {1: "#010203"})
    raster = write(tmp_path / "map.tif", codes, tags={CLASSES_TAG: json.dumps(legend.to_json())})
    table = READERS[ending](raster_to_polygons(raster, tmp_path / f"some map{ending}"))
    assert table.crs == UTM
    assert table.code.dtype.kind == "i"
    assert outlines(table) == traced(codes)
    for row in table[table.code < 4].itertuples():
        info = next(info for info in legend if info.code == row.code)
        assert (row.name, row.color) == (info.name, info.color)
    assert set(table.name[table.code == 7]) == {"class 7"}  # the legend does not know it
    assert table.area_m2.sum() == pytest.approx(100 * (codes != 255).sum() / 0.9996**2, rel=1e-5)
    if ending == ".gpkg":
        assert geopandas.list_layers(tmp_path / "some map.gpkg").name.tolist() == ["some map", "layer_styles"]


@pytest.mark.parametrize("ending", [".geojson", ".JSON"])
def test_geojson_is_in_degrees(tmp_path, ending):
    codes = blobs(20)
    out = raster_to_polygons(write(tmp_path / "map.tif", codes), tmp_path / f"map{ending}")
    table, plain = geopandas.read_file(out), vectorize(codes)
    assert table.crs == "EPSG:4326"
    assert table.code.tolist() == plain.code.tolist()
    assert table.area_m2.tolist() == pytest.approx(plain.area_m2.tolist())
    expected = plain.to_crs(4326).geometry
    assert shapely.equals_exact(table.geometry.normalize(), expected.normalize(), 2e-7).all()
    assert "crs" not in json.loads(out.read_text())


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 0), ("int16", -1), ("uint16", 65535), ("int32", -9999)])
def test_declared_nodata_is_no_polygon(dtype, nodata):
    codes = np.array([[nodata, 3], [255, 3]]).astype(dtype)
    table = vectorize(codes, nodata=nodata)
    assert table.code.tolist() == [3]
    assert table.area.tolist() == [200]


def test_code_0_is_a_class_unless_declared_nodata():
    assert vectorize(np.zeros((2, 2), np.uint8)).code.tolist() == [0]
    assert vectorize(np.zeros((2, 2), np.uint8), nodata=0).empty


def test_masked_pixels_are_no_polygon(tmp_path):
    codes = blobs(12)
    seen = codes != 2
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        raster = write(tmp_path / "map.tif", codes, nodata=None)
        with rasterio.open(raster, "r+") as dataset:
            dataset.write_mask(seen)
    table = geopandas.read_parquet(raster_to_polygons(raster, tmp_path / "map.parquet"))
    assert outlines(table) == traced(np.where(seen, codes, 255).astype(np.uint8))


def test_a_map_without_a_legend_takes_the_colour_table(tmp_path):
    raster = write(tmp_path / "map.tif", np.array([[1, 2]], np.uint8))
    with rasterio.open(raster, "r+") as dataset:
        dataset.write_colormap(1, {1: (255, 0, 16, 255), 2: (0, 255, 0, 255)})
    table = geopandas.read_parquet(raster_to_polygons(raster, tmp_path / "map.parquet"))
    assert table.name.tolist() == ["class 1", "class 2"]
    assert table.color.tolist() == ["#ff0010", "#00ff00"]


@pytest.mark.parametrize("ending", [".gpkg", ".parquet", ".fgb"])
@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32"])
def test_large_codes_keep_their_values_names_and_colours(tmp_path, dtype, ending):
    """As those of CORINE: with a table of attributes, chosen by code or by name."""
    plain = blobs(20)
    values = np.array([111, 112, 523, 999, 0, 0, 0, 1000])
    codes = values[np.where(plain == 255, 0, plain)].astype(dtype)
    raster = write(tmp_path / "map.tif", codes, nodata=0)
    rows = "".join(f"<Row index='{i}'><F>{value}</F><F>{name}</F></Row>" for i, (value, name) in
                   enumerate([(111, "city"), (523, "sea")]))  # fmt: skip
    fields = "<FieldDefn index='0'><Name>Value</Name><Type>0</Type><Usage>5</Usage></FieldDefn>"
    fields += "<FieldDefn index='1'><Name>Class</Name><Type>2</Type><Usage>2</Usage></FieldDefn>"
    table = f"<GDALRasterAttributeTable>{fields}{rows}</GDALRasterAttributeTable>"
    (tmp_path / "map.tif.aux.xml").write_text(
        f"<PAMDataset><PAMRasterBand band='1'>{table}</PAMRasterBand></PAMDataset>"
    )
    found = READERS[ending](raster_to_polygons(raster, tmp_path / f"map{ending}"))
    wanted = list(shapes(codes.astype("int32"), mask=codes != 0, connectivity=4, transform=NORTH_UP))
    polygons = [shapely.geometry.shape(shape) for shape, _ in wanted]
    assert outlines(found) == outlines(
        geopandas.GeoDataFrame({"code": [int(code) for _, code in wanted]}, geometry=polygons)
    )
    names = {111: "city", 112: "class 112", 523: "sea", 999: "class 999", 1000: "class 1000"}
    assert dict(zip(found.code, found.name, strict=True)) == {code: names[code] for code in set(found.code)}
    some = READERS[ending](raster_to_polygons(raster, tmp_path / f"some{ending}", keep=["sea", 1000, "111"]))
    assert set(some.code) == {111, 523, 1000} & set(found.code)
    with pytest.raises(OptionError, match="city, sea; give names, or codes 111, 112"):
        raster_to_polygons(raster, tmp_path / f"none{ending}", keep=[5])


def test_a_black_class_stays_black(tmp_path):
    raster = write(tmp_path / "map.tif", np.array([[0, 1, 2]], np.uint8))
    with rasterio.open(raster, "r+") as dataset:
        dataset.write_colormap(1, {0: (0, 0, 0, 255), 1: (255, 0, 16, 255), 2: (0, 0, 0, 255)})
    table = geopandas.read_parquet(raster_to_polygons(raster, tmp_path / "map.parquet"))
    assert table.color.tolist() == ["#000000", "#ff0010", "#000000"]


def test_an_output_is_replaced_only_when_told(tmp_path):
    raster, out = write(tmp_path / "map.tif", np.ones((2, 2), np.uint8)), tmp_path / "map.gpkg"
    out.write_text("precious")
    with pytest.raises(OutputError, match="already exists"):
        raster_to_polygons(raster, out)
    assert out.read_text() == "precious"
    assert len(READERS[".gpkg"](raster_to_polygons(raster, out, overwrite=True))) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.gpkg", "map.tif"]


@pytest.mark.parametrize("options", [{"simplify": -1}, {"min_area": -0.1}, {"simplify": float("nan")}])
def test_options_out_of_range_are_told(tmp_path, options):
    raster = write(tmp_path / "map.tif", np.ones((2, 2), np.uint8))
    with pytest.raises(OptionError, match=next(iter(options))):
        raster_to_polygons(raster, tmp_path / "map.gpkg", **options)


@pytest.mark.parametrize("name", ["map.kml", "map"])
def test_an_unknown_ending_lists_the_known(tmp_path, name):
    raster = write(tmp_path / "map.tif", np.ones((2, 2), np.uint8))
    with pytest.raises(OptionError, match=r"\.gpkg, \.parquet, \.fgb, \.geojson or \.shp"):
        raster_to_polygons(raster, tmp_path / name)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    raster = write(tmp_path / "map.tif", np.ones((2, 2), np.uint8))
    with pytest.raises(OutputError, match=r"map\.tif"):
        raster_to_polygons(raster, raster / "map.gpkg")


def test_a_missing_raster_is_told(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"none\.tif"):
        raster_to_polygons(tmp_path / "none.tif", tmp_path / "map.gpkg")


def test_a_text_is_no_raster(tmp_path):
    (tmp_path / "map.tif").write_text("not a raster")
    with pytest.raises(RasterError, match=r"map\.tif"):
        raster_to_polygons(tmp_path / "map.tif", tmp_path / "map.gpkg")


@pytest.mark.parametrize("compress", ["none", "deflate"])
def test_a_truncated_raster_is_told(tmp_path, compress):
    """GDAL's polygonizer returns fewer polygons without an error."""
    raster = write(tmp_path / "map.tif", blobs(300), compress=compress, tiled=True, blockxsize=64, blockysize=64)
    raster.write_bytes(raster.read_bytes()[: raster.stat().st_size * 2 // 3])
    with pytest.raises(RasterError, match="damaged"):
        raster_to_polygons(raster, tmp_path / "map.gpkg")
    assert [p.name for p in tmp_path.iterdir()] == ["map.tif"]


@pytest.mark.parametrize(
    ("codes", "found"),
    [
        (np.ones((2, 2, 3), np.uint8), r"3 bands"),
        (np.full((2, 2), 0.5, np.float32), "float32"),
        (np.ones((2, 2), np.complex64), "complex64"),
        (np.arange(256, dtype=np.int16).reshape(16, 16) - 1, "more than 255 different values, from -1 to 254"),
    ],
)
def test_other_rasters_than_of_codes_are_told(tmp_path, codes, found):
    raster = write(tmp_path / "map.tif", codes, nodata=None)
    with pytest.raises(RasterError, match=found):
        raster_to_polygons(raster, tmp_path / "map.gpkg")


def test_a_raster_without_crs_is_told(tmp_path):
    raster = write(tmp_path / "map.tif", np.ones((2, 2), np.uint8), crs=None)
    with pytest.raises(GridError, match="no CRS"):
        raster_to_polygons(raster, tmp_path / "map.gpkg")


def test_a_crs_without_an_ellipsoid_is_told(tmp_path):
    raster = write(tmp_path / "map.tif", np.ones((2, 2), np.uint8), crs='LOCAL_CS["site",UNIT["metre",1]]')
    with pytest.raises(GridError, match="ellipsoid"):
        raster_to_polygons(raster, tmp_path / "map.gpkg")


@pytest.mark.parametrize("tag", ["[", '[{"code": 1}]', '[{"code": 999, "name": "a", "color": "#000000"}]'])
def test_a_damaged_legend_is_told(tmp_path, tag):
    raster = write(tmp_path / "map.tif", np.ones((2, 2), np.uint8), tags={CLASSES_TAG: tag})
    with pytest.raises(RasterError, match=CLASSES_TAG):
        raster_to_polygons(raster, tmp_path / "map.gpkg")
