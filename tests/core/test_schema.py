"""Schemas say which entry is wrong, its value, and what is allowed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geopsp.core.bands import BandStats
from geopsp.core.documents import DocumentError
from geopsp.core.legend import Legend
from geopsp.core.schema import ClassEntry, PixelValuesEntry, StatisticsEntry, require_fit

GOOD = {"count": 4, "bands": 2, "mean": [1, 2.5], "m2": [0, 3.5], "low": [1, 0], "high": [1, 9]}


@given(
    hnp.arrays(
        st.sampled_from(["uint8", "int16", "float32", "float64"]),
        st.just((2, 3, 5)),
        elements={"min_value": 0, "max_value": 99},
    )
    | hnp.arrays("float32", (2, 3, 5), elements=st.floats(-(2.0**120), 2.0**120, width=32)),
)
def test_statistics_of_pixels_fit(pixels):
    stats = BandStats.from_array(pixels, np.ones((3, 5), bool))
    require_fit(stats.merge(stats).to_json(), StatisticsEntry)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"count": -1}, "`count` is -1, but must be greater than or equal to 0"),
        ({"count": 2**63}, "`count` is 9223372036854775808, but"),
        ({"count": 1.5}, "`count` is 1.5, but must be a valid integer"),
        ({"count": True}, "`count` is True, but must be a valid integer"),
        ({"m2": [1, -3.0]}, r"`m2\[1\]` is -3.0, but must be greater than or equal to 0"),
        ({"m2": [1, math.inf]}, r"`m2\[1\]` is inf, but must be a finite number"),
        ({"m2": [1, 1e300]}, "possible m2"),
        ({"mean": [1, math.nan]}, r"`mean\[1\]` is nan, but"),
        ({"mean": [1, 1e300]}, r"`mean\[1\]` is 1e\+300, but"),
        ({"mean": [1, "2"]}, r"`mean\[1\]` is '2', but must be a valid number"),
        ({"mean": [1]}, "one mean, m2, low and high for each band"),
        ({"bands": 3}, "for each band"),
        ({"low": [3, 0]}, "means between low and high, not 1 between 3 and 1"),
        ({"mean": [0] * 10**6}, "`mean` is .*, but must have at most 4096 items"),
        ({"mean": None}, "`mean` is None, but must be a valid list"),
    ],
)
def test_impossible_statistics_are_named(change, says):
    require_fit(GOOD, StatisticsEntry)
    with pytest.raises(DocumentError, match=says):
        require_fit(GOOD | change, StatisticsEntry)


def test_missing_entries_and_other_kinds_of_content_are_named():
    with pytest.raises(DocumentError, match="`count` is missing"):
        require_fit({}, StatisticsEntry)
    for content in ([], None, 3, "count"):
        with pytest.raises(DocumentError, match=r"the document is .*, but must be a dict"):
            require_fit(content, StatisticsEntry)


@pytest.mark.parametrize(
    "change", [{"code": 255}, {"code": -1}, {"code": "1"}, {"name": ""}, {"name": None}, {"name": "a" * 2000}]
    + [{"color": color} for color in ("red", "#12345", "#1234567", "#00000g", "#000000\n", None, 3)],
)  # fmt: skip
def test_classes(change):
    good = Legend.from_names({1: "water"}).to_json()[0]
    require_fit(good, ClassEntry)
    with pytest.raises(DocumentError, match=f"`{next(iter(change))}` is"):
        require_fit(good | change, ClassEntry)


def test_values_are_shown_in_short():
    with pytest.raises(DocumentError) as caught:
        require_fit({"count": [["x" * 10**7] * 3, {"a": ["b"] * 10**6}], "scaled": 3}, StatisticsEntry)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("scales", [[[1, math.nan]], [[1]], [1], ["12"], [None] * 5000])
def test_pixel_values(scales):
    require_fit({"scaled": True, "scales": [None, [1e-4, -0.1]]}, PixelValuesEntry)
    with pytest.raises(DocumentError, match="`scales"):
        require_fit({"scaled": True, "scales": scales}, PixelValuesEntry)
