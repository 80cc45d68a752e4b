import resource
import shutil
import warnings

import numpy as np
import pytest
from common import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.features import sieve as gdal_sieve

from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.errors import OutputError
from geopsp.inference.outputs import class_spec
from geopsp.raster.cog.part_file import PartWriter
from geopsp.raster.cog.part_grid import PartGrid
from geopsp.raster.cog.part_mosaic import PartMosaic
from geopsp.raster.cog.sieve import sieve

LEGEND = Legend.from_names({0: "background", 3: "boat", 254: "water"})


def codes_of(height, width, grain, seed):
    """Patches of classes and of nothing, about `grain` pixels wide, with specks."""
    rng = np.random.default_rng(seed)
    values = np.array([0, 3, 254, IGNORE_INDEX], np.uint8)
    codes = np.kron(rng.choice(values, (height // grain + 1, width // grain + 1)), np.ones((grain, grain), np.uint8))
    codes = codes[:height, :width]
    return np.where(rng.random(codes.shape) < 0.1, rng.choice(values, codes.shape), codes)


def sieved(folder, codes, size, *, sides=(32, 32)):
    height, width = codes.shape
    spec = class_spec(folder / "map.tif", LEGEND)
    plan = PartGrid(width, height, part_width=sides[0], part_height=sides[1], block=16)
    shutil.rmtree(folder / "to", ignore_errors=True)
    (folder / "to").mkdir()
    for number in range(len(plan)):
        window = plan.part(number).window
        rows, cols = slice(window.row, window.row_stop), slice(window.col, window.col_stop)
        form = {"block": plan.block, "levels": plan.levels}
        with PartWriter(folder / f"{number}", window.width, window.height, spec, **form) as writer:
            writer.append(codes[None, rows, cols])
    sieve(spec, plan, lambda n: folder / f"{n}", lambda n: folder / "to" / f"{n}", size)
    assert sorted(int(path.name) for path in (folder / "to").iterdir()) == list(range(len(plan)))
    return np.concatenate(list(PartMosaic(spec, plan, lambda n: folder / "to" / f"{n}").rows(0)), axis=1)[0]


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    grain=st.integers(1, 9),
    size=st.integers(1, 40),
    sides=st.tuples(st.sampled_from([32, 48, 64]), st.sampled_from([32, 64])),
    seed=st.integers(0, 99),
)
@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_is_the_sieve_of_the_whole_whatever_the_parts(height, width, grain, size, sides, seed, tmp_path):
    codes = codes_of(height, width, grain, seed)
    expected = gdal_sieve(codes, size, mask=codes != IGNORE_INDEX) if size < codes.size else codes
    found = sieved(tmp_path, codes, size, sides=sides)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found == IGNORE_INDEX, codes == IGNORE_INDEX)


def test_a_region_across_parts_is_one_region(tmp_path):
    codes = np.zeros((40, 40), np.uint8)
    codes[14:18, 14:18] = 3  # a corner of it in each of four parts
    codes[5, 5:20] = 254
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nor does it say anything
        found = sieved(tmp_path, codes, 16, sides=(16, 16))
    np.testing.assert_array_equal(found, np.where(codes == 254, 0, codes))


def test_what_borders_on_nothing_but_the_unknown_stays(tmp_path):
    codes = np.full((40, 50), IGNORE_INDEX, np.uint8)
    codes[20, 30] = 3
    np.testing.assert_array_equal(sieved(tmp_path, codes, 100), codes)


def test_a_part_that_is_missing_is_an_error_and_nothing_is_left(tmp_path):
    spec, plan = class_spec(tmp_path / "map.tif", LEGEND), PartGrid(20, 20, 16, 16, 16)
    with pytest.raises(OutputError, match="same command again"):
        sieve(spec, plan, lambda n: tmp_path / f"no {n}", lambda n: tmp_path / f"{n}", 5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [4000, 20_000])
def test_a_full_disk_is_an_error_and_nothing_is_left(size, tmp_path):
    codes = codes_of(200, 300, 1, 0)
    spec, plan = class_spec(tmp_path / "map.tif", LEGEND), PartGrid(300, 200, 512, 512, 16)
    with PartWriter(tmp_path / "part", 300, 200, spec, block=16, levels=plan.levels) as writer:
        writer.append(codes[None])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(OutputError, match="Is the disk full"):
            sieve(spec, plan, lambda _: tmp_path / "part", lambda _: tmp_path / "new", 5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["part"]
