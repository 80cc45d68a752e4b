"""Arcs run along all borders of regions, and form rings around them."""

import numpy as np
import pytest
import scipy.ndimage
from common import examples
from hypothesis import given, settings
from polygons_common import rasters

from geopsp.core.connected_regions import label_regions
from geopsp.core.legend import IGNORE_INDEX
from geopsp.polygons.borders.rings import build_rings
from geopsp.polygons.borders.topology import build_polygons
from geopsp.polygons.borders.trace_arcs import select_arcs, trace_arcs

often = settings(max_examples=examples(60), deadline=None)


def sides(labels):
    """Return the number of pixel sides between two regions, also at the frame."""
    padded = np.pad(labels, 1)
    return (padded[1:] != padded[:-1]).sum() + (padded[:, 1:] != padded[:, :-1]).sum()


@often
@given(codes=rasters())
def test_regions_are_those_of_scipy_in_reading_order(codes):
    labels, count = label_regions(codes)
    assert np.array_equal(labels == 0, codes == IGNORE_INDEX)
    expected = sum(scipy.ndimage.label(codes == code)[1] for code in (0, 1, 2))
    assert count == expected == labels.max(initial=0)
    firsts = [np.flatnonzero(labels == number)[0] for number in range(1, count + 1)]
    assert firsts == sorted(firsts)
    for number in range(1, count + 1):
        assert len(np.unique(codes[labels == number])) == 1
        assert scipy.ndimage.label(labels == number)[1] == 1


@often
@given(codes=rasters())
def test_arcs_run_once_along_each_side_between_two_regions(codes):
    labels, _ = label_regions(codes)
    arcs = trace_arcs(labels).arcs
    padded, walked = np.pad(labels, 1), 0
    for arc in range(len(arcs)):
        x, y = arcs.xy[arcs.starts[arc] : arcs.starts[arc + 1]].astype(int).T
        for col, row, to_col, to_row in zip(x, y, x[1:], y[1:], strict=False):
            assert (col == to_col) != (row == to_row)
            walked += abs(to_col - col) + abs(to_row - row)
            along = np.sign(to_col - col), np.sign(to_row - row)
            # the pixel corner to the left and to the right of the first step, in the padded labels
            left = padded[row + (along[1] > 0) + (along[0] < 0), col + (along[0] > 0) + (along[1] > 0)]
            right = padded[row + (along[0] > 0) + (along[1] > 0), col + (along[0] > 0) + (along[1] < 0)]
            assert (left, right) == (arcs.left[arc], arcs.right[arc])
            assert left != right
    assert walked == sides(labels)


@often
@given(codes=rasters())
def test_rings_run_around_as_many_pixels_as_a_region_has(codes):
    labels, count = label_regions(codes)
    graph = trace_arcs(labels)
    found = build_polygons(graph.arcs, build_rings(graph, np.arange(-1, count, dtype=np.int32), count))
    assert len(found) == count
    for number in range(count):
        rings = range(found.polygons[number], found.polygons[number + 1])
        areas = []
        for ring in rings:
            x, y = found.xy[found.rings[ring] : found.rings[ring + 1]].T
            assert (x[0], y[0]) == (x[-1], y[-1])
            areas.append(-((x[:-1] + x[1:]) * np.diff(y)).sum() / -2)
        assert abs(sum(areas)) == (labels == number + 1).sum()
        assert all(area * areas[0] < 0 for area in areas[1:]), "holes run the other way"


def test_where_three_meet_is_a_node():
    labels, _ = label_regions(np.array([[1, 1], [2, 3]], np.uint8))
    arcs = trace_arcs(labels).arcs
    ends = np.concatenate([arcs.xy[arcs.starts[:-1]], arcs.xy[arcs.starts[1:] - 1]]).tolist()
    assert ends.count([1, 1]) == 3


def test_an_island_has_one_arc_that_ends_where_it_begins():
    codes = np.ones((5, 5), np.uint8)
    codes[2, 2] = 2
    graph = trace_arcs(label_regions(codes)[0])
    island = np.flatnonzero((graph.arcs.left == 2) | (graph.arcs.right == 2))
    assert island.size == 1
    first, last = graph.arcs.starts[island[0]], graph.arcs.starts[island[0] + 1] - 1
    assert graph.arcs.xy[first].tolist() == graph.arcs.xy[last].tolist()
    assert graph.next_dart[2 * island[0]] == 2 * island[0]


def test_of_chosen_regions_all_borders_stay():
    codes = np.array([[1, 1, 2], [1, 3, 2], [4, 4, 4]], np.uint8)
    graph = trace_arcs(label_regions(codes)[0])
    chosen = select_arcs(graph, np.array([0, 0, 0, 1, 0], np.int32))  # the one of code 3
    assert sorted({*chosen.arcs.left, *chosen.arcs.right}) == [0, 1]
    found = build_polygons(chosen.arcs, build_rings(chosen, np.array([-1, 0], np.int32), 1))
    assert sorted(map(tuple, found.xy[:-1])) == [(1, 1), (1, 2), (2, 1), (2, 2)]


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (1, 5), (5, 1)])
def test_nothing_has_no_borders(shape):
    labels, count = label_regions(np.full(shape, IGNORE_INDEX, np.uint8))
    assert count == 0
    assert len(trace_arcs(labels).arcs) == 0
