"""Simplified on both sides of seams, and over them: still a coverage, and no seam is seen."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from polygons_common import TRANSFORM, blobs, ragged, swept

from geopsp.polygons.simplify import simplified
from geopsp.polygons.smooth import smoothed


def shaped(codes, *, least, rounds=0, **options):
    """Features of which arcs are simplified and smoothed in cells, and cuts at seams forgotten."""

    def shape(arcs, faces):
        return smoothed(simplified(arcs, faces, least), rounds)

    return swept(codes, shape=shape, least=least, smooth=rounds > 0, **options)


def maps():
    """Rough patches, narrow bands, and noise, of 20 to 60 pixels."""
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
@settings(max_examples=40, deadline=None)
def test_the_map_stays_a_coverage(codes, cell, least, rounds, connectivity):
    """All polygons stay, valid, with the frame and the edge of nodata as they were."""
    raw = swept(codes, connectivity=connectivity)
    found = shaped(codes, least=least, rounds=rounds, cell=cell, connectivity=connectivity)
    before, after = raw.shapes(TRANSFORM), found.shapes(TRANSFORM)
    assert shapely.is_valid(after).all()
    assert shapely.coverage_is_valid(shapely.get_parts(after))
    assert sorted(found.codes) == sorted(raw.codes)
    assert shapely.get_num_geometries(after).sum() == shapely.get_num_geometries(before).sum()
    unions = [shapely.union_all(shapes) for shapes in (before, after)]
    assert shapely.symmetric_difference(*unions).area == pytest.approx(0, abs=1e-3)


@given(codes=maps(), cell=st.integers(6, 30), least=st.sampled_from([2.3, 6.0]))
@settings(max_examples=20, deadline=None)
def test_seams_leave_few_vertices(codes, cell, least):
    apart, whole = (shaped(codes, least=least, cell=side) for side in (cell, 64))
    assert len(apart.outlines.xy) <= 1.25 * len(whole.outlines.xy) + 20


@given(codes=maps(), cell=st.integers(2, 12), least=st.sampled_from([1.0, 4.0]))
@settings(max_examples=12, deadline=None)
def test_borders_are_the_same_whoever_asks_for_them(codes, cell, least):
    """Files of one class each fit together."""
    wanted = np.isin(np.arange(256), [1, 7])
    some, every = (shaped(codes, least=least, cell=cell, **more) for more in ({"wanted": wanted}, {}))
    chosen = every.shapes(TRANSFORM)[wanted[every.codes]]
    assert shapely.equals_exact(shapely.normalize(some.shapes(TRANSFORM)), shapely.normalize(chosen)).all()
