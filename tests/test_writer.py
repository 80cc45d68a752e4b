import json

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from geopsp.errors import OutputError
from geopsp.grid import Grid
from geopsp.legend import CLASSES_TAG, IGNORE, Legend
from geopsp.writer import class_raster, probability_raster

LEGEND = Legend.from_names({0: "background", 3: "boat & car", 7: "water"}, {3: "#010203"})


def grid_of(height, width):
    return Grid(CRS.from_epsg(32632), from_origin(601234.0, 5301717.0, 2.0, 2.0), width, height)


def append_in_slabs(writer, rows, cuts):
    for part in np.split(rows, sorted(cuts), axis=1):
        writer.append(part)


@given(
    height=st.integers(1, 700),
    width=st.sampled_from([1, 83, 257]),
    cuts=st.lists(st.integers(1, 699), max_size=6, unique=True),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_codes_come_back_bit_for_bit_in_slabs_of_any_height(height, width, cuts, tmp_path):
    codes = np.random.default_rng(height).choice(np.array([0, 3, 7, IGNORE], np.uint8), (1, height, width))
    grid = grid_of(height, width)
    with class_raster(tmp_path / "map.tif", grid, LEGEND, overwrite=True) as writer:
        append_in_slabs(writer, codes, [cut for cut in cuts if cut < height])
    with rasterio.open(tmp_path / "map.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(), codes)
        assert Grid(dataset.crs, dataset.transform, dataset.width, dataset.height) == grid
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, codes[0] != IGNORE)


def test_a_class_raster_carries_colours_names_nodata_and_tags(tmp_path):
    path = tmp_path / "map.tif"
    with class_raster(path, grid_of(61, 83), LEGEND, tags={"MODEL": "landcover"}) as writer:
        writer.append(np.full((1, 61, 83), 3, np.uint8))
    with rasterio.open(path) as dataset:
        assert dataset.nodata == IGNORE
        assert dataset.compression.name == "deflate"
        assert dataset.block_shapes == [(256, 256)]
        assert dataset.colorinterp == (ColorInterp.palette,)
        colors = dataset.colormap(1)
        assert [colors[code][:3] for code in (0, 3, 7)] == [info.rgb for info in LEGEND]
        assert colors[IGNORE][3] == 0
        assert dataset.tags()["MODEL"] == "landcover"
        assert Legend.from_json(json.loads(dataset.tags()[CLASSES_TAG])) == LEGEND
    sidecar = (tmp_path / "map.tif.aux.xml").read_text()
    assert sidecar.count("<Category>") == 8
    assert "<Category>boat &amp; car</Category>" in sidecar


def test_nothing_but_the_map_and_its_names_is_left(tmp_path):
    with class_raster(tmp_path / "map.tif", grid_of(5, 7), LEGEND) as writer:
        writer.append(np.zeros((1, 5, 7), np.uint8))
    with probability_raster(tmp_path / "p.tif", grid_of(5, 7), LEGEND) as writer:
        writer.append(np.zeros((3, 5, 7), np.uint8))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.tif", "map.tif.aux.xml", "p.tif"]


def test_probabilities_are_scaled_to_one_and_named(tmp_path):
    path = tmp_path / "p.tif"
    rows = np.random.default_rng(0).integers(0, 256, (3, 300, 83)).astype(np.uint8)
    with probability_raster(path, grid_of(300, 83), LEGEND) as writer:
        append_in_slabs(writer, rows, [1, 128, 257])
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(), rows)
        assert dataset.descriptions == tuple(LEGEND.names)
        assert dataset.nodata == IGNORE
        assert dataset.scales == pytest.approx([1 / 254] * 3)
        assert 254 * dataset.scales[0] == pytest.approx(1)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_probabilities_of_any_number_of_classes_are_no_colours(count, tmp_path):
    legend = Legend.from_names({i: f"c{i}" for i in range(count)})
    with probability_raster(tmp_path / "p.tif", grid_of(4, 5), legend) as writer:
        writer.append(np.full((count, 4, 5), 9, np.uint8))
    with rasterio.open(tmp_path / "p.tif") as dataset:
        assert ColorInterp.alpha not in dataset.colorinterp
        assert (dataset.read() == 9).all()


@pytest.mark.parametrize("kind", [class_raster, probability_raster])
def test_a_block_that_fails_leaves_no_file(kind, tmp_path):
    out = kind(tmp_path / "map.tif", grid_of(600, 83), LEGEND)
    with pytest.raises(KeyboardInterrupt), out as writer:  # noqa: PT012
        writer.append(np.zeros((1 if kind is class_raster else 3, 300, 83), np.uint8))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_missing_rows_are_our_own_fault(tmp_path):
    with pytest.raises(AssertionError, match="256 of 600 rows"):  # noqa: SIM117
        with class_raster(tmp_path / "map.tif", grid_of(600, 83), LEGEND) as writer:
            writer.append(np.zeros((1, 300, 83), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_kept_unless_overwritten(tmp_path):
    path = tmp_path / "map.tif"
    path.write_text("old")
    with pytest.raises(OutputError, match="exists already"), class_raster(path, grid_of(5, 7), LEGEND):
        pass
    assert path.read_text() == "old"
    with class_raster(path, grid_of(5, 7), LEGEND, overwrite=True) as writer:
        writer.append(np.zeros((1, 5, 7), np.uint8))
    with rasterio.open(path) as dataset:
        assert dataset.shape == (5, 7)
