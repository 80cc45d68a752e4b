import json
import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from common import square

from geopsp.chips.chip_folder import INDEX, MANIFEST
from geopsp.chips.chip_set import ChipSet
from geopsp.chips.export_training_data import export_training_data
from geopsp.errors import ChipError, InputNotFoundError
from geopsp.raster.scene import Scene

LEFT, TOP = 601234.0, 5301717.0


@pytest.fixture
def labels():
    shapes = [
        square(LEFT + 10, TOP - 10, 60),
        square(LEFT + 50, TOP - 30, 30),
        square(LEFT + 110, TOP - 60, 50),
        shapely.Point(LEFT + 90, TOP - 80).buffer(17),
    ]
    return gpd.GeoDataFrame({"kind": ["crop", "water", "crop", "road"]}, geometry=shapes, crs="EPSG:32632")


def damage_nothing_there(out):
    shutil.rmtree(out)
    out.mkdir()


def damage_manifest(out):
    (out / MANIFEST).unlink()


def damage_index(out):
    (out / INDEX).unlink()


def truncate_index(out):
    (out / INDEX).write_bytes((out / INDEX).read_bytes()[:500])


def truncate_manifest(out):
    (out / MANIFEST).write_text((out / MANIFEST).read_text()[:200])


def other_manifest(out):
    (out / MANIFEST).write_text("[]")


def part_of_manifest(out):
    rows = json.loads((out / MANIFEST).read_text())
    del rows["statistics"]
    (out / MANIFEST).write_text(json.dumps(rows))


def newer_manifest(out):
    rows = json.loads((out / MANIFEST).read_text())
    (out / MANIFEST).write_text(json.dumps(rows | {"version": 99}))


def other_index(out):
    gpd.read_parquet(out / INDEX).drop(columns="pixels_1").to_parquet(out / INDEX)


def empty_index(out):
    gpd.read_parquet(out / INDEX).iloc[:0].to_parquet(out / INDEX)


def lose_an_image(out):
    (out / "images" / "000002.tif").unlink()


def lose_the_labels(out):
    shutil.rmtree(out / "labels")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_nothing_there, "not a finished chip folder"),
        (damage_manifest, "not a finished chip folder"),
        (damage_index, "not a finished chip folder"),
        (truncate_index, "damaged"),
        (truncate_manifest, "damaged"),
        (other_manifest, "damaged"),
        (part_of_manifest, "damaged.*statistics"),
        (newer_manifest, "damaged.*it has version 99, but must have 1 or 2"),
        (other_index, "damaged.*pixels_1"),
        (empty_index, "contains no chip"),
        (lose_an_image, r"is incomplete: 1 of 12 files are missing, the first is .*images.000002\.tif"),
        (lose_the_labels, "is incomplete: 6 of 12 files"),
    ],
)
def test_a_damaged_folder_says_what_is_wrong(damage, words, make_raster, labels, tmp_path):
    out = tmp_path / "chips"
    export_training_data(make_raster(), labels, out, "kind", 32)
    damage(out)
    with pytest.raises(ChipError, match=words):
        ChipSet.open(out)


def test_no_such_folder(tmp_path):
    with pytest.raises(InputNotFoundError, match="No such folder"):
        ChipSet.open(tmp_path / "none")
    with pytest.raises(ChipError, match="No chip folder is given"):
        ChipSet.open([])


def test_a_folder_may_be_moved(make_raster, labels, tmp_path):
    export_training_data(make_raster(), labels, tmp_path / "chips", "kind", 32)
    (tmp_path / "chips").rename(tmp_path / "moved")
    chips = ChipSet.open(tmp_path / "moved")
    assert Path(chips.index["image"].iloc[0]).exists()
    assert repr(chips).startswith("<6 chips of 32 x 32, 3 bands, 4 classes (background, crop, road, water)")


# Several folders


def test_folders_join(make_raster, labels, tmp_path):
    first, second = (
        make_raster("a.tif", seed=1),
        make_raster("b.tif", seed=2, crs="EPSG:32633", origin=(152500, 5311285)),
    )
    parts = [
        export_training_data(path, labels, tmp_path / path.stem, "kind", 32, min_labelled=0.0)
        for path in (first, second)
    ]
    both = ChipSet.open([tmp_path / "a", tmp_path / "b"])
    assert len(both) == 12
    assert both.index.index.is_unique
    np.testing.assert_array_equal(both.pixels_per_class, sum(part.pixels_per_class for part in parts))
    values = np.concatenate([Scene.open(path).read().data.reshape(3, -1) for path in (first, second)], axis=1)
    np.testing.assert_allclose(both.statistics.mean, values.mean(axis=1))
    np.testing.assert_allclose(both.statistics.std, values.std(axis=1))
    assert both.index.crs == parts[0].index.crs


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"tile_size": 64}, "chip size: 32 and 64"),
        ({"bands": [1, 2]}, "bands"),
    ],
)
def test_folders_that_do_not_agree_are_refused(options, what, make_raster, labels, tmp_path):
    usual = {"class_field": "kind", "tile_size": 32}
    for name, extra in (("a", {}), ("b", options)):
        export_training_data(make_raster(), labels, tmp_path / name, **usual | extra)
    with pytest.raises(ChipError, match=f"differ in {what}"):
        ChipSet.open([tmp_path / "a", tmp_path / "b"])


def test_folders_with_other_classes_are_joined_by_name(make_raster, make_labels, tmp_path):
    """What is code 1 in one folder and 2 in another is one class if it has one name."""
    image = make_raster(size=(64, 64), cell=1)
    left, right = (shapely.box(LEFT + x, TOP - 64, LEFT + x + 32, TOP) for x in (0, 32))
    for name, kinds in (("one", ["car", "boat"]), ("two", ["car", "dam"])):
        polygons = make_labels(f"{name}.gpkg", [left, right], {"kind": kinds})
        export_training_data(image, polygons, tmp_path / name, "kind", 32)
    both = ChipSet.open([tmp_path / "one", tmp_path / "two"])
    assert both.legend.names == ["background", "boat", "car", "dam"]
    assert both.pixels_per_class.tolist() == [0, 2048, 4096, 2048]
    assert both.legend.names.index("car") == both.tables[0][2] == both.tables[1][1]
    alone = ChipSet.open(tmp_path / "one").with_legend(both.legend)
    assert alone.pixels_per_class.tolist() == [0, 2048, 2048, 0]
    with pytest.raises(ChipError, match=r"not known here: dam\. Known classes: background, boat, car"):
        ChipSet.open(tmp_path / "two").with_legend(ChipSet.open(tmp_path / "one").legend)
    with pytest.raises(ChipError, match="given twice"):
        ChipSet.open([tmp_path / "one", tmp_path / "one"])


def test_folders_of_version_1_open(make_raster, labels, tmp_path):
    out = tmp_path / "chips"
    chips = export_training_data(make_raster(), labels, out, "kind", 32)
    manifest = json.loads((out / MANIFEST).read_text())
    report = manifest.pop("exports")[0]["report"]
    labels_report = report["labels"] | {"polygons": 4}
    old = {"version": 1, "spec": {"tile_size": manifest.pop("tile_size"), "stride": None}, "sources": ["a.tif"]}
    counts = {"chips": 6, "without_valid_pixel": 1, "too_little_labelled": 2, "conflict_pixels": 3}
    (out / MANIFEST).write_text(json.dumps(manifest | old | {"report": counts | {"labels": labels_report}}))
    gpd.read_parquet(out / INDEX).drop(columns=["label", "angle"]).to_parquet(out / INDEX)
    again = ChipSet.open(out)
    assert again.index[["image", "label"]].equals(chips.index[["image", "label"]])
    assert again.statistics.to_json() == chips.statistics.to_json()
    assert again.reports[0]["skipped"] == {"invalid": 1, "unlabelled": 2, "empty": 0, "outside": 0}


def test_rows_beyond_those_that_count_do_not_exist(make_raster, labels, tmp_path):
    """An export that was killed while it added to a folder leaves such rows."""
    out = tmp_path / "chips"
    chips = export_training_data(make_raster(), labels, out, "kind", 32)
    index = gpd.read_parquet(out / INDEX)
    more = index.assign(chip=[f"9{name}" for name in index["chip"]])
    gpd.pd.concat([index, more], ignore_index=True).to_parquet(out / INDEX)
    assert ChipSet.open(out).index["chip"].tolist() == chips.index["chip"].tolist()
