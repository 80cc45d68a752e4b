"""What is cut: turned copies, random chips, strips, and what is not even read."""

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from common import square

from geopsp.chips import cutter
from geopsp.chips.chip import rotate_grid
from geopsp.chips.export_training_data import export_training_data, index_chips
from geopsp.chips.labelled_scenes import LabelledScenes
from geopsp.chips.options import ChipSpec
from geopsp.core.grid import Grid, Window
from geopsp.core.legend import IGNORE_INDEX
from geopsp.errors import ChipError
from geopsp.raster.scene import Scene

LEFT, TOP = 601234.0, 5301717.0


@pytest.fixture
def labels():
    """A large field, a few small things in one corner."""
    field = shapely.box(LEFT, TOP - 300, LEFT + 200, TOP)
    boats = [square(LEFT + x, TOP - 210, 6) for x in (222, 236, 250)]
    return gpd.GeoDataFrame({"kind": ["field"] + ["boat"] * 3}, geometry=[field, *boats], crs="EPSG:32632")


@pytest.fixture
def image(make_raster):
    data = np.random.default_rng(1).integers(1, 200, (2, 140, 160)).astype("uint16")
    data[:, :40, 100:] = 0
    return make_raster("a.tif", data, nodata=0, tiled=True, blockxsize=32, blockysize=16)


def read(path):
    with rasterio.open(path) as dataset:
        grid = Grid(dataset.crs, dataset.transform, dataset.width, dataset.height)
        return dataset.read(), dataset.dataset_mask() > 0, grid


# Turned copies


def test_quarter_turns_hold_the_pixels_of_the_chip(image, labels, tmp_path):
    chips = export_training_data(image, labels, tmp_path / "c", "kind", 32, rotation_angle=90)
    by_name = chips.index.set_index("chip")
    assert set(chips.index["angle"]) == {0, 90, 180, 270}
    for name in by_name.index[by_name["angle"] == 0]:
        pixels, _, grid = read(by_name.loc[name, "image"])
        codes, _, _ = read(by_name.loc[name, "label"])
        for quarters in (1, 2, 3):
            row = by_name.loc[f"{name[:6]}_r{90 * quarters}.tif"]
            found, _, place = read(row["image"])
            np.testing.assert_array_equal(found, np.rot90(pixels, quarters, axes=(1, 2)))
            np.testing.assert_array_equal(read(row["label"])[0], np.rot90(codes, quarters, axes=(1, 2)))
            assert place.transform.almost_equals(rotate_grid(grid, 90 * quarters).transform)
            assert row.geometry.equals_exact(by_name.loc[name].geometry, 1e-6) or row.geometry.equals(
                by_name.loc[name].geometry
            )


def test_other_turns_show_the_ground_where_it_lies(make_raster, labels, tmp_path):
    """A smooth image, so that each pixel of a turned chip can be told from its place."""
    rows, cols = np.mgrid[:140, :160].astype("float32")
    path = make_raster("smooth.tif", np.stack([rows, cols]))
    chips = export_training_data(path, labels, tmp_path / "c", "kind", 32, rotation_angle=30)
    assert set(chips.index["angle"]) == set(range(0, 360, 30))
    source, ground = Scene.open(path), LabelledScenes.open(path, labels, class_field="kind")
    for row in chips.index[chips.index["angle"] % 90 > 0].itertuples():
        pixels, valid, grid = read(row.image)
        assert row.geometry.equals_exact(shapely.polygons(grid.corners()), 1e-6)
        xs, ys = np.meshgrid(np.arange(32) + 0.5, np.arange(32) + 0.5)
        col, line = (~source.grid.transform @ grid.transform) * (xs, ys)
        inner = valid & (col > 1) & (col < 159) & (line > 1) & (line < 139)
        np.testing.assert_allclose(pixels[0][inner], line[inner] - 0.5, atol=0.02)
        np.testing.assert_allclose(pixels[1][inner], col[inner] - 0.5, atol=0.02)
        np.testing.assert_array_equal(
            read(row.label)[0][0], np.where(valid, ground.read_labels(source, grid).codes, IGNORE_INDEX)
        )


def test_a_turned_copy_that_is_not_worth_it_is_left_out(image, labels, tmp_path):
    chips = export_training_data(image, labels, tmp_path / "c", "kind", 32, rotation_angle=45, min_valid=1.0)
    assert (chips.index["valid"] == 1).all()
    assert 0 < (chips.index["angle"] == 45).sum() < (chips.index["angle"] == 0).sum()


# Random chips


def test_random_chips_show_each_class_as_often(image, labels, tmp_path):
    options = {"class_field": "kind", "tile_size": 32}
    regular = export_training_data(image, labels, tmp_path / "grid", **options)
    chips = export_training_data(image, labels, tmp_path / "r", **options, random_chips=60, grid=False, seed=5)
    assert len(chips) == 60 == chips.reports[0]["chips"]
    boat = f"pixels_{chips.legend.code_of('boat')}"
    assert (chips.index[boat] > 0).mean() > 3 * (regular.index[boat] > 0).mean()
    assert (chips.index[boat] > 0).mean() > 1 / 3
    assert chips.index[["col", "row"]].drop_duplicates().shape[0] > 50
    assert chips.index["col"].between(0, 160 - 32).all()
    assert chips.index["row"].between(0, 140 - 32).all()
    patch = Scene.open(image).read()
    for row in chips.index.itertuples():
        place = slice(row.row, row.row + 32), slice(row.col, row.col + 32)
        np.testing.assert_array_equal(read(row.image)[0], patch.data[:, *place])
        codes = read(row.label)[0]
        assert [int((codes == code).sum()) for code in chips.legend.codes] == [
            getattr(row, f"pixels_{code}") for code in chips.legend.codes
        ]


def test_random_chips_come_beside_the_grid_and_depend_on_the_seed(image, labels):
    ground = LabelledScenes.open(image, labels, class_field="kind")
    regular = index_chips(ground, ChipSpec(tile_size=32)).index
    one, same, other = (index_chips(ground, ChipSpec(tile_size=32, random_chips=9, seed=s)).index for s in (1, 1, 2))
    assert one.iloc[: len(regular)].drop(columns="geometry").equals(regular.drop(columns="geometry"))
    assert len(one) == len(regular) + 9
    assert one.equals(same)
    assert not one[["col", "row"]].equals(other[["col", "row"]])


def test_no_random_chip_shows_what_another_shows(make_raster, labels):
    """A scene of one tile has but one."""
    ground = LabelledScenes.open(make_raster("small.tif", size=(30, 40)), labels, class_field="kind")
    chips = index_chips(ground, ChipSpec(tile_size=64, random_chips=30))
    assert len(chips) == 1
    assert {"kind": "input", "text": "30 of 30 random chips could not be found."} in chips.reports[0]["warnings"]
    assert set(chips.reports[0]["labels"]) & {"random_chips", "draws"} == set()


def test_random_chips_that_cannot_be_found_are_said(image, labels):
    """Every tile that holds a boat reaches beyond the labels."""
    ground = LabelledScenes.open(image, labels[1:], class_field="kind", background="ignore")
    with pytest.raises(ChipError, match="No chip is left"):
        index_chips(ground, ChipSpec(tile_size=32, random_chips=4, grid=False, min_labelled=0.9))
    options = {"tile_size": 32, "random_chips": 4, "min_labelled": 0.02}
    chips = index_chips(ground, ChipSpec(**options, min_valid=1.0))
    assert (chips.index["labelled"] >= 0.02).all()
    short = 4 - (len(chips) - len(index_chips(ground, ChipSpec(tile_size=32, min_labelled=0.02, min_valid=1.0))))
    texts = [warning["text"] for warning in chips.reports[0]["warnings"]]
    found = [text for text in texts if "random chips" in text and "found" in text]
    assert found == ([f"{short} of 4 random chips could not be found."] if short else [])


# Areas


def test_chips_wholly_inside_an_area(image, labels, tmp_path):
    area = gpd.GeoDataFrame(geometry=[square(LEFT + 30, TOP - 90, 150)], crs="EPSG:32632")
    options = {"class_field": "kind", "tile_size": 16, "aoi": area}
    masked = export_training_data(image, labels, tmp_path / "m", **options)
    inside = export_training_data(image, labels, tmp_path / "i", **options, aoi_rule="inside")
    within = [area.geometry[0].buffer(1e-6).covers(shape) for shape in masked.index.geometry]
    assert 0 < sum(within) < len(masked)
    assert inside.index["chip"].size == sum(within)
    assert (inside.index["labelled"] == inside.index["valid"]).all()
    assert inside.reports[0]["skipped"]["outside"] == 90 - sum(within)


# The way through


@pytest.mark.parametrize(("budget", "workers"), [(1, 1), (40_000, 3)])
def test_strips_and_threads_change_nothing_but_the_order(budget, workers, image, labels, monkeypatch):
    ground = LabelledScenes.open(image, labels, class_field="kind")
    spec = ChipSpec(tile_size=32, stride=20, min_labelled=0.1)
    whole = index_chips(ground, spec, workers=1)
    monkeypatch.setattr(cutter, "MAX_STRIP_BYTES", budget)
    assert len({chip_row.columns for chip_row in cutter.plan(ground, spec)}) > 1
    parts = index_chips(ground, spec, workers=workers)
    place = ["row", "col"]
    ours, theirs = (
        chips.index.drop(columns=["chip", "label"]).sort_values(place).reset_index(drop=True)
        for chips in (whole, parts)
    )
    assert ours.equals(theirs)
    assert whole.reports == parts.reports
    assert whole.statistics.mean == pytest.approx(parts.statistics.mean)


@pytest.mark.parametrize("stride", [16, 32, 50])
def test_owned_windows_partition_each_scene(stride, image, labels, monkeypatch):
    monkeypatch.setattr(cutter, "MAX_STRIP_BYTES", 40_000)
    ground = LabelledScenes.open(image, labels, class_field="kind")
    seen = np.zeros((140, 160), int)
    for chip_row in cutter.plan(ground, ChipSpec(tile_size=32, stride=stride)):
        seen[chip_row.owned.slices(Window(0, 0, 160, 140))] += 1
    assert (seen == 1).all()


def test_each_block_is_read_once_for_overlapping_chips(image, labels, monkeypatch):
    reads = np.zeros((200, 200), int)
    plain = Scene.read

    def counted(self, window=None):
        part = window.intersect(self.grid.window)
        reads[part.slices(Window(0, 0, 200, 200))] += 1
        return plain(self, window)

    ground = LabelledScenes.open(image, labels, class_field="kind")
    monkeypatch.setattr(Scene, "read", counted)
    index_chips(ground, ChipSpec(tile_size=32, stride=8))
    assert reads[:140, :160].max() == 1


def test_the_image_is_not_read_where_labels_rule_chips_out(image, labels, monkeypatch):
    rows = set()
    plain = Scene.read

    def counted(self, window=None):
        rows.update(range(window.row, window.row_stop))
        return plain(self, window)

    ground = LabelledScenes.open(image, labels[labels["kind"] == "boat"], class_field="kind", background="ignore")
    monkeypatch.setattr(Scene, "read", counted)
    chips = index_chips(ground, ChipSpec(tile_size=16, min_labelled=0.001))
    assert set(chips.index["row"]) <= set(range(96, 112))
    assert rows <= set(range(96, 128))


def test_polygons_are_counted_once(image, labels):
    ground = LabelledScenes.open(image, labels, class_field="kind")
    report = index_chips(ground, ChipSpec(tile_size=32, stride=8)).reports[0]
    assert report["polygons"] == {"boat": 3, "field": 1}


def test_a_scene_without_a_chip_worth_keeping(image, labels):
    ground = LabelledScenes.open(image, labels[1:], class_field="kind", background="ignore")
    with pytest.raises(ChipError, match=r"No chip is left: 25 less than 100% labelled\. Lower `min_labelled`"):
        index_chips(ground, ChipSpec(tile_size=32, min_labelled=1.0))
