"""Chips read back from their files as they were written: pixels, place, validity and labels."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.crs import CRS

from geopsp.chips.chip import Chip
from geopsp.chips.chip_files import check_kind, write_chip
from geopsp.core.grid import Grid
from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.errors import OptionError, OutputError
from geopsp.raster.scene import RasterArray

LEGEND = Legend.from_names({0: "background", 3: "water", 200: "road"})
PLACE = Affine(0.3, 0, 601234.1, 0, -0.3, 5301717.7)
POLAR = CRS.from_string("+proj=laea +lat_0=81 +lon_0=-30 +datum=WGS84 +units=m")
FITS = [
    ("tif", "uint8", 3), ("tif", "int16", 2), ("tif", "float32", 1), ("tif", "float64", 4), ("tif", "uint32", 5),
    ("png", "uint8", 1), ("png", "uint8", 3), ("png", "uint16", 1), ("png", "uint16", 3), ("jpg", "uint8", 1),
    ("jpg", "uint8", 3),
]  # fmt: skip


def chip(bands=3, dtype="uint8", *, size=24, valid=1.0, seed=0, crs="EPSG:32632", transform=PLACE) -> Chip:
    """Any pixels and codes; smooth ones, so that JPEG can hold them."""
    rng = np.random.default_rng(seed)
    slope = (
        np.linspace(0, 180, size)[None, :, None]
        + np.linspace(0, 60, size)[None, None]
        + np.arange(bands)[:, None, None]
    )
    data = slope.astype(dtype)
    grid = Grid(CRS.from_user_input(crs), transform, size, size)
    codes = rng.choice(np.array([0, 3, 200, IGNORE_INDEX], np.uint8), (size, size))
    return Chip(RasterArray(data, rng.random((size, size)) < valid, grid), codes, 0, True)


def write(folder: Path, one: Chip, kind: str) -> tuple[Path, Path]:
    for part in ("images", "labels"):
        (folder / part).mkdir(exist_ok=True)
    image, label = write_chip(folder, "000007", one, LEGEND, kind)
    return folder / "images" / image, folder / "labels" / label


transforms = st.builds(
    lambda x, y, angle, width, height: Affine.translation(x, y) @ Affine.rotation(angle) @ Affine.scale(width, height),
    st.floats(-2e7, 2e7), st.floats(-2e7, 2e7), st.one_of(st.just(0.0), st.floats(0, 360)), st.floats(1e-6, 1e3),
    st.one_of(st.floats(-1e3, -1e-6), st.floats(1e-6, 1e3)),
)  # fmt: skip


@given(
    fit=st.sampled_from(FITS),
    transform=transforms,
    crs=st.sampled_from(["EPSG:32632", "EPSG:4326", "EPSG:3857", POLAR]),
    valid=st.sampled_from([1.0, 0.7, 0.0]),
    size=st.integers(16, 40),
    seed=st.integers(0, 99),
)
@settings(max_examples=examples(20), deadline=None)
def test_a_chip_comes_back(fit, transform, crs, valid, size, seed, tmp_path_factory):
    kind, dtype, bands = fit
    one = chip(bands, dtype, size=size, valid=valid, seed=seed, crs=crs, transform=transform)
    image, label = write(tmp_path_factory.mktemp("chips"), one, kind)
    for readdir in ("FALSE", "TRUE"):
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN=readdir), rasterio.open(image) as dataset:
            data = dataset.read(range(1, bands + 1))
            assert data.dtype == dtype
            assert tuple(dataset.transform) == tuple(transform)
            assert dataset.crs == one.patch.grid.crs
            assert np.array_equal(dataset.read_masks(1) > 0, one.patch.valid)
            if kind == "jpg":
                assert np.abs(data.astype(int) - one.patch.data)[:, one.patch.valid].max(initial=0) < 40
            else:
                assert np.array_equal(data, one.patch.data)
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN=readdir), rasterio.open(label) as dataset:
            assert tuple(dataset.transform) == tuple(transform)
            assert dataset.crs == one.patch.grid.crs
            assert (dataset.count, dataset.dtypes) == (1, ("uint8",))
            assert np.array_equal(dataset.read(1), one.codes)


@pytest.mark.parametrize(("kind", "labels"), [("tif", "tif"), ("png", "png"), ("jpg", "png")])
def test_names_and_neighbours(kind, labels, tmp_path):
    image, label = write(tmp_path, chip(), kind)
    assert (image.name, label.name) == (f"000007.{kind}", f"000007.{labels}")
    world = {"png": ".pgw", "jpg": ".jgw"}
    for path in (image, label):
        more = (
            {f"{path.name}.aux.xml", path.stem + world[path.suffix[1:]]} if path.suffix in {".png", ".jpg"} else set()
        )
        assert {p.name for p in path.parent.iterdir()} == {path.name} | more


@pytest.mark.parametrize("kind", ["tif", "png", "jpg"])
def test_nothing_says_valid_where_all_is(kind, tmp_path):
    image, _ = write(tmp_path, chip(), kind)
    with rasterio.open(image) as dataset:
        assert dataset.count == 3
        assert all(flags == [rasterio.enums.MaskFlags.all_valid] for flags in dataset.mask_flag_enums)


@pytest.mark.parametrize("kind", ["tif", "png"])
def test_labels_show_the_legend(kind, tmp_path):
    _, label = write(tmp_path, chip(), kind)
    with rasterio.open(label) as dataset:
        colors = dataset.colormap(1)
        assert np.array_equal(dataset.read_masks(1) > 0, dataset.read(1) != IGNORE_INDEX)
    for info in LEGEND:
        assert colors[info.code] == (*info.rgb, 255)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_what_is_valid_is_opaque(dtype, tmp_path):
    one = chip(3, dtype, valid=0.5)
    with rasterio.open(write(tmp_path, one, "png")[0]) as dataset:
        assert np.array_equal(dataset.read(4), one.patch.valid * np.iinfo(dtype).max)


def test_labels_open_as_codes_in_other_libraries(tmp_path):
    one = chip()
    with Image.open(write(tmp_path, one, "png")[1]) as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.array(picture), one.codes)


@pytest.mark.parametrize("kind", ["png", "jpg"])
@given(transform=transforms)
@settings(max_examples=examples(10), deadline=None)
def test_a_world_file_holds_the_middle_of_the_first_pixel(kind, transform, tmp_path_factory):
    image, label = write(tmp_path_factory.mktemp("chips"), chip(1, size=16, transform=transform), kind)
    for path in (image, label):
        world = path.with_suffix({".png": ".pgw", ".jpg": ".jgw"}[path.suffix])
        if world.exists():
            a, d, b, e, x, y = map(float, world.read_text().split())
            assert (a, b, d, e) == (transform.a, transform.b, transform.d, transform.e)
            assert (x, y) == pytest.approx(transform @ (0.5, 0.5), rel=1e-12, abs=1e-9)


def test_a_world_file_that_would_be_off_is_left_out(tmp_path):
    """0.1 is finer than any number near half of a million."""
    image, _ = write(tmp_path, chip(transform=Affine(1e6, 0, 0.1, 0, -1e6, 0.1)), "png")
    assert not image.with_suffix(".pgw").exists()
    assert ET.parse(f"{image}.aux.xml").find("GeoTransform") is not None


def test_a_half_written_chip_is_written_over(tmp_path):
    for kind in ("tif", "png", "jpg"):
        image, label = write(tmp_path, chip(valid=0.5, transform=PLACE @ Affine.translation(40, 8)), kind)
        image.write_bytes(image.read_bytes()[:90])
        label.write_bytes(b"")
        image, label = write(tmp_path, chip(), kind)
        for path in (image, label):
            with rasterio.open(path) as dataset:
                assert dataset.transform == PLACE
                assert dataset.read().any()


@pytest.mark.parametrize("kind", ["tif", "png", "jpg"])
def test_a_folder_that_is_gone_is_an_output_error(kind, tmp_path):
    with pytest.raises(OutputError, match=r"Cannot write the chip 3 to .*No such file or directory: \S+$"):
        write_chip(tmp_path / "gone", "3", chip(), LEGEND, kind)


@pytest.mark.parametrize("kind", ["tif", "png", "jpg"])
def test_a_full_disk_is_an_output_error(kind, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (3, 128, 128), np.uint8)
    grid = Grid(CRS.from_epsg(32632), PLACE, 128, 128)
    one = Chip(RasterArray(noise, np.ones((128, 128), bool), grid), noise[0], 0, True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(OutputError, match="Is the disk full"):
            write(tmp_path, one, kind)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("kind", "dtype", "bands", "says"),
    [
        ("png", "float32", 3, "3 bands of float32, but png chips have 1 or 3 bands of uint8 or uint16"),
        ("png", "uint8", 4, "4 bands of uint8"),
        ("png", "uint16", 2, "2 bands of uint16"),
        ("jpg", "uint16", 3, "jpg chips have 1 or 3 bands of uint8"),
        ("jpg", "uint8", 2, "2 bands"),
        ("gif", "uint8", 3, "`chip_format` is 'gif', but must be one of 'tif', 'png', 'jpg'"),
    ],
)
def test_what_does_not_fit_is_said(kind, dtype, bands, says):
    with pytest.raises(OptionError, match=says):
        check_kind(kind, np.dtype(dtype), bands)


@pytest.mark.parametrize(("kind", "dtype", "bands"), FITS)
def test_what_fits(kind, dtype, bands):
    check_kind(kind, np.dtype(dtype), bands)


def test_deflating_does_not_look_at_memory_that_is_not_its_own():
    """glibc fills new memory as told: what comes out may not depend on it."""
    program = (
        "import hashlib, numpy as np\n"
        "from geopsp.raster.geotiff import deflate\n"
        "rng = np.random.default_rng(0)\n"
        "blocks = [rng.integers(0, k % 7 + 2, (16 << k % 4,) * 2).astype('u1') for k in range(60)]\n"
        "print(hashlib.sha256(b''.join(map(deflate, blocks))).hexdigest())\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONMALLOC": "malloc", "MALLOC_PERTURB_": filling},
        ).stdout
        for filling in ("0", "165")
    }  # fmt: skip
    assert len(found) == 1
