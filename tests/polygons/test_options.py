"""Options that cannot be met are told before anything is done."""

import numpy as np
import pytest

from geopsp.core.legend import Legend
from geopsp.errors import OptionError
from geopsp.polygons.options import PolygonSettings

LEGEND = Legend.from_names({0: "class 0", 1: "water", 2: "3", 3: "building"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"connectivity": 6}, "`connectivity` is 6, but must be one of 4, 8"),
        ({"connectivity": 4.0}, "`connectivity` is 4.0"),
        ({"connectivity": [4]}, r"`connectivity` is \[4\]"),
        ({"connectivity": True}, "`connectivity` is True"),
        ({"simplify": True}, "`simplify` is True"),
        ({"min_area": False}, "`min_area` is False"),
        ({"fill_holes": 1 + 0j}, "`fill_holes` is .1.0j"),
        ({"fill_holes": np.complex64(1)}, "`fill_holes` is"),
        ({"fill_holes": None}, "`fill_holes` is None"),
        ({"dissolve": "no"}, "`dissolve` is 'no', but must be True or False"),
        ({"dissolve": 1}, "`dissolve` is 1, but must be True or False"),
        ({"regularize": "yes", "keep": [1]}, "`regularize` is 'yes'"),
        ({"regularize": np.nan, "keep": [1]}, "`regularize` is nan"),
        ({"keep": b"ab"}, "list of class names"),
        ({"simplify": -1}, "`simplify` is -1.*metres"),
        ({"simplify": "2"}, "`simplify` is '2'"),
        ({"min_area": float("nan")}, "`min_area` is nan.*m2"),
        ({"fill_holes": -0.5}, "`fill_holes` is -0.5"),
        ({"smooth": 1.5}, "`smooth` is 1.5.*whole number"),
        ({"smooth": True}, "`smooth` is True"),
        ({"smooth": 9}, "`smooth` is 9, but must be a whole number from 0 to 5 .rounds"),
        ({"keep": ["a"], "drop": ["b"]}, "`keep` and `drop` are both"),
        ({"keep": "building"}, "list of class names"),
        ({"drop": []}, "list of class names"),
        ({"regularize": True}, "needs `keep`"),
        ({"regularize": -3.0, "keep": [1]}, "`regularize` is -3.0"),
        ({"regularize": True, "keep": [1], "simplify": 2}, "`simplify` or `smooth`"),
    ],
)
def test_options_that_cannot_be_met_are_told(options, words):
    with pytest.raises(OptionError, match=words):
        PolygonSettings(**options)


def test_numbers_of_numpy_are_numbers():
    found = PolygonSettings(np.uint8(8), np.int16(2), np.int64(3), np.float32(50), np.float64(0.5))
    assert found == PolygonSettings(8, 2, 3, 50, 0.5)
    assert PolygonSettings(regularize=np.float32(1.5), keep=[1]).needs_all_features


def test_all_codes_of_one_name_are_of_the_class():
    legend = Legend.from_names({0: "other", 2: "forest", 5: "forest", 9: "forest"})
    assert np.flatnonzero(PolygonSettings(keep=["forest"]).selected_codes(legend)).tolist() == [2, 5, 9]
    assert np.flatnonzero(~PolygonSettings(drop=["forest"]).selected_codes(legend)).tolist() == [2, 5, 9]
    with pytest.raises(OptionError, match=r"classes are other, forest; give"):
        PolygonSettings(keep=["wood"]).selected_codes(legend)


@pytest.mark.parametrize(
    ("options", "codes"),
    [
        ({}, range(256)),
        ({"keep": ["water"]}, [1]),
        ({"keep": ["building", 1]}, [1, 3]),
        ({"keep": ["3"]}, [2]),  # a name before a code
        ({"keep": [3]}, [3]),
        ({"keep": ["7"]}, [7]),
        ({"drop": ["water", 200]}, sorted({*range(256)} - {1, 200})),
    ],
)
def test_classes_are_known_by_name_or_code(options, codes):
    assert np.flatnonzero(PolygonSettings(**options).selected_codes(LEGEND)).tolist() == list(codes)


@pytest.mark.parametrize("entry", ["roof", 255, -1, True])
def test_an_unknown_class_is_told_with_those_there_are(entry):
    with pytest.raises(OptionError, match=r"has no class .*Its classes are water, 3, building;"):
        PolygonSettings(keep=[entry]).selected_codes(LEGEND)
