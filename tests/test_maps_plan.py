"""Tiles cover a map, weights sum to the same everywhere, parts partition it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geopsp.errors import OptionError
from geopsp.grid import Window
from geopsp.maps.plan import UNIT, MapPlan, axis_weights, weights


@st.composite
def plans(draw):
    size = draw(st.sampled_from([32, 64]))
    width, height = draw(st.integers(1, 300)), draw(st.integers(1, 300))
    part_width, part_height = (draw(st.sampled_from([16, 32, 64, 128, 512])) for _ in "wh")
    overlap = draw(st.integers(0, size // 2))
    return MapPlan(width, height, size, overlap, part_width, part_height, block=16)


@given(plans())
@settings(max_examples=60, deadline=None)
def test_weights_are_positive_and_sum_to_the_same_at_each_pixel(plan):
    total = np.zeros((plan.rows[-1] + plan.size, plan.cols[-1] + plan.size), np.int64)
    for row in plan.rows:
        for col in plan.cols:
            mine = weights(*plan.edges(row, col))
            assert mine.min() > 0
            assert mine.dtype == np.int32
            total[row : row + plan.size, col : col + plan.size] += mine
    assert (total == UNIT * UNIT).all()


def test_weights_fall_towards_an_edge_that_another_tile_shares():
    first, second = (np.frombuffer(line, np.uint8) for line in axis_weights(14, 8, 2))
    assert first.tolist() == [128] * 6 + [96, 32]
    assert second.tolist() == [32, 96] + [128] * 6


def test_the_middle_of_a_long_axis_is_the_same_for_all_tiles_but_the_last():
    lines = axis_weights(10_000, 64, 16)
    assert len(set(lines[1:-2])) == 1


@given(plans())
@settings(max_examples=60, deadline=None)
def test_parts_partition_the_map_and_runs_go_down_it(plan):
    seen = np.zeros((plan.height, plan.width), int)
    for number in range(plan.parts):
        window = plan.part(number).window
        assert plan.part(number).number == number
        assert window.col % plan.block == window.row % plan.block == 0
        assert (window.col >> plan.levels) % plan.block == (window.row >> plan.levels) % plan.block == 0
        seen[window.slices(Window(0, 0, plan.width, plan.height))] += 1
    assert (seen == 1).all()
    runs = plan.runs(list(range(plan.parts)))
    assert len(runs) == plan.shape[1]
    assert [part.number for run in runs for part in run] == list(range(plan.parts))


def test_a_run_ends_at_a_gap_and_at_the_foot_of_the_map():
    plan = MapPlan(64, 64, 32, 8, 32, 16, block=16)
    assert plan.shape == (4, 2)
    found = [[part.number for part in run] for run in plan.runs([0, 1, 3, 4, 5, 7])]
    assert found == [[0, 1], [3], [4, 5], [7]]


@given(plans(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_part_s_tiles_are_those_that_touch_it(plan, data):
    window = plan.part(data.draw(st.integers(0, plan.parts - 1))).window
    touching = {
        (row, col)
        for row in plan.rows
        for col in plan.cols
        if not Window(col, row, plan.size, plan.size).intersect(window).empty
    }
    assert {(row, col) for row, cols in plan.tiles(window) for col in cols} == touching
    assert plan.count(window) == len(touching)


def test_a_million_pixels_a_side_are_planned_at_once():
    plan = MapPlan(1_000_000, 1_000_000, 512, 128)
    assert plan.parts == 123**2
    assert plan.levels == 4
    computed = sum(plan.count(plan.part(number).window) for number in range(0, plan.parts, 97))
    assert computed / len(range(0, plan.parts, 97)) * plan.parts < 1.1 * len(plan)


def test_an_overlap_beyond_half_a_tile_is_refused():
    with pytest.raises(OptionError, match="between 0 and half a tile"):
        MapPlan(100, 100, 32, 17)
