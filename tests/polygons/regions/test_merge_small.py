"""Small regions are merged into their neighbours, regardless of the cells."""

import numpy as np
import pytest
from graph_common import cells, drawn, flat, gently, graph, labelled, merged_by_hand, metres, rasters, sides_of, units
from hypothesis import given
from hypothesis import strategies as st

from geopsp.core import disk_array
from geopsp.polygons.regions import merge_small
from geopsp.polygons.regions.merge_small import merge_small_regions


def merge(codes, least, *, size=64, metric=None, all_borders=False):
    codes = np.asarray(codes, np.uint8)
    found = graph(codes, metric=metric, max_area=units(least), size=size, all_borders=all_borders)
    return drawn(codes, merge_small_regions(found, units(least)), size=size)


@gently
@given(codes=rasters, least=metres, size=cells, width=st.sampled_from([1.0, 2.5]))
def test_merging_is_as_by_hand(codes, least, size, width):
    found = merge(codes, least, size=size, metric=flat(codes, width=width, area=1))
    assert np.array_equal(found, merged_by_hand(codes, least, width))


@gently
@given(codes=rasters, least=metres, batch=st.integers(1, 9), chunk=st.integers(2, 9), steps=st.integers(1, 3))
def test_batches_do_not_matter(codes, least, batch, chunk, steps):
    """The areas of pixels differ, so that regions of one batch grow beyond those of the next."""
    metric = flat(codes)
    metric.pixel_area[:] = np.random.default_rng(0).uniform(0.5, 2, metric.pixel_area.shape)
    whole = merge(codes, least, metric=metric)
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in (
            (merge_small, "BATCH", batch), (disk_array, "CHUNK", chunk), (merge_small, "STEPS", steps),
        ):  # fmt: skip
            patch.setattr(module, name, value)
        assert np.array_equal(merge(codes, least, metric=metric), whole)


def test_many_batches_are_as_one():
    codes = np.random.default_rng(2).integers(0, 6, (90, 70)).astype(np.uint8)
    whole = merge(codes, 20.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge_small, "BATCH", 60)
        patch.setattr(disk_array, "CHUNK", 100)
        assert np.array_equal(merge(codes, 20.5), whole)


@gently
@given(codes=rasters, least=metres)
def test_nothing_small_is_left_but_what_stands_alone(codes, least):
    after = merge(codes, least)
    assert np.array_equal(after == 255, codes == 255)
    labels = labelled(after)
    for one, area in enumerate(np.bincount(labels.ravel())[1:], 1):
        assert area >= least or not sides_of(labels, one, 1, 1)


@gently
@given(codes=rasters, least=metres, size=cells, data=st.data())
def test_uneven_pixels_merge_alike_in_all_cells(codes, least, size, data):
    metric = flat(codes)
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    for knots in (metric.e, metric.g, metric.pixel_area):
        knots[:] = random.uniform(0.5, 2, knots.shape)
    assert np.array_equal(merge(codes, least, metric=metric, size=size), merge(codes, least, metric=metric))


@gently
@given(codes=rasters, least=metres)
def test_borders_of_large_ones_do_not_matter(codes, least):
    assert np.array_equal(merge(codes, least, all_borders=True), merge(codes, least))


def test_a_large_map_merges_alike_in_all_cells():
    random = np.random.default_rng(5)
    codes = np.kron(random.integers(0, 5, (20, 30)), np.ones((6, 5))).astype(np.uint8)
    codes[random.random(codes.shape) < 0.2] = 7
    codes[30:50, 20:60] = 255
    first = merge(codes, 33.5)
    assert labelled(first).max() < labelled(codes).max() / 10
    for size in (7, 32):
        assert np.array_equal(merge(codes, 33.5, size=size), first)


@pytest.mark.parametrize(
    ("codes", "least", "expected"),
    [
        ([[1, 1, 1, 2, 2], [1, 1, 3, 2, 2], [1, 1, 1, 2, 2]], 1.5, [[1, 1, 1, 2, 2], [1, 1, 1, 2, 2], [1, 1, 1, 2, 2]]),
        ([[1, 2, 3, 4, 5, 6, 7, 8]], 7.5, [[2] * 8]),  # of equals the first one
        ([[1, 1, 1, 2, 1, 1, 1], [1, 1, 1, 9, 1, 1, 1]], 1.5, [[1] * 7] * 2),
        ([[1, 255, 1], [255, 1, 255]], 99, [[1, 255, 1], [255, 1, 255]]),
        ([[2, 2, 3, 255, 1]], 99, [[2, 2, 2, 255, 1]]),
        ([[0, 0, 0, 254]], 1.5, [[0, 0, 0, 0]]),
        ([[1, 1, 1], [1, 2, 1], [1, 1, 1]], 1.0, [[1, 1, 1], [1, 2, 1], [1, 1, 1]]),  # not smaller than that
        ([[255, 255]], 9, [[255, 255]]),
    ],
)
def test_examples(codes, least, expected):
    assert merge(codes, least).tolist() == expected


def test_a_region_that_took_an_earlier_one_counts_as_earlier():
    """Code 1 comes before 4 once it has 9, so 6 joins 1."""
    codes = [[9, 255, 4, 4], [1, 1, 6, 255], [1, 1, 255, 255]]
    assert merge(codes, 1.5).tolist() == [[1, 255, 4, 4], [1, 1, 1, 255], [1, 1, 255, 255]]


def test_a_large_one_takes_no_borders_of_small_ones():
    """Code 5 joins 1; 3 borders only on 2, the last border found."""
    codes = np.array([[5, 1, 1, 1, 1], [255] * 5, [2, 255, 255, 255, 3], [2, 2, 2, 3, 3]], np.uint8)
    assert merge(codes, 3.5)[3].tolist() == [2] * 5
