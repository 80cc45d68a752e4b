"""Chips of folders of images and masks."""

import json
from warnings import catch_warnings, simplefilter

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from geopsp import ChipSet, export_training_data, prepare_data
from geopsp.chips import export as exporting
from geopsp.errors import ChipError, GridError, LabelError

RNG = np.random.default_rng(8)
SIZE = (70, 90)
COLORS = {"wood": "#008000", "water": "#0000ff"}


def write(path, data):
    path.parent.mkdir(exist_ok=True, parents=True)
    count, height, width = data.shape
    profile = {"driver": "PNG", "count": count, "height": height, "width": width, "dtype": "uint8"}
    with catch_warnings():
        simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile) as dataset:
            dataset.write(data)
    return path


def read(path):
    with catch_warnings():
        simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as dataset:
            return dataset.read(), dataset.crs, dataset.transform


@pytest.fixture(params=["placed", "plain"])
def world(request, tmp_path, make_raster):
    """Four images, with or without georeference, and masks of three without: 0 and 255."""
    images, masks = {}, {}
    for number in range(4):
        images[number] = RNG.integers(1, 200, (3, *SIZE)).astype("uint8")
        masks[number] = np.where(RNG.random((1, *SIZE)) < 0.3, 255, 0).astype("uint8")
        if request.param == "placed":
            make_raster(f"images/{number}.tif", images[number], origin=(601234.0 + 900 * number, 5301717.0))
        else:
            write(tmp_path / "images" / f"{number}.png", images[number])
        if number != 2:
            write(tmp_path / "masks" / f"{number}_mask.png", masks[number])
    return {"folder": tmp_path, "images": images, "masks": masks, "plain": request.param == "plain"}


def check(chips, world):
    """Compare each chip with its image and mask."""
    assert sorted(chips.index["source"].unique()) == sorted(
        str(p) for p in (world["folder"] / "images").glob("[013].*")
    )
    for row in chips.index.itertuples():
        number = int(row.source.rpartition("/")[2].partition(".")[0])
        pixels, codes = np.zeros((3, 32, 32), "uint8"), np.full((32, 32), 255, "uint8")
        part = np.s_[..., row.row : row.row + 32, row.col : row.col + 32]
        inside = world["images"][number][part]
        pixels[:, : inside.shape[1], : inside.shape[2]] = inside
        codes[: inside.shape[1], : inside.shape[2]] = world["masks"][number][part][0] // 255
        (found, crs, transform), (labels, *_) = read(row.image), read(row.label)
        np.testing.assert_array_equal(found, pixels)
        np.testing.assert_array_equal(labels[0], codes)
        assert (crs is None) == world["plain"]
        assert transform.is_identity == world["plain"]
        assert (row.geometry is None) == world["plain"]


@pytest.mark.parametrize("labels", ["folder", "glob", "list"])
def test_each_chip_has_the_labels_of_its_own_image(world, labels):
    folder = world["folder"]
    given = {
        "folder": folder / "masks",
        "glob": str(folder / "masks" / "*.png"),
        "list": sorted((folder / "masks").glob("*.png")),
    }
    chips = export_training_data(folder / "images", given[labels], folder / "chips", tile_size=32)
    assert chips.legend.names == ["background", "foreground"]
    assert chips.units == ("pixel" if world["plain"] else "metre")
    assert len(chips) == 3 * 3 * 3
    check(chips, world)
    check(ChipSet.open(folder / "chips"), world)
    gpd.read_parquet(folder / "chips" / "chips.parquet")
    report = json.loads((folder / "chips" / "chips.json").read_text())["exports"][0]["report"]
    assert report["labels"]["masks"] == 3


def test_an_export_of_masks_resumes_and_appends(world, monkeypatch):
    folder = world["folder"]
    whole = export_training_data(folder / "images", folder / "masks", folder / "whole", tile_size=32)
    calls, write_chip = [], exporting.write_chip

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) > 14:
            raise KeyboardInterrupt
        return write_chip(*arguments)

    monkeypatch.setattr(exporting, "write_chip", fail)
    with pytest.raises(KeyboardInterrupt):
        export_training_data(folder / "images", folder / "masks", folder / "chips", tile_size=32)
    monkeypatch.undo()
    chips = export_training_data(folder / "images", folder / "masks", folder / "chips", tile_size=32)
    check(chips, world)
    assert chips.index.drop(columns=["image", "label"]).equals(whole.index.drop(columns=["image", "label"]))
    write(folder / "masks" / "2_mask.png", world["masks"][2])
    more = str(folder / "images" / "2.*"), folder / "masks"
    export_training_data(*more, folder / "chips", tile_size=32, append=True)
    export_training_data(*more, folder / "chips", tile_size=32, append=True)
    chips = ChipSet.open(folder / "chips")
    assert len(chips) == 4 * 9
    assert chips.index["source"].nunique() == 4


@pytest.mark.parametrize(
    "options", [{"rotation_angle": 90}, {"chip_format": "png"}, {"random_chips": 5, "grid": False}]
)
def test_other_kinds_of_chips(world, options):
    folder = world["folder"]
    chips = export_training_data(folder / "images", folder / "masks", folder / "chips", tile_size=32, **options)
    upright = chips.index[chips.index["angle"] == 0]
    for row in upright.itertuples():
        number = int(row.source.rpartition("/")[2].partition(".")[0])
        expected = world["masks"][number][0][row.row : row.row + 32, row.col : row.col + 32] // 255
        labels = read(row.label)[0][0][: expected.shape[0], : expected.shape[1]]
        np.testing.assert_array_equal(labels, expected)
        assert (row.geometry is None) == world["plain"]


def test_training_from_images_and_masks(world):
    folder = world["folder"]
    data = prepare_data(
        images=folder / "images", labels=folder / "masks", chip_size=32, split="source", val_split_pct=0.3, workers=0
    )
    assert data.classes == ["background", "foreground"]
    sources = data.chips.index["source"].to_numpy()
    assert not set(sources[data.train_rows]) & set(sources[data.valid_rows])
    for batch in (*data.train_dl, *data.valid_dl):
        assert batch.image.shape[1:] == (3, 32, 32)
    cut = export_training_data(folder / "images", folder / "masks", folder / "chips", tile_size=32)
    assert data.num_pixels_per_class.keys() == {"background", "foreground"}
    np.testing.assert_array_equal(data.chips.pixels_per_class, cut.pixels_per_class)


def test_chips_without_georeference_cannot_be_split_by_ground(world):
    folder = world["folder"]
    chips = export_training_data(folder / "images", folder / "masks", folder / "chips", tile_size=32)
    if world["plain"]:
        with pytest.raises(ChipError, match=r"have no georeference, .*split='source'"):
            prepare_data(folder / "chips")
    assert prepare_data(folder / "chips", split="source").train_rows.size
    for options in ({"cell_size": 4.0}, {"extent": (601234, 5301617, 601300, 5301717)}, {"per_image": False}):
        out = folder / "+".join(options)
        if world["plain"]:
            with pytest.raises(GridError, match="no CRS"):
                export_training_data(folder / "images", folder / "masks", out, tile_size=32, **options)
        else:
            assert len(export_training_data(folder / "images", folder / "masks", out, tile_size=32, **options))
    assert len(chips)


def test_masks_of_colours(tmp_path, make_raster):
    numbers = RNG.integers(0, 2, SIZE)
    table = np.array([(0, 128, 0), (0, 0, 255)], "uint8")
    make_raster("images/a.tif", size=SIZE)
    write(tmp_path / "masks" / "a.png", np.moveaxis(table[numbers], -1, 0))
    (tmp_path / "classes.csv").write_text("name,r,g,b\nwood,0,128,0\nwater,0,0,255\n")
    both = [
        export_training_data(
            tmp_path / "images", tmp_path / "masks", tmp_path / name, tile_size=32, mask_classes=classes
        )
        for name, classes in (("c", COLORS), ("d", tmp_path / "classes.csv"))
    ]
    for chips in both:
        assert [(info.code, info.name, info.color) for info in chips.legend] == [
            (1, "wood", "#008000"), (2, "water", "#0000ff"),
        ]  # fmt: skip
        np.testing.assert_array_equal(chips.pixels_per_class, np.bincount(numbers.ravel()))
    with pytest.raises(LabelError, match="`mask_classes`"):
        export_training_data(tmp_path / "images", tmp_path / "masks", tmp_path / "e", tile_size=32)


def test_the_key_knows_the_table_of_classes(tmp_path, make_raster):
    numbers = RNG.integers(0, 2, (1, *SIZE)).astype("uint8")
    inputs = make_raster("a.tif", size=SIZE), make_raster("b.tif", numbers)
    out = tmp_path / "c"
    export_training_data(*inputs, out, tile_size=32, mask_classes={"x": 0, "y": 1})
    assert export_training_data(*inputs, out, tile_size=32, mask_classes={"x": 0, "y": 1}).legend.names == ["x", "y"]
    with pytest.raises(Exception, match="exists"):
        export_training_data(*inputs, out, tile_size=32, mask_classes={"y": 0, "x": 1})


def test_one_class_is_told_with_the_right_option(tmp_path, make_raster):
    mask = make_raster("m.tif", np.where(RNG.random((1, *SIZE)) < 0.3, 1, 0).astype("uint8"), nodata=0)
    export_training_data(make_raster("a.tif", size=SIZE), mask, tmp_path / "c", tile_size=32)
    with pytest.raises(ChipError, match=r"one class only, 'class 1', .*`label_nodata='none'`"):
        prepare_data(tmp_path / "c", split="random")
