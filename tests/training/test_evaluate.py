"""What the scores of a model are computed from."""

import logging

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from common import square
from inference_common import trained_model

from geopsp.chips.export_training_data import export_training_data
from geopsp.core.bands import BandStats
from geopsp.core.pixel_values import RAW, PixelValues
from geopsp.errors import BandError, GridError
from geopsp.training.evaluate import chip_loader, chips_for

DATA = np.random.default_rng(0).integers(1, 200, (2, 32, 64)).astype("uint16")
TAGS = ((0.5, -3.0), (2.0, 1.0))


@pytest.fixture
def make_chips(make_raster, tmp_path):
    """Two chips of 32 x 32 pixels of 2 m, with other labels in the middle."""

    def make(*, names=("red", "nir"), tags=None, cell=2.0, **options):
        path = make_raster("image.tif", DATA, names=names, cell=cell)
        with rasterio.open(path, "r+") as dataset:
            if tags:
                dataset.scales, dataset.offsets = tuple(zip(*tags, strict=True))
            left, top = dataset.bounds.left, dataset.bounds.top
        shape = square(left + 5 * cell, top - 5 * cell, 20 * cell)
        labels = gpd.GeoDataFrame({"kind": ["water"]}, geometry=[shape], crs="EPSG:32632")
        return export_training_data(path, labels, tmp_path / "chips", "kind", 32, **options)

    return make


def model_of(values=RAW, bands=("red", "nir")):
    model = trained_model(bands=bands, dtype="uint16")
    model.pixel_values = values
    model.statistics = BandStats(9, np.array([40.0, 90.5]), np.array([9.0, 99.0]), np.zeros(2), np.full(2, 255.0))
    return model


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("trained", [PixelValues(scaled=True), PixelValues(scales=((0.25, 7.0), (1.0, 2.0)))])
def test_chips_are_normalised_as_the_training_s(trained, scaled, make_chips):
    """Whatever their values mean: as the pixels converted to the values of the training would be."""
    model = model_of(trained)
    chips = make_chips(tags=TAGS, scaled=scaled)
    assert chips.pixel_values.scaled == scaled
    scale, offset = np.array(TAGS).T[..., None, None]
    values = DATA * scale + offset
    if not trained.scaled:
        trained_scale, trained_offset = np.array(trained.scales).T[..., None, None]
        values = (values - trained_offset) / trained_scale
    expected = (values - model.statistics.mean[:, None, None]) / model.statistics.std[:, None, None]
    (batch,) = chip_loader(model, chips)
    np.testing.assert_allclose(np.concatenate(list(batch.image.numpy()), axis=2), expected, rtol=1e-4, atol=1e-4)


def test_a_scale_on_one_side_only_is_said(make_chips, caplog):
    with caplog.at_level(logging.WARNING, "geopsp"):
        chips_for(model_of(PixelValues(scales=TAGS)), make_chips())
    (record,) = [record for record in caplog.records if record.name == "geopsp.training.evaluate"]
    assert (
        "raw values (no scale and offset known), but the model was trained on raw values (scale 0.5" in record.message
    )


def test_scales_of_opposite_signs_are_refused(make_chips):
    with pytest.raises(BandError, match="opposite signs"):
        chip_loader(model_of(PixelValues(scales=((-0.5, 0.0), (2.0, 1.0)))), make_chips(tags=TAGS))


def test_bands_without_names_are_taken_in_order(make_chips, caplog):
    """As in prediction, and with the same words."""
    chips = make_chips(names=None)
    with caplog.at_level(logging.WARNING, "geopsp"):
        found = chips_for(model_of(), chips)
    assert found.bands == ("band_1", "band_2")
    assert "have no band names, so their bands are taken in this order: red, nir." in caplog.text
    with pytest.raises(BandError, match="the model needs red, green, blue"):
        chips_for(trained_model(bands=("red", "green", "blue")), chips)


@pytest.mark.parametrize("bands", [("nir", "red"), ("red",), ("red", "swir")])
def test_other_bands_are_refused(bands, make_chips):
    with pytest.raises(BandError, match="Export the chips with `bands` set to those of the model"):
        chips_for(trained_model(bands=bands), make_chips())


def test_pixels_of_another_size_are_refused(make_chips):
    chips = make_chips(cell=10.0)
    with pytest.raises(GridError, match=r"pixel size of the chips is 10 m.*2 m \(5x finer\)"):
        chips_for(model_of(), chips)
    assert chips_for(model_of(), chips, allow_resolution_mismatch=True).cell_size == (10.0, 10.0)
