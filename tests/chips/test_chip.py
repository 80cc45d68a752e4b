import numpy as np
import pytest
import rasterio
from affine import Affine
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from geopsp.chips.chip import Chip, chip_windows, rotate90, rotate_grid, skip_reason
from geopsp.chips.options import ChipSpec
from geopsp.core.grid import Grid, Window
from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.errors import OptionError
from geopsp.raster.scene import RasterArray

CRS = rasterio.CRS.from_epsg(32632)
LEFT, TOP = 601234.0, 5301717.0
LEGEND = Legend.from_names({0: "background", 1: "crop"})


def grid_of(width, height, angle=0.0):
    transform = Affine.translation(LEFT, TOP) @ Affine.rotation(angle) @ Affine.scale(2, -2)
    return Grid(CRS, transform, width, height)


@given(
    width=st.integers(1, 200),
    height=st.integers(1, 200),
    size=st.integers(16, 64),
    share=st.floats(0.1, 1),
)
@settings(max_examples=examples(40), deadline=None)
def test_windows_cover_the_grid_from_its_origin_and_none_lies_outside(width, height, size, share):
    grid, stride = grid_of(width, height), max(1, round(size * share))
    seen = np.zeros((height, width), bool)
    rows, columns = chip_windows(grid, ChipSpec(tile_size=size, stride=stride))
    for row in rows:
        for col in columns:
            part = Window(col, row, size, size).intersect(grid.window)
            assert not part.is_empty
            seen[part.slices(grid.window)] = True
    assert seen.all()
    assert rows.step == columns.step == stride


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tile_size": 8}, "`tile_size` is 8"),
        ({"stride": 0}, "`stride` is 0"),
        ({"min_labelled": 1.5}, "`min_labelled` is 1.5"),
        ({"min_valid": -0.1}, "`min_valid` is -0.1"),
        ({"rotation_angle": 360}, "`rotation_angle` is 360"),
        ({"aoi_rule": "clip"}, "`aoi_rule` is 'clip'"),
        ({"random_chips": -1}, "`random_chips` is -1"),
        ({"grid": False}, "nothing to cut"),
        ({"tile_size": 64.0}, "`tile_size` is 64.0, but must be a whole number"),
        ({"stride": "9"}, "`stride` is '9', but must be a whole number"),
        ({"min_valid": "1"}, "`min_valid` is '1', but must be a number"),
    ],
)
def test_options_out_of_range(options, words):
    with pytest.raises(OptionError, match=words):
        ChipSpec(**options)


@pytest.mark.parametrize(
    ("step", "angles"), [(0, ()), (90, (90, 180, 270)), (200, (200,)), (72.0, (72, 144, 216, 288))]
)
def test_turned_copies_go_round_once(step, angles):
    assert ChipSpec(rotation_angle=step).angles == angles


@given(quarters=st.integers(0, 3), size=st.integers(1, 9), angle=st.sampled_from([0.0, 30.0]))
@settings(max_examples=examples(30), deadline=None)
def test_a_chip_turned_by_quarters_keeps_each_pixel_where_it_lies(quarters, size, angle):
    grid = grid_of(size, size, angle)
    values = np.arange(size * size, dtype="int32").reshape(size, size)
    chip = rotate90(Chip(RasterArray(values[None], values > 3, grid), values.astype("uint8"), 5, inside=True), quarters)
    assert (chip.conflicts, chip.inside) == (5, True)
    for row in range(size):
        for col in range(size):
            value = int(chip.patch.data[0, row, col])
            home = divmod(value, size)
            here = chip.patch.grid.transform * (col + 0.5, row + 0.5)
            there = grid.transform * (home[1] + 0.5, home[0] + 0.5)
            assert here == pytest.approx(there, abs=1e-6)
            assert (chip.codes[row, col], chip.patch.valid[row, col]) == (value, value > 3)


@given(angle=st.floats(-360, 360), size=st.integers(1, 50))
@settings(max_examples=examples(30), deadline=None)
def test_turning_keeps_the_middle_and_the_pixel_size(angle, size):
    grid = grid_of(size, size)
    found = rotate_grid(grid, angle)
    assert found.transform * (size / 2, size / 2) == pytest.approx(grid.transform * (size / 2, size / 2), abs=1e-6)
    assert found.cell_size == pytest.approx(grid.cell_size)
    assert rotate_grid(found, -angle).corners() == pytest.approx(grid.corners(), abs=1e-5)


@pytest.mark.parametrize(
    ("codes", "valid", "inside", "spec", "reason"),
    [
        ([1, 0, 0, 0], 1.0, True, {}, None),
        ([1, 0, 0, 0], 0.0, True, {}, "invalid"),
        ([1, 0, 0, 0], 0.4, True, {"min_valid": 0.5}, "invalid"),
        ([1, 0, 0, 0], 0.5, True, {"min_valid": 0.5}, None),
        ([1, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX], 1.0, True, {"min_labelled": 0.5}, "unlabelled"),
        ([1, 0, IGNORE_INDEX, IGNORE_INDEX], 1.0, True, {"min_labelled": 0.5}, None),
        ([0, 0, IGNORE_INDEX, IGNORE_INDEX], 1.0, True, {"skip_empty": True}, "empty"),
        ([IGNORE_INDEX] * 4, 1.0, True, {"skip_empty": True}, "empty"),
        ([0, 0, 0, 0], 1.0, True, {}, None),
        ([1, 0, 0, 0], 1.0, False, {}, None),
        ([1, 0, 0, 0], 1.0, False, {"aoi_rule": "inside"}, "outside"),
    ],
)
def test_why_a_chip_is_left_out(codes, valid, inside, spec, reason):
    counts = np.bincount(codes, minlength=256)
    assert skip_reason(counts, LEGEND, ChipSpec(**spec), valid=valid, inside=inside) == reason
