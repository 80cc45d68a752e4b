"""Medians of numbers in files are those of numpy."""

import numpy as np
import pytest

from geopsp.core import disk_array
from geopsp.core.disk_array import ScratchArrays
from geopsp.polygons.regular_features import median


@pytest.mark.parametrize("count", [1, 2, 9, 100])
def test_a_median_in_chunks_is_that_of_numpy(count, tmp_path, monkeypatch):
    monkeypatch.setattr(disk_array, "CHUNK", 7)
    arrays = ScratchArrays(tmp_path, in_memory=0)
    values = arrays.zeros(np.float64, count)
    values[:] = np.random.default_rng(count).choice([0.3, 0.30000000000000004, 1.5, 2e9], count)
    assert median(values, arrays) == np.median(values)
    values[-1] = np.nan
    assert np.isnan(median(values, arrays))
