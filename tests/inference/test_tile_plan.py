"""Tiles cover a map, weights sum to the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from geopsp.core.grid import Window
from geopsp.errors import OptionError
from geopsp.inference.tile_plan import WEIGHT_ONE, TilePlan, axis_weights, weights
from geopsp.raster.cog.part_grid import PartGrid


@st.composite
def plans(draw):
    size = draw(st.sampled_from([32, 64]))
    width, height = draw(st.integers(1, 300)), draw(st.integers(1, 300))
    return TilePlan(width, height, size, draw(st.integers(0, size // 2)))


@given(plans())
@settings(max_examples=examples(60), deadline=None)
def test_weights_are_positive_and_sum_to_the_same_at_each_pixel(plan):
    total = np.zeros((plan.rows[-1] + plan.size, plan.cols[-1] + plan.size), np.int64)
    for row in plan.rows:
        for col in plan.cols:
            mine = weights(*plan.edges(row, col))
            assert mine.min() > 0
            assert mine.dtype == np.int32
            total[row : row + plan.size, col : col + plan.size] += mine
    assert (total == WEIGHT_ONE * WEIGHT_ONE).all()


def test_weights_fall_towards_an_edge_that_another_tile_shares():
    first, second = (np.frombuffer(line, np.uint8) for line in axis_weights(14, 8, 2))
    assert first.tolist() == [128] * 6 + [96, 32]
    assert second.tolist() == [32, 96] + [128] * 6


def test_the_middle_of_a_long_axis_is_the_same_for_all_tiles_but_the_last():
    lines = axis_weights(10_000, 64, 16)
    assert len(set(lines[1:-2])) == 1


@given(plans(), st.sampled_from([16, 32, 64, 128, 512]), st.sampled_from([16, 32, 64, 128, 512]), st.data())
@settings(max_examples=examples(60), deadline=None)
def test_a_part_s_tiles_are_those_that_touch_it(plan, part_width, part_height, data):
    parts = PartGrid(plan.width, plan.height, part_width, part_height, block=16)
    window = parts.part(data.draw(st.integers(0, len(parts) - 1))).window
    touching = {
        (row, col)
        for row in plan.rows
        for col in plan.cols
        if not Window(col, row, plan.size, plan.size).intersect(window).is_empty
    }
    assert {(row, col) for row, cols in plan.tiles(window) for col in cols} == touching
    assert plan.count(window) == len(touching)


def test_a_million_pixels_a_side_are_planned_at_once():
    plan, parts = TilePlan(1_000_000, 1_000_000, 512, 128), PartGrid(1_000_000, 1_000_000)
    assert len(parts) == 123**2
    assert parts.levels == 4
    computed = sum(plan.count(parts.part(number).window) for number in range(0, len(parts), 97))
    assert computed / len(range(0, len(parts), 97)) * len(parts) < 1.1 * len(plan)


def test_an_overlap_beyond_half_a_tile_is_refused():
    with pytest.raises(OptionError, match="between 0 and half a tile"):
        TilePlan(100, 100, 32, 17)
