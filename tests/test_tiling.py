from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geopsp.errors import OptionError
from geopsp.tiling import TilePlan, ramp, starts


@st.composite
def plans(draw):
    size = draw(st.integers(1, 40))
    overlap = draw(st.integers(0, size // 2))
    return TilePlan(draw(st.integers(1, 150)), draw(st.integers(1, 150)), size, overlap)


def test_the_worked_examples():
    assert starts(20, size=8, overlap=2) == [0, 6, 12]
    assert starts(19, size=8, overlap=2) == [0, 6, 11]
    assert starts(8, size=8, overlap=2) == starts(3, size=8, overlap=2) == [0]


@given(plans())
@settings(max_examples=60, deadline=None)
def test_tiles_cover_every_pixel_and_stay_inside_rasters_that_hold_one(plan):
    seen = np.zeros((plan.height, plan.width), int)
    for row in plan.rows:
        for window in plan.windows(row):
            assert (window.width, window.height) == (plan.size, plan.size)
            assert window.col_stop <= max(plan.width, plan.size)
            assert window.row_stop <= max(plan.height, plan.size)
            seen[window.row : window.row_stop, window.col : window.col_stop] += 1
    assert seen.min() >= 1
    assert len(plan) == sum(len(plan.windows(row)) for row in plan.rows)
    assert plan.cols == sorted(set(plan.cols))


@given(plans())
@settings(max_examples=40, deadline=None)
def test_neighbours_overlap_by_what_was_asked_at_least(plan):
    for first in (plan.cols, plan.rows):
        assert all(0 < b - a <= plan.size - plan.overlap for a, b in pairwise(first))


@given(plans())
@settings(max_examples=40, deadline=None)
def test_weights_are_positive_symmetric_and_one_in_the_middle(plan):
    weights = plan.weights()
    assert weights.shape == (plan.size, plan.size)
    assert weights.dtype == np.float32
    assert weights.min() > 0
    assert weights.max() <= 1
    np.testing.assert_array_equal(weights, weights[::-1, ::-1])
    np.testing.assert_array_equal(weights, weights.T)
    inner = slice(plan.overlap, plan.size - plan.overlap)
    assert (weights[inner, inner] == 1).all()


def test_ramps_of_neighbours_add_up_to_one():
    line = ramp(8, 4)
    np.testing.assert_allclose(line, [0.125, 0.375, 0.625, 0.875, 0.875, 0.625, 0.375, 0.125])
    np.testing.assert_allclose(line[4:] + line[:4], 1)


@pytest.mark.parametrize(("size", "overlap"), [(8, 5), (8, -1), (0, 0), (1, 1)])
def test_an_overlap_of_more_than_half_a_tile_is_refused(size, overlap):
    with pytest.raises(OptionError, match=f"found overlap {overlap} with tiles of {size}"):
        starts(100, size=size, overlap=overlap)
