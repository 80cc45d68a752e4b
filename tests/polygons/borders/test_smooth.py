"""Smoothed borders have no gaps and no overlaps."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from polygons_common import cell, lines, ragged, shapes_of

from geopsp.polygons.borders.corner_cutting import FAR_EDGE, MAX_REACH, SLOPE_FACTOR
from geopsp.polygons.borders.simplify import simplify_arcs
from geopsp.polygons.borders.smooth import (
    SmoothingState,
    Unfinished,
    max_needed_distance,
    needed_distance,
    resume_smoothing,
    smooth_arcs,
)
from geopsp.polygons.borders.topology import Arcs

CODES = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 9), st.integers(2, 12)), elements=st.sampled_from([1, 1, 2, 7, 255])
)


def smoothed(arcs, rounds):
    """Return arcs that no seam cuts, smoothed."""
    return smooth_arcs(arcs, rounds)[0]


def drawn(*paths):
    """Return arcs between the regions 1 and 2."""
    starts = np.cumsum([0, *map(len, paths)])
    ones = np.ones(len(paths), np.int32)
    return Arcs(np.concatenate([np.array(path, float) for path in paths]), starts, ones, 2 * ones)


@given(codes=CODES, seed=st.integers(0, 99), least=st.sampled_from([0.0, 0.6, 4.0, 20.0]), rounds=st.integers(1, 4))
@settings(max_examples=examples(75), deadline=None)
def test_regions_stay_a_coverage(codes, seed, least, rounds):
    """Frame, nodata and nodes stay; no border moves far; alone and after simplifying."""
    graph, rings = cell(ragged(codes, seed, height=3))
    arcs = simplify_arcs(graph, rings, least)
    round_ = smoothed(arcs, rounds)
    before, after = shapes_of(arcs, rings), shapes_of(round_, rings)
    assert shapely.coverage_is_valid(after)
    assert shapely.is_valid(after).all()
    assert (shapely.area(after) > 0).all()
    np.testing.assert_allclose(shapely.area(after).sum(), shapely.area(before).sum())
    assert (shapely.hausdorff_distance(before, after) < 2 * MAX_REACH * 2**0.5).all()
    for new, old, left, right in zip(lines(round_), lines(arcs), arcs.left, arcs.right, strict=True):
        if left == 0 or right == 0:
            np.testing.assert_array_equal(new, old)
        elif (old[0] != old[-1]).any():
            np.testing.assert_array_equal(new[[0, -1]], old[[0, -1]])
        else:
            np.testing.assert_array_equal(new[0], new[-1])


def turn(before, at, after):
    """Return 1, -1 or 0."""
    return int(np.sign((before[0] - at[0]) * (after[1] - at[1]) - (before[1] - at[1]) * (after[0] - at[0])))


def cut_off(at, turn_at, other, turn_other, next_one, reach):
    """Return the point where an edge is cut near its end `at`; `next_one` is the other neighbour of `at`."""
    length, next_length = (max(abs(np.subtract(at, end))) for end in (other, next_one))
    is_step, is_long = turn_at * turn_other <= 0, length > 3 * SLOPE_FACTOR * reach
    limit = reach * SLOPE_FACTOR if next_length <= reach / 2 and (is_step or is_long) else reach
    if is_long:
        return tuple(at + np.subtract(other, at) * 0.75 * limit / length)
    parts = 2 if is_step else 4
    while length / parts >= limit:
        parts *= 2
    return tuple(at + np.subtract(other, at) / parts)


def is_in_the_way(corners, points):
    """Return True if a point lies in a triangle or on its sides, and is none of its corners."""
    others = points[~(points[:, None] == np.array(corners)).all(axis=2).any(axis=1)]
    sides = [
        (one[0] - others[:, 0]) * (two[1] - others[:, 1]) - (one[1] - others[:, 1]) * (two[0] - others[:, 0])
        for one, two in zip(corners, [*corners[1:], corners[0]], strict=True)
    ]
    box = ((others >= np.min(corners, axis=0)) & (others <= np.max(corners, axis=0))).all(axis=1)
    return bool((box & ((np.min(sides, axis=0) >= 0) | (np.max(sides, axis=0) <= 0))).any())


def smoothed_slowly(arcs, rounds):
    """Return the paths of smoothed arcs, by the definition: each corner is compared with all vertices."""
    paths = [list(map(tuple, line.tolist())) for line in lines(arcs)]
    ends = [end for path in paths for end in (path[0], path[-1])]
    closed = [path[0] == path[-1] and ends.count(path[0]) == 2 for path in paths]
    inner = (arcs.left > 0) & (arcs.right > 0)
    for number in range(rounds):
        points = np.array([point for path in paths for point in path])
        for position, path in enumerate(paths):
            if not inner[position]:
                continue
            ring = path[:-1] if closed[position] else path
            around = [(ring[at - 1], ring[at], ring[(at + 1) % len(ring)]) for at in range(len(ring))]
            turns = [turn(*three) for three in around]
            if not closed[position]:
                turns[0] = turns[-1] = 0
            new = []
            for at, (before, here, after) in enumerate(around):
                pair = [here]
                if turns[at]:
                    reach = MAX_REACH / 2**number
                    one = cut_off(here, turns[at], before, turns[at - 1], after, reach)
                    two = cut_off(here, turns[at], after, turns[(at + 1) % len(ring)], before, reach)
                    pair = [here] if is_in_the_way((here, one, two), points) else [one, two]
                for point in pair:
                    if not new or new[-1] != point:
                        new.append(point)
            if closed[position] and new[-1] != new[0]:
                new.append(new[0])
            paths[position] = new
    return paths


@given(
    codes=CODES,
    seed=st.integers(0, 99),
    least=st.sampled_from([0.0, 0.0, 0.6, 4.0, 20.0]),
    rounds=st.integers(1, 3),
    stretch=st.sampled_from([1, 1, 40]),
)
@settings(max_examples=25, deadline=None)
def test_vertices_are_those_of_the_definition(codes, seed, least, rounds, stretch):
    """Also where corners are not looked at because nothing can be in the way."""
    graph, rings = cell(np.repeat(ragged(codes[:6, :8], seed, height=3), stretch, axis=1))
    arcs = simplify_arcs(graph, rings, least)
    for found, expected in zip(lines(smoothed(arcs, rounds)), smoothed_slowly(arcs, rounds), strict=True):
        np.testing.assert_array_equal(found, expected)


@given(codes=CODES, seed=st.integers(0, 99), least=st.sampled_from([0.0, 1.0, 4.0]), rounds=st.integers(1, 4))
@settings(max_examples=examples(20), deadline=None)
def test_the_way_an_arc_runs_does_not_matter(codes, seed, least, rounds):
    """Coordinates are identical."""
    graph, rings = cell(ragged(codes, seed, height=3))
    arcs = simplify_arcs(graph, rings, least)
    there = [np.unique(line, axis=0) for line in lines(smoothed(arcs, rounds))]
    backwards = np.concatenate([arcs.xy[:0], *(line[::-1] for line in lines(arcs))])
    back = smoothed(Arcs(backwards, arcs.starts, arcs.right, arcs.left), rounds)
    for one, two in zip(there, lines(back), strict=True):
        np.testing.assert_array_equal(one, np.unique(two, axis=0))


def test_steps_become_a_straight_line():
    """This holds for any slope, except near the frame."""
    rows, cols = np.indices((30, 90))
    for run in (1, 3, 5):
        arcs = cell(cols > run * rows + 4)[0].arcs
        border = lines(smoothed(arcs, 1))[np.flatnonzero((arcs.left > 0) & (arcs.right > 0))[0]]
        middle = border[(border[:, 1] > 5) & (border[:, 1] < 12)]
        along, down = np.diff(middle, axis=0).T
        np.testing.assert_array_equal(along, run * down)


def test_a_pixel_becomes_an_octagon():
    codes = np.ones((5, 6))
    codes[2, 3] = 2
    graph, rings = cell(codes)
    arcs = graph.arcs
    found = shapely.normalize(shapes_of(smoothed(arcs, 1), rings)[1])
    ring = [(3.25, 2), (3.75, 2), (4, 2.25), (4, 2.75), (3.75, 3), (3.25, 3), (3, 2.75), (3, 2.25)]
    assert found == shapely.normalize(shapely.Polygon(ring))


def test_long_edges_stay_straight():
    """A field of 64 x 40 pixels loses less than two pixels at each end of an edge."""
    codes = np.ones((50, 80))
    codes[3:43, 5:69] = 2
    graph, rings = cell(codes)
    arcs = graph.arcs
    field = shapes_of(smoothed(arcs, 1), rings)[1]
    assert field.area == 64 * 40 - 4 * (1.5 * 1.25) / 2
    assert shapely.box(5, 3, 69, 43).difference(shapes_of(smoothed(arcs, 5), rings)[1]).area < 6


def test_nothing_is_cut_where_another_border_is():
    """A vertex inside the triangle or on its side prevents the cut."""
    corner = [(0, 8), (0, 0), (8, 0)]
    assert len(smoothed(drawn(corner), 1).xy) == 4
    for tip in ((0.25, 0.25), (0.5, 0.5)):
        found = smoothed(drawn(corner, [tip, (9, 9)]), 1)
        np.testing.assert_array_equal(found.xy[:3], corner)
    assert len(smoothed(drawn(corner, [(0.6, 0.6), (9, 9)]), 1).xy) == 6


def test_nothing_is_cut_later_where_another_border_is():
    """Vertices of other cells count as well."""
    arcs = drawn([(0, 8), (0, 0), (8, 0)])
    state = SmoothingState(arcs, np.zeros(1, bool), np.zeros(3, np.int8), np.zeros((1, 2), bool), Unfinished.none())
    for point, count in (((0.5, 0.5), 3), ((0.6, 0.6), 4)):
        assert len(resume_smoothing(state, 1, np.array([point]))[0].xy) == count


def test_others_are_needed_as_far_as_an_edge_may_be_cut():
    """In two rounds three vertices wait at an open end, but none behind a far edge."""
    for far, open_ends, farthest in ((9, (1, 0), 9), (3 + FAR_EDGE + 1, (1, 0), 5), (9, (0, 1), 37), (9, (0, 0), 0)):
        steps = [(0, 0), (3, 0), (3, 5), (far, 5), (far, 12), (40, 12)]
        found = needed_distance(drawn(steps), 2, np.array([open_ends], bool))
        assert found == farthest + MAX_REACH * SLOPE_FACTOR <= max_needed_distance(2)


def test_an_arc_that_ends_where_it_began_keeps_its_node():
    """A loop at a node of other arcs is not a closed arc."""
    loop = [(4, 4), (8, 4), (8, 8), (4, 8), (4, 4)]
    assert len(smoothed(drawn(loop), 1).xy) == 9
    found = smoothed(drawn(loop, [(0, 0), (4, 4)]), 1)
    np.testing.assert_array_equal(found.xy[0], (4, 4))
    assert len(lines(found)[0]) == 8


@pytest.mark.parametrize("rounds", [0, 3])
def test_empty_cells_and_no_rounds(rounds):
    arcs = cell(np.full((3, 4), 255))[0].arcs
    assert len(smoothed(arcs, rounds)) == 0
    arcs = cell([[1, 2], [1, 255]])[0].arcs
    np.testing.assert_array_equal(smoothed(arcs, 0).xy, arcs.xy)
