"""Zarr stores: read as images, and written as probabilities."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from inference_common import CLASSES, trained_model

from geopsp import classify_pixels
from geopsp.errors import InputNotFoundError, OptionError, OutputError, RasterError
from geopsp.raster.scene import Scene

zarr = pytest.importorskip("zarr", reason="zarr is not installed: the extra `dev` has it")

GRID = rasterio.Affine(2, 0, 100_000, 0, -2, 5_000)


def make_store(path, arrays, *, zarr_format=2, names=("red", "green", "nir")):
    """A store as xarray writes it: coordinates of pixel centres, the CRS in a variable."""
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    rows, cols = next(iter(arrays.values())).shape[-2:]

    def add(name, data, dims, **attributes):
        chunks = {"chunks": (1, 8, 8)} if data.ndim == 3 else {}
        axes = {} if zarr_format == 2 else {"dimension_names": dims}
        array = group.create_array(name, shape=data.shape, dtype=data.dtype, **chunks, **axes)
        array[...] = data
        array.attrs.update(attributes | {"_ARRAY_DIMENSIONS": dims})

    add("x", GRID.c + GRID.a * (np.arange(cols) + 0.5), ["x"])
    add("y", GRID.f + GRID.e * (np.arange(rows) + 0.5), ["y"])
    add("spatial_ref", np.array(0), [], crs_wkt=rasterio.CRS.from_epsg(32632).to_wkt())
    if zarr_format == 2:
        add("band", np.array(names), ["band"])
    for name, data in arrays.items():
        add(name, data, ["band", "y", "x"], grid_mapping="spatial_ref")
    return path


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(1, CLASSES + 1, (3, 40, 50)).astype("uint8")


def test_a_store_is_an_image(tmp_path, pixels):
    scene = Scene.open(make_store(tmp_path / "image.zarr", {"reflectance": pixels}))
    assert scene.bands == ("red", "green", "nir")
    assert scene.grid.crs.to_epsg() == 32632
    assert scene.grid.transform == GRID
    assert np.array_equal(scene.read().data, pixels)
    assert np.array_equal(Scene.open(str(tmp_path / "image.zarr"), bands=["nir"]).read().data, pixels[2:])


def test_of_several_variables_one_is_named(tmp_path, pixels):
    path = make_store(tmp_path / "image.zarr", {"a": pixels, "b": pixels + 1})
    with pytest.raises(RasterError, match=r"several variables \(a, b\). Name the one to read: .*image.zarr:VARIABLE"):
        Scene.open(path)
    assert np.array_equal(Scene.open(f"{path}:b").read().data, pixels + 1)
    with pytest.raises((RasterError, InputNotFoundError)):
        Scene.open(f"{path}:c")
    with pytest.raises(InputNotFoundError, match="No such Zarr store"):
        Scene.open(tmp_path / "other.zarr")


def test_a_store_in_a_bucket_is_an_image(tmp_path, pixels, bucket, store):
    path = make_store(tmp_path / "image.zarr", {"reflectance": pixels})
    zarr.consolidate_metadata(path)
    store.put(str(path), f"{bucket}/image.zarr", recursive=True)
    for name in (f"s3://{bucket}/image.zarr", f"s3://{bucket}/image.zarr:reflectance"):
        assert np.array_equal(Scene.open(name).read().data, pixels)


@pytest.mark.parametrize("kind", ["uint8", "float16"])
def test_probabilities_are_those_of_a_geotiff(tmp_path, make_raster, kind):
    data = np.random.default_rng(0).integers(0, CLASSES + 1, (1, 60, 90)).astype("uint8")
    image = make_raster("image.tif", data, nodata=0)
    model = SimpleNamespace(model=trained_model(), device="cpu")
    for ending in ("tif", "zarr"):
        classify_pixels(
            image,
            model,
            tmp_path / f"{ending}-map.tif",
            probabilities=tmp_path / f"p.{ending}",
            probability_type=kind,
        )
    group = zarr.open_consolidated(tmp_path / "p.zarr", zarr_format=2)
    with (
        rasterio.open(tmp_path / "p.tif") as wanted,
        rasterio.open(f"ZARR:{tmp_path / 'p.zarr'}:/probabilities") as same,
    ):
        expected = wanted.read()
        assert np.array_equal(group["probabilities"][...], expected, equal_nan=kind == "float16")
        assert list(group["band"][...]) == list(wanted.descriptions)
        assert (same.crs, same.shape) == (wanted.crs, wanted.shape)
        assert same.transform.almost_equals(wanted.transform)
        assert group["probabilities"].attrs["GEOPSP_JOB"] == wanted.tags()["GEOPSP_JOB"]
        if kind == "uint8":
            assert group["probabilities"].attrs["scale_factor"] == wanted.scales[0]
    assert Scene.open(tmp_path / "p.zarr").bands == tuple(trained_model().legend.names)
    assert not list(tmp_path.glob(".partial-*"))
    with pytest.raises(OutputError, match="already exists"):
        classify_pixels(image, model, tmp_path / "new.tif", probabilities=tmp_path / "p.zarr")
    (tmp_path / "p.zarr" / "theirs").touch()
    with pytest.raises(OutputError, match="did not write"):
        classify_pixels(image, model, tmp_path / "new.tif", probabilities=tmp_path / "p.zarr", overwrite=True)
    with pytest.raises(OptionError, match=r"must end in .tif or .tiff"):
        classify_pixels(image, model, tmp_path / "map.zarr")
