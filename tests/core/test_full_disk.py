import errno
import os

import pytest
from inference_common import disk_of

from geopsp.core.full_disk import full_disk_hint


def test_a_full_disk_is_blamed_only_where_the_system_says_so(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(100))
    for code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        assert full_disk_hint(OSError(code, os.strerror(code))) == " Is the disk full?"
        assert full_disk_hint(RuntimeError(f"GDAL: {os.strerror(code)}")) == " Is the disk full?"
    assert full_disk_hint(RuntimeError("database or disk is full")) == " Is the disk full?"
    for error in (OSError(errno.EACCES, "no"), OSError(errno.ENOENT, "no"), RuntimeError("no"), None):
        assert full_disk_hint(error, path) == ""
        assert full_disk_hint(error) == ""


@pytest.mark.parametrize("error", [RuntimeError("no"), None])
def test_writing_more_tells_what_gdal_does_not(error, tmp_path):
    """As of a file that GDAL cut off when it closed it; the largest of its files counts."""
    (tmp_path / "a.dbf").write_bytes(bytes(3_000_000))
    with disk_of(3_000_500):
        assert full_disk_hint(error, tmp_path / "a.shp") == " Is the disk full?"
        assert full_disk_hint(error) == ""
