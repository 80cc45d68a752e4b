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

from geopsp.polygons.borders.simplify import simplify_arcs
from geopsp.polygons.borders.smooth import MAX_REACH, smooth_arcs
from geopsp.polygons.borders.topology import Arcs

CODES = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 9), st.integers(2, 12)), elements=st.sampled_from([1, 1, 2, 7, 255])
)


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
    round_ = smooth_arcs(arcs, rounds)
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


@given(codes=CODES, seed=st.integers(0, 99), least=st.sampled_from([0.0, 1.0, 4.0]), rounds=st.integers(1, 4))
@settings(max_examples=examples(20), deadline=None)
def test_the_way_an_arc_runs_does_not_matter(codes, seed, least, rounds):
    """Coordinates are identical."""
    graph, rings = cell(ragged(codes, seed, height=3))
    arcs = simplify_arcs(graph, rings, least)
    there = [np.unique(line, axis=0) for line in lines(smooth_arcs(arcs, rounds))]
    backwards = np.concatenate([arcs.xy[:0], *(line[::-1] for line in lines(arcs))])
    back = smooth_arcs(Arcs(backwards, arcs.starts, arcs.right, arcs.left), rounds)
    for one, two in zip(there, lines(back), strict=True):
        np.testing.assert_array_equal(one, np.unique(two, axis=0))


def test_steps_become_a_straight_line():
    """This holds for any slope, except near the frame."""
    rows, cols = np.indices((30, 90))
    for run in (1, 3, 5):
        arcs = cell(cols > run * rows + 4)[0].arcs
        border = lines(smooth_arcs(arcs, 1))[np.flatnonzero((arcs.left > 0) & (arcs.right > 0))[0]]
        middle = border[(border[:, 1] > 5) & (border[:, 1] < 12)]
        along, down = np.diff(middle, axis=0).T
        np.testing.assert_array_equal(along, run * down)


def test_a_pixel_becomes_an_octagon():
    codes = np.ones((5, 6))
    codes[2, 3] = 2
    graph, rings = cell(codes)
    arcs = graph.arcs
    found = shapely.normalize(shapes_of(smooth_arcs(arcs, 1), rings)[1])
    ring = [(3.25, 2), (3.75, 2), (4, 2.25), (4, 2.75), (3.75, 3), (3.25, 3), (3, 2.75), (3, 2.25)]
    assert found == shapely.normalize(shapely.Polygon(ring))


def test_long_edges_stay_straight():
    """A field of 64 x 40 pixels loses less than two pixels at each end of an edge."""
    codes = np.ones((50, 80))
    codes[3:43, 5:69] = 2
    graph, rings = cell(codes)
    arcs = graph.arcs
    field = shapes_of(smooth_arcs(arcs, 1), rings)[1]
    assert field.area == 64 * 40 - 4 * (1.0 * 1.25) / 2
    assert shapely.box(5, 3, 69, 43).difference(shapes_of(smooth_arcs(arcs, 5), rings)[1]).area < 4


def test_nothing_is_cut_where_another_border_is():
    """A vertex inside the triangle or on its side prevents the cut."""
    corner = [(0, 8), (0, 0), (8, 0)]
    assert len(smooth_arcs(drawn(corner), 1).xy) == 4
    for tip in ((0.25, 0.25), (0.5, 0.5)):
        found = smooth_arcs(drawn(corner, [tip, (9, 9)]), 1)
        np.testing.assert_array_equal(found.xy[:3], corner)
    assert len(smooth_arcs(drawn(corner, [(0.6, 0.6), (9, 9)]), 1).xy) == 6


def test_an_arc_that_ends_where_it_began_keeps_its_node():
    """A loop at a node of other arcs is not a closed arc."""
    loop = [(4, 4), (8, 4), (8, 8), (4, 8), (4, 4)]
    assert len(smooth_arcs(drawn(loop), 1).xy) == 9
    found = smooth_arcs(drawn(loop, [(0, 0), (4, 4)]), 1)
    np.testing.assert_array_equal(found.xy[0], (4, 4))
    assert len(lines(found)[0]) == 8


@pytest.mark.parametrize("rounds", [0, 3])
def test_empty_cells_and_no_rounds(rounds):
    arcs = cell(np.full((3, 4), 255))[0].arcs
    assert len(smooth_arcs(arcs, rounds)) == 0
    arcs = cell([[1, 2], [1, 255]])[0].arcs
    np.testing.assert_array_equal(smooth_arcs(arcs, 0).xy, arcs.xy)
