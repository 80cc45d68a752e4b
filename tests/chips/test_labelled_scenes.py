import geopandas as gpd
import numpy as np
import pytest
from common import square

from geopsp.chips.labelled_scenes import LabelledScenes
from geopsp.core.grid import Window
from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.errors import LabelError, OptionError

LEFT, TOP = 601234.0, 5301717.0


@pytest.fixture
def labels():
    shapes = [square(LEFT + 10, TOP - 10, 60), square(LEFT + 90, TOP - 50, 30)]
    return gpd.GeoDataFrame({"kind": ["crop", "water"]}, geometry=shapes, crs="EPSG:32632")


def test_an_unknown_option(make_raster, labels):
    with pytest.raises(OptionError, match=r"has no option `tilesize`. Did you mean `tile_size`"):
        LabelledScenes.open(make_raster(), labels, tilesize=3)


def test_a_window_is_cut_with_its_labels(make_raster, labels):
    area = gpd.GeoDataFrame(geometry=[square(LEFT, TOP, 70)], crs="EPSG:32632")
    ground = LabelledScenes.open(make_raster(nodata=9), labels, class_field="kind", aoi=area)
    scene, window = ground.scenes[0], Window(20, 10, 32, 24)
    chip = ground.read_chip(scene, window)
    np.testing.assert_array_equal(chip.patch.data, scene.read(window).data)
    inside = ground.area.inside(scene.grid.crop(window))
    burned = ground.labels.burn(scene.grid.crop(window)).codes
    np.testing.assert_array_equal(chip.codes, np.where(inside & chip.patch.valid, burned, IGNORE_INDEX))
    assert not chip.inside
    assert ground.read_chip(scene, Window(0, 0, 16, 16)).inside


def test_under_another_legend_codes_follow_names(make_raster, labels):
    ground = LabelledScenes.open(make_raster(), labels, class_field="kind")
    wider = ground.with_legend(Legend.from_names({0: "background", 1: "dam", 2: "crop"}))
    assert {info.name: info.code for info in wider.legend} == {"background": 0, "dam": 1, "crop": 2, "water": 3}
    ours, theirs = (one.read_labels(ground.scenes[0], ground.scenes[0].grid).codes for one in (ground, wider))
    assert {(int(a), int(b)) for a, b in zip(ours.ravel(), theirs.ravel(), strict=True)} == {(0, 0), (1, 2), (2, 3)}
    assert wider.to_chip_codes({1: 7, 2: 8}) == {2: 7, 3: 8}


def test_labels_must_meet_one_of_the_images(make_raster, labels):
    far = make_raster("far.tif", origin=(LEFT + 5000, TOP))
    with pytest.raises(LabelError, match="do not overlap the image"):
        LabelledScenes.open(far, labels, class_field="kind")
    ground = LabelledScenes.open([far, make_raster()], labels, class_field="kind")
    assert ground.scene(str(far)) is ground.scenes[0]
