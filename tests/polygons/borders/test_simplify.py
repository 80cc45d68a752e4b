"""Simplified borders have fewer vertices, without gaps or overlaps."""

from __future__ import annotations

import math

import numpy as np
import shapely
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from polygons_common import blobs, cell, lines, ragged, shapes_of

from geopsp.core.connected_regions import label_regions
from geopsp.polygons.borders.simplify import simplify_arcs

CODES = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 9), st.integers(2, 12)), elements=st.sampled_from([1, 1, 2, 7, 255])
)


def follows(some, all_):
    """Return True if some vertices occur among all, in the same order."""
    rest = iter(map(tuple, all_))
    return all(tuple(vertex) in rest for vertex in some)


@given(codes=CODES, seed=st.integers(0, 99), least=st.sampled_from([0.6, 1.0, 2.3, 4.0, 30.0]))
@settings(max_examples=examples(60), deadline=None)
def test_regions_stay_a_coverage(codes, seed, least):
    """Frame, nodata and nodes stay; areas change only by the triangles that were removed."""
    graph, rings = cell(ragged(codes, seed))
    arcs, fewer = graph.arcs, simplify_arcs(graph, rings, least)
    before, after = shapes_of(arcs, rings), shapes_of(fewer, rings)
    assert shapely.coverage_is_valid(before)
    assert shapely.coverage_is_valid(after)
    assert shapely.is_valid(after).all()
    assert (shapely.area(after) > 0).all()
    np.testing.assert_array_equal(fewer.left, arcs.left)
    np.testing.assert_array_equal(fewer.right, arcs.right)
    assert shapely.area(after).sum() == shapely.area(before).sum() == (label_regions(ragged(codes, seed))[0] > 0).sum()
    gone = shapely.get_num_coordinates(before) - shapely.get_num_coordinates(after)
    assert (np.abs(shapely.area(after) - shapely.area(before)) <= gone * least).all()
    for new, old, left, right in zip(lines(fewer), lines(arcs), arcs.left, arcs.right, strict=True):
        if left == 0 or right == 0:
            np.testing.assert_array_equal(new, old)
        elif (old[0] != old[-1]).any():
            assert follows(new, old)
            assert (new[[0, -1]] == old[[0, -1]]).all()
        else:
            assert follows(new[:-1], np.concatenate([old[:-1], old[:-1]]))
            assert (new[0] == new[-1]).all()


@given(
    codes=st.builds(ragged, CODES, st.integers(0, 99)) | st.builds(blobs, st.integers(9, 40), st.integers(0, 99)),
    least=st.sampled_from([0.6, 1.0, 2.3, 9.0, 200.0]),
)
@settings(max_examples=examples(30), deadline=None)
def test_polygons_are_those_of_geos(codes, least):
    """Vertex by vertex."""
    graph, rings = cell(codes)
    found = shapes_of(simplify_arcs(graph, rings, least), rings)
    if found.size:
        wanted = shapely.coverage_simplify(shapes_of(graph.arcs, rings), math.sqrt(least), simplify_boundary=False)
        assert (shapely.normalize(found) == shapely.normalize(wanted)).all()


def test_steps_go_and_corners_stay():
    """The triangles of a staircase have half a pixel; that of a field's corner is large."""
    rows, cols = np.indices((20, 24))
    graph, rings = cell(cols > rows + 2)
    arcs = graph.arcs
    stairs = np.flatnonzero((arcs.left > 0) & (arcs.right > 0))[0]
    assert simplify_arcs(graph, rings, 0.49).xy.shape == arcs.xy.shape
    assert len(lines(simplify_arcs(graph, rings, 0.51))[stairs]) == 2
    graph, rings = cell((cols > 9) & (rows > 7))
    arcs = graph.arcs
    border = np.flatnonzero((arcs.left > 0) & (arcs.right > 0))
    assert len(lines(simplify_arcs(graph, rings, 40.0))[border[0]]) == 3


def test_an_island_keeps_three_corners():
    """A closed arc may lose its first vertex, but no ring collapses."""
    rows, cols = np.indices((31, 37))
    graph, rings = cell(np.hypot(rows - 15, cols - 17) < 9.3)
    island = np.flatnonzero((graph.arcs.left > 0) & (graph.arcs.right > 0))[0]
    assert 3 < len(lines(simplify_arcs(graph, rings, 3.0))[island]) < 20
    assert len(lines(simplify_arcs(graph, rings, 1e6))[island]) == 4


def test_nothing_to_do_gives_the_same_arcs_back():
    graph, rings = cell(np.kron([[1, 2], [255, 3]], np.ones((4, 5))))
    assert simplify_arcs(graph, rings, 9.0) is graph.arcs
    rows, cols = np.indices((9, 11))
    graph, rings = cell(cols > rows)
    assert simplify_arcs(graph, rings, 0.0) is graph.arcs
    nothing, no_rings = cell(np.full((3, 4), 255))
    assert simplify_arcs(nothing, no_rings, 9.0) is nothing.arcs
