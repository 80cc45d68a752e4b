from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from geopsp.chips import cutter
from geopsp.chips.cutter import column_strips
from geopsp.core.grid import Window
from geopsp.raster import row_buffer
from geopsp.raster.row_buffer import RowBuffer, read_parallel, split_at_blocks
from geopsp.raster.scene import Scene


@given(
    height=st.integers(1, 90),
    block=st.integers(1, 40),
    size=st.integers(1, 50),
    steps=st.lists(st.integers(0, 60), min_size=1, max_size=8),
)
@settings(max_examples=examples(40), deadline=None)
def test_rows_come_as_they_are_and_each_is_read_once_with_its_row_of_blocks(height, block, size, steps):
    source = np.arange(400 * 3).reshape(400, 3)
    reads = []

    def read(first, stop):
        assert first % block == stop % block == 0
        reads.extend(range(first, stop))
        return source[first:stop], np.stack([source[first:stop]] * 2)

    buffer, first = RowBuffer(read, block=block), 0
    for step in steps:
        first += step
        if first + size > 400 - block:
            break
        plain, stacked = buffer.read(first, first + size)
        np.testing.assert_array_equal(plain, source[first : first + size])
        np.testing.assert_array_equal(stacked, np.stack([plain] * 2))
    assert len(reads) == len(set(reads))


def test_what_was_handed_out_does_not_change():
    """Chips are views of the rows, and are written while the next rows are read."""
    source = np.random.default_rng(0).random((300, 4))
    buffer = RowBuffer(lambda first, stop: (source[first:stop].copy(),), block=7)
    views = [(row, *buffer.read(row, row + 16)) for row in range(0, 250, 9)]
    for row, view in views:
        np.testing.assert_array_equal(view, source[row : row + 16])


@given(count=st.integers(1, 60), step=st.integers(1, 64), size=st.integers(1, 99), most=st.integers(1, 900))
@settings(max_examples=examples(30), deadline=None)
def test_strips_hold_every_column_and_fit_the_budget(count, step, size, most):
    columns = range(0, count * step, step)
    runs = column_strips(columns, size, column_bytes=cutter.MAX_STRIP_BYTES / most)
    assert [col for run in runs for col in run] == list(columns)
    assert all(run[-1] + size - run[0] <= max(most, size) for run in runs)


@given(
    col=st.integers(-99, 5000),
    row=st.integers(-99, 5000),
    width=st.integers(1, 6000),
    height=st.integers(1, 6000),
    block=st.sampled_from([(1, 6000), (256, 256), (512, 512), (7, 13), (4096, 4096)]),
)
@settings(max_examples=examples(30), deadline=None)
def test_pieces_partition_a_window_and_cut_no_block(col, row, width, height, block):
    window = Window(col, row, width, height)
    parts = list(split_at_blocks(window, block))
    assert sum(part.width * part.height for part in parts) == width * height
    assert all(not part.is_empty and part.intersect(window) == part for part in parts)
    assert {part.col for part in parts if part.col % block[1]} <= {col}
    assert {part.row for part in parts if part.row % block[0]} <= {row}


def test_reading_in_parallel_is_reading(make_raster, monkeypatch):
    monkeypatch.setattr(row_buffer, "READ_SIZE", 16)
    data = np.random.default_rng(0).integers(0, 99, (2, 83, 140)).astype("int16")
    scene = Scene.open(make_raster("a.tif", data, nodata=0, tiled=True, blockxsize=16, blockysize=16))
    window = Window(5, -3, 150, 60)
    with ThreadPoolExecutor(3) as pool:
        found, valid = read_parallel(scene, window, pool)
    patch = scene.read(window)
    np.testing.assert_array_equal(found, patch.data)
    np.testing.assert_array_equal(valid, patch.valid)


def test_nothing_is_read_where_nothing_lies(make_raster, monkeypatch):
    scene = Scene.open(make_raster("a.tif"))
    monkeypatch.setattr(Scene, "read", lambda *_: pytest.fail("read"))
    with ThreadPoolExecutor(1) as pool:
        data, valid = read_parallel(scene, Window(100, 100, 40, 40), pool)
    assert not data.any()
    assert not valid.any()
