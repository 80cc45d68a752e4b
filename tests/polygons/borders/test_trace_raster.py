"""Polygons do not depend on the cells in which a raster is traced."""

import numpy as np
import pytest
import shapely
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from polygons_common import TRANSFORM, Pixels, blobs, counted, rasters, swept, traced

from geopsp.core.grid import Window
from geopsp.errors import RasterError
from geopsp.polygons.borders.stitch import CellStitcher
from geopsp.polygons.borders.trace_cell import CellGrid
from geopsp.polygons.borders.trace_raster import trace_raster
from geopsp.polygons.ground_metric import GroundMetric
from geopsp.polygons.zonal_stats import NUM_PIXELS

cells = st.integers(1, 7)
often = settings(max_examples=examples(60), deadline=None)


@often
@given(codes=rasters() | rasters((0, 1)), cell=cells)
def test_polygons_are_those_of_rasterio(codes, cell):
    """Geometry by geometry: holes, touching corners, single pixels, islands of nodata.

    They share their edges, too, shells run against the clock, and holes with it.
    """
    found = swept(codes, cell_size=cell)
    shapes = found.to_shapely(TRANSFORM)
    assert shapely.is_valid(shapes).all()
    assert shapely.coverage_is_valid(shapes)
    for polygon in shapes:
        assert polygon.exterior.is_ccw
        assert not any(hole.is_ccw for hole in polygon.interiors)
    expected = traced(codes)
    assert counted(shapely.simplify(shapes, 0), found.codes) == counted(shapely.simplify(expected[0], 0), expected[1])


@often
@given(codes=rasters() | rasters((0, 1)), cell=cells)
def test_polygons_of_touching_corners_are_those_of_rasterio(codes, cell):
    """rasterio's 8-connected polygons are invalid where they touch themselves; ours have several parts there."""
    found = swept(codes, cell_size=cell, connectivity=8)
    shapes, (expected, their_codes) = found.to_shapely(TRANSFORM), traced(codes, connectivity=8)
    assert shapely.is_valid(shapes).all()
    assert len(shapes) == len(expected)
    theirs, ours = shapely.STRtree(shapes).query(shapely.point_on_surface(expected), predicate="intersects")
    assert theirs.tolist() == list(range(len(expected)))
    assert sorted(ours) == list(range(len(expected)))
    assert shapely.equals(shapes[ours], expected).all()
    assert np.array_equal(found.codes[ours], their_codes)


@often
@given(codes=rasters() | rasters((0, 1)), cell=cells, connectivity=st.sampled_from([4, 8]))
def test_cells_leave_no_trace(codes, cell, connectivity):
    """Vertices and sums are the same."""
    pieces, whole = (swept(codes, cell_size=side, connectivity=connectivity) for side in (cell, 64))
    shapes = [found.to_shapely(TRANSFORM) for found in (pieces, whole)]
    assert counted(shapes[0], pieces.codes) == counted(shapes[1], whole.codes)
    order = [np.lexsort(np.array(shapely.bounds(each)).T) for each in shapes]
    assert pieces.sums[order[0]] == pytest.approx(whole.sums[order[1]])
    assert pieces.sums[:, NUM_PIXELS] * 100 == pytest.approx(shapely.area(shapes[0]))


@often
@given(codes=rasters() | rasters((0, 1)), cell=cells, connectivity=st.sampled_from([4, 8]))
def test_features_of_some_codes_are_as_they_are_among_all(codes, cell, connectivity):
    wanted = np.isin(np.arange(256), [1, 2])
    some = swept(codes, cell_size=cell, connectivity=connectivity, selected=wanted)
    every = swept(codes, cell_size=cell, connectivity=connectivity)
    shapes, chosen = every.to_shapely(TRANSFORM), wanted[every.codes]
    assert counted(some.to_shapely(TRANSFORM), some.codes) == counted(shapes[chosen], every.codes[chosen])


def test_a_spiral_over_all_seams_is_one_polygon():
    codes = np.zeros((25, 25), np.uint8)
    for ring in range(0, 12, 2):
        codes[ring : 25 - ring, ring : 25 - ring] = 1
        codes[ring + 1 : 24 - ring, ring + 1 : 24 - ring] = 0
        codes[ring + 1, ring] = 0
        codes[ring + 2, ring : ring + 2] = 1
    found = swept(codes, cell_size=4)
    expected = traced(codes)
    assert counted(shapely.simplify(found.to_shapely(TRANSFORM), 0), found.codes) == counted(
        shapely.simplify(expected[0], 0), expected[1]
    )


@pytest.mark.parametrize("connectivity", [4, 8])
def test_threads_change_nothing(connectivity):
    one, three = (swept(blobs(), cell_size=7, threads=count, connectivity=connectivity) for count in (1, 3))
    assert np.array_equal(one.outlines.xy, three.outlines.xy)
    assert np.array_equal(one.codes, three.codes)
    assert np.array_equal(one.sums, three.sums)


def test_polygons_come_in_reading_order():
    codes = np.array([[5, 5, 2], [4, 5, 2], [4, 4, 2], [255, 3, 3]], np.uint8)
    assert swept(codes).codes.tolist() == [5, 2, 4, 3]


def test_what_is_finished_comes_before_the_raster_is_read_to_its_end():
    read = []

    class Told(Pixels):
        def read(self, window):
            read.append(window.row)
            return super().read(window)

    pixels = Told(blobs(64))
    first = next(iter(trace_raster(pixels, GroundMetric.from_grid(pixels.grid), len, cell_size=8, threads=1)))
    assert first > 0
    assert max(read) <= 8


def test_what_is_open_does_not_grow_with_the_raster():
    """Only arcs and regions that cross a seam are held, regardless of the number of rows."""
    most = {}
    houses = np.isin(np.arange(256), range(1, 6))
    for height in (40, 400):
        codes = np.kron(np.random.default_rng(1).integers(1, 5, (height // 4, 10)), np.ones((4, 4))).astype(np.uint8)
        codes[8::16] = 5  # nothing goes on further than this,
        codes[:, :3] = 0  # but what nobody asks for
        pixels, held = Pixels(codes), []

        class Watched(CellStitcher):
            def add_row(self, pieces):
                found = super().add_row(pieces)
                held.append((len(self._graph.arcs), len(self._regions)))  # noqa: B023
                return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("geopsp.polygons.borders.trace_raster.CellStitcher", Watched)
            list(
                trace_raster(pixels, GroundMetric.from_grid(pixels.grid), len, cell_size=8, threads=1, selected=houses)
            )
        most[height] = np.max(held, axis=0)
        assert held[-1] == (0, 0)
    assert (most[400] <= most[40] + 20).all()


def test_a_broken_cell_ends_it():
    class Broken(Pixels):
        def read(self, window):
            if window.row > 20:
                raise RasterError("damaged")
            return super().read(window)

    pixels = Broken(blobs())
    with pytest.raises(RasterError, match="damaged"):
        list(trace_raster(pixels, GroundMetric.from_grid(pixels.grid), len, cell_size=8, threads=2))


def test_a_cell_knows_its_seams():
    grid = CellGrid(10, 7, 4)
    sizes = [[(window.width, window.height) for window in row] for row in grid.rows()]
    assert sizes == [[(4, 4), (4, 4), (2, 4)], [(4, 3), (4, 3), (2, 3)]]
    assert grid.seams(Window(0, 0, 4, 4)) == (False, True, True, False)
    assert grid.seams(Window(8, 4, 2, 3)) == (True, False, False, True)
