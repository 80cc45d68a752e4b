"""The region graph does not depend on the cells."""

import numpy as np
import pytest
from graph_common import cells, drawn, flat, gently, graph, labelled, rasters, units
from hypothesis import given

from geopsp.errors import RasterError
from geopsp.polygons.regions import region_graph
from geopsp.polygons.regions.cell_graph import MAX_UNITS, IntegerUnits


def with_surroundings(codes):
    """Label all regions by scipy, also those of nodata, of the raster with a nodata border."""
    return labelled(np.pad(codes.astype(int), 1, constant_values=255), nothing=256)


def borders(regions):
    """Return the lengths of borders by pairs of first pixels."""
    found = {}
    for pair, length in zip(regions.pairs, regions.lengths, strict=True):
        key = tuple(sorted(regions.first_pixels[pair].tolist()))
        found[key] = found.get(key, 0) + int(length)
    return found


@gently
@given(codes=rasters, size=cells)
def test_regions_are_those_of_scipy(codes, size):
    regions, labels = graph(codes, size=size), with_surroundings(codes)
    order = np.argsort(regions.first_pixels)
    assert labels.ravel()[regions.first_pixels[order]].tolist() == list(range(1, labels.max() + 1))
    pixels = np.bincount(labels[1:-1, 1:-1].ravel(), minlength=labels.max() + 1)[1:]
    assert regions.areas[order].tolist() == (units(1) * pixels).tolist()
    assert (
        regions.codes[order].tolist()
        == np.pad(codes, 1, constant_values=255).ravel()[regions.first_pixels[order]].tolist()
    )


@gently
@given(codes=rasters, size=cells)
def test_borders_are_as_long_as_the_sides_that_regions_share(codes, size):
    labels = with_surroundings(codes)
    firsts = np.concatenate([[0], np.sort(graph(codes).first_pixels)])
    metric = flat(codes, width=3, height=0.5)
    expected = {}
    for one, two, side in ((labels[1:], labels[:-1], 3.0), (labels[:, 1:], labels[:, :-1], 0.5)):
        for pair in zip(one.ravel(), two.ravel(), strict=True):
            if pair[0] != pair[1]:
                key = tuple(sorted(firsts[list(pair)].tolist()))
                expected[key] = expected.get(key, 0) + round(IntegerUnits.from_metric(metric).per_metre * side)
    assert borders(graph(codes, metric=metric, size=size)) == expected


@gently
@given(codes=rasters, size=cells)
def test_drawn_again_they_are_the_raster(codes, size):
    assert np.array_equal(drawn(codes, graph(codes, size=size), size=size), codes)


@gently
@given(codes=rasters, size=cells)
def test_only_borders_of_two_large_ones_are_left_out(codes, size):
    cap = units(2.5)
    every, regions = borders(graph(codes)), graph(codes, max_area=cap, all_borders=False, size=size)
    small = set(regions.first_pixels[regions.areas < cap].tolist())
    assert regions.areas.max() <= cap
    kept, some = borders(regions), {pair for pair in every if small & set(pair)}
    assert {pair: kept[pair] for pair in some} == {pair: every[pair] for pair in some}


@gently
@given(codes=rasters, size=cells)
def test_all_borders_are_kept_if_wanted(codes, size):
    assert borders(graph(codes, max_area=1, size=size)) == borders(graph(codes))


@gently
@given(codes=rasters, size=cells)
def test_joined_regions_are_those_of_the_raster_with_fewer_codes(codes, size):
    """Adjacent regions of the codes 1 and 2 are merged."""
    regions = graph(codes, size=size)
    fewer = graph(np.where(codes == 2, 1, codes))
    owners = np.arange(regions.codes.size, dtype=np.int32)
    for one, two in regions.pairs[np.isin(regions.codes[regions.pairs], (1, 2)).all(axis=1)]:
        owners[owners == owners[one]] = owners[two]
    joined = regions.merge(owners)
    for ours, theirs in ((joined.first_pixels, fewer.first_pixels), (joined.areas, fewer.areas)):
        assert sorted(ours.tolist()) == sorted(theirs.tolist())
    assert borders(joined) == borders(fewer)


def test_a_pixel_of_unknown_area_makes_its_region_large():
    codes = np.array([[1, 2, 2, 1]], np.uint8)
    metric = flat(codes)
    metric.pixel_area[:, 3:] = np.nan
    regions = graph(codes, metric=metric, max_area=units(100))
    areas = dict(zip(regions.first_pixels.tolist(), regions.areas.tolist(), strict=True))
    assert areas == {0: 0, 7: units(1), 8: units(100), 10: units(100)}


def test_more_regions_than_have_numbers_are_an_error(monkeypatch):
    codes = np.arange(30, dtype=np.uint8).reshape(5, 6)
    monkeypatch.setattr(region_graph, "MAX_REGIONS", 31)
    assert graph(codes).codes.size == 31  # the surroundings are one
    monkeypatch.setattr(region_graph, "MAX_REGIONS", 30)
    with pytest.raises(RasterError, match="has more than 30 regions"):
        graph(codes)


def test_all_cells_are_told_of():
    told = []
    codes = np.ones((7, 11), np.uint8)
    graph(codes, size=4, on_cell=lambda: told.append(1))
    assert len(told) == 6


@pytest.mark.parametrize(("area", "expected"), [(0, 0), (1.0, units(1)), (1e30, MAX_UNITS)])
def test_areas_are_counted_in_whole_units(area, expected):
    assert IntegerUnits.from_metric(flat(np.zeros((2, 2)))).to_units(area) == expected
