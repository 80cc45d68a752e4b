"""Training straight from scenes sees what an export would have written; and which part validates."""

from __future__ import annotations

from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from common import slow

from geopsp import PSPNetClassifier, export_training_data, prepare_data
from geopsp.chips.chip_set import ChipSet
from geopsp.core.pixel_values import PixelValues
from geopsp.data.chip_memory import ChipMemory
from geopsp.data.scene_reader import SceneChipReader
from geopsp.errors import ChipError, GeopspError, InputNotFoundError, OptionError

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

SIZE = 32


def from_scenes(world, **options):
    given = {
        "images": world["scene"],
        "labels": world["labels"],
        "class_field": "kind",
        "chip_size": SIZE,
        "workers": 0,
    }
    return prepare_data(**given | options)


@pytest.fixture(scope="module")
def scenes(small_world):
    return from_scenes(small_world)


@pytest.fixture(scope="module")
def folder(small_world):
    return prepare_data(small_world["chips"], workers=0)


def equal_samples(ours, theirs) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        slow({}),
        {"stride": 48, "min_labelled": 0.9, "bands": ["nir"], "background": "class"},
        {"rotation_angle": 90.0, "stride": 96, "random_chips": 6, "seed": 5},
    ],
    ids=["plain", "chosen", "turned and drawn"],
)
def test_it_is_as_if_exported(options, small_world, tmp_path):
    export_training_data(
        small_world["scene"], small_world["labels"], tmp_path / "chips", "kind", SIZE, **{"seed": 42} | options
    )
    files = prepare_data(tmp_path / "chips", workers=0, seed=options.get("seed", 42))
    ours = from_scenes(small_world, **options)
    assert ours.legend == files.legend
    assert (ours.chips.bands, ours.chips.dtype, ours.chips.tile_size) == (
        files.chips.bands, files.chips.dtype, files.chips.tile_size
    )  # fmt: skip
    shared = [name for name in ours.chips.index if name not in {"chip", "label"}]
    assert set(files.chips.index) - set(shared) == {"chip", "label", "image"}
    assert ours.chips.index[shared].equals(files.chips.index[shared])
    for part in ("train_rows", "valid_rows"):
        assert np.array_equal(getattr(ours, part), getattr(files, part))
    assert ours.audit == files.audit
    assert ours.statistics.to_json() == files.statistics.to_json()
    assert ours.statistics.count == round(ours.chips.index["valid"].iloc[ours.train_rows].sum() * SIZE**2)
    assert ours.num_pixels_per_class == files.num_pixels_per_class
    assert len(ours.valid_ds) == len(files.valid_ds) > 0
    assert all(equal_samples(ours.valid_ds[i], files.valid_ds[i]) for i in range(len(files.valid_ds)))


def test_windows_move_with_the_epoch_and_the_seed_alone(scenes):
    some = replace(scenes, train_rows=scenes.train_rows[:24])

    def epoch(data, number):
        batches = data.train_dl
        batches.sampler.set_epoch(number)
        return [tuple(batch) for batch in batches]

    first, other = epoch(some, 0), epoch(some, 1)
    again = epoch(replace(some, workers=2), 0)
    assert all(equal_samples(a, b) for a, b in zip(first, again, strict=True))
    seen = [
        {int(r): float(i.sum()) for image, _, _, rows in e for i, r in zip(image, rows, strict=True)}
        for e in (first, other)
    ]
    assert sum(seen[0][r] != seen[1][r] for r in seen[0]) > 20


def test_training_windows_keep_off_validation_ground(scenes):
    margin = scenes.decoder.margin
    assert margin == SIZE // 2
    shapes = scenes.chips.index.geometry
    cell = scenes.chips.cell_size[0]
    around = shapes.iloc[scenes.train_rows].buffer(margin * cell * (1 - 1e-6), join_style="mitre")
    assert not shapely.STRtree(shapes.to_numpy()[scenes.valid_rows]).query(around, predicate="intersects").size


def test_windows_stay_where_they_are_if_the_parts_may_touch(small_world):
    assert from_scenes(small_world, split="random").decoder.margin == 0


def test_the_network_is_shown_less_than_a_chip(small_world):
    data = from_scenes(small_world, chip_size=32, tile_size=64)
    assert (data.chips.tile_size, data.chip_size, data.decoder.margin) == (64, 32, 32)
    assert len(data.valid_ds) == 4 * len(data.valid_rows)
    assert data.train_ds[0].image.shape == (2, 32, 32)


@pytest.mark.parametrize("kind", ["scenes", "folder"])
def test_all_of_training_works_from_both(kind, request):
    data = request.getfixturevalue(kind)
    data = replace(data, train_rows=data.train_rows[:16], valid_rows=data.valid_rows[:8], balanced_sampling=True)
    torch.manual_seed(0)
    model = PSPNetClassifier(data, "tu-test_resnet", encoder_weights=None, class_balancing=True)
    before = model.evaluate()
    model.fit(1, 1e-3)
    assert list(model.per_class_metrics().index) == data.classes
    assert model.evaluate().counts.sum() == before.counts.sum() > 0
    figures = [data.show_batch(rows=1), model.show_results(rows=1)]
    assert all(figure.axes for figure in figures)


def test_both_score_a_network_alike(scenes, folder):
    counts = []
    for data in (scenes, folder):
        torch.manual_seed(0)
        model = PSPNetClassifier(replace(data, valid_rows=data.valid_rows[:8]), "tu-test_resnet", encoder_weights=None)
        counts.append(model.evaluate().counts)
    assert torch.equal(torch.as_tensor(counts[0]), torch.as_tensor(counts[1]))


def test_a_chip_from_a_scene_is_named_in_errors(scenes, monkeypatch):
    row = int(scenes.train_rows[3])
    read = SceneChipReader.read

    def wild(self, number, *window):
        pixels = read(self, number, *window)
        return pixels._replace(data=np.full(pixels.data.shape, np.inf, np.float32)) if number == row else pixels

    data = replace(scenes, valid_rows=scenes.valid_rows[:4], train_rows=scenes.train_rows[:8])
    model = PSPNetClassifier(data, "tu-test_resnet", encoder_weights=None)
    monkeypatch.setattr(SceneChipReader, "read", wild)
    with pytest.raises(GeopspError) as error:
        model.fit(1, 1e-3)
    assert data.train_ds.names[row] in str(error.value)


# ---- what validates


def test_an_area_validates(small_world, folder):
    west = gpd.GeoDataFrame(geometry=[shapely.box(601234, 5301717 - 400, 601234 + 100, 5301717)], crs="EPSG:32632")
    for data in (prepare_data(small_world["chips"], valid_path=west), from_scenes(small_world, valid_path=west)):
        touched = np.flatnonzero(folder.chips.index.intersects(west.geometry.iloc[0]))
        assert data.valid_rows.tolist() == touched.tolist()


def test_layers_of_areas_may_be_listed(small_world, folder, tmp_path):
    boxes = [shapely.box(x, 5301717 - 400, x + 100, 5301717) for x in (601234, 601234 + 500)]
    paths = [tmp_path / "west.gpkg", str(tmp_path / "east.gpkg")]
    for path, box in zip(paths, boxes, strict=True):
        gpd.GeoDataFrame(geometry=[box], crs="EPSG:32632").to_file(path)
    chips = folder.chips.index
    for named in (paths[:1], paths[1:], paths, tuple(paths)):
        touched = np.any([chips.intersects(boxes[paths.index(path)]) for path in named], axis=0)
        data = prepare_data(small_world["chips"], valid_path=named)
        assert data.valid_rows.tolist() == np.flatnonzero(touched).tolist()


def test_a_folder_validates_whether_listed_or_not(small_world, tmp_path):
    export_training_data(small_world["scene"], small_world["labels"], tmp_path / "own", "kind", SIZE, 160)
    for paths in (small_world["chips"], [small_world["chips"], tmp_path / "own"]):
        data = prepare_data(paths, valid_path=tmp_path / "own")
        assert set(data.chips.index["table"].iloc[data.valid_rows]) == {1}
        assert data.audit.shared_pixels == 0


def test_folds_partition_what_is_labelled(small_world):
    folds = [prepare_data(small_world["chips"], folds=3, fold=i) for i in range(3)]
    rows = np.concatenate([data.valid_rows for data in folds])
    assert sorted(rows.tolist()) == list(range(len(folds[0].chips)))


def test_blocks_and_gap_are_those_asked_for(small_world):
    data = prepare_data(small_world["chips"], block_size=128.0, gap=200.0)
    assert data.audit.gap >= 200
    assert prepare_data(small_world["chips"], split="random").audit.gap == 0


# ---- what cannot be


def test_what_validates_is_of_one_kind_and_there(small_world, tmp_path):
    """Said before an image is read: the one named here does not exist."""
    layer = tmp_path / "area.gpkg"
    gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:32632").to_file(layer)
    cut = {"images": "gone.tif", "labels": "gone.gpkg"}
    for given in ({"path": "gone"}, cut):
        for valid_path, error, says in (
            ([layer, small_world["chips"]], OptionError, "both chip folders .* and polygons"),
            ([], OptionError, r"`valid_path` is \[\], but must be chip folders"),
            (5, OptionError, "`valid_path` is 5, but must be chip folders"),
            ([layer, 5], OptionError, "`valid_path` names 5, but must"),
            (tmp_path / "nothing", InputNotFoundError, "No such file.*nothing"),
        ):
            with pytest.raises(error, match=says):
                prepare_data(**given, valid_path=valid_path)
    with pytest.raises(OptionError, match=r"names the folder .* but the chips are cut from images"):
        prepare_data(**cut, valid_path=[small_world["chips"]])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "nothing to train on. Give a chip folder"),
        ({"images": "scene.tif"}, "`labels` are missing. Give both"),
        ({"labels": "labels.gpkg"}, "`images` are missing. Give both"),
        ({"path": "chips", "images": "a.tif", "labels": "b.gpkg"}, "Give `path`, or `images` and `labels`"),
        ({"images": "a.tif", "labels": "b.gpkg", "cache": "folder"}, "Leave out `cache`, or export"),
        ({"path": "chips", "stride": 3, "buffer": 2.0}, "`buffer`, `stride` only apply to chips that are cut"),
        ({"images": "a.tif", "labels": "b.gpkg", "min_valid": 2.0}, "`min_valid` is 2"),
        ({"images": "a.tif", "labels": "b.gpkg", "chip_size": 8}, "`chip_size` is 8, but must"),
        ({"path": "chips", "split": "source", "valid_path": "chips"}, "`split` is 'source', but `valid_path`"),
        ({"path": "chips", "workers": -1}, "`workers` is -1"),
        *(
            ({**source, **options}, says)
            for source in ({"path": "chips"}, {"images": "a.tif", "labels": "b.gpkg"})
            for options, says in (
                ({"gap": -5}, "`gap` is -5"),
                ({"fold": 5}, "`fold` is 5, but needs `folds`"),
                ({"folds": "3"}, "`folds` is '3'"),
                ({"split": "folder"}, "`split` is 'folder', but there is no `valid_path`"),
                ({"split": "areas"}, "`split` is 'areas', but there is no `valid_path`"),
                ({"split": "luck"}, "`split` is 'luck', but must be one of"),
                ({"split": "source", "block_size": 9.0}, "`block_size` is 9, but only applies to a split by blocks"),
                ({"val_split_pct": 0}, "`val_split_pct` is 0, but must"),
                ({"val_split_pct": "0.2"}, "`val_split_pct` is '0.2'"),
                ({"seed": "a"}, "`seed` is 'a'"),
                ({"chip_size": "64"}, "`chip_size` is '64'"),
                ({"chip_size": 8}, "`chip_size` is 8, but must"),
            )
        ),
        (
            {"images": "a.tif", "labels": "b.gpkg", "tile_size": 64, "chip_size": 65},
            "`chip_size` is 65.* 32 and 64",
        ),
    ],
)
def test_what_does_not_fit_together_is_said(options, says):
    with pytest.raises(OptionError, match=says):
        prepare_data(**options)


def test_one_class_is_not_enough(small_world):
    with pytest.raises(ChipError, match="one class only"):
        from_scenes(small_world, class_field=None, background="ignore")


def test_where_pixels_come_from(scenes, folder):
    assert isinstance(scenes.decoder, SceneChipReader)
    assert isinstance(folder.decoder, ChipMemory)
    assert isinstance(scenes.chips, ChipSet)
    assert scenes.chips.folders == ()


def test_values_of_images_that_differ_in_scale_are_physical_and_remembered(small_world, tmp_path):
    """Straight from images as from exported chips."""
    with rasterio.open(small_world["scene"]) as dataset:
        data, profile = dataset.read(), {**dataset.profile, "dtype": "float32", "nodata": None}
    paths = []
    for number, scale in enumerate([(0.5, 0.0), (0.25, -9.0)]):
        paths.append(tmp_path / f"{number}.tif")
        with rasterio.open(paths[-1], "w", **profile) as dataset:
            dataset.write(((data - scale[1]) / scale[0]).astype("float32"))
            dataset.scales, dataset.offsets = (scale[0],) * len(data), (scale[1],) * len(data)
    found, plain = from_scenes(small_world, images=paths), from_scenes(small_world)
    assert found.chips.pixel_values == PixelValues(scaled=True, scales=((0.5, 0.0),) * len(data))
    assert found.train_ds.reader.read(0, 0, 0, SIZE).data.dtype == np.float32
    np.testing.assert_allclose(found.chips.statistics.high, plain.chips.statistics.high, rtol=1e-5)
    assert PSPNetClassifier(found, "tu-test_resnet", encoder_weights=None).model.pixel_values.scaled
