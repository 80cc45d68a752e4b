import pytest

from geopsp.core.crs import format_length


@pytest.mark.parametrize(
    ("length", "unit", "text"),
    [
        (0.149291, "metre", "0.1493 m"),
        (9_999.4, "metre", "9999 m"),
        (6_777_000.0, "metre", "6,777 km"),
        (8.98315e-05, "degree", "8.98e-05 degrees (about 10 m)"),
        (60.8797, "degree", "60.9 degrees (about 6,800 km)"),
        (400.0, "US survey foot", "400 US survey feet"),
    ],
)
def test_lengths_have_a_unit_and_degrees_metres_beside_them(length, unit, text):
    assert format_length(length, unit) == text
