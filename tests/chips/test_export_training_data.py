import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from common import slow, square
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize

import geopsp.chips.export
from geopsp.chips.chip_set import ChipSet
from geopsp.chips.export_training_data import export_training_data, index_chips
from geopsp.chips.labelled_scenes import LabelledScenes
from geopsp.chips.options import ChipSpec
from geopsp.core.grid import Grid
from geopsp.core.legend import IGNORE_INDEX
from geopsp.core.options import from_names
from geopsp.core.pixel_values import PixelValues
from geopsp.errors import BandError, ChipError, GeopspError, LabelError, OptionError, OutputError
from geopsp.raster.scene import Scene

LEFT, TOP = 601234.0, 5301717.0
SHAPES = [
    square(LEFT + 10, TOP - 10, 60),
    square(LEFT + 50, TOP - 30, 30),
    square(LEFT + 110, TOP - 60, 50),
    shapely.Point(LEFT + 90, TOP - 80).buffer(17),
]
KINDS = ["crop", "water", "crop", "road"]


@pytest.fixture
def labels():
    return gpd.GeoDataFrame({"kind": KINDS}, geometry=SHAPES, crs="EPSG:32632")


def stitched(chips, part, grid, fill=0):
    """All chips of a part put back in place, (bands, rows, cols), and where they are valid; seams must agree."""
    with rasterio.open(chips.index[part].iloc[0]) as first:
        data = np.full((first.count, grid.height, grid.width), fill, first.dtypes[0])
    valid = np.zeros((grid.height, grid.width), bool)
    covered = np.zeros_like(valid)
    for row in chips.index.itertuples():
        with rasterio.open(getattr(row, part)) as dataset:
            chip, mask = dataset.read(), dataset.dataset_mask() > 0
            there = grid.window_of(Grid(dataset.crs, dataset.transform, dataset.width, dataset.height))
        assert there is not None
        height, width = min(there.height, grid.height - there.row), min(there.width, grid.width - there.col)
        place = slice(there.row, there.row + height), slice(there.col, there.col + width)
        old, inside = data[:, *place], chip[:, :height, :width]
        assert (old == inside)[:, covered[place]].all(), "neighbours differ"
        data[:, *place] = inside
        valid[place] |= mask[:height, :width]
        assert not mask[height:].any()
        assert not mask[:, width:].any()
        covered[place] = True
    assert covered.all()
    return data, valid


# Pixels and labels


@pytest.mark.parametrize(
    ("dtype", "size", "stride", "nodata", "masked"),
    [
        ("uint8", 32, None, None, False),
        ("uint8", 20, 13, 0, False),
        ("uint16", 33, None, 0, False),
        ("int16", 64, 32, -9999, False),
        ("float32", 24, 24, None, True),
        ("uint8", 128, None, None, True),
    ],
)
def test_chips_tile_back_to_the_source(dtype, size, stride, nodata, masked, make_raster, labels, tmp_path):
    data = np.random.default_rng(1).integers(1, 200, (3, 61, 83)).astype(dtype)
    mask = np.ones((61, 83), bool)
    mask[12:30, 50:60] = False
    if nodata is not None:
        data[:, ~mask] = nodata
    if dtype == "float32":
        data[:, 40:44, 3:9] = np.nan
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = make_raster("a.tif", data, nodata=nodata, mask=mask if masked else None)
    chips = export_training_data(path, labels, tmp_path / "chips", "kind", size, stride, background="ignore")
    patch = Scene.open(path).read()
    found, valid = stitched(chips, "image", patch.grid)
    np.testing.assert_array_equal(found, data)
    np.testing.assert_array_equal(valid, patch.valid)
    codes, _ = stitched(chips, "label", patch.grid, IGNORE_INDEX)
    order = np.argsort(-labels.area.to_numpy(), kind="stable")
    pairs = [(SHAPES[i], chips.legend.code_of(KINDS[i])) for i in order]
    burned = rasterize(pairs, (61, 83), fill=IGNORE_INDEX, transform=patch.grid.transform, dtype="uint8")
    np.testing.assert_array_equal(codes[0], np.where(patch.valid, burned, IGNORE_INDEX))


def test_labels_are_unlabelled_outside_the_area_and_on_invalid_pixels(make_raster, labels, tmp_path):
    data = np.random.default_rng(1).integers(1, 200, (3, 61, 83)).astype("uint8")
    data[:, 20:30, 20:40] = 0
    area = gpd.GeoDataFrame(geometry=[square(LEFT + 30, TOP - 20, 70)], crs="EPSG:32632").to_crs("EPSG:4326")
    path = make_raster("a.tif", data, nodata=0)
    chips = export_training_data(path, labels, tmp_path / "chips", "kind", 32, aoi=area)
    grid = Scene.open(path).grid
    codes, _ = stitched(chips, "label", grid, IGNORE_INDEX)
    inside = rasterize(area.to_crs("EPSG:32632").geometry, (61, 83), transform=grid.transform, dtype="uint8") > 0
    np.testing.assert_array_equal(codes[0] != IGNORE_INDEX, inside & data.any(axis=0))


def test_all_touched_reaches_the_labels(make_raster, labels, tmp_path):
    counts = [
        export_training_data(make_raster(), labels, tmp_path / f"{touched}", "kind", 32, all_touched=touched)
        for touched in (False, True)
    ]
    assert counts[1].pixels_per_class[1:].sum() > counts[0].pixels_per_class[1:].sum()


def test_several_images_keep_their_own_grids(make_raster, labels, tmp_path):
    utm33 = (152500.0, 5311285.0)
    paths = [make_raster("a.tif", seed=1), make_raster("b.tif", seed=2, crs="EPSG:32633", origin=utm33, cell=1.5)]
    chips = export_training_data(paths, labels, tmp_path / "chips", "kind", 32)
    assert chips.index["source"].value_counts().to_dict() == {str(paths[0]): 6, str(paths[1]): 6}
    assert sorted(chips.index["crs"].unique()) == ["EPSG:32632", "EPSG:32633"]
    for path in paths:
        own = chips.index[chips.index["source"] == str(path)]
        part = ChipSet(**{name: getattr(chips, name) for name in ChipSet.__slots__} | {"index": own})
        patch = Scene.open(path).read()
        np.testing.assert_array_equal(stitched(part, "image", patch.grid)[0], patch.data)
        footprints = gpd.GeoSeries(own.geometry, crs=chips.index.crs).to_crs(own["crs"].iloc[0])
        left, _, _, top = footprints.total_bounds
        assert (left, top) == pytest.approx((patch.grid.bounds()[0], patch.grid.bounds()[3]), abs=0.01)


def test_bands_that_are_asked_for(make_raster, labels, tmp_path):
    data = np.random.default_rng(0).integers(1, 99, (4, 61, 83)).astype("uint16")
    path = make_raster("a.tif", data, names=("red", "green", "blue", "nir"))
    chips = export_training_data(path, labels, tmp_path / "chips", "kind", 64, bands=["nir", "red"])
    assert chips.bands == ("nir", "red")
    assert chips.statistics.mean == pytest.approx(data[[3, 0]].mean(axis=(1, 2)))


# Index and statistics


def test_the_index_says_where_each_chip_lies_and_what_it_holds(make_raster, labels, tmp_path):
    data = np.random.default_rng(1).integers(1, 200, (3, 61, 83)).astype("uint8")
    data[:, :, 70:] = 0
    path = make_raster("a.tif", data, nodata=0)
    chips = export_training_data(path, labels, tmp_path / "chips", "kind", 32, background="ignore")
    assert len(chips) == 6
    total = np.zeros(len(chips.legend), int)
    for row in chips.index.itertuples():
        with rasterio.open(row.label) as dataset:
            codes = dataset.read(1)
            assert shapely.equals_exact(row.geometry.normalize(), shapely.box(*dataset.bounds).normalize(), 1e-6)
        with rasterio.open(row.image) as dataset:
            assert row.valid == pytest.approx((dataset.dataset_mask() > 0).mean())
        assert row.labelled == pytest.approx((codes != IGNORE_INDEX).mean())
        found = [int((codes == code).sum()) for code in chips.legend.codes]
        assert found == [getattr(row, f"pixels_{code}") for code in chips.legend.codes]
        total += found
        assert (row.col, row.row) == (32 * (int(row.chip[:6]) % 3), 32 * (int(row.chip[:6]) // 3))
    np.testing.assert_array_equal(chips.pixels_per_class, total)
    assert chips.legend.names == ["crop", "road", "water"]
    assert (chips.cell_size, chips.units, chips.dtype, chips.tile_size) == ((2.0, 2.0), "metre", "uint8", 32)


@given(seed=st.integers(0, 99), dtype=st.sampled_from(["uint8", "uint16", "int16", "float32"]))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_statistics_equal_numpy_s_over_valid_pixels(seed, dtype, make_raster, labels, tmp_path):
    data = np.random.default_rng(seed).integers(0, 200, (2, 61, 83)).astype(dtype)
    path = make_raster("a.tif", data, nodata=7)
    stats = export_training_data(path, labels, tmp_path / "chips", "kind", 32, overwrite=True).statistics
    values = data[:, ~(data == 7).any(axis=0)].astype(float)
    assert stats.count == values.shape[1]
    np.testing.assert_allclose(stats.mean, values.mean(axis=1))
    np.testing.assert_allclose(stats.std, values.std(axis=1))
    np.testing.assert_array_equal([stats.low, stats.high], [values.min(axis=1), values.max(axis=1)])


def test_chips_with_too_few_labels_or_no_pixels_are_left_out(make_raster, labels, tmp_path):
    data = np.random.default_rng(1).integers(1, 200, (3, 61, 83)).astype("uint8")
    data[:, :32, :32] = 0
    path = make_raster("a.tif", data, nodata=0)
    options = {"class_field": "kind", "tile_size": 32, "background": "ignore"}
    everything = export_training_data(path, labels, tmp_path / "all", **options)
    assert len(everything) == 5
    some = export_training_data(path, labels, tmp_path / "some", **options, min_labelled=0.3)
    assert set(some.index["col"].tolist()) < set(everything.index["col"].tolist()) | {64}
    assert (some.index["labelled"] >= 0.3).all()
    assert len(some) == (everything.index["labelled"] >= 0.3).sum()
    report = some.reports[0]
    assert report["skipped"]["invalid"] == 1 or report["skipped"]["unlabelled"] == 6 - len(some)
    assert report["chips"] + sum(report["skipped"].values()) == 6
    with pytest.raises(ChipError, match=r"No chip is left: 6 less than 100% labelled"):
        export_training_data(path, labels, tmp_path / "none", **options, min_labelled=1.0)
    assert not (tmp_path / "none").exists()


def test_conflicts_are_reported(make_raster, labels, tmp_path):
    report = export_training_data(make_raster(), labels, tmp_path / "chips", "kind", 64).reports[0]
    assert report["conflict_pixels"] == 10 * 15  # water lies within crop on 20 x 30 m
    assert report["polygons"] == {"crop": 2, "road": 1, "water": 1}


def test_progress_counts_the_chips_of_each_row(make_raster, labels, tmp_path):
    told = []
    export_training_data(make_raster(), labels, tmp_path / "c", "kind", 32, progress=lambda *n: told.append(n))
    assert told == [(3, 6), (6, 6)]


# The folder as ArcGIS knows it


def test_the_folder_is_what_arcgis_reads(make_raster, labels, tmp_path):
    out = tmp_path / "chips"
    chips = export_training_data(make_raster(names=("red", "green", "nir")), labels, out, "kind", 32)
    pairs = [line.split() for line in (out / "map.txt").read_text().splitlines()]
    assert pairs == [[f"images/{name}", f"labels/{name}"] for name in chips.index["chip"]]
    assert all((out / path).exists() for pair in pairs for path in pair)
    stats, counts = chips.statistics, chips.index[[f"pixels_{c}" for c in chips.legend.codes]].to_numpy()

    model = json.loads((out / "esri_model_definition.emd").read_text())
    assert model["MetaDataMode"] == "Classified_Tiles"
    assert (model["ImageHeight"], model["ImageWidth"], model["ImageSpaceUsed"]) == (32, 32, "MAP_SPACE")
    assert model["ExtractBands"] == [0, 1, 2]
    assert model["Classes"][0] == {"Value": 0, "Name": "background", "Color": [27, 27, 27]}
    assert [c["Name"] for c in model["Classes"]] == ["background", "crop", "road", "water"]
    assert model["InputRastersProps"]["BandNames"] == ["red", "green", "nir"]
    assert model["InputRastersProps"].keys() >= {"SensorName", "RasterCount"}
    assert [set(row) for row in model["AllTilesStats"]] == [{"Min", "Max", "Mean", "StdDev"}] * 3
    assert [row["Mean"] for row in model["AllTilesStats"]] == stats.mean.tolist()
    assert [row["StdDev"] for row in model["AllTilesStats"]] == stats.std.tolist()

    sums = json.loads((out / "esri_accumulated_stats.json").read_text())
    assert {k: sums[k] for k in ("MetaDataMode", "NumBands", "NumClasses", "NumTiles", "TileSizeX", "TileSizeY")} == {
        "MetaDataMode": "Classified_Tiles",
        "NumBands": 3,
        "NumClasses": 4,
        "NumTiles": 6,
        "TileSizeX": 32,
        "TileSizeY": 32,
    }
    assert sums["ClassPixelStats"] == {
        "NumImagesTotal": 6,
        "NumImagesPerClass": (counts > 0).sum(axis=0).tolist(),
        "NumPixelsPerClass": counts.sum(axis=0).tolist(),
    }
    assert [row["M1"] for row in sums["BandStatsState"]] == stats.mean.tolist()
    assert [row["M2"] for row in sums["BandStatsState"]] == stats.m2.tolist()
    assert [(row["Num"], row["Min"], row["Max"]) for row in sums["BandStatsState"]] == [
        (stats.count, low, high) for low, high in zip(stats.low, stats.high, strict=True)
    ]
    assert "images = 6 *4 classes" in (out / "stats.txt").read_text().splitlines()[0]
    with rasterio.open(chips.index["label"].iloc[0]) as dataset:
        assert dataset.nodata == IGNORE_INDEX
        assert dataset.colormap(1)[0][:3] == (27, 27, 27)


# Folders whole or not at all


def test_a_folder_that_exists_is_kept_unless_overwritten(make_raster, labels, tmp_path):
    out = tmp_path / "chips"
    export_training_data(make_raster(), labels, out, "kind", 32)
    with pytest.raises(OutputError, match="already exists"):
        export_training_data(make_raster(), labels, out, "kind", 64)
    assert ChipSet.open(out).tile_size == 32
    assert export_training_data(make_raster(), labels, out, "kind", 64, overwrite=True).tile_size == 64
    assert len(list((out / "images").iterdir())) == 2


def test_a_folder_of_other_things_is_not_replaced(make_raster, labels, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("")
    with pytest.raises(OutputError, match="geopsp did not write"):
        export_training_data(make_raster(), labels, tmp_path / "photos", "kind", 32, overwrite=True)
    assert (tmp_path / "photos" / "cat.jpg").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_export_that_fails_before_its_first_chip_leaves_nothing_behind(
    error, make_raster, labels, tmp_path, monkeypatch
):
    def fail(*args):
        raise error

    path = make_raster()
    monkeypatch.setattr(geopsp.chips.export, "write_chip", fail)
    with pytest.raises(error):
        export_training_data(path, labels, tmp_path / "out" / "chips", "kind", 32)
    assert list((tmp_path / "out").iterdir()) == []


def same_files(one, other):
    """True if two folders hold the same files, byte for byte."""
    names = [sorted(str(p.relative_to(top)) for p in top.rglob("*") if p.is_file()) for top in (one, other)]
    return names[0] == names[1] and all((one / n).read_bytes() == (other / n).read_bytes() for n in names[0])


def breaking_at(number, monkeypatch):
    """From now on, the export breaks off at the chip of this number."""
    plain, calls = geopsp.chips.export.write_chip, []

    def write(*args):
        calls.append(args)
        if len(calls) == number:
            raise KeyboardInterrupt
        return plain(*args)

    monkeypatch.setattr(geopsp.chips.export, "write_chip", write)


OPTIONS = {"class_field": "kind", "tile_size": 16, "rotation_angle": 90, "random_chips": 70}


@pytest.mark.parametrize("broken", [[30, 17, 50], [160, 140], *map(slow, ([150], [100, 40, 40]))])
def test_an_export_that_is_broken_off_goes_on_and_ends_the_same(broken, make_raster, labels, tmp_path, monkeypatch):
    image, out = make_raster(), tmp_path / "chips"
    export_training_data(image, labels, tmp_path / "unbroken", **OPTIONS)
    done = []
    for number in broken:
        with monkeypatch.context() as patch:
            breaking_at(number, patch)
            with pytest.raises(KeyboardInterrupt):
                export_training_data(image, labels, out, **OPTIONS)
        assert not out.exists()
        ledger = tmp_path / ".partial-chips" / "ledger.jsonl"  # begins with the first row of chips that is complete
        done.append(len(ledger.read_text().splitlines()) if ledger.exists() else 0)
    assert done == sorted(done)
    assert done[-1] > 1
    told = []
    export_training_data(image, labels, out, **OPTIONS, progress=lambda *n: told.append(n))
    assert told[0][0] > 6
    assert told[-1] == (6 * 4 + 70, 6 * 4 + 70)
    assert same_files(out, tmp_path / "unbroken")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chips", "image.tif", "unbroken"]


def test_another_job_does_not_go_on_from_what_was_broken_off(make_raster, labels, tmp_path, monkeypatch):
    image, out = make_raster(), tmp_path / "chips"
    with monkeypatch.context() as patch:
        breaking_at(40, patch)
        with pytest.raises(KeyboardInterrupt):
            export_training_data(image, labels, out, **OPTIONS)
    other = OPTIONS | {"random_chips": 5}
    export_training_data(image, labels, out, **other)
    export_training_data(image, labels, tmp_path / "unbroken", **other)
    assert same_files(out, tmp_path / "unbroken")


def test_the_same_call_again_does_nothing(make_raster, labels, tmp_path, monkeypatch):
    image, out = make_raster(), tmp_path / "chips"
    export_training_data(image, labels, out, "kind", 32)
    monkeypatch.setattr(geopsp.chips.export, "write_chip", lambda *_: pytest.fail("written again"))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    for append in (False, True):
        assert len(export_training_data(image, labels, out, "kind", 32, append=append)) == 6
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    with pytest.raises(OutputError, match="already exists"):
        export_training_data(image, labels.iloc[:2], out, "kind", 32)


def test_a_second_export_adds_and_changes_nothing_that_was_there(make_raster, labels, tmp_path):
    """Classes of the same name get the code that they have there, new ones a free one."""
    first, second, out = make_raster("a.tif", seed=1), make_raster("b.tif", seed=2), tmp_path / "chips"
    more = labels.assign(kind=["dam", "crop", "road", "bog"])
    one = export_training_data(first, labels, out, "kind", 32)
    before = {path: path.read_bytes() for path in (out / "images").iterdir()}
    both = export_training_data(second, more, out, "kind", 32, append=True)
    assert {path: path.read_bytes() for path in before} == before
    assert len(both) == 12
    assert both.index.iloc[:6]["image"].tolist() == one.index["image"].tolist()
    codes = {info.name: info.code for info in both.legend}
    assert {name: codes[name] for name in one.legend.names} == {info.name: info.code for info in one.legend}
    assert set(codes) == {"background", "crop", "water", "road", "dam", "bog"}
    assert [report["chips"] for report in both.reports] == [6, 6]
    assert both.reports[1]["polygons"] == {"crop": 1, "road": 1, "dam": 1, "bog": 1}
    alone = export_training_data(second, more, tmp_path / "alone", "kind", 32)
    pixels = dict(zip(alone.legend.names, alone.pixels_per_class, strict=True))
    for name, count in zip(both.legend.names, both.pixels_per_class, strict=True):
        old = one.pixels_per_class[one.legend.names.index(name)] if name in one.legend.names else 0
        assert count == old + pixels.get(name, 0)
    for ours, theirs in zip(both.index["label"].iloc[6:], alone.index["label"], strict=True):
        found, needed = (rasterio.open(path).read(1) for path in (ours, theirs))
        np.testing.assert_array_equal(both.legend.codes_to_indices(found) == IGNORE_INDEX, needed == IGNORE_INDEX)
        for name, code in codes.items():
            own = alone.legend.code_of(name) if name in alone.legend.names else 254
            np.testing.assert_array_equal(found == code, needed == own)
    values = np.concatenate([Scene.open(path).read().data.reshape(3, -1) for path in (first, second)], axis=1)
    np.testing.assert_allclose(both.statistics.mean, values.mean(axis=1))
    np.testing.assert_allclose(both.statistics.std, values.std(axis=1))
    assert len((out / "map.txt").read_text().splitlines()) == 12


def test_an_append_that_is_broken_off_is_as_if_it_had_not_been_and_goes_on(make_raster, labels, tmp_path, monkeypatch):
    first, second, out = make_raster("a.tif", seed=1), make_raster("b.tif", seed=2), tmp_path / "chips"
    options = OPTIONS | {"random_chips": 0}
    for name in ("chips", "unbroken"):
        export_training_data(first, labels, tmp_path / name, **options)
    export_training_data(second, labels, tmp_path / "unbroken", **options, append=True)
    with monkeypatch.context() as patch:
        breaking_at(50, patch)
        with pytest.raises(KeyboardInterrupt):
            export_training_data(second, labels, out, **options, append=True)
    assert len(ChipSet.open(out)) == 96
    export_training_data(second, labels, out, **options, append=True)
    assert same_files(out, tmp_path / "unbroken")


@pytest.mark.parametrize(("change", "what"), [({"tile_size": 64}, "chip size: 32 and 64"), ({"bands": [1]}, "bands")])
def test_chips_of_another_kind_are_not_appended(change, what, make_raster, labels, tmp_path):
    image, out, usual = make_raster(), tmp_path / "chips", {"class_field": "kind", "tile_size": 32}
    export_training_data(image, labels, out, **usual)
    with pytest.raises(ChipError, match=f"differ in {what}"):
        export_training_data(image, labels, out, **usual | change, append=True)
    with pytest.raises(OptionError, match="exclude each other"):
        export_training_data(image, labels, out, **usual, append=True, overwrite=True)


def test_two_exports_into_one_folder_at_a_time(make_raster, labels, tmp_path, monkeypatch):
    image, out = make_raster(), tmp_path / "chips"
    plain, told = geopsp.chips.export.write_chip, []

    def write(*args):
        if not told:
            told.append(True)
            with pytest.raises(OutputError, match=r"Another run .*is writing to"):
                export_training_data(image, labels, out, "kind", 32)
        return plain(*args)

    monkeypatch.setattr(geopsp.chips.export, "write_chip", write)
    assert len(export_training_data(image, labels, out, "kind", 32)) == 6
    assert told


def test_a_finished_export_survives_whatever_happens_to_its_last_step(make_raster, labels, tmp_path, monkeypatch):
    """What is cut is not cut again, also where an old folder was to be replaced."""
    image, out = make_raster(), tmp_path / "chips"
    export_training_data(image, labels, tmp_path / "unbroken", **OPTIONS)
    export_training_data(image, labels, out, "kind", 64)
    plain, calls = Path.replace, []

    def replace(self, target):
        if self.name in {"chips", ".partial-chips"}:
            calls.append(self.name)
            if len(calls) == number:
                raise OSError(28, "No space left on device")
        return plain(self, target)

    for number in (1, 2):  # noqa: B007 (the function above counts up to it)
        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace)
            with pytest.raises(OutputError, match="Cannot write"):
                export_training_data(image, labels, out, **OPTIONS, overwrite=True)
        assert (tmp_path / ".partial-chips" / "chips.json").exists()
    monkeypatch.setattr(geopsp.chips.export, "write_chip", lambda *_: pytest.fail("written again"))
    export_training_data(image, labels, out, **OPTIONS, overwrite=True)
    assert same_files(out, tmp_path / "unbroken")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chips", "image.tif", "unbroken"]


def test_the_same_call_in_other_words(make_raster, labels, tmp_path, monkeypatch):
    image, out = make_raster(), tmp_path / "chips"
    export_training_data(image, labels, out, "kind", 32)
    monkeypatch.setattr(geopsp.chips.export, "write_chip", lambda *_: pytest.fail("written again"))
    same = {"background": "class", "min_labelled": 0.0, "seed": 7, "per_image": True, "where": None, "buffer": 0.0}
    export_training_data(image, labels, out, "kind", 32, append=True, **same)


def test_numbers_go_on_beyond_six_digits(make_raster, labels, tmp_path):
    image, out = make_raster(), tmp_path / "chips"
    export_training_data(image, labels, out, "kind", 32)
    index = gpd.read_parquet(out / "chips.parquet")
    names = [f"{999_997 + number}.tif" for number in range(6)]
    for part in ("images", "labels"):
        for old, new in zip(index["chip"], names, strict=True):
            (out / part / old).rename(out / part / new)
    index.assign(chip=names, label=names).to_parquet(out / "chips.parquet")
    chips = export_training_data(image, labels.iloc[:3], out, "kind", 32, append=True)
    assert chips.index["chip"].tolist() == [f"{999_997 + number}.tif" for number in range(12)]
    assert chips.index["image"].is_unique


def test_a_folder_with_a_file_missing_is_not_taken_for_done(make_raster, labels, tmp_path):
    image, out = make_raster(), tmp_path / "chips"
    export_training_data(image, labels, out, "kind", 32)
    (out / "images" / "000003.tif").unlink()
    for options in ({}, {"append": True}):
        with pytest.raises(ChipError, match=r"is incomplete.*`overwrite=True`"):
            export_training_data(image, labels, out, "kind", 32, **options)
    assert len(export_training_data(image, labels, out, "kind", 32, overwrite=True)) == 6


@pytest.mark.parametrize("workers", [0, -1, 1.5])
def test_no_number_of_workers(workers, make_raster, labels, tmp_path):
    with pytest.raises(OptionError, match="`workers` is"):
        export_training_data(make_raster(), labels, tmp_path / "c", "kind", 32, workers=workers)


def test_images_that_labels_miss_are_told(make_raster, labels, tmp_path):
    far = make_raster("far.tif", origin=(LEFT + 5000, TOP))
    chips = export_training_data([make_raster(), far], labels, tmp_path / "c", "kind", 32)
    texts = [warning["text"] for warning in chips.reports[0]["warnings"]]
    assert [text for text in texts if text.startswith("No labels on 1 of 2 images (") and "far.tif): The" in text]


def test_pixels_of_other_sizes_are_told(make_raster, labels, tmp_path, capsys):
    image, out = make_raster(), tmp_path / "chips"
    export_training_data(image, labels, out, "kind", 16)
    both = export_training_data(image, labels, out, "kind", 16, cell_size=4.0, append=True)
    assert "pixels of 2 m, the new ones of 4 m" in capsys.readouterr().err.replace("\n", " ")
    assert both.cell_size == (2.0, 2.0)


def test_a_folder_of_arcgis_is_not_added_to(make_raster, labels, tmp_path):
    (tmp_path / "pro").mkdir()
    (tmp_path / "pro" / "map.txt").write_text("")
    with pytest.raises(ChipError, match="which ArcGIS exported"):
        export_training_data(make_raster(), labels, tmp_path / "pro", "kind", 32, append=True)


def test_a_survey_finds_what_an_export_writes(make_raster, labels, tmp_path):
    options = {"class_field": "kind", "tile_size": 16, "stride": 12, "min_labelled": 0.1, "background": "ignore"}
    image = make_raster(nodata=5)
    written = export_training_data(image, labels, tmp_path / "chips", **options)
    found = index_chips(LabelledScenes.open(image, labels, **options), from_names(ChipSpec, options))
    names = ["chip", "label", "image"]
    assert found.index.drop(columns=["chip", "label"]).equals(written.index.drop(columns=names))
    for name in ("legend", "bands", "dtype", "tile_size", "cell_size", "units"):
        assert getattr(found, name) == getattr(written, name)
    assert found.statistics.to_json() == written.statistics.to_json()
    assert found.reports == written.reports
    assert found.folders == ()
    assert repr(found).endswith("cut when asked for>")


def test_a_truncated_image_leaves_nothing_behind(make_raster, labels, tmp_path):
    path = make_raster("a.tif", size=(500, 300), tiled=True, blockxsize=16, blockysize=16)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(GeopspError, match="Cannot read"):
        export_training_data(path, labels, tmp_path / "out" / "chips", "kind", 32)
    assert not (tmp_path / "out" / "chips").exists()


def test_a_file_in_place_of_the_folder_above(make_raster, labels, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot create"):
        export_training_data(make_raster(), labels, tmp_path / "file" / "chips", "kind", 32)


def test_band_numbers_are_those_of_the_first_image(make_raster, labels, tmp_path):
    """The second holds the same bands in another order: they are found by name."""
    data = np.random.default_rng(1).integers(1, 99, (2, 64, 64)).astype("uint8")
    first = make_raster("a.tif", data, names=("red", "nir"))
    second = make_raster("b.tif", data[::-1], names=("nir", "red"))
    chips = export_training_data([first, second], labels, tmp_path / "chips", "kind", 64, bands=[2, 1])
    assert chips.bands == ("nir", "red")
    one, other = (rasterio.open(path).read() for path in chips.index["image"])
    np.testing.assert_array_equal(one, other)


def test_a_stride_beyond_the_size_thins_out(make_raster, labels, tmp_path):
    chips = export_training_data(make_raster(size=(100, 170)), labels, tmp_path / "chips", "kind", 32, 64)
    assert sorted(zip(chips.index["row"], chips.index["col"], strict=True)) == [
        (row, col) for row in (0, 64) for col in (0, 64, 128)
    ]


# Input that cannot be used


def test_images_that_do_not_agree(make_raster, labels, tmp_path):
    first = make_raster("a.tif")
    for other, words in (
        (make_raster("b.tif", bands=5, dtype="uint8"), "has 5 bands"),
        (make_raster("c.tif", dtype="uint16"), "has uint16 pixels, but .* has uint8"),
        (make_raster("d.tif", bands=2), "band"),
    ):
        with pytest.raises(BandError, match=words):
            export_training_data([first, other], labels, tmp_path / "chips", "kind", 32)
    assert not (tmp_path / "chips").exists()


def test_labels_that_miss_every_image(make_raster, labels, tmp_path):
    far = make_raster("far.tif", origin=(LEFT + 5000, TOP))
    with pytest.raises(LabelError, match="do not overlap the image"):
        export_training_data(far, labels, tmp_path / "chips", "kind", 32)
    assert len(export_training_data([far, make_raster()], labels, tmp_path / "chips", "kind", 32)) == 12
    area = labels.translate(9000).to_frame("geometry").set_geometry("geometry")
    with pytest.raises(LabelError, match="do not overlap the image"):
        export_training_data(make_raster(), labels, tmp_path / "more", "kind", 32, aoi=area)


# What values mean


def scaled_copy(path, out, scale):
    """The same ground with another scale and offset."""
    with rasterio.open(path) as dataset:
        data, profile = dataset.read(), {**dataset.profile, "dtype": "int16"}
    with rasterio.open(out, "w", **profile) as dataset:
        dataset.write(np.rint((data * 0.5 - scale[1]) / scale[0]).astype("int16"))
        dataset.scales, dataset.offsets = (scale[0],) * dataset.count, (scale[1],) * dataset.count
    return out


def test_chips_say_what_their_values_mean(make_raster, labels, tmp_path):
    options = {"class_field": "kind", "tile_size": 32}
    plain = make_raster()
    one, other = (scaled_copy(plain, tmp_path / f"{i}.tif", scale) for i, scale in enumerate([(0.5, 0), (0.25, -9)]))
    chips = export_training_data(plain, labels, tmp_path / "plain", **options)
    assert "pixel_values" not in json.loads((tmp_path / "plain" / "chips.json").read_text())
    assert chips.pixel_values == PixelValues()
    chips = export_training_data(one, labels, tmp_path / "raw", **options)
    assert chips.pixel_values == PixelValues(scales=((0.5, 0.0),) * 3)
    assert chips.dtype == "int16"
    chips = export_training_data([one, other], labels, tmp_path / "mixed", **options)
    assert chips.pixel_values == PixelValues(scaled=True, scales=((0.5, 0.0),) * 3)
    assert chips.dtype == "float32"
    halves = len(chips) // 2
    for first, second in zip(chips.index["image"][:halves], chips.index["image"][halves:], strict=True):
        with rasterio.open(first) as a, rasterio.open(second) as b:
            np.testing.assert_allclose(a.read(), b.read())
    chips = export_training_data(one, labels, tmp_path / "scaled", scaled=True, **options)
    assert chips.pixel_values.scaled
    assert json.loads((tmp_path / "scaled" / "chips.json").read_text())["exports"][0]["options"]["scaled"] is True


def test_chips_of_other_values_are_not_mixed(make_raster, labels, tmp_path):
    options = {"class_field": "kind", "tile_size": 32}
    one, other = (
        scaled_copy(make_raster(), tmp_path / f"{i}.tif", scale) for i, scale in enumerate([(0.5, 0), (0.25, -9)])
    )
    export_training_data(one, labels, tmp_path / "one", **options)
    export_training_data(other, labels, tmp_path / "other", **options)
    with pytest.raises(ChipError, match=r"pixel values: raw values \(scale 0.5, offset 0\) and raw values"):
        ChipSet.open([tmp_path / "one", tmp_path / "other"])
    with pytest.raises(ChipError, match="pixel values: raw values"):
        export_training_data(other, labels, tmp_path / "one", append=True, **options)


def test_a_palette_is_expanded_unless_its_indices_are_asked_for(make_raster, labels, tmp_path):
    path = make_raster(bands=1)
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {i: (i, 255 - i, 7, 255) for i in range(256)})
        indices = dataset.read(1)
    colors = export_training_data(path, labels, tmp_path / "colors", "kind", 32)
    assert colors.bands == ("red", "green", "blue")
    grid = Scene.open(path).grid
    data, _ = stitched(colors, "image", grid)
    np.testing.assert_array_equal(data, [indices, 255 - indices, np.full_like(indices, 7)])
    data, _ = stitched(export_training_data(path, labels, tmp_path / "indices", "kind", 32, bands=[1]), "image", grid)
    np.testing.assert_array_equal(data[0], indices)
