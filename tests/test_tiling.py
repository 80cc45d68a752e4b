from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geopsp.errors import OptionError
from geopsp.tiling import starts


def test_the_worked_examples():
    assert starts(20, size=8, overlap=2) == [0, 6, 12]
    assert starts(19, size=8, overlap=2) == [0, 6, 11]
    assert starts(8, size=8, overlap=2) == starts(3, size=8, overlap=2) == [0]


@given(st.integers(1, 300), st.integers(1, 40), st.data())
def test_tiles_cover_an_axis_stay_inside_it_and_overlap_by_what_was_asked_at_least(length, size, data):
    overlap = data.draw(st.integers(0, size // 2))
    firsts = starts(length, size=size, overlap=overlap)
    assert firsts[0] == 0
    assert firsts[-1] + size >= length
    assert all(0 < b - a <= size - overlap for a, b in pairwise(firsts))
    assert all(first + size <= max(length, size) for first in firsts)


@pytest.mark.parametrize(("size", "overlap"), [(8, 5), (8, -1), (0, 0), (1, 1)])
def test_an_overlap_of_more_than_half_a_tile_is_refused(size, overlap):
    with pytest.raises(OptionError, match=f"found overlap {overlap} with tiles of {size}"):
        starts(100, size=size, overlap=overlap)
