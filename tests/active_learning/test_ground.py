"""Outlines on the ground, no overlap, distances and density."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from geopsp.active_learning.ground import Spacing, earth_centred, outlines
from geopsp.core.grid import Grid

UTM = Grid(CRS.from_epsg(32632), Affine(10, 0, 600_000, 0, -10, 5_300_000), 400, 300)


def corners(count, seed=0, *, most=280):
    return np.random.default_rng(seed).integers(0, most, (count, 2))


def shapes_of(places, grid=UTM, size=16):
    return outlines([grid], np.zeros(len(places), np.intp), np.asarray(places, np.intp), size)


def greedy(spacing, count):
    allowed, chosen = np.ones(count, bool), []
    while allowed.any():
        chosen.append(int(np.flatnonzero(allowed)[0]))
        allowed &= spacing.still_allowed(chosen[-1])
        allowed[chosen[-1]] = False
    return chosen


@settings(max_examples=examples(20))
@given(st.integers(0, 10_000))
def test_no_two_overlap_and_each_other_one_would(seed):
    places = corners(60, seed)
    shapes = shapes_of(places)
    chosen = greedy(Spacing.of(shapes, min_distance=0, max_per_km2=None), 60)
    apart = np.abs(places[chosen][:, None] - places[chosen]).max(axis=2)
    assert (apart[~np.eye(len(chosen), dtype=bool)] >= 16).all()
    others = [n for n in range(60) if n not in chosen]
    assert all((np.abs(places[n] - places[chosen]).max(axis=1) < 16).any() for n in others)


@settings(max_examples=examples(20))
@given(st.integers(0, 10_000), st.floats(10, 900))
def test_centres_keep_their_distance(seed, least):
    shapes = shapes_of(corners(60, seed))
    chosen = greedy(Spacing.of(shapes, min_distance=least, max_per_km2=None), 60)
    geod = pyproj.Geod(ellps="WGS84")
    points = shapes.iloc[chosen].centroid.to_crs(4326)
    found = [geod.inv(a.x, a.y, b.x, b.y)[2] for i, a in enumerate(points) for b in points.iloc[:i]]
    assert all(distance >= least - 0.05 for distance in found)


@settings(max_examples=examples(20))
@given(st.integers(0, 10_000), st.sampled_from([0.25, 0.5, 1, 2, 3.5, 7]))
def test_no_circle_holds_more(seed, most):
    shapes = shapes_of(corners(80, seed))
    spacing = Spacing.of(shapes, min_distance=0, max_per_km2=most)
    chosen = greedy(spacing, 80)
    radius = np.sqrt(1e6 * max(1 / most, 1) / np.pi)
    centres = spacing.centres[chosen]
    counts = (np.linalg.norm(centres[:, None] - centres, axis=2) <= radius).sum(axis=1)
    assert counts.max() <= max(int(most), 1)


def test_touching_windows_may_be_chosen_both():
    spacing = Spacing.of(shapes_of([(0, 0), (16, 0), (0, 16), (15, 16)]), min_distance=0, max_per_km2=None)
    assert spacing.still_allowed(0).tolist() == [False, True, True, True]
    assert spacing.still_allowed(1).tolist() == [True, False, True, True]
    assert spacing.still_allowed(2).tolist() == [True, True, False, False]


def test_outlines_are_the_windows_corners():
    (shape,) = shapes_of([(3, 5)])
    assert shape.equals(shapely.box(600_030, 5_299_790, 600_190, 5_299_950))


def test_images_in_two_crs_exclude_each_other_on_the_ground():
    """A grid in degrees beside one in metres."""
    lon, lat = pyproj.Transformer.from_crs(32632, 4326, always_xy=True).transform(600_800.0, 5_299_200.0)
    degrees = Grid(CRS.from_epsg(4326), Affine(1e-4, 0, lon, 0, -1e-4, lat), 100, 100)
    shapes = outlines([UTM, degrees], np.array([0, 0, 1, 1]), np.array([[80, 80], [0, 0], [2, 2], [80, 80]]), 16)
    assert shapes.crs == pyproj.CRS(32632)
    spacing = Spacing.of(shapes, min_distance=0, max_per_km2=None)
    assert spacing.still_allowed(0).tolist() == [False, True, False, True]
    expected = pyproj.Transformer.from_crs(4326, 32632, always_xy=True).transform(lon + 1e-3, lat - 1e-3)
    assert shapes.iloc[2].centroid.distance(shapely.Point(expected)) < 0.1


def test_earth_centred_distances_are_geodesic():
    points = np.array([[10.0, 48.0], [10.01, 48.0], [10.0, 48.01]])
    found = earth_centred(points, "EPSG:4326")
    geod = pyproj.Geod(ellps="WGS84")
    for number in (1, 2):
        expected = geod.inv(*points[0], *points[number])[2]
        assert np.linalg.norm(found[number] - found[0]) == pytest.approx(expected, rel=1e-6)
