"""Parts are as small as the threads of a cluster need, and no smaller."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geopsp.maps.plan import MapPlan
from geopsp.maps.sides import apart, shared_out


def tiles_of(plan):
    return [plan.count(plan.part(number).window) for number in range(plan.parts)]


def seconds(plan, threads):
    """Until the last thread is done, if a tile takes a second and each thread takes the next part when it has none."""
    free = [0] * threads
    for tiles in tiles_of(plan):
        heapq.heappush(free, heapq.heappop(free) + tiles)
    return max(free)


@st.composite
def plans(draw):
    width, height = (draw(st.integers(1, 1500)) for _ in "wh")
    size = draw(st.sampled_from([16, 32, 48]))
    sides = (draw(st.sampled_from([64, 96, 256, 512])) for _ in "wh")
    return MapPlan(width, height, size, draw(st.integers(0, size // 4)), *sides, block=16)


@given(plan=plans(), threads=st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_a_cluster_is_done_no_later_than_the_bound_of_the_parts_that_were_there(plan, threads):
    """Which with one thread are the ones that stay; and what is said of the tiles is what they are."""
    found = shared_out(plan, threads)
    assert apart(found) == sum(tiles_of(found))
    assert found.part_width % found.block == found.part_height % found.block == 0
    assert plan.part_width % found.part_width == plan.part_height % found.part_height == 0
    assert found.levels >= min(plan.levels, 1)
    most = max(tiles_of(plan))
    assert seconds(found, threads) <= (apart(plan) - most) / threads + most
    assert shared_out(plan, 1) == shared_out(plan, 0) == plan


@pytest.mark.parametrize(
    ("side", "threads", "parts", "more"),
    [(20_000, 1, 30, 1.22), (20_000, 100, 400, 1.87), (100_000, 8, 169, 1.10), (100_000, 1000, 4802, 1.63)],
)
def test_a_large_map_of_a_large_cluster(side, threads, parts, more):
    """Where nine or thirty parts would leave most of it idle; at most so many tiles are computed for each."""
    plan = MapPlan(side, side, 512, 128, 8192, 2048 if side < 32_768 else 8192)
    found = shared_out(plan, threads)
    assert found.parts == parts
    assert apart(found) / len(found) < more
