"""Parts partition a raster."""

from __future__ import annotations

import numpy as np
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from geopsp.core.grid import Window
from geopsp.raster.cog.part_grid import PartGrid


@st.composite
def grids(draw):
    part_width, part_height = (draw(st.sampled_from([16, 32, 64, 128, 512])) for _ in "wh")
    return PartGrid(draw(st.integers(1, 300)), draw(st.integers(1, 300)), part_width, part_height, block=16)


@given(grids())
@settings(max_examples=examples(60), deadline=None)
def test_parts_partition_the_map_and_runs_go_down_it(parts):
    seen = np.zeros((parts.height, parts.width), int)
    for number in range(len(parts)):
        window = parts.part(number).window
        assert parts.part(number).number == number
        assert window.col % parts.block == window.row % parts.block == 0
        assert (window.col >> parts.levels) % parts.block == (window.row >> parts.levels) % parts.block == 0
        seen[window.slices(Window(0, 0, parts.width, parts.height))] += 1
    assert (seen == 1).all()
    runs = parts.runs(list(range(len(parts))))
    assert len(runs) == parts.shape[1]
    assert [part.number for run in runs for part in run] == list(range(len(parts)))


def test_a_run_ends_at_a_gap_and_at_the_foot_of_the_map():
    parts = PartGrid(64, 64, 32, 16, block=16)
    assert parts.shape == (4, 2)
    found = [[part.number for part in run] for run in parts.runs([0, 1, 3, 4, 5, 7])]
    assert found == [[0, 1], [3], [4, 5], [7]]
