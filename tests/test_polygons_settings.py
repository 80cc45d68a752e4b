"""Options that cannot be met are told before anything is done."""

import numpy as np
import pytest

from geopsp.errors import OptionError
from geopsp.legend import Legend
from geopsp.polygons.settings import PolygonSettings

LEGEND = Legend.from_names({0: "class 0", 1: "water", 2: "3", 3: "building"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"connectivity": 6}, "connectivity is 6.*4.*8"),
        ({"simplify": -1}, "simplify is -1.*CRS units"),
        ({"simplify": "2"}, "simplify is '2'"),
        ({"min_area": float("nan")}, "min_area is nan.*m2"),
        ({"fill_holes": -0.5}, "fill_holes is -0.5"),
        ({"smooth": 1.5}, "smooth is 1.5.*whole number"),
        ({"smooth": True}, "smooth is True"),
        ({"smooth": 9}, "0 .none. to 5"),
        ({"keep": ["a"], "drop": ["b"]}, "keep and drop are both"),
        ({"keep": "building"}, "list of names"),
        ({"drop": []}, "list of names"),
        ({"regularize": True}, "needed keep"),
        ({"regularize": -3.0, "keep": [1]}, "regularize is -3.0"),
        ({"regularize": True, "keep": [1], "simplify": 2}, "simplify and smooth"),
    ],
)
def test_options_that_cannot_be_met_are_told(options, words):
    with pytest.raises(OptionError, match=words):
        PolygonSettings(**options)


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
    assert np.flatnonzero(PolygonSettings(**options).wanted(LEGEND)).tolist() == list(codes)


@pytest.mark.parametrize("entry", ["roof", 255, -1, True])
def test_an_unknown_class_is_told_with_those_there_are(entry):
    with pytest.raises(OptionError, match="no class of the raster; it has water, 3, building"):
        PolygonSettings(keep=[entry]).wanted(LEGEND)
