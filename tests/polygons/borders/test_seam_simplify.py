"""Borders simplified and smoothed across seams form a coverage, and seams are not visible."""

import numpy as np
import pytest
import shapely
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from polygons_common import TRANSFORM, blobs, counted, ragged, swept

from geopsp.polygons.borders import stitch


def shaped(codes, *, least, rounds=0, **options):
    """Return features with arcs simplified and smoothed in cells and across seams."""

    return swept(codes, min_triangle=(lambda _: least) if least else None, smooth=rounds, **options)


def maps():
    """Draw maps of rough patches, narrow bands, or noise, of 20 to 60 pixels."""
    seeds = st.integers(0, 10**6)
    patches = st.builds(blobs, st.integers(20, 60), seeds, st.integers(1, 2))
    bands = st.builds(
        lambda seed: ragged((np.indices((9, 9)).sum(axis=0) % 4).astype(np.uint8), seed, height=4, width=5), seeds
    )
    noise = st.builds(lambda seed: np.random.default_rng(seed).integers(0, 3, (30, 40)).astype(np.uint8), seeds)
    return patches | bands | noise


@given(
    codes=maps(),
    cell=st.integers(2, 12),
    least=st.sampled_from([0.6, 2.3, 6.0, 30.0]),
    rounds=st.sampled_from([0, 0, 1, 3]),
    connectivity=st.sampled_from([4, 8]),
)
@settings(max_examples=examples(20), deadline=None)
def test_the_map_stays_a_coverage(codes, cell, least, rounds, connectivity):
    """All polygons stay and are valid; the frame and the edge of nodata do not move."""
    raw = swept(codes, connectivity=connectivity)
    found = shaped(codes, least=least, rounds=rounds, cell_size=cell, connectivity=connectivity)
    before, after = raw.to_shapely(TRANSFORM), found.to_shapely(TRANSFORM)
    assert shapely.is_valid(after).all()
    assert shapely.coverage_is_valid(shapely.get_parts(after))
    assert sorted(found.codes) == sorted(raw.codes)
    assert shapely.get_num_geometries(after).sum() == shapely.get_num_geometries(before).sum()
    unions = [shapely.union_all(shapes) for shapes in (before, after)]
    assert shapely.symmetric_difference(*unions).area == pytest.approx(0, abs=1e-3)


@given(codes=maps(), cell=st.integers(6, 30), least=st.sampled_from([2.3, 6.0]))
@settings(max_examples=examples(20), deadline=None)
def test_seams_leave_few_vertices(codes, cell, least):
    apart, whole = (shaped(codes, least=least, cell_size=side) for side in (cell, 64))
    assert len(apart.outlines.xy) <= 1.25 * len(whole.outlines.xy) + 20


@given(codes=maps(), cell=st.integers(2, 12), least=st.sampled_from([1.0, 4.0]))
@settings(max_examples=examples(12), deadline=None)
def test_borders_are_the_same_whoever_asks_for_them(codes, cell, least):
    """So files of one class each fit together."""
    wanted = np.isin(np.arange(256), [1, 7])
    some, every = (shaped(codes, least=least, cell_size=cell, **more) for more in ({"selected": wanted}, {}))
    chosen = every.to_shapely(TRANSFORM)[wanted[every.codes]]
    assert shapely.equals_exact(shapely.normalize(some.to_shapely(TRANSFORM)), shapely.normalize(chosen)).all()


def turns(outlines):
    """Return the vertices of all rings, and by how many degrees they turn there."""
    places, angles = [], []
    for low, high in zip(outlines.rings[:-1], outlines.rings[1:], strict=True):
        ring = outlines.xy[low : high - 1]
        to, back = np.roll(ring, -1, axis=0) - ring, ring - np.roll(ring, 1, axis=0)
        cross, along = back[:, 0] * to[:, 1] - back[:, 1] * to[:, 0], (back * to).sum(axis=1)
        places.append(ring)
        angles.append(np.abs(np.degrees(np.arctan2(cross, along))))
    return np.concatenate(places), np.concatenate(angles)


def hills(seed, size=48):
    """Return a map of two classes with round borders that are far from each other."""
    rows, cols = np.indices((size, size))
    x, y, tilt = np.random.default_rng(seed).uniform(0.1, 0.3, 3)
    return (np.sin(cols * x + rows * tilt) + np.cos(rows * y) > 0.2).astype(np.uint8)


@given(seed=st.integers(0, 999), cell=st.integers(5, 30), rounds=st.integers(1, 4))
@settings(max_examples=examples(12), deadline=None)
def test_smooth_borders_are_those_of_one_cell(seed, cell, rounds):
    """All vertices are the same if no border blocks another one."""
    apart, whole = (shaped(hills(seed), least=0.0, rounds=rounds, cell_size=side) for side in (cell, 64))
    assert counted(apart.to_shapely(TRANSFORM), apart.codes) == counted(whole.to_shapely(TRANSFORM), whole.codes)


def slope(steps, *, upright):
    """Return a map of two classes whose border has edges of these lengths, each followed by a step up or down."""
    lengths, heights = zip(*steps, strict=True)
    level = np.repeat(np.cumsum(heights), lengths)
    codes = (np.arange(np.ptp(level) + 20)[:, None] > level - level.min() + 10).astype(np.uint8) + 1
    return np.ascontiguousarray(codes.T) if upright else codes


@given(
    steps=st.lists(st.tuples(st.integers(1, 150), st.integers(-3, 3)), min_size=3, max_size=12),
    cell=st.integers(40, 300),
    rounds=st.integers(1, 4),
    upright=st.booleans(),
)
@settings(max_examples=examples(40), deadline=None)
def test_long_edges_are_smoothed_as_in_one_cell(steps, cell, rounds, upright):
    """Also where the other end of an edge is far away in another cell, or its step was cut there by another share."""
    codes = slope(steps, upright=upright)
    apart, whole = (shaped(codes, least=0.0, rounds=rounds, cell_size=side) for side in (cell, 2048))
    assert counted(apart.to_shapely(TRANSFORM), apart.codes) == counted(whole.to_shapely(TRANSFORM), whole.codes)


def test_what_is_left_to_smooth_does_not_grow_with_the_rows(monkeypatch):
    smooth, sizes = stitch.smooth_across_seams, []

    def smooth_and_count(*args, **options):
        *others, left = smooth(*args, **options)
        sizes.append((len(left.vertices), len(left.cut_vertices)))
        return *others, left

    monkeypatch.setattr(stitch, "smooth_across_seams", smooth_and_count)
    shaped(np.tile(hills(3), (20, 1)), least=0.0, rounds=3, cell_size=12)
    assert len(sizes) == 80
    assert np.greater(sizes[:-1], 0).any(axis=0).all()
    assert (np.max(sizes[40:], axis=0) <= np.max(sizes[:40], axis=0)).all()
    assert sizes[-1] == (0, 0)


@given(codes=maps(), cell=st.integers(3, 16), rounds=st.integers(1, 3), connectivity=st.sampled_from([4, 8]))
@settings(max_examples=examples(12), deadline=None)
def test_smooth_borders_are_about_those_of_one_cell(codes, cell, rounds, connectivity):
    """If borders block each other, they differ by some hundredths of a pixel."""
    apart, whole = (
        shaped(codes, least=0.0, rounds=rounds, cell_size=side, connectivity=connectivity) for side in (cell, 64)
    )
    for code in np.unique(whole.codes):
        one, two = (shapely.union_all(found.to_shapely(TRANSFORM)[found.codes == code]) for found in (apart, whole))
        assert shapely.symmetric_difference(one, two).area / 100 <= 0.03 * shapely.length(two) / 10


@pytest.mark.parametrize("least", [0.0, 2.0, 6.0])
def test_turns_at_seams_are_no_sharper_than_elsewhere(least):
    """If a seam fixed the corners on it, many would turn by up to 90 degrees."""
    size, cell = 96, 32
    found = shaped(hills(5, size), least=least, rounds=3, cell_size=cell)
    places, angles = turns(found.outlines)
    _, which, shared = np.unique(places @ (1, 1j), return_inverse=True, return_counts=True)
    free = (shared[which] == 2) & (places > 2).all(axis=1) & (places < size - 2).all(axis=1)
    away = np.abs(places - np.round(places / cell) * cell).min(axis=1)
    assert (free & (away < 2)).sum() > 100
    assert angles[free & (away < 2)].max() <= angles[free & (away > 4)].max() + 3
