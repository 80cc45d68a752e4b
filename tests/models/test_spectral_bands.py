"""Bands of pretrained weights are found by name, whatever their order and whoever names them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geopsp.models.spectral_bands import ETM, OLI, SENSORS, SENTINEL1, SENTINEL2, TM, match_spectral_bands
from geopsp.raster.sentinel import BANDS

S2 = tuple(SENSORS[SENTINEL2])
OTHER_WORDS = {"swir16": "SWIR1", "swir22": "swir_2", "nir08": "nir8a", "coastal": "Coastal Aerosol"}


def spelt(band: str, how: int) -> str:
    """A band of Sentinel-2 as different providers name it."""
    common = SENSORS[SENTINEL2][band][0]
    return (band, band.lower(), band.replace("B0", "B"), common, common.upper(), OTHER_WORDS.get(common, common))[how]


def test_bands_are_those_of_the_reader():
    assert S2 == BANDS


@given(st.permutations(S2), st.integers(1, 13), st.lists(st.integers(0, 5), min_size=13, max_size=13))
def test_any_subset_in_any_order_and_spelling(order, count, how):
    wanted = [spelt(band, each) for band, each in zip(order[:count], how, strict=False)]
    assert match_spectral_bands(wanted, S2, SENTINEL2) == tuple(S2.index(band) for band in order[:count])


@given(st.permutations(S2), st.integers(1, 13), st.lists(st.text(min_size=1, max_size=4), max_size=4))
def test_nothing_is_taken_twice(order, count, others):
    found = match_spectral_bands([*order[:count], *others, *order[:count]], S2, SENTINEL2)
    taken = [i for i in found if i is not None]
    assert len(taken) == len(set(taken))
    assert found[:count] == tuple(S2.index(band) for band in order[:count])


@pytest.mark.parametrize(
    ("wanted", "sensor", "expected"),
    [
        # B5 is near infrared, short-wave infrared or red edge
        (("blue", "green", "red", "nir", "swir1", "swir2"), TM, (0, 1, 2, 3, 4, 6)),
        (("blue", "green", "red", "nir", "swir1", "swir2"), OLI, (1, 2, 3, 4, 5, 6)),
        (("B1", "B2", "B3", "B4", "B5", "B7"), TM, (0, 1, 2, 3, 4, 6)),
        (("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6", "SR_B7"), OLI, (0, 1, 2, 3, 4, 5, 6)),
        (("B7", "B6_VCID_2", "B6_VCID_1", "B8"), ETM, (7, 6, 5, 8)),
        (("lwir", "pan"), ETM, (5, 8)),
        (("coastal", "nir08", "cirrus", "lwir11"), OLI, (0, 4, 8, 9)),
        # the sensor of the images is known by B8A, B12 or SR_B6: their numbers mean colours of their own
        (("B02", "B03", "B04", "B08", "B8A", "B11", "B12"), OLI, (1, 2, 3, None, 4, 5, 6)),
        (("B02", "B03", "B04", "B08", "B11", "B12"), TM, (0, 1, 2, 3, 4, 6)),
        (("B5", "B12"), TM, (None, 6)),
        (("SR_B4", "SR_B5", "SR_B6"), SENTINEL2, (3, 8, 11)),
        (("SR_B4", "SR_B3"), SENTINEL2, (None, None)),  # of which Landsat?
        (("sr_b4", "SR_B3"), ETM, (3, 2)),
        (("vh", "VV", "dem"), SENTINEL1, (1, 0, None)),
        (("VV", "VH"), SENTINEL2, (None, None)),
        (("nir", "nir08"), SENTINEL2, (7, 8)),
        (("nir08", "nir"), TM, (None, 3)),
    ],
)  # fmt: skip
def test_numbers_are_the_sensors(wanted, sensor, expected):
    assert match_spectral_bands(wanted, tuple(SENSORS[sensor]), sensor) == expected


def test_weights_of_no_sensor():
    given_bands = ("blue", "green", "red", "nir", "swir16", "swir22")
    assert match_spectral_bands(("B12", "B11", "B8", "B4", "B3", "B2"), given_bands) == (5, 4, 3, 2, 1, 0)
    assert match_spectral_bands(("swir2", "dem"), given_bands) == (5, None)
    assert match_spectral_bands(("B4", "B3"), given_bands) == (None, None)  # of which sensor?
    assert match_spectral_bands(("dem", "B4", "B3"), ("B3", "B4", "dem")) == (2, 1, 0)
    assert match_spectral_bands((), given_bands) == ()
    assert match_spectral_bands(("blue",), ()) == (None,)
    assert match_spectral_bands(("蓝", "-"), ("-", "蓝")) == (1, 0)
