"""Change between two maps: codes, areas, small changes, polygons, grids that differ, runs that are interrupted."""

import json
import logging
import subprocess
import sys
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pyproj import Geod
from raster_common import class_raster
from rasterio.crs import CRS
from rasterio.features import rasterize, shapes
from rasterio.warp import Resampling, calculate_default_transform, reproject
from scipy import ndimage

from geopsp import compare_maps, draw_sample, raster_to_polygons
from geopsp.assessment.accuracy.assess_map import assess_map
from geopsp.assessment.change import change_parts
from geopsp.assessment.change.change_codes import ChangeCodes
from geopsp.assessment.change.change_raster import ChangeRaster, MapPair, large_changes
from geopsp.assessment.change.map_on_grid import MapOnGrid
from geopsp.assessment.joint_classes import JointClasses, MapClasses, join_classes
from geopsp.assessment.sampling.sample_file import write_sample
from geopsp.cli.commands import main
from geopsp.core.grid import Grid
from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.errors import GridError, InputNotFoundError, LabelError, OptionError, OutputError, RasterError
from geopsp.polygons.ground_metric import GroundMetric
from geopsp.raster.legend_io import read_legend

UTM = CRS.from_epsg(32633)
NAMES = {0: "water", 1: "forest", 2: "built"}
gently = settings(max_examples=examples(12), deadline=None)


def grid_of(shape, *, crs=UTM, transform=None):
    return Grid(crs, transform or Affine(10, 0, 500_000, 0, -10, 4_800_000), shape[1], shape[0])


@pytest.fixture
def write(tmp_path):
    """A class map: `write("a.tif", codes, names=, grid=)`."""

    def write(name, codes, *, names=NAMES, grid=None):
        codes = np.asarray(codes, np.uint8)
        path = tmp_path / name
        with class_raster(path, grid or grid_of(codes.shape), Legend.from_names(names), overwrite=True) as writer:
            writer.append(codes[None])
        return path

    return write


@pytest.fixture
def patches():
    """Two maps of three classes in patches, with nodata in each, and 17 % of the pixels changed."""
    rng = np.random.default_rng(5)
    noise = ndimage.gaussian_filter(rng.normal(size=(90, 130)), 3)
    one = np.digitize(noise, np.quantile(noise, [0.3, 0.7])).astype(np.uint8)
    moved = ndimage.gaussian_filter(rng.normal(size=one.shape), 4)
    other = np.where(moved > np.quantile(moved, 0.75), rng.integers(0, 3), one).astype(np.uint8)
    other[rng.random(one.shape) < 0.02] = 1
    one[:7], other[:, :9] = IGNORE_INDEX, IGNORE_INDEX
    return one, other


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def test_tables_are_those_of_a_cross_tabulation(write, patches, tmp_path):
    one, other = patches
    found = compare_maps(write("a.tif", one), write("b.tif", other), tmp_path / "c.tif")
    both = (one != 255) & (other != 255)
    expected = pd.crosstab(one[both], other[both]).to_numpy()
    np.testing.assert_array_equal(found.pixels, expected)
    assert found.classes == ("water", "forest", "built")
    # the scale of UTM at its central meridian: areas on the ground are larger by 1 / 0.9996^2
    np.testing.assert_allclose(found.hectares, expected * 0.01 / 0.9996**2, rtol=2e-4)
    assert found.only_a_ha == pytest.approx(((one != 255) & (other == 255)).sum() * 0.01 / 0.9996**2, rel=2e-4)
    assert found.only_b_ha == pytest.approx(((one == 255) & (other != 255)).sum() * 0.01 / 0.9996**2, rel=2e-4)
    table = found.per_class()
    np.testing.assert_allclose(table["gain_ha"] - table["loss_ha"], table["net_ha"], atol=1e-9)
    np.testing.assert_allclose(table["gain_ha"].sum(), found.changed_ha)
    np.testing.assert_allclose(table["area_a_ha"], found.from_to().sum(axis=1))
    assert table["net_ha"].sum() == pytest.approx(0, abs=1e-9)


def test_the_raster_is_a_class_map_of_transitions(write, patches, tmp_path):
    one, other = patches
    out = tmp_path / "c.tif"
    found = compare_maps(write("a.tif", one), write("b.tif", other), out)
    codes, legend = read(out), {info.code: info.name for info in read_legend(out)}
    for i, before in NAMES.items():
        for j, after in NAMES.items():
            name = f"{before} (unchanged)" if i == j else f"{before} -> {after}"
            where = codes == {name: code for code, name in legend.items()}.get(name, 999)
            np.testing.assert_array_equal(where, (one == i) & (other == j), name)
    np.testing.assert_array_equal(codes == 255, (one == 255) | (other == 255))
    assert sorted(legend) == list(range(9))  # also of changes that the maps do not show
    table = found.transitions()
    assert set(table["code"]) == set(np.unique(codes)) - {255}
    assert [legend[code] for code in table["code"]] == table["name"].tolist()
    with rasterio.open(out) as dataset:
        assert dataset.nodata == 255
        assert dataset.colormap(1)[3]
    assert (tmp_path / "c.qml").exists()
    assert (tmp_path / "c.tif.aux.xml").exists()


def test_identical_maps_have_no_change(write, patches, tmp_path):
    one, _ = patches
    found = compare_maps(write("a.tif", one), write("b.tif", one), tmp_path / "c.tif", polygons=tmp_path / "c.gpkg")
    assert found.changed_ha == 0
    assert "No pixel changed." in found.text()
    assert len(gpd.read_file(tmp_path / "c.gpkg", layer="c")) == 0


def test_classes_match_by_name_in_any_case_and_those_of_one_map_stay(write, tmp_path):
    one = write("a.tif", [[0, 1, 2, 2]])
    other = write("b.tif", [[7, 3, 3, 9]], names={7: "Water", 3: "FOREST", 9: "snow"})
    found = compare_maps(one, other, tmp_path / "c.tif")
    assert found.classes == ("water", "forest", "built", "snow")
    assert set(found.transitions()["name"]) == {
        "water (unchanged)", "forest (unchanged)", "built -> forest", "built -> snow",
    }  # fmt: skip


def test_a_mapping_renames_merges_and_drops(write, tmp_path):
    one = write("a.tif", [[0, 1, 2, 2, 0]])
    other = write("b.tif", [[0, 1, 1, 2, 3]], names={0: "lake", 1: "wood", 2: "cloud", 3: "river"})
    mapping = {"LAKE": "water", "river": "water", "forest": {"name": "trees", "color": "#00ff00"}, "wood": "trees",
               "cloud": None}  # fmt: skip
    found = compare_maps(one, other, tmp_path / "c.tif", class_mapping=mapping)
    assert found.classes == ("water", "trees", "built")
    assert found.pixels.tolist() == [[2, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert read(tmp_path / "c.tif")[0, 3] == 255
    others = compare_maps(one, other, tmp_path / "d.tif", class_mapping={"*": "any"})
    assert (others.classes, others.changed_ha) == (("any",), 0)


def test_numbers_name_classes_without_a_name(make_raster, tmp_path):
    one = make_raster("a.tif", np.array([[[1, 2], [2, 3]]], np.uint8))
    other = make_raster("b.tif", np.array([[[1, 2], [4, 4]]], np.uint8))
    found = compare_maps(one, other, tmp_path / "c.tif", class_mapping={4: "class 2", 3: "city"})
    assert found.classes == ("class 1", "class 2", "city")
    assert found.pixels.tolist() == [[1, 0, 0], [0, 2, 0], [0, 1, 0]]


@gently
@given(
    hnp.arrays(np.uint8, (2, 13, 17), elements=st.sampled_from([0, 1, 2, 255]), fill=None),
    st.integers(1, 9),
    st.sampled_from([4, 7, 32]),
)
def test_small_changes_count_as_unchanged(tmp_path_factory, pixels, smallest, cell_size):
    """Compared with scipy's connected components; the cells that are read do not matter."""
    one, other = pixels
    grid = grid_of(one.shape)
    classes = JointClasses(tuple("abc"), ("#000000",) * 3, (np.arange(256, dtype=np.uint8),) * 2)
    codes = ChangeCodes.of_classes(classes)
    pair = MapPair(tuple(MapOnGrid(Pixels(each, grid), grid) for each in pixels), classes, grid,
                   GroundMetric.from_grid(grid))  # fmt: skip
    path = tmp_path_factory.mktemp("large") / "large.tif"
    with large_changes(ChangeRaster(pair, codes), (smallest - 0.5) * 100, path, cell_size=cell_size) as kept:
        found = kept.read(grid.full_window)
    expected = np.full(one.shape, 255, np.uint8)
    for i in range(3):
        for j in set(range(3)) - {i}:
            regions, _ = ndimage.label((one == i) & (other == j))
            sizes = np.bincount(regions.ravel())
            expected[(regions > 0) & (sizes[regions] >= smallest)] = codes.table[i, j]
    np.testing.assert_array_equal(found, expected)


class Pixels:
    """Codes in memory."""

    def __init__(self, codes, grid):
        self.codes, self.grid = codes, grid

    def read(self, window):
        found = np.full((window.height, window.width), 255, np.uint8)
        inside = window.intersect(self.grid.full_window)
        if not inside.is_empty:
            found[inside.slices(window)] = self.codes[inside.slices(self.grid.full_window)]
        return found


def test_small_changes_in_the_raster_and_the_table(write, patches, tmp_path):
    one, other = patches
    paths = write("a.tif", one), write("b.tif", other)
    everything = compare_maps(*paths, tmp_path / "c.tif")
    found = compare_maps(*paths, tmp_path / "d.tif", min_area=1000)
    before, after = read(tmp_path / "c.tif"), read(tmp_path / "d.tif")
    assert found.removed_ha > 0
    assert found.changed_ha + found.removed_ha == pytest.approx(everything.changed_ha)
    assert found.total_ha == pytest.approx(everything.total_ha)
    removed = before != after
    np.testing.assert_array_equal(after[removed], one[removed])  # unchanged classes have the codes of the first map
    regions = [(shape, code) for shape, code in shapes(after, connectivity=4) if 3 <= code < 255]
    areas = [shapely.geometry.shape(shape).area for shape, _ in regions]
    assert min(areas) >= 10
    assert "count as unchanged" in found.text()


def test_polygons_have_both_classes_and_both_confidences(write, patches, make_raster, tmp_path):
    one, other = patches
    rng = np.random.default_rng(2)
    levels = rng.integers(0, 255, (2, *one.shape)).astype(np.uint8)
    transform = grid_of(one.shape).transform
    for name, each in zip("ab", levels, strict=True):
        path = make_raster(f"conf_{name}.tif", each[None], crs="EPSG:32633", transform=transform)
        with rasterio.open(path, "r+") as dataset:
            dataset.scales = (1 / 254,)
    found = compare_maps(
        write("a.tif", one), write("b.tif", other), tmp_path / "c.tif", polygons=tmp_path / "c.gpkg",
        confidence_a=tmp_path / "conf_a.tif", confidence_b=tmp_path / "conf_b.tif",
    )  # fmt: skip
    frame = gpd.read_file(tmp_path / "c.gpkg", layer="c")
    assert list(frame) == ["code", "name", "color", "from_class", "to_class", "area_m2", "perimeter_m",
                           "confidence_a", "confidence_b", "point_x", "point_y", "geometry"]  # fmt: skip
    assert (frame["name"] == frame["from_class"] + " -> " + frame["to_class"]).all()
    totals = frame.groupby("name")["area_m2"].sum() / 10_000
    changes = found.transitions().query("changed").set_index("name")["area_ha"]
    pd.testing.assert_series_equal(totals.sort_index(), changes.sort_index(), check_names=False, rtol=1e-6)
    codes = read(tmp_path / "c.tif")
    for _, row in frame.iloc[::7].iterrows():
        inside = rasterize([row.geometry], codes.shape, transform=transform).astype(bool)
        assert (codes[inside] == row["code"]).all()
        for name, each in zip("ab", levels, strict=True):
            known = each[inside & (each != 255)] / 254
            assert row[f"confidence_{name}"] == pytest.approx(known.mean(), abs=1e-6)


@pytest.mark.parametrize("alone", ["a", "b"])
def test_one_confidence_alone_keeps_its_name(write, patches, make_raster, tmp_path, alone):
    one, other = patches
    grid = grid_of(one.shape)
    path = make_raster("conf.tif", np.full((1, *one.shape), 0.25, np.float32), crs="EPSG:32633",
                       transform=grid.transform)  # fmt: skip
    compare_maps(write("a.tif", one), write("b.tif", other), tmp_path / "c.tif", polygons=tmp_path / "c.geojson",
                 **{f"confidence_{alone}": path})  # fmt: skip
    frame = gpd.read_file(tmp_path / "c.geojson")
    assert frame[f"confidence_{alone}"].unique().tolist() == [0.25]
    assert "confidence_2" not in frame


def test_the_polygons_are_those_of_the_raster(write, patches, tmp_path):
    one, other = patches
    found = compare_maps(write("a.tif", one), write("b.tif", other), tmp_path / "c.tif", polygons=tmp_path / "c.gpkg")
    changed = found.transitions().query("changed")["name"].tolist()
    raster_to_polygons(tmp_path / "c.tif", tmp_path / "again.gpkg", keep=changed)
    ours, theirs = (gpd.read_file(tmp_path / f"{name}.gpkg", layer=name) for name in ("c", "again"))
    pd.testing.assert_frame_equal(ours[["code", "area_m2"]], theirs[["code", "area_m2"]])
    assert ours.geometry.geom_equals(theirs.geometry).all()


def test_parts_make_no_difference(write, patches, tmp_path, monkeypatch):
    one, other = (np.tile(each, (7, 5)) for each in patches)
    paths = write("a.tif", one), write("b.tif", other)
    whole = compare_maps(*paths, tmp_path / "c.tif", min_area=900)
    monkeypatch.setattr(change_parts, "PART", 512)
    parts = compare_maps(*paths, tmp_path / "d.tif", min_area=900)
    np.testing.assert_array_equal(read(tmp_path / "c.tif"), read(tmp_path / "d.tif"))
    np.testing.assert_allclose(parts.hectares, whole.hectares, rtol=1e-12)
    np.testing.assert_array_equal(parts.pixels, whole.pixels)
    with rasterio.open(tmp_path / "c.tif") as one_file, rasterio.open(tmp_path / "d.tif") as other_file:
        assert one_file.overviews(1) == other_file.overviews(1) != []


def test_an_interrupted_run_goes_on_from_its_parts(write, patches, tmp_path, monkeypatch):
    one, other = (np.tile(each, (7, 5)) for each in patches)
    paths = write("a.tif", one), write("b.tif", other)
    monkeypatch.setattr(change_parts, "PART", 512)
    expected = compare_maps(*paths, tmp_path / "whole.tif")
    make, made = change_parts.ChangeJob._make_part, []

    def stop_after_two(self, part, kept):
        if len(made) >= 2:
            raise KeyboardInterrupt
        make(self, part, kept)
        made.append(part.number)

    monkeypatch.setattr(change_parts.ChangeJob, "_make_part", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        compare_maps(*paths, tmp_path / "c.tif")
    assert not (tmp_path / "c.tif").exists()
    again = []
    monkeypatch.setattr(
        change_parts.ChangeJob,
        "_make_part",
        lambda self, part, kept: (again.append(part.number), make(self, part, kept)),
    )
    found = compare_maps(*paths, tmp_path / "c.tif")
    assert not set(again) & set(made)
    assert len(again) + len(made) == 4
    np.testing.assert_allclose(found.hectares, expected.hectares, rtol=1e-12)
    np.testing.assert_array_equal(read(tmp_path / "c.tif"), read(tmp_path / "whole.tif"))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_parts_of_another_job_are_not_used(write, patches, tmp_path, monkeypatch):
    one, other = patches
    paths = write("a.tif", one), write("b.tif", other)
    monkeypatch.setattr(change_parts.ChangeJob, "assemble", lambda *_: (_ for _ in ()).throw(OutputError("full")))
    with pytest.raises(OutputError, match="full"):
        compare_maps(*paths, tmp_path / "c.tif")
    monkeypatch.undo()
    found = compare_maps(*paths, tmp_path / "c.tif", min_area=1000)
    assert found.removed_ha > 0


# Grids


def test_a_map_in_degrees_has_geodesic_areas(write, tmp_path):
    """On a grid over 40 degrees of latitude, as pyproj's geodesic polygons say."""
    grid = grid_of((80, 6), crs=CRS.from_epsg(4326), transform=Affine(0.5, 0, 10, 0, -0.5, 60))
    one, other = np.zeros((80, 6), np.uint8), np.zeros((80, 6), np.uint8)
    other[:40, :3], other[40:, 3:] = 1, 2
    found = compare_maps(write("a.tif", one, grid=grid), write("b.tif", other, grid=grid), tmp_path / "c.tif")
    geod = Geod(ellps="WGS84")

    def hectares(left, bottom, right, top):
        ring = [(left, y) for y in np.linspace(bottom, top, 500)] + [(right, y) for y in np.linspace(top, bottom, 500)]
        west_east = np.linspace(right, left, 2000), np.linspace(left, right, 2000)
        lon = [x for x, _ in ring[:500]] + list(west_east[1]) + [x for x, _ in ring[500:]] + list(west_east[0])
        lat = [y for _, y in ring[:500]] + [top] * 2000 + [y for _, y in ring[500:]] + [bottom] * 2000
        return abs(geod.polygon_area_perimeter(lon, lat)[0]) / 10_000

    assert found.hectares[0, 1] == pytest.approx(hectares(10, 40, 11.5, 60), rel=1e-5)
    assert found.hectares[0, 2] == pytest.approx(hectares(11.5, 20, 13, 40), rel=1e-5)


@pytest.mark.parametrize("which", ["a", "b"])
def test_the_other_map_is_sampled_at_the_centres_of_pixels(write, tmp_path, caplog, which):
    """Pixels of 10 m and 4 m, with another origin: compared with the pixel that holds each centre."""
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 3, (20, 30)), rng.integers(0, 3, (60, 70))
    fine = grid_of(other.shape, transform=Affine(4, 0, 500_011, 0, -4, 4_799_993))
    with caplog.at_level(logging.WARNING, "geopsp"):
        compare_maps(write("a.tif", one), write("b.tif", other, grid=fine), tmp_path / "c.tif", grid=which)
    assert "the pixels are" in caplog.text
    grids, maps = (grid_of(one.shape), fine), (one, other)
    target = grids[which == "b"]
    cols, rows = np.meshgrid(np.arange(target.width) + 0.5, np.arange(target.height) + 0.5)
    x, y = target.transform * (cols, rows)
    sampled = []
    for grid, codes in zip(grids, maps, strict=True):
        col, row = (np.floor(each).astype(int) for each in ~grid.transform * (x, y))
        inside = (col >= 0) & (row >= 0) & (col < grid.width) & (row < grid.height)
        sampled.append(np.where(inside, codes[row.clip(0, grid.height - 1), col.clip(0, grid.width - 1)], 255))
    codes = read(tmp_path / "c.tif")
    table = ChangeCodes.of_classes(join_classes(*[MapClasses("m", tuple(Legend.from_names(NAMES)))] * 2)).table
    both = (sampled[0] != 255) & (sampled[1] != 255)
    assert both.any()
    np.testing.assert_array_equal(codes[both], table[sampled[0][both], sampled[1][both]])
    assert (codes[~both] == 255).all()


def test_a_map_in_another_crs_lies_where_it_should(write, tmp_path, caplog):
    """A square in UTM and in degrees is the same ground to a pixel."""
    one = np.zeros((100, 100), np.uint8)
    one[30:70, 20:60] = 1
    grid = grid_of(one.shape)
    with rasterio.Env():
        transform, width, height = calculate_default_transform(UTM, "EPSG:4326", 100, 100, *grid.bounds())
        other = np.full((height, width), 255, np.uint8)
        reproject(
            one, other, src_transform=grid.transform, src_crs=UTM, dst_transform=transform, dst_crs="EPSG:4326",
            resampling=Resampling.nearest, init_dest_nodata=True, dst_nodata=255,
        )  # fmt: skip
    degrees = Grid(CRS.from_epsg(4326), transform, width, height)
    with caplog.at_level(logging.WARNING, "geopsp"):
        found = compare_maps(write("a.tif", one), write("b.tif", other, grid=degrees), tmp_path / "c.tif")
    assert "differ in CRS" in caplog.text
    assert found.pixels.sum() > 9_500
    assert found.pixels[0, 1] + found.pixels[1, 0] < 160 * 0.7  # the outline has 160 pixels
    assert found.pixels[1, 1] > 1_500


def test_a_shift_by_part_of_a_pixel_is_said(write, tmp_path, caplog):
    codes = np.zeros((9, 9), np.uint8)
    shifted = grid_of(codes.shape, transform=Affine(10, 0, 500_003, 0, -10, 4_799_998))
    with caplog.at_level(logging.WARNING, "geopsp"):
        found = compare_maps(write("a.tif", codes), write("b.tif", codes, grid=shifted), tmp_path / "c.tif")
    assert "shifted by 0.3 columns and 0.2 rows" in caplog.text
    assert any("shifted" in note for note in found.notes)


def test_only_the_overlap_is_compared(write, tmp_path, caplog):
    codes = np.zeros((9, 9), np.uint8)
    aside = grid_of(codes.shape, transform=Affine(10, 0, 500_040, 0, -10, 4_800_000))
    with caplog.at_level(logging.WARNING, "geopsp"):
        found = compare_maps(write("a.tif", codes), write("b.tif", codes, grid=aside), tmp_path / "c.tif")
    assert not caplog.text
    assert found.pixels.sum() == 45
    np.testing.assert_array_equal(read(tmp_path / "c.tif")[:, :4], 255)


def test_longitudes_may_lie_a_circle_apart(write, tmp_path):
    codes = np.random.default_rng(0).integers(0, 3, (8, 9))
    one, other = (grid_of(codes.shape, crs=CRS.from_epsg(4326), transform=Affine(0.1, 0, left, 0, -0.1, 10))
                  for left in (-170, 190))  # fmt: skip
    found = compare_maps(write("a.tif", codes, grid=one), write("b.tif", codes, grid=other), tmp_path / "c.tif")
    assert (found.pixels.sum(), found.changed_ha) == (72, 0)


# Many classes


def test_rare_changes_share_a_class_where_codes_run_out(write, tmp_path, caplog):
    names = {code: f"k{code}" for code in range(20)}
    one, other = (each.ravel() for each in np.meshgrid(np.arange(20), np.arange(20), indexing="ij"))
    times = np.where(one == other, 1, 1 + (one * 20 + other) % 97)
    one, other = np.repeat(one, times), np.repeat(other, times)
    width = 100
    rows = -(-len(one) // width)
    pad = np.full(rows * width - len(one), 255)
    maps = [np.concatenate([each, pad]).reshape(rows, width) for each in (one, other)]
    with caplog.at_level(logging.WARNING, "geopsp"):
        found = compare_maps(*(write(f"{n}.tif", m, names=names) for n, m in zip("ab", maps, strict=True)),
                             tmp_path / "c.tif", polygons=tmp_path / "c.gpkg")  # fmt: skip
    assert "share the class 'other changes'" in caplog.text
    codes, legend = read(tmp_path / "c.tif"), read_legend(tmp_path / "c.tif")
    assert len(legend) == 255
    assert legend.classes[254].name == "other changes"
    table = found.transitions()
    assert len(table) == 400  # the table has all
    assert table["pixels"].sum() == len(one)
    alone = table[table["code"] != 254]
    counts = np.bincount(codes.ravel(), minlength=256)
    np.testing.assert_array_equal(counts[alone["code"]], alone["pixels"])
    assert counts[254] == table.loc[table["code"] == 254, "pixels"].sum()
    assert alone.query("changed")["area_ha"].min() >= table.loc[table["code"] == 254, "area_ha"].max() * (1 - 1e-3)
    frame = gpd.read_file(tmp_path / "c.gpkg", layer="c")
    assert frame.loc[frame["code"] == 254, "from_class"].isna().all()
    assert frame.loc[frame["code"] != 254, "from_class"].notna().all()


# Files and messages


def test_json_and_csv(write, patches, tmp_path):
    one, other = patches
    found = compare_maps(write("a.tif", one), write("b.tif", other), tmp_path / "c.tif")
    document = json.loads(found.save(tmp_path / "c.json").read_text())
    assert document["from_to_pixels"] == found.pixels.tolist()
    assert document["changed_ha"] == pytest.approx(found.changed_ha)
    frame = pd.read_csv(found.save(tmp_path / "c.csv"))
    pd.testing.assert_frame_equal(frame, found.transitions())
    with pytest.raises(OutputError, match="already exists"):
        found.save(tmp_path / "c.csv")
    with pytest.raises(OptionError, match=r"must end in \.json or \.csv"):
        found.save(tmp_path / "c.txt")
    assert repr(found).startswith("<Change of ")


def test_what_cannot_be_compared_is_said(write, make_raster, tmp_path):
    codes = np.zeros((9, 9), np.uint8)
    one, out = write("a.tif", codes), tmp_path / "c.tif"
    far = write("far.tif", codes, grid=grid_of(codes.shape, transform=Affine(10, 0, 700_000, 0, -10, 4_800_000)))
    empty = codes.copy()
    empty[:] = 255
    nothing = write("nothing.tif", empty)
    for other, options, error, match in (
        (tmp_path / "none.tif", {}, InputNotFoundError, "none.tif"),
        (far, {}, GridError, "no ground in common"),
        (nothing, {}, GridError, "No pixel has a class in both"),
        (make_raster("rgb.tif", bands=3), {}, RasterError, "one band"),
        (one, {"grid": "c"}, OptionError, "'a', 'b'"),
        (one, {"min_area": -1}, OptionError, "min_area"),
        (one, {"class_mapping": {"watr": "sea"}}, OptionError, "names watr, but the classes are water"),
        (one, {"class_mapping": {"*": None}}, OptionError, "leaves no class"),
        (one, {"class_mapping": {"water": {"name": "sea", "code": 3}}}, OptionError, "codes follow from the classes"),
        (one, {"confidence_a": one}, OptionError, "only gives polygons a column"),
        (one, {"polygons": tmp_path / "c.xyz"}, OptionError, "xyz"),
        (one, {"reference": one}, LabelError, "a.tif"),
        (one, {"reference": tmp_path / "no.gpkg"}, InputNotFoundError, "no.gpkg"),
        (one, {"polygons": tmp_path / "c.gpkg", "confidence_b": far}, GridError, "beside the maps"),
    ):
        with pytest.raises(error, match=match):
            compare_maps(one, other, out, **options)
        assert not out.exists()
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], match
    with pytest.raises(OptionError, match=r"must end in \.tif"):
        compare_maps(one, one, tmp_path / "c.png")
    with pytest.raises(OutputError, match="also an input"):
        compare_maps(one, one, one, overwrite=True)


def test_the_shell(write, patches, tmp_path):
    one, other = (write(f"{name}.tif", codes) for name, codes in zip("ab", patches, strict=True))
    (tmp_path / "m.yaml").write_text("water: wet\n")
    arguments = ["change", str(one), str(other), "--out", str(tmp_path / "c.tif"), "--min-area", "500",
                 "--class-mapping", str(tmp_path / "m.yaml"), "--polygons", str(tmp_path / "c.gpkg"),
                 "--json", str(tmp_path / "c.json"), "--csv", str(tmp_path / "c.csv")]  # fmt: skip
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "wet -> " in result.output
    assert all((tmp_path / f"c.{ending}").exists() for ending in ("tif", "gpkg", "json", "csv"))
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    assert CliRunner().invoke(main, [*arguments, "--overwrite"]).exit_code == 0
    bad = CliRunner().invoke(
        main, ["change", str(one), str(other), "--out", str(tmp_path / "d.tif"), "--min-area", "-3"]
    )
    assert bad.exit_code == 2
    assert "--min-area" in bad.stderr
    assert "Traceback" not in bad.output


def test_no_torch_is_loaded():
    code = "import sys, geopsp.assessment.change.compare_maps; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_map_of_one_class_more_does_not_change_the_codes_of_the_first():
    """Codes of unchanged classes are those of the first map's order, whatever the second has."""
    legend = tuple(Legend.from_names(NAMES))
    joint = join_classes(MapClasses("a", legend), MapClasses("b", tuple(Legend.from_names({4: "snow", 9: "ice"}))))
    table = ChangeCodes.of_classes(joint).table
    assert np.diag(table).tolist() == [0, 1, 2, 3, 4]
    assert len(set(table.ravel().tolist())) == 25
    names = {info.name for info in ChangeCodes.of_classes(joint).infos().values()}
    assert len(names) == 25
    assert len({info.color for info in ChangeCodes.of_classes(joint).infos().values()}) == 25


# A reference sample


def test_a_reference_sample_gives_areas_with_intervals(write, patches, tmp_path):
    """The sample is drawn of the change map, interpreted, and given to the same command again."""
    one, other = patches
    paths, out = (write("a.tif", one), write("b.tif", other)), tmp_path / "c.tif"
    first = compare_maps(*paths, out)
    sample = draw_sample(out, tmp_path / "points.gpkg", size=200, seed=3)
    truth = sample.points["map_class"].copy()
    wrong = np.random.default_rng(0).random(len(truth)) < 0.1
    truth[wrong & truth.str.startswith("built")] = "built -> water"
    interpreted = replace(sample, points=sample.points.assign(reference=truth))
    write_sample(interpreted, tmp_path / "points.gpkg", overwrite=True)
    found = compare_maps(*paths, out, reference=tmp_path / "points.gpkg", confidence_level=0.9, overwrite=True)
    assessed = assess_map(out, tmp_path / "points.gpkg", confidence_level=0.9)
    table = found.transitions().set_index("name")
    pd.testing.assert_frame_equal(
        table[["estimate", "standard_error", "lower", "upper"]].sort_index(),
        assessed.areas[["estimate", "standard_error", "lower", "upper"]].loc[table.index].sort_index(),
        check_names=False,
    )
    assert table["estimate"].sum() == pytest.approx(found.total_ha)
    np.testing.assert_array_equal(found.pixels, first.pixels)
    row = table.loc["built -> water"]
    assert row["lower"] < row["estimate"] < row["upper"]
    assert row["estimate"] > row["area_ha"]
    assert "reference  200 points" in found.text()
    assert json.loads(found.save(tmp_path / "c.json").read_text())["accuracy"]["points"] == 200


def test_a_sample_that_does_not_fit_leaves_the_outputs_alone(write, patches, tmp_path):
    one, other = patches
    paths, out = (write("a.tif", one), write("b.tif", other)), tmp_path / "c.tif"
    compare_maps(*paths, out)
    before = out.read_bytes()
    draw_sample(out, tmp_path / "points.gpkg", size=50)
    with pytest.raises(LabelError):  # nobody interpreted it
        compare_maps(*paths, out, reference=tmp_path / "points.gpkg", overwrite=True)
    assert out.read_bytes() == before
