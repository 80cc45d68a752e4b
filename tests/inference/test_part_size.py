"""Parts are as small as the threads of a cluster need, and no smaller."""

from __future__ import annotations

import heapq

import pytest
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from geopsp.inference.part_size import num_tiles_computed, split_for_threads
from geopsp.inference.tile_plan import TilePlan
from geopsp.raster.cog.part_grid import PartGrid


def tiles_of(parts, plan):
    return [plan.count(parts.part(number).window) for number in range(len(parts))]


def seconds(parts, plan, threads):
    """Until the last thread is done, if a tile takes a second and each thread takes the next part when it has none."""
    free = [0] * threads
    for tiles in tiles_of(parts, plan):
        heapq.heappush(free, heapq.heappop(free) + tiles)
    return max(free)


@st.composite
def plans(draw):
    width, height = (draw(st.integers(1, 1500)) for _ in "wh")
    size = draw(st.sampled_from([16, 32, 48]))
    sides = (draw(st.sampled_from([64, 96, 256, 512])) for _ in "wh")
    return PartGrid(width, height, *sides, block=16), TilePlan(width, height, size, draw(st.integers(0, size // 4)))


@given(both=plans(), threads=st.integers(1, 60))
@settings(max_examples=examples(60), deadline=None)
def test_a_cluster_is_done_no_later_than_the_bound_of_the_parts_that_were_there(both, threads):
    """Which with one thread are the ones that stay; and what is said of the tiles is what they are."""
    parts, plan = both
    found = split_for_threads(parts, plan, threads)
    assert num_tiles_computed(found, plan) == sum(tiles_of(found, plan))
    assert found.part_width % found.block == found.part_height % found.block == 0
    assert parts.part_width % found.part_width == parts.part_height % found.part_height == 0
    assert found.levels >= min(parts.levels, 1)
    most = max(tiles_of(parts, plan))
    assert seconds(found, plan, threads) <= (num_tiles_computed(parts, plan) - most) / threads + most
    assert split_for_threads(parts, plan, 1) == split_for_threads(parts, plan, 0) == parts


@pytest.mark.parametrize(
    ("side", "threads", "count", "more"),
    [(20_000, 1, 30, 1.22), (20_000, 100, 400, 1.87), (100_000, 8, 169, 1.10), (100_000, 1000, 4802, 1.63)],
)
def test_a_large_map_of_a_large_cluster(side, threads, count, more):
    """Where nine or thirty parts would leave most of it idle; at most so many tiles are computed for each."""
    plan = TilePlan(side, side, 512, 128)
    parts = PartGrid(side, side, 8192, 2048 if side < 32_768 else 8192)
    found = split_for_threads(parts, plan, threads)
    assert len(found) == count
    assert num_tiles_computed(found, plan) / len(plan) < more
