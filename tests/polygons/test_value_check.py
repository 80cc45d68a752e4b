"""What is left out is said before the work, and 0 and 255 can be classes."""

import logging

import geopandas as gpd
import numpy as np
import pytest
import rasterio

from geopsp.core.grid import Window
from geopsp.core.legend import CLASSES_TAG
from geopsp.errors import OptionError, RasterError
from geopsp.polygons.class_raster import ClassRaster
from geopsp.polygons.raster_to_polygons import raster_to_polygons

MASK = np.zeros((1, 20, 30), "uint8")
MASK[0, 3:8, 4:10] = 255
CODES = MASK.copy()
CODES[0, 12:15, :] = 1


@pytest.fixture
def warnings():
    """Return the list to which warnings are added as they are logged."""
    messages, handler, logger = [], logging.Handler(logging.WARNING), logging.getLogger("geopsp")
    handler.emit = lambda record: messages.append(record.getMessage())
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def pixels(path, **options):
    """Return the pixels of each class name, by area of the polygons."""
    out = path.with_suffix(".parquet")
    found = gpd.read_parquet(raster_to_polygons(path, out, overwrite=True, **options))
    areas = found.geometry.area.groupby(found["name"]).sum() / 4
    return {name: round(area) for name, area in areas.items()}, dict(zip(found["name"], found["code"], strict=True))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32"])
def test_a_mask_of_0_and_255(make_raster, warnings, dtype):
    path = make_raster("m.tif", MASK.astype(dtype))
    assert pixels(path) == ({"class 0": 570, "class 255": 30}, {"class 0": 0, "class 255": 255})
    assert "is read as a mask: 255 (5.0% of the pixels) is a class. If it is none, use `nodata=255`" in warnings[0]
    assert pixels(path, keep=[255])[0] == {"class 255": 30}
    assert pixels(path, nodata=255)[0] == {"class 0": 570}
    assert pixels(path, nodata=0)[0] == {"class 255": 30}


def test_a_mask_whose_background_is_nodata(make_raster, warnings):
    path = make_raster("m.tif", MASK, nodata=0)
    assert pixels(path)[0] == {"class 255": 30}
    assert "95.0% of the pixels of" in warnings[0]
    assert "nodata value (0) and are left out. If that is a class, use `nodata='none'`" in warnings[0]
    assert pixels(path, nodata="none")[0] == {"class 0": 570, "class 255": 30}
    ones = make_raster("o.tif", MASK // 255, nodata=0)
    assert pixels(ones)[0] == {"class 1": 30}
    assert "95.0% of the pixels" in warnings[-1]


def test_a_mask_whose_foreground_is_nodata(make_raster, warnings):
    path = make_raster("m.tif", MASK, nodata=255)
    assert pixels(path)[0] == {"class 0": 570}
    assert "5.0% of the pixels" in warnings[0]
    assert "`nodata='none'`" in warnings[0]
    assert pixels(path, nodata="none")[0] == {"class 0": 570, "class 255": 30}


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_255_among_other_codes(make_raster, warnings, dtype):
    path = make_raster("m.tif", CODES.astype(dtype))
    assert pixels(path)[0] == {"class 0": 480, "class 1": 90}
    assert (
        "contains 255 (5.0% of the pixels), which is left out. If it is a class, use `nodata='none'`" in (warnings[0])
    )
    found, codes = pixels(path, nodata="none")
    assert found == {"class 0": 480, "class 1": 90, "class 255": 30}
    assert codes["class 255"] == 255
    assert pixels(path, nodata="none", min_area=200)[0] == {"class 0": 510, "class 1": 90}


def test_a_map_of_ours_is_not_read_twice(make_raster, warnings, monkeypatch):
    monkeypatch.setattr(ClassRaster, "count_values", lambda _: pytest.fail("its classes are known"))
    path = make_raster("m.tif", CODES, nodata=255)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(**{CLASSES_TAG: '[{"code": 1, "name": "road", "color": "#000000"}]'})
    assert pixels(path)[0] == {"class 0": 480, "road": 90}
    assert warnings == []


def test_values_beyond_codes(make_raster, tmp_path, warnings):
    path = make_raster("m.tif", CODES.astype("int16") + 100)
    assert pixels(path)[0] == {"class 100": 480, "class 101": 90, "class 355": 30}
    assert pixels(path, nodata=355)[0] == {"class 100": 480, "class 101": 90}
    wide = make_raster("w.tif", np.where(CODES == 1, 300, CODES.astype("uint16")))
    assert pixels(wide)[0] == {"class 0": 480, "class 255": 30, "class 300": 90}
    assert warnings == []
    with pytest.raises(OptionError, match="`nodata` is 'x', but must be a whole number or 'none'"):
        raster_to_polygons(path, tmp_path / "a.gpkg", nodata="x")
    every = make_raster("e.tif", np.arange(256, dtype="uint8").reshape(1, 16, 16))
    with pytest.raises(RasterError, match="contains all values from 0 to 255"):
        raster_to_polygons(every, tmp_path / "a.gpkg", nodata="none")
    assert len(pixels(every)[0]) == 255


def test_masked_pixels_do_not_count(make_raster):

    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = make_raster("m.tif", np.array([[[0, 255, 7, 255]]], "uint8"), mask=np.array([[1, 1, 0, 0]], bool))
    with ClassRaster.open(path) as raster:
        raster.number_values()
        assert raster.count_values().pixels == {0: 1, 255: 1}
        assert raster.read(Window(0, 0, 4, 1)).tolist() == [[0, 1, 255, 255]]
