import json
import tracemalloc

import numpy as np
import pytest
import rasterio
import tifffile
from affine import Affine
from common import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inference_common import disk_of
from raster_common import class_raster
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin
from rio_cogeo import cog_validate

from geopsp.core.grid import Grid
from geopsp.core.legend import CLASSES_TAG, IGNORE_INDEX, Legend
from geopsp.errors import OutputError
from geopsp.inference.outputs import class_spec, fraction_spec, probability_spec
from geopsp.raster.cog import assemble as cog
from geopsp.raster.cog.assemble import assemble
from geopsp.raster.cog.overviews import downsample
from geopsp.raster.cog.part_file import PartWriter
from geopsp.raster.cog.part_grid import PartGrid

LEGEND = Legend.from_names({0: "background", 3: "boat & car", 7: "water"}, {3: "#010203"})
FILES = ["map.qml", "map.tif", "map.tif.aux.xml"]


def grid_of(height, width, transform=None, crs="EPSG:32632"):
    return Grid(
        CRS.from_user_input(crs) if crs else None,
        transform or from_origin(601234.0, 5301717.0, 2.0, 2.0),
        width,
        height,
    )


def spec_of(kind, folder):
    if kind == "classes":
        return class_spec(folder / "map.tif", LEGEND)
    if kind == "confidence":
        return fraction_spec(kind, folder / "map.tif")
    return probability_spec(folder / "map.tif", LEGEND, kind)


def pixels_of(spec, height, width, seed, *, hole=True):
    rng = np.random.default_rng(seed)
    shape = (len(spec.bands), height, width)
    if spec.legend is not None:
        pixels = rng.choice(np.array([0, 3, 7, IGNORE_INDEX], np.uint8), shape)
    else:
        pixels = (rng.integers(0, 255, shape) / (1 if spec.dtype == "uint8" else 255)).astype(spec.dtype)
    if hole:
        top, left = rng.integers(0, height + 1), rng.integers(0, width + 1)
        pixels[:, top : top + rng.integers(0, height + 1), left : left + rng.integers(0, width + 1)] = spec.nodata
    return pixels


def plan_of(height, width, block=16, part_width=16, part_height=16):
    return PartGrid(width, height, part_width=part_width, part_height=part_height, block=block)


def make(folder, pixels, spec, plan, *, grid=None, tags=None, gone=()):
    """The bytes of the map, made of the parts of the plan."""
    for number in range(len(plan)):
        window = plan.part(number).window
        rows, cols = window.slices(grid_of(plan.height, plan.width).window)
        path = folder / f"{number}.part"
        form = {"block": plan.block, "levels": plan.levels}
        with PartWriter(path, window.width, window.height, spec, **form) as writer:
            writer.append(pixels[:, rows, cols])
    for number in gone:
        (folder / f"{number}.part").unlink()
    grid = grid or grid_of(plan.height, plan.width)
    assemble(spec, grid, plan, lambda n: folder / f"{n}.part", spec.path, tags=tags or {})
    return spec.path.read_bytes()


def is_valid(path, *, warned=False):
    valid, errors, warnings = cog_validate(path, strict=not warned, quiet=True)
    assert valid, errors + warnings
    return True


SIDES = st.sampled_from([32, 64, 128])


@given(
    kind=st.sampled_from(["classes", "confidence", "uint8", "float16"]),
    height=st.integers(1, 150),
    width=st.integers(2, 150),
    sides=st.tuples(SIDES, SIDES),
    seed=st.integers(0, 99),
)
@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_map_is_the_same_bytes_whatever_its_parts(kind, height, width, sides, seed, tmp_path):
    spec = spec_of(kind, tmp_path)
    pixels = pixels_of(spec, height, width, seed)
    content = make(tmp_path, pixels, spec, plan_of(height, width, part_width=sides[0], part_height=sides[1]))
    assert make(tmp_path, pixels, spec, plan_of(height, width, part_width=256, part_height=256)) == content
    assert is_valid(spec.path)
    with rasterio.open(spec.path) as dataset:
        np.testing.assert_array_equal(dataset.read(), pixels)
        count = len(dataset.overviews(1))
    assert max(height, width) <= 16 << count
    assert count == 0 or max(height, width) > 16 << (count - 1)
    for level in range(count):
        pixels = downsample(pixels, spec)
        with rasterio.open(spec.path, OVERVIEW_LEVEL=level) as dataset:
            np.testing.assert_array_equal(dataset.read(), pixels)
    assert not list(tmp_path.glob("*.coarse"))


@pytest.mark.parametrize(("height", "width"), [(1, 3000), (1100, 700), (1025, 1030), (3, 2), (512, 512)])
@pytest.mark.parametrize("kind", ["classes", "float16"])
def test_rio_cogeo_finds_nothing_wrong_with_any_shape(height, width, kind, tmp_path):
    spec = spec_of(kind, tmp_path)
    pixels = pixels_of(spec, height, width, 4)
    make(tmp_path, pixels, spec, plan_of(height, width, 512, 1024, 1024))
    assert is_valid(spec.path)
    with rasterio.open(spec.path) as dataset:
        assert dataset.block_shapes == [(512, 512)] * len(spec.bands)
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        np.testing.assert_array_equal(dataset.read(), pixels)


@pytest.mark.parametrize("known", [0, 1])
def test_blocks_of_nothing_are_not_stored(known, tmp_path):
    spec = spec_of("classes", tmp_path)
    pixels = np.full((1, 150, 130), IGNORE_INDEX, np.uint8)
    pixels[:, 70 : 70 + known, 90] = 3
    content = make(tmp_path, pixels, spec, plan_of(150, 130))
    with tifffile.TiffFile(spec.path) as file:
        for page in file.pages:
            assert sum(size > 0 for size in page.databytecounts) == known
            assert all(
                (place > 0) == (size > 0) for place, size in zip(page.dataoffsets, page.databytecounts, strict=True)
            )
    assert len(content) < 11_000
    assert is_valid(spec.path)
    with rasterio.open(spec.path) as dataset:
        np.testing.assert_array_equal(dataset.read(), pixels)


def test_each_block_says_how_long_it_is_and_they_lie_from_coarse_to_fine_in_rows(tmp_path):
    spec = spec_of("uint8", tmp_path)
    content = make(tmp_path, pixels_of(spec, 100, 150, 0), spec, plan_of(100, 150, part_width=32, part_height=64))
    with tifffile.TiffFile(spec.path) as file:
        end = None
        for page in reversed(file.pages):
            for place, size in zip(page.dataoffsets, page.databytecounts, strict=True):
                if not size:
                    continue
                assert end is None or place == end + 4
                assert int.from_bytes(content[place - 4 : place], "little") == size
                end = place + size + 4
                assert content[end - 4 : end] == content[end - 8 : end - 4]
        assert end == len(content)


def test_a_map_too_large_for_a_tiff_is_a_bigtiff_of_the_same_pixels(tmp_path, monkeypatch):
    spec = spec_of("classes", tmp_path)
    pixels = pixels_of(spec, 100, 150, 0)
    length = len(make(tmp_path, pixels, spec, plan_of(100, 150)))
    for limit, big in ((length + 1, False), (length, True)):
        monkeypatch.setattr(cog, "CLASSIC", limit)
        make(tmp_path, pixels, spec, plan_of(100, 150))
        with tifffile.TiffFile(spec.path) as file:
            assert file.is_bigtiff == big
        assert is_valid(spec.path)
        with rasterio.open(spec.path) as dataset:
            np.testing.assert_array_equal(dataset.read(), pixels)


@pytest.mark.parametrize("transform", [None, Affine(2, 1, 600000, 1, -2, 5300000), Affine(2, 0, 7, 0, 2, 9)])
@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326", "ESRI:54030", "+proj=laea +lat_0=52 +lon_0=11.5", None])
def test_the_map_lies_where_its_grid_does(transform, crs, tmp_path):
    spec = spec_of("confidence", tmp_path)
    grid = grid_of(20, 30, transform, crs)
    make(tmp_path, pixels_of(spec, 20, 30, 0), spec, plan_of(20, 30), grid=grid)
    assert is_valid(spec.path)
    with rasterio.open(spec.path) as dataset:
        assert dataset.transform == grid.transform
        assert dataset.crs == grid.crs


TEXTS = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc", "Cn"]), min_size=1).map(str.strip)


@given(tags=st.dictionaries(st.from_regex(r"[A-Z][A-Z_]{3,9}", fullmatch=True), TEXTS.filter(bool), max_size=3))
@settings(max_examples=examples(15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tags_come_back(tags, tmp_path):
    spec = spec_of("confidence", tmp_path)
    make(tmp_path, pixels_of(spec, 5, 7, 0), spec, plan_of(5, 7), tags=tags)
    with rasterio.open(spec.path) as dataset:
        assert {name: dataset.tags()[name] for name in tags} == tags


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_probabilities_are_named_and_scaled_to_one_and_are_no_colours(count, tmp_path):
    legend = Legend.from_names({i: f"c & {i}" for i in range(count)})
    spec = probability_spec(tmp_path / "map.tif", legend)
    pixels = pixels_of(spec, 20, 30, 0)
    make(tmp_path, pixels, spec, plan_of(20, 30))
    with rasterio.open(spec.path) as dataset:
        np.testing.assert_array_equal(dataset.read(), pixels)
        assert dataset.descriptions == tuple(legend.names)
        assert dataset.nodata == IGNORE_INDEX
        assert dataset.scales == (1 / 254,) * count
        assert dataset.offsets == (0,) * count
        assert not {ColorInterp.alpha, ColorInterp.red} & set(dataset.colorinterp)


def test_floats_have_nan_for_nodata_and_no_scale(tmp_path):
    spec = spec_of("float16", tmp_path)
    make(tmp_path, pixels_of(spec, 20, 30, 0), spec, plan_of(20, 30))
    with rasterio.open(spec.path) as dataset:
        assert np.isnan(dataset.nodata)
        assert dataset.scales == (1,) * 3


def test_a_part_that_is_missing_is_an_error(tmp_path):
    spec = spec_of("classes", tmp_path)
    with pytest.raises(OutputError, match=r"Cannot read \S*3\.part: .*same command again"):
        make(tmp_path, pixels_of(spec, 100, 150, 0), spec, plan_of(100, 150), gone=[3])
    assert not list(tmp_path.glob("map*"))


@pytest.mark.parametrize("size", [0, 15_000, 20_000])
def test_a_full_disk_is_an_error(size, tmp_path):
    spec = spec_of("confidence", tmp_path)
    pixels = pixels_of(spec, 140, 150, 0, hole=False)
    assert len(make(tmp_path, pixels, spec, plan_of(140, 150))) > 20_000
    with disk_of(size), pytest.raises(OutputError, match="Is the disk full"):
        assemble(spec, grid_of(140, 150), plan_of(140, 150), lambda n: tmp_path / f"{n}.part", spec.path, tags={})
    assert not list(tmp_path.glob("*.coarse"))


def test_memory_does_not_grow_with_the_map(tmp_path):
    spec, peaks, side = spec_of("classes", tmp_path), [], 2048
    with PartWriter(tmp_path / "part", side, side, spec, block=128, levels=4) as writer:
        writer.append(np.tile(pixels_of(spec, 1, side, 0), (1, 129, 1)))
        writer.append(spec.blank(side - 129, side))
    for length in (side, 5 * side):
        plan = plan_of(length, length, 128, side, side)
        tracemalloc.start()
        try:
            assemble(spec, grid_of(length, length), plan, lambda _: tmp_path / "part", spec.path, tags={})
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2.5e6, peaks  # of 105 million pixels
    assert is_valid(spec.path)


@given(
    height=st.integers(1, 700),
    width=st.sampled_from([1, 83, 257]),
    cuts=st.lists(st.integers(1, 699), max_size=6, unique=True),
)
@settings(max_examples=examples(15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_codes_come_back_bit_for_bit_in_slabs_of_any_height(height, width, cuts, tmp_path):
    codes = np.random.default_rng(height).choice(np.array([0, 3, 7, IGNORE_INDEX], np.uint8), (1, height, width))
    grid = grid_of(height, width)
    with class_raster(tmp_path / "map.tif", grid, LEGEND, overwrite=True) as writer:
        for rows in np.split(codes, sorted(cut for cut in cuts if cut < height), axis=1):
            writer.append(rows)
    with rasterio.open(tmp_path / "map.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(), codes)
        assert Grid(dataset.crs, dataset.transform, dataset.width, dataset.height) == grid
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, codes[0] != IGNORE_INDEX)


def test_a_class_raster_carries_colours_names_nodata_and_tags(tmp_path):
    path = tmp_path / "map.tif"
    with class_raster(path, grid_of(61, 83), LEGEND, tags={"MODEL": "landcover"}) as writer:
        writer.append(np.full((1, 61, 83), 3, np.uint8))
    with rasterio.open(path) as dataset:
        assert dataset.nodata == IGNORE_INDEX
        assert dataset.compression.name == "deflate"
        assert dataset.descriptions == ("class",)
        assert dataset.colorinterp == (ColorInterp.palette,)
        colors = dataset.colormap(1)
        assert [colors[code][:3] for code in (0, 3, 7)] == [info.rgb for info in LEGEND]
        assert colors[IGNORE_INDEX][3] == 0
        assert dataset.tags()["MODEL"] == "landcover"
        assert Legend.from_json(json.loads(dataset.tags()[CLASSES_TAG])) == LEGEND
    assert sorted(p.name for p in tmp_path.iterdir()) == FILES


def test_a_block_that_fails_leaves_no_file(tmp_path):
    out = class_raster(tmp_path / "map.tif", grid_of(600, 83), LEGEND)
    with pytest.raises(KeyboardInterrupt), out as writer:  # noqa: PT012
        writer.append(np.zeros((1, 300, 83), np.uint8))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_missing_rows_are_our_own_fault(tmp_path):
    with pytest.raises(AssertionError, match="fewer rows"):  # noqa: SIM117
        with class_raster(tmp_path / "map.tif", grid_of(600, 83), LEGEND) as writer:
            writer.append(np.zeros((1, 300, 83), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_kept_unless_overwritten(tmp_path):
    path = tmp_path / "map.tif"
    path.write_text("old")
    with pytest.raises(OutputError, match="already exists"), class_raster(path, grid_of(5, 7), LEGEND):
        pass
    assert path.read_text() == "old"
    with class_raster(path, grid_of(5, 7), LEGEND, overwrite=True) as writer:
        writer.append(np.zeros((1, 5, 7), np.uint8))
    with rasterio.open(path) as dataset:
        assert dataset.shape == (5, 7)
