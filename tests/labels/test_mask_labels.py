"""Label rasters of any values: masks of 0 and 255, colours, palettes, nodata; one raster per image."""

import logging
from warnings import catch_warnings, simplefilter

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

from geopsp.core.grid import Window
from geopsp.core.legend import IGNORE_INDEX
from geopsp.errors import GridError, InputNotFoundError, LabelError, OptionError
from geopsp.labels.label_classes import RasterRules
from geopsp.labels.mask_labels import read_masks
from geopsp.labels.read_labels import masks_of, read_labels
from geopsp.raster.find_images import find_images

RNG = np.random.default_rng(5)
SHAPE = (1, 40, 50)
BINARY = np.where(RNG.random(SHAPE) < 0.2, 255, 0).astype("uint8")
SHARE = (BINARY == 255).mean()
CODES = RNG.choice(np.array([0, 1, 7, 255], "uint8"), SHAPE)
COLORS = {"wood": (0, 128, 0), "water": (0, 0, 255), "road": (128, 128, 128)}
CLASS_NUMBERS = RNG.integers(0, 3, SHAPE[1:])
RGB = np.moveaxis(np.array([*COLORS.values()], "uint8")[CLASS_NUMBERS], -1, 0)


@pytest.fixture
def warnings():
    """Return the list to which warnings are added as they are logged."""
    messages, handler, logger = [], logging.Handler(logging.WARNING), logging.getLogger("geopsp")
    handler.emit = lambda record: messages.append(record.getMessage())
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def write(path, data, *, palette=None, driver="PNG"):
    """Write a picture without georeference."""
    path.parent.mkdir(exist_ok=True, parents=True)
    count, height, width = data.shape
    profile = {"driver": driver, "count": count, "height": height, "width": width, "dtype": data.dtype}
    with catch_warnings():
        simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile) as dataset:
            dataset.write(data)
            if palette:
                dataset.write_colormap(1, palette)
    return path


def codes_of(labels):
    return labels.burn(labels.scene.grid).codes


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_a_mask_of_0_and_255(make_raster, warnings, dtype):
    path = make_raster("mask.tif", BINARY.astype(dtype))
    labels = read_labels(path)
    assert {info.code: info.name for info in labels.legend} == {0: "background", 1: "foreground"}
    np.testing.assert_array_equal(codes_of(labels), BINARY[0] // 255)
    (warning,) = warnings
    assert (
        f"is read as a mask: 0 is the background, 255 ({SHARE:.1%} of the pixels) is the class 'foreground'" in warning
    )
    assert "`label_nodata=255`" in warning
    assert warning in labels.notes


def test_what_a_mask_of_0_and_255_may_mean_otherwise(make_raster, warnings):
    path = make_raster("mask.tif", BINARY)
    named = read_labels(path, class_mapping={255: "house"})
    assert {info.code: info.name for info in named.legend} == {0: "background", 1: "house"}
    np.testing.assert_array_equal(codes_of(named), BINARY[0] // 255)
    assert warnings == []
    only = read_labels(path, label_nodata=255)
    np.testing.assert_array_equal(codes_of(only), BINARY[0])
    foreground = read_labels(path, label_nodata=0)
    np.testing.assert_array_equal(codes_of(foreground), np.where(BINARY[0] == 255, 1, IGNORE_INDEX))
    assert foreground.legend.names == ["foreground"]
    assert warnings == []
    assert read_labels(path, label_nodata=7).legend.names == ["background", "foreground"]
    assert "has the value 7, which `label_nodata` names" in warnings[0]
    ignored = read_labels(path, background="ignore")
    np.testing.assert_array_equal(codes_of(ignored), np.where(BINARY[0] == 255, 1, IGNORE_INDEX))


@pytest.mark.parametrize("data", [BINARY, np.where(BINARY == 255, 1, 0).astype("uint8")])
def test_a_mask_whose_background_is_nodata(make_raster, warnings, data):
    path = make_raster("mask.tif", data, nodata=0)
    labels = read_labels(path)
    np.testing.assert_array_equal(codes_of(labels), np.where(data[0], 1, IGNORE_INDEX))
    assert f"{1 - SHARE:.1%} of the pixels" in warnings[0]
    assert "nodata value (0)" in warnings[0]
    assert "`label_nodata='none'`" in warnings[0]
    both = read_labels(path, label_nodata="none")
    assert both.legend.names[0] == "background"
    np.testing.assert_array_equal(codes_of(both), data[0] > 0)


def test_a_mask_whose_foreground_is_nodata(make_raster, warnings):
    path = make_raster("mask.tif", BINARY, nodata=255)
    assert read_labels(path).legend.names == ["background"]
    assert f"{SHARE:.1%} of the pixels" in warnings[0]
    assert "nodata value (255)" in warnings[0]
    np.testing.assert_array_equal(codes_of(read_labels(path, label_nodata="none")), BINARY[0] // 255)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float64"])
def test_255_among_other_codes(make_raster, warnings, dtype):
    path = make_raster("codes.tif", CODES.astype(dtype))
    np.testing.assert_array_equal(codes_of(read_labels(path)), CODES[0])
    (warning,) = warnings
    share = (CODES == 255).mean()
    assert f"unlabelled ({share:.1%} of all). If 255 is a class, use `label_nodata='none'`" in warning
    labels = read_labels(path, label_nodata="none")
    assert {info.code: info.name for info in labels.legend} == {
        0: "background", 1: "class 1", 2: "class 255", 7: "class 7",
    }  # fmt: skip
    np.testing.assert_array_equal(codes_of(labels), np.where(CODES[0] == 255, 2, CODES[0]))


def test_codes_beyond_255(make_raster, warnings):
    data = CODES.astype("uint16") + 100
    with pytest.raises(LabelError, match=r"contains 355, .*`class_mapping`, .*`label_nodata`"):
        read_labels(make_raster("a.tif", data))
    np.testing.assert_array_equal(
        codes_of(read_labels(make_raster("b.tif", data), label_nodata=355)), np.where(CODES[0] == 255, 255, data[0])
    )
    wide = np.where(CODES == 7, 255, np.where(CODES == 255, 999, CODES.astype("uint16")))
    with pytest.raises(LabelError, match="contains 255, 999"):
        read_labels(make_raster("c.tif", wide))
    assert read_labels(make_raster("d.tif", wide), class_mapping={"*": "rest", 0: "none"}).legend.names == [
        "none",
        "rest",
    ]
    assert warnings == []


@pytest.mark.parametrize("value", ["no", 1.5, True, [1]])
def test_label_nodata_is_a_number_or_none(make_raster, value):
    with pytest.raises(OptionError, match=r"`label_nodata` is .*, but must be a whole number or 'none'"):
        read_labels(make_raster("mask.tif", BINARY), label_nodata=value)


def test_options_of_label_rasters_do_not_pass_for_polygons(make_labels):
    import shapely

    path = make_labels("l.gpkg", [shapely.box(0, 0, 1, 1)])
    for options in ({"label_nodata": 0}, {"mask_classes": {"a": 1}}):
        with pytest.raises(OptionError, match="apply to label rasters"):
            read_labels(path, **options)


# Colours


def test_colours_need_a_table(make_raster):
    with pytest.raises(LabelError, match=r"classes are colours: #\w{6} \(3\d\.\d\d%\), .*`mask_classes`"):
        read_labels(make_raster("rgb.tif", RGB))


@pytest.mark.parametrize("alpha", [False, True])
def test_colours_with_a_table(make_raster, warnings, alpha):
    data, inside = RGB, np.ones(SHAPE[1:], bool)
    if alpha:
        inside[:7] = False
        data = np.concatenate([RGB, np.where(inside, 255, 0)[None].astype("uint8")])
    path = make_raster("rgb.tif", data, **({"photometric": "RGB", "alpha": "YES"} if alpha else {}))
    labels = read_labels(path, mask_classes=COLORS)
    assert [(info.code, info.name, info.rgb) for info in labels.legend] == [
        (number, name, color) for number, (name, color) in enumerate(COLORS.items(), start=1)
    ]
    np.testing.assert_array_equal(codes_of(labels), np.where(inside, CLASS_NUMBERS + 1, IGNORE_INDEX))
    assert warnings == []


def test_more_colours_than_are_counted(make_raster, warnings, monkeypatch):
    monkeypatch.setattr("geopsp.labels.label_file.MAX_DISTINCT_VALUES", 50)
    data = RNG.integers(0, 256, (3, *SHAPE[1:])).astype("uint8")
    data[:, :20] = RGB[:, :20]
    data[:, 0, 0] = 1, 2, 3
    path = make_raster("rgb.tif", data)
    labels = read_labels(path, mask_classes=COLORS | {"dot": (1, 2, 3)})
    assert codes_of(labels)[0, 0] == 4
    np.testing.assert_array_equal(codes_of(labels)[1:20], CLASS_NUMBERS[1:20] + 1)
    assert warnings[0].startswith("1,000 pixels (50.00%)")
    with pytest.raises(LabelError, match="has more than 50 different colours"):
        read_labels(path)


def test_unknown_colours_are_unlabelled_and_named(make_raster, warnings):
    table = {name: COLORS[name] for name in ("wood", "water")} | {"sea": "#123456"}
    labels = read_labels(make_raster("rgb.tif", RGB), mask_classes=table)
    np.testing.assert_array_equal(codes_of(labels), np.array([1, 2, IGNORE_INDEX])[CLASS_NUMBERS])
    assert labels.legend.names == ["wood", "water", "sea"]
    unknown = int((CLASS_NUMBERS == 2).sum())
    assert f"{unknown:,} pixels ({unknown / 2000:.2%})" in warnings[0]
    assert f"The most frequent: #808080 ({unknown / 2000:.2%})." in warnings[0]
    with pytest.raises(LabelError, match=r"No pixel of .* has a class of `mask_classes`. Found: #"):
        read_labels(make_raster("rgb.tif", RGB), mask_classes={"sea": "#123456"})


def test_equal_bands_are_one(make_raster):
    labels = read_labels(make_raster("grey.tif", np.repeat(BINARY, 3, axis=0)))
    assert labels.legend.names == ["background", "foreground"]
    np.testing.assert_array_equal(codes_of(labels), BINARY[0] // 255)
    assert "which are equal: they are taken as one band" in labels.notes[0]


def test_codes_with_a_table(make_raster, warnings):
    labels = read_labels(make_raster("codes.tif", CODES), mask_classes={"background": 0, "x": 7, "y": 255})
    assert {info.code: info.name for info in labels.legend} == {0: "background", 1: "y", 7: "x"}
    expected = np.select([CODES[0] == 7, CODES[0] == 255, CODES[0] == 0], [7, 1, 0], IGNORE_INDEX)
    np.testing.assert_array_equal(codes_of(labels), expected)
    assert "have values that `mask_classes` does not name" in warnings[0]
    with pytest.raises(LabelError, match=r"gives no code to any class. Add a column `code`"):
        read_labels(make_raster("codes.tif", CODES), mask_classes=COLORS)
    with pytest.raises(LabelError, match="gives no color to any class"):
        read_labels(make_raster("rgb.tif", RGB), mask_classes={"a": 1})


def test_jpeg_masks_are_warned_of(tmp_path, warnings):
    image = find_images(str(write(tmp_path / "i.png", RGB)))
    mask = write(tmp_path / "m.jpg", RGB, driver="JPEG")
    read_masks(image, [str(mask)], rules(mask_classes={"wood": "#008000", "x": "#fefefe", "y": "#018101"}), "m")
    assert "JPEG, which changes values" in warnings[0]
    assert "does not name" in warnings[1]
    grey = write(tmp_path / "g.jpg", BINARY, driver="JPEG")
    with pytest.raises(LabelError, match=r"g\.jpg is JPEG, which changes values, and has \d+ of them"):
        read_masks(image, [str(grey)], rules(), "g")
    read_masks(image, [str(grey)], rules(class_mapping={0: "a", 255: "b", "*": None}), "g")


# One mask per image


def rules(**options):
    from geopsp.labels.read_labels import raster_rules

    return raster_rules("masks", **options)


def of_image(images, masks, **options):
    """Return the codes of each image on its own pixels."""
    found, labels = read_masks(find_images(images), [str(mask) for mask in masks], rules(**options), "masks")
    from geopsp.raster.open_scenes import open_scenes

    return [labels.of_scene(scene).burn(scene.grid).codes for scene in open_scenes(found)], labels


PALETTE = {number: (*color, 255) for number, color in enumerate(COLORS.values())}


def test_palettes(tmp_path, make_raster):
    indices = CLASS_NUMBERS[None].astype("uint8")
    images = [str(make_raster(f"i/{name}.tif", size=SHAPE[1:])) for name in "ab"]
    same = [write(tmp_path / f"{name}.png", indices, palette=PALETTE) for name in "ab"]
    (one, _), labels = of_image(images, same)
    np.testing.assert_array_equal(one, CLASS_NUMBERS)
    assert [info.rgb for info in labels.legend] == [*COLORS.values()]
    turned = {number: PALETTE[(number + 1) % 3] for number in PALETTE}
    differing = [same[0], write(tmp_path / "x" / "b.png", indices, palette=turned)]
    with pytest.raises(LabelError, match=r"palettes of masks differ: the value \d is #\w{6} in .*a\.png"):
        of_image(images, differing)
    codes, labels = of_image(images, differing, mask_classes=COLORS)
    np.testing.assert_array_equal(codes[0], CLASS_NUMBERS + 1)
    np.testing.assert_array_equal(codes[1], (CLASS_NUMBERS + 1) % 3 + 1)
    codes, labels = of_image(images, differing, mask_classes={"p": 0, "q": 1, "r": 2})
    np.testing.assert_array_equal(codes[1], CLASS_NUMBERS)
    assert labels.legend.names == ["p", "q", "r"]


def test_class_tables_of_masks_must_agree(make_raster):
    from geopsp.core.legend import Legend
    from geopsp.raster.legend_io import write_class_files

    images = [str(make_raster(f"i/{name}.tif", size=SHAPE[1:])) for name in "ab"]
    masks = [make_raster(f"m/{name}.tif", CLASS_NUMBERS[None].astype("uint8")) for name in "ab"]
    write_class_files(masks[0], Legend.from_names({1: "water"}))
    assert of_image(images, masks)[1].legend.names == ["background", "water", "class 2"]
    write_class_files(masks[1], Legend.from_names({1: "wood"}))
    with pytest.raises(LabelError, match=r"the value 1 is 'water' in .*, but 'wood' in"):
        of_image(images, masks)


def test_masks_without_georeference_lie_where_their_images_lie(tmp_path, make_raster):
    origins = [(601234.0, 5301717.0), (601234.0 + 60, 5301717.0 - 20)]
    images = [str(make_raster(f"i/{n}.tif", size=SHAPE[1:], origin=origin)) for n, origin in enumerate(origins)]
    data = [RNG.integers(0, 3, SHAPE).astype("uint8") for _ in images]
    masks = [write(tmp_path / "m" / f"{n}.png", codes) for n, codes in enumerate(data)]
    found, labels = of_image(images, masks)
    for codes, expected in zip(found, data, strict=True):
        np.testing.assert_array_equal(codes, expected[0])
    assert labels.notes == ("2 masks without georeference, placed where the image of the same size lies",)
    wrong = write(tmp_path / "m" / "1.png", data[0][:, :-1])
    with pytest.raises(LabelError, match=r"1\.png has 50 x 39 pixels, but its image .*1\.tif has 50 x 40"):
        of_image(images, [masks[0], wrong])


def test_a_mask_on_another_grid_is_sampled(make_raster):
    image = make_raster("i/a.tif", size=SHAPE[1:])
    coarse = RNG.integers(0, 3, (1, 10, 12)).astype("uint8")
    mask = make_raster("m/a.tif", coarse, cell=8.0)
    (codes,), _ = of_image([str(image)], [mask])
    expected = np.full(SHAPE[1:], IGNORE_INDEX)
    expected[:, :48] = np.kron(coarse[0], np.ones((4, 4)))
    np.testing.assert_array_equal(codes, expected)


def test_a_mosaic_takes_the_mask_of_its_topmost_image(make_raster):
    from geopsp.raster.open_scenes import open_scenes

    images, masks = [], []
    for number in range(2):
        origin = (601234.0 + 40 * number, 5301717.0)
        images.append(str(make_raster(f"i/{number}.tif", size=SHAPE[1:], origin=origin)))
        masks.append(str(make_raster(f"m/{number}.tif", np.full(SHAPE, number + 1, "uint8"), origin=origin)))
    found, labels = read_masks(find_images(images), masks, RasterRules(), "m", needs_georeference=True)
    (scene,) = open_scenes(found, per_image=False)
    codes = labels.of_scene(scene).burn(scene.grid).codes
    assert (codes[:, :50] == 1).all()
    assert (codes[:, 50:] == 2).all()
    window = scene.grid.crop(Window(45, 3, 9, 7))
    np.testing.assert_array_equal(labels.of_scene(scene).burn(window).codes, codes[3:10, 45:54])


def test_images_without_georeference_stand_for_themselves(tmp_path, warnings):
    images = [str(write(tmp_path / "i" / f"{n}.png", RGB + np.uint8(n))) for n in range(3)]
    data = [RNG.integers(0, 3, SHAPE).astype("uint8") for _ in images]
    masks = [write(tmp_path / "m" / f"{n}_mask.png", codes) for n, codes in enumerate(data)]
    found, labels = of_image(images, masks)
    for codes, expected in zip(found, data, strict=True):
        np.testing.assert_array_equal(codes, expected[0])
    assert "have no georeference: each image stands for itself, and its pixel size is unknown" in warnings[0]
    assert len({line for line in labels.fingerprint() if line.endswith("_mask.png")}) == 3
    with pytest.raises(GridError, match="no CRS"):
        read_masks(find_images(images), [*map(str, masks)], RasterRules(), "m", needs_georeference=True)


def test_kinds_do_not_mix(tmp_path, make_raster):
    images = [str(make_raster(f"i/{name}.tif", size=SHAPE[1:])) for name in "ab"]
    masks = [write(tmp_path / "a.png", RGB), write(tmp_path / "b.png", CODES)]
    with pytest.raises(LabelError, match=r"masks of colours \(.*a\.png\) and masks of one band \(.*b\.png\)"):
        of_image(images, masks)


def test_which_labels_are_masks(tmp_path, make_raster, make_labels):
    plain, placed = write(tmp_path / "m.png", CODES), make_raster("m.tif", CODES)
    assert masks_of(plain) == [str(plain)]
    assert masks_of(placed) is None
    assert masks_of([placed]) == [str(placed)]
    with pytest.raises(InputNotFoundError):
        masks_of(tmp_path / "none.tif")
    transform = from_origin(0, 40, 1, 1)
    assert masks_of(make_raster("w.tif", CODES, crs=None, transform=transform)) == [str(tmp_path / "w.tif")]
