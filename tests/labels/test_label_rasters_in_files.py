"""Label rasters that are variables of a NetCDF file."""

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from geopsp.core.grid import Grid
from geopsp.core.legend import IGNORE_INDEX
from geopsp.labels.read_labels import read_labels


@pytest.mark.parametrize("name", ["netcdf:{}:Band2", "NETCDF:{}:Band2", 'NETCDF:"{}":Band2'])
def test_a_variable_of_netcdf_as_labels(name, make_raster, tmp_path):
    with rasterio.Env() as env:
        if "netCDF" not in env.drivers():
            pytest.skip("this GDAL reads no NetCDF")
    data = np.random.default_rng(0).integers(0, 4, (2, 20, 30)).astype("int16")
    tif = make_raster("a.tif", data)
    rasterio.shutil.copy(tif, tmp_path / "a.nc", driver="netCDF", format="NC4")
    with rasterio.open(tif) as dataset:
        grid = Grid(dataset.crs, dataset.transform, dataset.width, dataset.height)
    labels = read_labels(name.format(tmp_path / "a.nc"))
    assert labels.legend.codes == [0, 1, 2, 3]
    np.testing.assert_array_equal(labels.burn(grid).codes, data[1])
    assert IGNORE_INDEX not in labels.burn(grid).codes
    (tmp_path / "one.nc").touch()
    rasterio.shutil.copy(make_raster("b.tif", data[:1]), tmp_path / "one.nc", driver="netCDF", format="NC4")
    np.testing.assert_array_equal(read_labels(tmp_path / "one.nc").burn(grid).codes, data[0])
