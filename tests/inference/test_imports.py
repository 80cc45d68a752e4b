"""What a map does not load."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_a_map_loads_no_tables_and_no_vector_files():
    """geopandas, pandas and pyarrow take 100 MB, which only areas of interest and polygons need."""
    code = (
        "import sys, geopsp.inference.classify_pixels, geopsp.inference.torch_engine; "
        "print([n for n in ('geopandas', 'pandas', 'pyarrow', 'pyogrio', 'dask', 'lightning') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
