"""An array in a mapped file has room on the disk, and needs no memory while it is not used."""

import errno
import re
from pathlib import Path

import numpy as np
import pytest

from geopsp.core.disk_array import DiskArray


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
