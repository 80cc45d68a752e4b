"""Masks find their images by name."""

import logging

import pytest

from geopsp.errors import InputNotFoundError, LabelError, OptionError
from geopsp.labels.match_masks import find_masks, match_masks
from geopsp.raster.source_image import SourceImage


def images(*names):
    return [SourceImage(name, (name,)) for name in names]


def matched(image_names, masks):
    return [(pair.image.name, pair.mask) for pair in match_masks(images(*image_names), masks, "masks")]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("a.tif", "a.png"),
        ("A.TIF", "a.png"),
        ("a.tif", "a_mask.png"),
        ("a.tif", "a-mask.tif"),
        ("a.tif", "A_Labels.png"),
        ("a.tif", "mask_a.png"),
        ("a.tif", "gt a.png"),
        ("7_sat.jpg", "7_mask.png"),
        ("top_2_10_RGB.tif", "top_2_10_label.tif"),
        ("img001.png", "mask001.png"),
        ("b_0019_leftImg8bit.png", "b_0019_gtFine_labelIds.png"),
        ("0001TP_006690.png", "0001TP_006690_L.png"),
        ("a.b.tif", "a.b.mask.tif"),
        ("image.tif", "image.png"),
        ("a.tif", "a.labels.tiff"),
    ],
)
def test_names_that_belong_together(image, mask):
    others = ["other.tif", "x_7.tif"]
    assert matched([*others, image], [mask, "nothing.png"]) == [(image, mask)]


@pytest.mark.parametrize(("image", "mask"), [("a.tif", "b.png"), ("a_1.tif", "a_mask.png"), ("tile.tif", "tile7.png")])
def test_names_that_do_not(image, mask):
    with pytest.raises(LabelError, match="None of 1 mask of masks has the name of one of 2 images"):
        matched([image, "other.tif"], [mask])


def test_equal_names_come_before_words():
    pairs = matched(["a.tif", "a_rgb.tif"], ["a.png", "a_rgb.png"])
    assert pairs == [("a.tif", "a.png"), ("a_rgb.tif", "a_rgb.png")]


def test_one_image_and_one_mask_need_no_name():
    assert matched(["scene.tif"], ["truth7.png"]) == [("scene.tif", "truth7.png")]


def test_folders_decide_between_equal_names():
    found = ["d/train/images/1.png", "d/val/images/1.png"]
    masks = ["d/val/masks/1.png", "d/train/masks/1.png"]
    assert matched(found, masks) == [(found[0], masks[1]), (found[1], masks[0])]


@pytest.mark.parametrize("masks", [["a.png", "a_mask.png"], ["x/a.png", "y/a.png"], ["a_gt.png", "mask_a.png"]])
def test_two_masks_of_one_image(masks):
    with pytest.raises(LabelError, match=r"a\.tif has two masks by name"):
        matched(["a.tif", "b.tif"], masks)


def test_two_images_of_one_mask():
    with pytest.raises(LabelError, match=r"m/a\.png is the mask of x/a\.tif or of y/a\.tif"):
        matched(["x/a.tif", "y/a.tif"], ["m/a.png"])


def test_what_is_left_over_is_counted_and_named(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("geopsp"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="geopsp"):
        pairs = matched(["a.tif", "b.tif", "c.tif"], ["a_mask.png", "b_mask.png", "z.png"])
    assert len(pairs) == 2
    assert caplog.messages == [
        "Matched 2 masks to 3 images by name, without _mask.",
        "1 of 3 images have no mask and are left out: c.tif.",
        "1 of 3 masks match no image and are left out: z.png.",
    ]


def test_a_folder_of_both_is_told_apart():
    names = ["1_sat.jpg", "1_mask.png", "2_sat.jpg", "2_mask.png"]
    expected = [("1_sat.jpg", "1_mask.png"), ("2_sat.jpg", "2_mask.png")]
    assert matched(names, names[1::2]) == expected
    assert matched(names[::2], names) == expected
    with pytest.raises(LabelError, match="The images are the same files as the masks"):
        matched(names, names)


def test_folders_globs_and_lists(make_raster, tmp_path):
    one, two = (str(make_raster(f"m/{name}", bands=1)) for name in ("a.tif", "b.tif"))
    assert (
        find_masks(tmp_path / "m") == find_masks(str(tmp_path / "m" / "*.tif")) == find_masks([one, two]) == [one, two]
    )
    assert find_masks([tmp_path / "m", one]) == [one, two]
    assert find_masks(one) is None
    assert find_masks("labels.gpkg") is None
    assert find_masks(str(tmp_path / "m" / "*.t*")) == [one, two]
    for wrong in ([], ["a.gpkg", "b.gpkg"], [one, "b.gpkg"]):
        with pytest.raises(OptionError, match="must hold label rasters only, one per image"):
            find_masks(wrong)
    with pytest.raises(InputNotFoundError, match=r"none\.tif"):
        find_masks([one, tmp_path / "none.tif"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputNotFoundError, match="the folder has no file"):
        find_masks(tmp_path / "empty")
    with pytest.raises(InputNotFoundError, match="matches no file"):
        find_masks(str(tmp_path / "*.png"))
    (tmp_path / "m" / "a.shp").touch()
    assert find_masks(tmp_path / "m") is None
