import numpy as np
import pytest
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from geopsp.core.legend import IGNORE_INDEX, ClassInfo, Legend, distinct_color
from geopsp.errors import LabelError

codes = st.lists(st.integers(0, 254), min_size=1, max_size=20, unique=True)


@given(codes)
@settings(max_examples=examples(40), deadline=None)
def test_codes_to_indices_and_back(found):
    legend = Legend.from_names({code: f"class {code}" for code in found})
    assert legend.codes == sorted(found)
    everything = np.arange(256, dtype=np.uint8)
    index = legend.codes_to_indices(everything)
    known = np.isin(everything, found)
    assert (index[~known] == IGNORE_INDEX).all()
    np.testing.assert_array_equal(index[known], np.arange(len(legend)))
    np.testing.assert_array_equal(legend.indices_to_codes(index)[known], everything[known])
    assert legend.indices_to_codes(np.array([IGNORE_INDEX], np.uint8))[0] == IGNORE_INDEX
    assert Legend.from_json(legend.to_json()) == legend


@pytest.mark.parametrize("wrong", [(1, 1), (2, 1), (-1,), (255,)])
def test_codes_must_be_distinct_sorted_and_below_255(wrong):
    with pytest.raises(LabelError, match=r"codes are \[.* within 0 to 254"):
        Legend(tuple(ClassInfo(code, "x", "#000000") for code in wrong))


def test_colours_are_the_given_one_then_the_conventional_one_then_a_distinct_one():
    legend = Legend.from_names({0: "background", 3: "Water", 5: "quay", 7: "road"}, {7: "#010203"})
    assert [c.color for c in legend] == ["#1b1b1b", "#2b6cb0", distinct_color(5), "#010203"]
    assert legend.classes[3].rgb == (1, 2, 3)
    assert len({distinct_color(i) for i in range(254)}) > 200


def test_a_class_is_found_by_name():
    legend = Legend.from_names({1: "boat", 2: "car"})
    assert legend.code_of("car") == 2
    with pytest.raises(LabelError, match=r"No class is named 'ship'\. The classes are boat, car"):
        legend.code_of("ship")
    with pytest.raises(LabelError, match=r"No class is named 'Boat'\. Did you mean 'boat'"):
        legend.code_of("Boat")


def test_a_legend_is_extended_by_name():
    ours = Legend.from_names({0: "background", 1: "crop", 3: "road"})
    theirs = Legend.from_names({1: "road", 2: "water", 3: "dam"})
    wider = ours.extended_by(theirs)
    assert {info.name: info.code for info in wider} == {"background": 0, "crop": 1, "road": 3, "water": 2, "dam": 4}
    assert ours.extended_by(ours) == ours
    full = Legend.from_names({code: f"c{code}" for code in range(255)})
    with pytest.raises(LabelError, match="255"):
        full.extended_by(theirs)


@pytest.mark.parametrize(
    "color", ["", "red", "#12345", "#1234567", "#12345g", "123456", "#123456\n", "#123456;x:url(y)"]
)
def test_a_colour_is_six_digits(color):
    with pytest.raises(LabelError, match="must be #rrggbb"):
        Legend.from_json([{"code": 1, "name": "water", "color": color}])
