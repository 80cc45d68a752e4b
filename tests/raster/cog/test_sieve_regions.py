"""Small regions join their largest neighbour, as by GDAL, however little is in memory."""

import numpy as np
from common import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.features import sieve as gdal_sieve

from geopsp.core.disk_array import DiskArray
from geopsp.raster.cog import sieve_regions as module
from geopsp.raster.cog.sieve_regions import sieve_regions

NOISE = hnp.arrays(
    np.uint8,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=24),
    elements=st.sampled_from([0, 1, 2, 2, 2, 255]),
    fill=st.nothing(),
)


def sieved(folder, codes, size, **options):
    for path in folder.iterdir():
        path.unlink()
    array = DiskArray(folder / "codes", np.uint8, codes.shape)
    array.array[:] = codes
    sieve_regions(array, size, folder, **options)
    return array.array


@given(codes=NOISE, grain=st.integers(1, 3), size=st.integers(1, 40), strip=st.integers(1, 200))
@settings(max_examples=examples(50), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_is_the_sieve_of_gdal_whatever_the_strips(codes, grain, size, strip, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 7)
    codes = np.kron(codes, np.ones((grain, grain), np.uint8))
    wanted = gdal_sieve(codes, size, mask=codes != 0) if size < codes.size else codes
    np.testing.assert_array_equal(sieved(tmp_path, codes, size, strip_pixels=strip), wanted)


def test_a_region_of_many_strips_counts_as_one(tmp_path):
    """A comb joins at its last row only, a snake turns at each."""
    codes = np.ones((9, 9), np.uint8)
    codes[1::2] = 2
    codes[1::4, -1] = codes[3::4, 0] = 1
    codes[:, 4] = 3
    for size in (2, 6, 18, 30, 40):
        wanted = gdal_sieve(codes, size)
        np.testing.assert_array_equal(sieved(tmp_path, codes, size, strip_pixels=9), wanted)
