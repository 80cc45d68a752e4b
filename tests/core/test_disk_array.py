"""Arrays in mapped files have room on the disk, and need no memory while they are not used."""

import errno
import re
from pathlib import Path

import numpy as np
import pytest

from geopsp.core.disk_array import DiskArray, ScratchArrays


def mapped_bytes():
    """Return the memory of this process that holds pages of files."""
    found = re.search(r"RssFile:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024


def test_it_grows_and_keeps_what_it_holds(tmp_path):
    numbers = DiskArray(tmp_path / "numbers", np.int64)
    assert numbers.array.shape == (0,)
    numbers.grow(0, 5)
    numbers.grow(3, 5)
    earlier = numbers.array
    numbers.grow(2, -1)
    numbers.grow(0, 5)
    earlier[0] = 7
    numbers.release()
    np.testing.assert_array_equal(numbers.array, [7, 5, 5, -1, -1])


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux says how much memory that is")
def test_released_pages_need_no_memory(tmp_path):
    pixels = DiskArray(tmp_path / "pixels", np.uint8, (3000, 4000))
    before = mapped_bytes()
    pixels.array[:] = 9
    assert mapped_bytes() - before > 10e6
    pixels.release()
    assert mapped_bytes() - before < 2e6
    assert (pixels.array == 9).all()


def test_the_disk_has_room_before_it_is_mapped(tmp_path):
    """Where it had none, writing to the map would end the program."""
    pixels = DiskArray(tmp_path / "pixels", np.uint8, (2000, 3000))
    assert pixels.path.stat().st_blocks * 512 >= pixels.array.size
    with pytest.raises(OSError, match=r".") as error:
        DiskArray(tmp_path / "huge", np.int64, (10**15,))
    assert error.value.errno in {errno.ENOSPC, errno.EFBIG}


@pytest.mark.parametrize("in_memory", [0, 50, 10**6])
def test_rows_that_are_added_are_all_there(tmp_path, in_memory):
    arrays = ScratchArrays(tmp_path, in_memory=in_memory)
    column, pairs = arrays.growing(np.uint8), arrays.growing(np.int32, 2)
    for count in (3, 0, 40, 1):
        column.append(np.full(count, count, np.uint8))
        pairs.append(np.full((count, 2), (count, -1), np.int32))
    assert len(column) == len(pairs) == 44
    column, pairs = column.finish(), pairs.finish()
    arrays.release()
    assert column.tolist() == [3] * 3 + [40] * 40 + [1]
    assert pairs.tolist() == [[value, -1] for value in column.tolist()]
    pairs[0] = 7
    assert pairs[0].tolist() == [7, 7]
    assert arrays.growing(np.float64, 3).finish().shape == (0, 3)


def test_files_of_scratch_arrays_vanish_with_them(tmp_path):
    arrays = ScratchArrays(tmp_path, in_memory=100)
    small, large = arrays.zeros(np.int64, 12), arrays.full(np.int64, 13, 5)
    assert small.tolist() == [0] * 12
    assert large.tolist() == [5] * 13
    assert small.base is None
    assert large.base is not None
    del large
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match=r"."):
        arrays.zeros(np.int64, 10**15)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux says how much memory that is")
def test_scratch_arrays_need_no_memory_between_chunks(tmp_path):
    arrays = ScratchArrays(tmp_path, mapped=10**7)
    pixels = arrays.zeros(np.uint8, 3000, 4000)
    large = arrays.zeros(np.uint8, 6000, 4000)
    before = mapped_bytes()
    pixels[:], large[:] = 9, 8
    assert mapped_bytes() - before > 10e6
    arrays.release()
    assert mapped_bytes() - before < 2e6
    assert (large == 8).all()
