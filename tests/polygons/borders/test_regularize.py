"""Right-angled outlines of polygons traced from pixels."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from polygons_common import ragged, swept
from rasterio.features import rasterize
from shapely import affinity

from geopsp.core.connected_regions import label_regions
from geopsp.core.disk_array import ScratchArrays
from geopsp.polygons.borders import conflicts
from geopsp.polygons.borders.conflicts import MovedOutlines
from geopsp.polygons.borders.regularize import regularize_outlines
from geopsp.polygons.borders.rings import build_rings
from geopsp.polygons.borders.topology import RaggedPolygons, build_polygons
from geopsp.polygons.borders.trace_arcs import trace_arcs

BOX = shapely.box
COURT = BOX(0, 0, 36, 30) - BOX(12, 10, 24, 20)
ELL = BOX(0, 0, 40, 14) | BOX(0, 0, 15, 36)
YOU = BOX(0, 0, 44, 13) | BOX(0, 0, 14, 34) | BOX(30, 0, 44, 34)
TEE = BOX(0, 0, 42, 13) | BOX(15, 0, 29, 33)


def traced(codes):
    """Return the outlines of all regions of a raster of codes."""
    labels, count = label_regions(np.asarray(codes, np.uint8))
    graph = trace_arcs(labels)
    return build_polygons(graph.arcs, build_rings(graph, np.arange(-1, count, dtype=np.int32), count))


def drawn(shape, *, pixel=(1.0, 1.0), size=(90, 100)):
    """Rasterize a geometry in units of `pixel`, and trace it."""
    transform = Affine.scale(*pixel)
    return traced(rasterize([(shape, 1)], size, fill=255, transform=transform, dtype="uint8"))


def ground(found, pixel=(1.0, 1.0)):
    return found.to_shapely(Affine.scale(*pixel))


def regularized(outlines, *, tolerance, pixel, size=None):
    """Return right-angled outlines without conflicts, and how far they moved; found in blocks of `size` polygons."""
    count = len(outlines)
    blocks = [(start, min(start + (size or count), count)) for start in range(0, count, size or count)] if count else []
    pixels = np.broadcast_to(np.array(pixel, float), (count, 2))
    new, moved = regularize_outlines(outlines, tolerance=tolerance, pixel=pixels, largest_pixel=max(pixel))
    if not count:
        return new, moved
    arrays = ScratchArrays(Path(tempfile.gettempdir()), in_memory=0 if size else 2**20)
    found = MovedOutlines(outlines, new, moved, blocks, arrays)
    found.restore_conflicts()
    return found.part(0, count), found.moved


def angles(polygon):
    """Return the cosines of the corners of all rings."""
    found = []
    for ring in (polygon.exterior, *polygon.interiors):
        steps = np.diff(shapely.get_coordinates(ring), axis=0)
        steps /= np.hypot(*steps.T)[:, None]
        found += list((steps * np.roll(steps, 1, axis=0)).sum(axis=1))
    return np.array(found)


@given(
    turn=st.floats(0, 90),
    width=st.floats(12, 45),
    height=st.floats(12, 45),
    pixel=st.sampled_from([(1, 1), (0.8, 1.3)]),
)
@settings(max_examples=examples(30), deadline=None)
def test_a_turned_rectangle_comes_back(turn, width, height, pixel):
    """It has four right angles, also with oblong pixels, and nearly the same area."""
    truth = affinity.translate(affinity.rotate(BOX(0, 0, width, height), turn), 20.3, 20.7)
    pixels = drawn(truth, pixel=pixel, size=(120, 140))
    found, moved = regularized(pixels, tolerance=2.6, pixel=pixel)
    (before,), (after,) = ground(pixels, pixel), ground(found, pixel)
    if moved[0]:
        assert np.abs(angles(after)).max() < 1e-9
    np.testing.assert_allclose(moved, shapely.hausdorff_distance(before, after), atol=1e-6)
    assert moved[0] <= 2.6
    assert len(after.exterior.coords) == 5
    assert shapely.hausdorff_distance(truth, after) < 2
    assert abs(after.area / before.area - 1) < 0.05


@given(
    codes=hnp.arrays(
        np.uint8, st.tuples(st.integers(1, 9), st.integers(2, 12)), elements=st.sampled_from([1, 1, 2, 255])
    ),
    seed=st.integers(0, 99),
    tolerance=st.sampled_from([0.0, 1.0, 2.0, 6.0]),
)
@settings(max_examples=examples(40), deadline=None)
def test_any_raster_gives_valid_polygons_that_do_not_overlap(codes, seed, tolerance):
    """Numbers of polygons and holes stay; polygons that do not move are identical."""
    big = np.kron(codes, np.ones((4, 3), np.uint8))
    rows, cols = np.indices(big.shape) + np.random.default_rng(seed).integers(-1, 2, (2, *big.shape))
    pixels = traced(big[rows.clip(0, big.shape[0] - 1), cols.clip(0, big.shape[1] - 1)])
    found, moved = regularized(pixels, tolerance=tolerance, pixel=(0.3, 0.5))
    before, after = ground(pixels, (0.3, 0.5)), ground(found, (0.3, 0.5))
    assert shapely.is_valid(after).all()
    assert (shapely.area(after) > 0).all()
    np.testing.assert_array_equal(shapely.get_num_interior_rings(after), shapely.get_num_interior_rings(before))
    assert (shapely.is_ccw(shapely.get_exterior_ring(after)) == shapely.is_ccw(shapely.get_exterior_ring(before))).all()
    assert (after[moved == 0] == before[moved == 0]).all()
    assert (moved <= tolerance).all()
    assert (np.abs(shapely.area(after) - shapely.area(before)) <= tolerance * shapely.length(before)).all()
    one, two = shapely.STRtree(after).query(after, predicate="intersects")
    apart = one < two
    pixel_shapes = ground(found)
    assert not shapely.relate_pattern(pixel_shapes[one[apart]], pixel_shapes[two[apart]], "T********").any()


@pytest.mark.parametrize("turn", [0, 11, 37, 68])
@pytest.mark.parametrize(("shape", "corners"), [(ELL, 6), (YOU, 8), (TEE, 8), (COURT, 8)])
def test_wings_and_courtyards_stay(shape, corners, turn):
    """Each corner comes back, within two pixels."""
    truth = affinity.translate(affinity.rotate(shape, turn), 25, 25)
    pixels = drawn(truth)
    found, moved = regularized(pixels, tolerance=2.5, pixel=(1, 1))
    (before,), (after,) = ground(pixels), ground(found)
    assert (moved[0] > 0) == (turn > 0)
    assert shapely.get_num_coordinates(after) == corners + 1 + len(after.interiors)
    assert np.abs(angles(after)).max() < 1e-9
    assert shapely.hausdorff_distance(truth, after) < 2
    assert abs(after.area / before.area - 1) < 0.05


@pytest.mark.parametrize("shape", [ELL, YOU, COURT])
def test_right_angles_along_the_pixels_stay_as_they_were(shape):
    """Rounding errors do not count as moves, for any pixel size."""
    pixels = drawn(affinity.translate(shape, 13, 7))
    found, moved = regularized(pixels, tolerance=1.3, pixel=(0.3, 0.7))
    assert moved[0] == 0
    assert (ground(found) == ground(pixels)).all()


def test_round_and_slanting_ones_stay_as_they_were():
    for shape in (shapely.Point(40, 40).buffer(18), shapely.Polygon([(5, 5), (80, 9), (30, 60)])):
        pixels = drawn(shape)
        found, moved = regularized(pixels, tolerance=2, pixel=(1, 1))
        assert moved[0] == 0
        assert (ground(found) == ground(pixels)).all()


@pytest.mark.parametrize(("depth", "tolerance"), [(1, 2), (3, 4)])
def test_a_notch_below_the_tolerance_goes(depth, tolerance):
    """The wall lies at the mean position of the outline that it replaces."""
    notched = BOX(10, 10, 50, 40) - BOX(25, 10, 35, 10 + depth)
    found, moved = regularized(drawn(notched), tolerance=tolerance, pixel=(1, 1))
    assert abs(moved[0] - 0.75 * depth) < 0.1
    assert shapely.hausdorff_distance(ground(found)[0], BOX(10, 10 + depth / 4, 50, 40)) < 0.1


def test_a_rectangle_stands_in_for_ragged_corners():
    """The rectangle has the same area, and does not replace a polygon with a courtyard."""
    ragged = BOX(10, 10, 60, 50) - BOX(10, 10, 14, 14) - BOX(56, 46, 60, 50)
    assert regularized(drawn(ragged), tolerance=2, pixel=(1, 1))[1][0] == 0
    found, moved = regularized(drawn(ragged), tolerance=6, pixel=(1, 1))
    (rectangle,) = ground(found)
    assert 2 < moved[0] <= 6
    assert len(rectangle.exterior.coords) == 5
    assert abs(rectangle.area - ragged.area) < 1e-6
    found, _ = regularized(drawn(ragged - BOX(30, 12, 33, 14)), tolerance=6, pixel=(1, 1))
    assert len(ground(found)[0].interiors) == 1


@pytest.mark.parametrize(("turn", "shift"), [(35, 3), (50, 6), (23, 3)])
def test_neighbours_do_not_come_to_overlap(turn, shift):
    """Two rotated houses share a wall: each alone would overlap the other."""
    pair = [affinity.rotate(box, turn, origin=(0, 0)) for box in (BOX(0, 0, 30, 20), BOX(30, shift, 55, 17 + shift))]
    burnt = [(affinity.translate(house, 40, 20), code) for code, house in enumerate(pair, 1)]
    codes = rasterize(burnt, (90, 110), fill=255, dtype="uint8")
    alone = [regularized(traced(np.where(codes == code, 1, 255)), tolerance=3, pixel=(1, 1))[0] for code in (1, 2)]
    assert shapely.relate_pattern(ground(alone[0])[0], ground(alone[1])[0], "T********")
    found, _ = regularized(traced(codes), tolerance=3, pixel=(1, 1))
    assert not shapely.relate_pattern(*ground(found), "T********")
    far = traced(np.where(codes == 1, 1, np.where(np.roll(codes, 25, axis=1) == 2, 2, 255)))
    assert (regularized(far, tolerance=3, pixel=(1, 1))[1] > 0).all()


def test_no_wall_moves_over_a_courtyard():
    """The wall's mean position would be inside the hole."""
    shell = [(0, 0), (0, 15), (2, 15), (2, 30), (40, 30), (40, 0), (0, 0)]
    hole = [(0.6, 2), (9, 2), (9, 12), (0.6, 12), (0.6, 2)]
    house = RaggedPolygons(np.array(shell + hole, float), np.array([0, 7, 12]), np.array([0, 2]))
    _, moved = regularized(house, tolerance=5, pixel=(1, 1))
    assert moved[0] == 0
    inside = RaggedPolygons(np.array(shell + [(x + 3, y) for x, y in hole], float), house.rings, house.polygons)
    found, moved = regularized(inside, tolerance=5, pixel=(1, 1))
    assert abs(moved[0] - 1) < 0.1
    assert shapely.hausdorff_distance(ground(found)[0], BOX(1, 0, 40, 30) - BOX(3.6, 2, 12, 12)) < 0.3


def test_rings_of_very_many_walls_stay():
    """A comb of 600 teeth is no building."""
    x = np.arange(1200.0)
    teeth = np.column_stack([np.repeat(x, 2), np.tile([0, 9, 9, 0], 600)])
    ring = np.concatenate([teeth, [[1199, -5], [0, -5], [0, 0]]])
    comb = RaggedPolygons(ring, np.array([0, len(ring)]), np.array([0, 1]))
    _, moved = regularized(comb, tolerance=0.5, pixel=(1, 1))
    assert moved[0] == 0


def test_no_polygons_are_none():
    found, moved = regularized(traced(np.full((3, 4), 255)), tolerance=2, pixel=(1, 1))
    assert len(found) == moved.size == 0


@given(seed=st.integers(0, 10**6), tolerance=st.sampled_from([2.0, 3.0, 6.0]))
@settings(max_examples=examples(20), deadline=None)
def test_polygons_of_one_class_can_be_one_feature(seed, tolerance):
    """A multipolygon of them is valid, as none overlap or come to share a wall."""
    codes = ragged(np.random.default_rng(seed).integers(0, 2, (9, 9)).astype(np.uint8), seed, height=3, width=4)
    features = swept(np.where(codes == 1, 1, 255).astype(np.uint8))
    found, _ = regularized(features.outlines, tolerance=tolerance, pixel=(1.0, 1.0))
    together = shapely.multipolygons(found.to_shapely(Affine.identity()))
    assert together.is_valid, shapely.is_valid_reason(together)


@given(seed=st.integers(0, 10**6), size=st.sampled_from([1, 3, 7]))
@settings(max_examples=examples(20), deadline=None)
def test_blocks_do_not_matter(seed, size):
    """Walls of one block meet those of others, also where outlines are restored in several rounds."""
    codes = ragged(np.random.default_rng(seed).integers(0, 3, (9, 9)).astype(np.uint8), seed, height=3, width=4)
    outlines = swept(codes).outlines
    whole, moved = regularized(outlines, tolerance=3, pixel=(1.0, 1.0))
    before, conflicts.PIECE = conflicts.PIECE, 2
    try:
        found, moved_in_blocks = regularized(outlines, tolerance=3, pixel=(1.0, 1.0), size=size)
    finally:
        conflicts.PIECE = before
    assert np.array_equal(moved, moved_in_blocks)
    assert np.array_equal(found.xy, whole.xy)
    assert np.array_equal(found.rings, whole.rings)
