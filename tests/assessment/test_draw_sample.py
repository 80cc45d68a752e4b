"""Samples hold what a naive count of the whole map says, at random, whatever the blocks of the file."""

from __future__ import annotations

import logging
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from polygons_common import Pixels, rasters
from rasterio.features import geometry_mask
from scipy.stats import chi2

import geopsp
from geopsp.assessment.sampling import pixel_counts, strata_raster
from geopsp.assessment.sampling.pixel_counts import PixelAreas, count_pixels
from geopsp.assessment.sampling.pixel_draw import NO_STRATUM, draw_ranks, find_blocks, find_pixels
from geopsp.assessment.sampling.strata_raster import (
    MAX_PARTS,
    NUM_CODES,
    NUM_KEYS,
    OUTSIDE_AOI,
    OUTSIDE_ZONES,
    StrataRaster,
)
from geopsp.cli import main
from geopsp.core.grid import Grid
from geopsp.core.legend import Legend
from geopsp.errors import GeopspError, GridError, LabelError, OptionError, OutputError, RasterError
from geopsp.raster.legend_io import write_class_files

UTM = Affine(10, 0, 500_000, 0, -10, 5_000_000)
NAMES = {1: "water", 2: "forest", 3: "grass", 9: "snow"}
GRIDS = {
    "UTM": ("EPSG:32633", UTM),
    "degrees": ("EPSG:4326", Affine(0.01, 0, 10, 0, -0.01, 70)),
    "Mercator": ("EPSG:3857", Affine(500, 0, 1_000_000, 0, -500, 9_000_000)),
    "rotated": ("EPSG:32633", Affine.translation(500_000, 5_000_000) @ Affine.rotation(30) @ Affine.scale(10, -10)),
    "south-up": ("EPSG:32733", Affine(10, 0, 500_000, 0, 10, 5_000_000)),
}


def random_map(shape=(60, 83), seed=0):
    codes = np.random.default_rng(seed).choice([1, 2, 3, 255], p=[0.05, 0.35, 0.5, 0.1], size=shape).astype(np.uint8)
    codes[0, :7] = 9
    return codes


def write_map(path, codes, *, grid="UTM", names=NAMES, **profile):
    crs, transform = GRIDS[grid]
    profile = {"nodata": 255, "compress": "deflate"} | profile
    height, width = codes.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=1, dtype=codes.dtype, crs=crs,
        transform=transform, **profile,
    ) as dataset:  # fmt: skip
        dataset.write(codes, 1)
    if names:
        write_class_files(path, Legend.from_names(names))
    return path


@pytest.fixture
def map_path(tmp_path):
    return write_map(tmp_path / "map.tif", random_map())


def draw(path, **options):
    return geopsp.draw_sample(path, Path(path).with_name("points.gpkg"), overwrite=True, **options)


def geodesic_areas(path):
    """Return (rows, cols) m2 by pyproj, of the four corners of each pixel."""
    with rasterio.open(path) as dataset:
        to_globe = pyproj.Transformer.from_crs(dataset.crs, 4326, always_xy=True)
        geod = pyproj.CRS.from_wkt(dataset.crs.to_wkt()).get_geod()
        areas = np.empty(dataset.shape)
        for row in range(dataset.height):
            for col in range(dataset.width):
                corners = [(col, row), (col + 1, row), (col + 1, row + 1), (col, row + 1)]
                lon, lat = to_globe.transform(*zip(*(dataset.transform @ corner for corner in corners), strict=True))
                areas[row, col] = abs(geod.polygon_area_perimeter(lon, lat)[0])
    return areas


@pytest.mark.parametrize("grid", GRIDS)
def test_counts_and_areas_are_those_of_a_naive_count(tmp_path, grid):
    codes = random_map((24, 31))
    path = write_map(tmp_path / "map.tif", codes, grid=grid)
    areas = geodesic_areas(path)
    sample = draw(path, size=60)
    assert [each.map_class for each in sample.strata] == ["water", "forest", "grass", "snow"]
    for stratum in sample.strata:
        inside = codes == stratum.map_code
        assert stratum.pixels == inside.sum()
        assert stratum.area_ha == pytest.approx(areas[inside].sum() / 1e4, rel=1e-5)
    points = sample.points
    rows, cols = points["pixel_row"].to_numpy(), points["pixel_col"].to_numpy()
    np.testing.assert_allclose(points["pixel_area"], areas[rows, cols], rtol=1e-5)
    assert (points["map_code"] == codes[rows, cols]).all()
    assert (points["map_class"] == points["map_code"].map(NAMES)).all()
    with rasterio.open(path) as dataset:
        x, y = rasterio.transform.xy(dataset.transform, rows, cols)
    np.testing.assert_allclose(shapely.get_coordinates(points.geometry), np.column_stack([x, y]))
    cross = sample.map_classes.set_index("stratum")
    assert cross["pixels"].to_dict() == {each.stratum: each.pixels for each in sample.strata}


DESIGNS = {
    "stratified": {"size": 200},
    "proportional": {"size": 200, "allocation": "proportional"},
    "equal": {"size": 120, "allocation": "equal"},
    "by error": {"standard_error": 0.03},
    "simple": {"size": 100, "design": "simple"},
    "cluster": {"size": 20, "design": "cluster", "cluster_size": 4},
}


@pytest.mark.parametrize("design", DESIGNS)
def test_probabilities_sum_to_the_size(map_path, design):
    """Over all pixels of the map; so their inverses over the sample estimate the number of pixels."""
    sample = draw(map_path, **DESIGNS[design])
    points = sample.points
    assert len(points) == sample.num_drawn
    if design == "cluster":
        assert points["cluster"].nunique() == sample.sampled_clusters == 20
        assert points["inclusion_probability"].unique() == pytest.approx(20 / sample.clusters)
        return
    probabilities = points.groupby("stratum")["inclusion_probability"].first()
    assert sum(each.pixels * probabilities[each.stratum] for each in sample.strata) == pytest.approx(len(points))
    assert (1 / points["inclusion_probability"]).sum() == pytest.approx(sum(each.pixels for each in sample.strata))
    assert len(points) == DESIGNS[design].get("size", len(points))
    assert not points.duplicated(["pixel_row", "pixel_col"]).any()
    assert points["reference"].isna().all()
    assert points["id"].tolist() == list(range(1, len(points) + 1))


def test_each_class_has_its_minimum(map_path):
    sizes = {each.map_class: each.sample_size for each in draw(map_path, size=300).strata}
    assert sizes["snow"] == 7  # all that there are
    assert sizes["water"] == 50
    assert sizes["forest"] / sizes["grass"] == pytest.approx(0.35 / 0.5, rel=0.05)
    sizes = {each.map_class: each.sample_size for each in draw(map_path, size=60).strata}
    assert sizes["water"] == sizes["snow"] + 8 == 15  # a fourth of the size, as four times 50 is more
    sizes = {each.map_class: each.sample_size for each in draw(map_path, size=300, minimum_per_class=80).strata}
    assert sizes["water"] == 80


def test_the_file_holds_the_sample(map_path):
    sample = draw(map_path, size=50, seed=3)
    found = geopsp.read_sample(map_path.with_name("points.gpkg"))
    columns = ["id", "map_code", "stratum", "inclusion_probability", "pixel_row", "pixel_col", "pixel_area"]
    assert (found.points[columns] == sample.points[columns]).all(axis=None)
    assert found.strata == sample.strata
    assert (found.seed, found.options["size"], found.map_name) == (3, 50, "map.tif")


LAYOUTS = [
    {"tiled": True, "blockxsize": 16, "blockysize": 16},
    {"blockysize": 1},
    {"tiled": True, "blockxsize": 64, "blockysize": 32},
]


@pytest.mark.parametrize("design", ["stratified", "simple", "cluster"])
def test_blocks_and_threads_do_not_matter(tmp_path, monkeypatch, design):
    """Nor do strips, and cells that are read at a time."""
    codes = random_map()
    found = []
    for number, layout in enumerate(LAYOUTS):
        monkeypatch.setattr(strata_raster, "STRIP_PIXELS", 83 * (1, 7, 200)[number])
        monkeypatch.setattr(strata_raster, "CELL_PIXELS", (5, 64, 2**24)[number])
        monkeypatch.setattr(strata_raster, "cpu_count", lambda number=number: (1, 4, 2)[number])
        found.append(draw(write_map(tmp_path / f"{number}.tif", codes, **layout), **DESIGNS[design]))
    for other in found[1:]:
        assert other.strata == found[0].strata  # areas too, to the last bit
        pd.testing.assert_frame_equal(other.points, found[0].points)


def test_the_seed_decides(map_path):
    def places(seed):
        return draw(map_path, size=100, seed=seed).points[["pixel_row", "pixel_col"]].to_numpy().tolist()

    assert places(1) == places(1)
    assert places(1) != places(2)


def test_a_stratum_s_draw_does_not_depend_on_others(map_path):
    def forest(**options):
        points = draw(map_path, size=120, allocation="equal", **options).points
        return sorted(points.loc[points["map_class"] == "forest", ["pixel_row", "pixel_col"]].to_numpy().tolist())

    few, many = forest(exclude_class=["snow"]), forest(exclude_class=["snow"])
    assert few == many
    assert forest(exclude_class=["snow", "water"]) != few  # more of them are drawn


def in_memory(codes):
    return StrataRaster(Pixels(codes), codes.shape, np.ones(256, bool))


def counted(raster, cluster_size=None):
    return count_pixels(raster, PixelAreas.from_grid(raster.grid), cluster_size=cluster_size, on_strip=lambda *_: None)


def test_samples_are_uniform():
    """Of 1,000 samples, every pixel of a stratum is in as many as any other, by a chi-square test."""
    codes = random_map((9, 11))
    raster = in_memory(codes)
    counts = counted(raster)
    strata = np.full(NUM_KEYS, NO_STRATUM, np.uint16)
    strata[[2, 3]] = 0, 1
    pixels, sizes, runs = [int((codes == code).sum()) for code in (2, 3)], [8, 20], 1000
    times = np.zeros(codes.shape, int)
    for seed in range(runs):
        ranks = [draw_ranks(seed, stream, n, k) for stream, n, k in zip((2, 3), pixels, sizes, strict=True)]
        found = find_pixels(raster, counts, strata, ranks, lambda *_: None)
        times[found.rows, found.cols] += 1
    for code, number, size in zip((2, 3), pixels, sizes, strict=True):
        chance = size / number
        deviations = (times[codes == code] - runs * chance) ** 2 / (runs * chance * (1 - chance))
        statistic = deviations.sum() * (number - 1) / number  # the counts of one draw have a fixed sum
        assert chi2.sf(statistic, number - 1) > 1e-3
        assert chi2.cdf(statistic, number - 1) > 1e-3  # nor are they too even
    assert (times[~np.isin(codes, [2, 3])] == 0).all()


def test_blocks_are_drawn_uniformly_and_whole():
    """Those at the border, and those with a single pixel, as the others."""
    codes = random_map((10, 13))
    codes[4:8, 4:8] = 255
    codes[5, 5] = 2
    codes[:4, 8:12] = 255
    raster = in_memory(codes)
    counts = counted(raster, 4)
    valid = codes != 255
    numbers = np.arange(10)[:, None] // 4 * 4 + np.arange(13) // 4
    blocks = sorted(set(numbers[valid].tolist()))
    assert counts.blocks.sum() == len(blocks) == 11
    times, runs = dict.fromkeys(blocks, 0), 800
    for seed in range(runs):
        ranks = draw_ranks(seed, 0, len(blocks), 3)
        found = find_blocks(raster, counts, ranks, 4, lambda *_: None)
        drawn = {int(number) for number in numbers[found.rows, found.cols]}
        assert drawn == {blocks[rank] for rank in ranks}
        assert len(found) == valid[np.isin(numbers, list(drawn))].sum()
        assert (codes[found.rows, found.cols] == found.keys).all()
        for number in drawn:
            times[number] += 1
    chance = 3 / len(blocks)
    deviations = [(number - runs * chance) ** 2 / (runs * chance * (1 - chance)) for number in times.values()]
    assert chi2.sf(sum(deviations) * (len(blocks) - 1) / len(blocks), len(blocks) - 1) > 1e-3


@given(st.integers(0, 50), st.integers(1, 10**12), st.integers(1, 200))
def test_ranks_are_distinct_and_below_the_population(seed, population, size):
    size = min(size, population)
    ranks = draw_ranks(seed, 1, population, size)
    assert len(ranks) == len(set(ranks.tolist())) == size
    assert (np.diff(ranks) > 0).all()
    assert ranks.min() >= 0
    assert ranks.max() < population


@given(rasters(classes=(1, 2, 255), side=12), st.integers(1, 5))
@settings(max_examples=examples(25))
def test_blocks_are_counted(codes, size):
    is_drawn = np.ones(NUM_KEYS, bool)
    is_drawn[255] = False
    found = pixel_counts.block_counts(codes.astype(np.uint16), is_drawn, size)
    padded = np.pad(codes != 255, [(0, -codes.shape[0] % size), (0, -codes.shape[1] % size)])
    rows, cols = np.array(padded.shape) // size
    assert (found == padded.reshape(rows, size, cols, size).sum((1, 3))).all()


def test_the_order_tells_nothing(map_path):
    """Neither of the class nor of the place; pixels of a block stay together."""
    points = draw(map_path, size=400).points
    for column in ("map_code", "pixel_row", "pixel_col"):
        assert abs(points["id"].corr(points[column].astype(float), method="spearman")) < 4 / np.sqrt(len(points))
    runs = (points["map_code"].diff() != 0).sum()
    shares = points["map_code"].value_counts(normalize=True)
    assert runs == pytest.approx(len(points) * (1 - (shares**2).sum()), rel=0.2)
    clusters = draw(map_path, **DESIGNS["cluster"]).points["cluster"]
    assert (clusters.diff() != 0).sum() == clusters.nunique() - 1
    assert not clusters.is_monotonic_increasing


@pytest.fixture
def confidence(tmp_path):
    values = np.random.default_rng(4).random((60, 83)).astype(np.float32)
    values[3, 10:20] = np.nan
    return values, write_map(tmp_path / "confidence.tif", values, names=None, nodata=np.nan)


def test_confidence_is_that_of_the_pixel(map_path, confidence):
    values, path = confidence
    points = draw(map_path, size=400, confidence=path).points
    np.testing.assert_array_equal(points["confidence"], values[points["pixel_row"], points["pixel_col"]])


def test_confidence_divides_classes(map_path, confidence):
    values, path = confidence
    codes = random_map()
    sample = draw(map_path, size=300, confidence=path, confidence_bins=[0.3, 0.8], exclude_class=["snow"])
    strata = {each.stratum: each for each in sample.strata}
    masks = {
        "confidence below 0.3": values < 0.3,
        "confidence 0.3 to 0.8": (values >= np.float32(0.3)) & (values < np.float32(0.8)),
        "confidence from 0.8": values >= np.float32(0.8),
        "confidence unknown": np.isnan(values),
    }
    expected = {
        f"{name}, {words}": int((mask & (codes == code)).sum())
        for code, name in NAMES.items() if name != "snow" for words, mask in masks.items()
    }  # fmt: skip
    assert {name: each.pixels for name, each in strata.items()} == {n: k for n, k in expected.items() if k}
    for name, points in sample.points.groupby("stratum"):
        mask = masks[name.partition(", ")[2]]
        assert mask[points["pixel_row"], points["pixel_col"]].all()
    by_class = sample.strata_frame().groupby("map_class")["sample_size"].sum()
    assert by_class["water"] == 50  # the minimum is of a class, whatever divides it


def zones(*boxes, crs=32633):
    """Boxes in pixels of the map: left, top, right, bottom."""
    shapes = [shapely.box(*(UTM @ box[:2]), *(UTM @ box[2:])) for box in boxes]
    frame = gpd.GeoDataFrame(
        {"name": [f"zone {'abc'[n]}" for n in range(len(boxes))], "number": range(7, 7 + len(boxes))},
        geometry=shapes,
        crs=32633,
    )
    return frame.to_crs(crs)


def test_zones_divide_the_map(map_path, tmp_path, caplog):
    codes = random_map()
    file = tmp_path / "zones.gpkg"
    zones((0, 0, 40, 60), (40, 0, 70, 50), crs=4326).to_file(file)
    sample = draw(map_path, size=200, zones=file, zone_field="name")
    frame = sample.strata_frame()
    assert set(frame["zone"]) == {"zone a", "zone b"}
    assert "lie outside of all zones" in caplog.text
    west = frame[(frame["zone"] == "zone a") & (frame["map_class"] == "forest")].iloc[0]
    assert west["stratum"] == "forest, zone a"
    assert west["pixels"] == (codes[:, :40] == 2).sum()
    east = sample.points[sample.points["stratum"].str.endswith("zone b")]
    assert east["pixel_col"].between(40, 69).all()
    assert east["pixel_row"].between(0, 49).all()


def test_zones_are_named_by_number_too(map_path):
    boxes = zones((0, 0, 40, 60), (40, 0, 83, 60))
    assert set(draw(map_path, size=200, zones=boxes).strata_frame()["zone"]) == {"zone 1", "zone 2"}
    sample = draw(map_path, size=200, zones=boxes, zone_field="number")
    assert set(sample.strata_frame()["zone"]) == {"7", "8"}
    assert sample.strata[0].stratum == "water, zone 7"
    assert sample.options["zones"] == "GeoDataFrame"


def test_an_area_of_interest_is_all_that_counts(map_path, caplog):
    caplog.set_level(logging.INFO, "geopsp")
    codes = random_map()
    aoi = gpd.GeoDataFrame(geometry=[shapely.Point(UTM @ (40, 30)).buffer(220)], crs=32633)
    inside = ~geometry_mask(aoi.geometry, codes.shape, UTM)
    sample = draw(map_path, size=100, aoi=aoi)
    assert {each.map_code: each.pixels for each in sample.strata} == {
        code: int(((codes == code) & inside).sum()) for code in (1, 2, 3)
    }
    assert inside[sample.points["pixel_row"], sample.points["pixel_col"]].all()
    assert "lie outside of the area of interest" in caplog.text


def test_excluded_classes_are_not_drawn(map_path, caplog):
    caplog.set_level(logging.INFO, "geopsp")
    sample = draw(map_path, size=100, exclude_class=["forest", 9])
    assert [each.map_class for each in sample.strata] == ["water", "grass"]
    assert "are of classes in `exclude_class`" in caplog.text
    assert sample.class_names == ("water", "forest", "grass", "snow")  # the truth may be any


def test_what_is_left_out_is_counted(map_path, caplog):
    """Nodata counts nowhere, and a pixel outside of all counts once."""
    caplog.set_level(logging.INFO, "geopsp")
    codes = random_map()
    area = zones((0, 0, 40, 60))
    draw(map_path, size=50, aoi=area, zones=zones((0, 0, 83, 30)), exclude_class=["forest"])
    west, north = np.arange(83) < 40, (np.arange(60) < 30)[:, None]
    valid = codes != 255
    assert f"{(valid & ~west).sum():,} pixels" in caplog.text
    assert f"{(valid & west & ~north).sum():,} pixels" in caplog.text
    assert f"{((codes == 2) & west & north).sum():,} pixels" in caplog.text


def test_keys_of_pixels_that_are_not_drawn_are_no_others():
    assert NUM_CODES * MAX_PARTS <= OUTSIDE_AOI < OUTSIDE_ZONES < NUM_KEYS
    drawn = in_memory(random_map()).is_drawn
    assert not drawn[[255, 511, OUTSIDE_AOI, OUTSIDE_ZONES]].any()
    assert drawn[[0, 254, 256]].all()


def test_small_strata_are_taken_whole_and_that_is_said(map_path, caplog):
    sample = draw(map_path, size=300)
    assert "1 stratum has so few pixels that all of them are in the sample: snow (7 pixels)" in caplog.text
    assert sample.points.query("map_class == 'snow'")["inclusion_probability"].tolist() == [1.0] * 7


def test_all_pixels_can_be_drawn(tmp_path):
    codes = random_map((6, 7))
    sample = draw(write_map(tmp_path / "map.tif", codes), size=int((codes != 255).sum()))
    found = np.full(codes.shape, 255, np.uint8)
    found[sample.points["pixel_row"], sample.points["pixel_col"]] = sample.points["map_code"]
    assert (found == codes).all()


def test_a_map_of_one_class(tmp_path):
    sample = draw(write_map(tmp_path / "map.tif", np.full((30, 40), 2, np.uint8)), size=30)
    assert [(each.map_class, each.sample_size) for each in sample.strata] == [("forest", 30)]


def test_codes_are_names_without_a_legend(tmp_path):
    codes = np.random.default_rng(0).choice([-5, 7, 1000], size=(30, 40)).astype(np.int16)
    sample = draw(write_map(tmp_path / "map.tif", codes, names=None, nodata=None), size=60)
    assert [(each.map_class, each.map_code) for each in sample.strata] == [("-5", -5), ("7", 7), ("1000", 1000)]
    assert (codes[sample.points["pixel_row"], sample.points["pixel_col"]] == sample.points["map_code"]).all()


def test_classes_of_one_name_stay_apart(tmp_path):
    path = write_map(tmp_path / "map.tif", random_map(), names={1: "tree", 2: "tree", 3: "grass"})
    assert [each.map_class for each in draw(path, size=60).strata] == ["tree (1)", "tree (2)", "grass", "9"]


def test_expected_accuracies_decide_on_the_size(map_path):
    low, high = (len(draw(map_path, standard_error=0.02, expected_accuracy=p)) for p in (0.7, 0.95))
    assert high < low
    mixed = {"*": 0.7, "grass": 0.95}
    assert high < len(draw(map_path, standard_error=0.02, expected_accuracy=mixed)) < low
    shares = {each.map_class: each.area_ha for each in draw(map_path, size=60).strata}
    total, population = sum(shares.values()), sum(each.pixels for each in draw(map_path, size=60).strata)
    deviation = sum(area / total * np.sqrt(0.7 * 0.3) for area in shares.values())
    assert low == int(np.ceil(deviation**2 / (0.02**2 + 0.21 / population)))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"size": 3}, OptionError, "4 strata need at least 8 points"),
        ({"size": 60, "minimum_per_class": 50}, OptionError, "4 strata need at least 157 points"),
        ({"size": 10**6}, OptionError, "but the map has 4,4.. pixels"),
        ({"design": "cluster", "size": 10**6}, OptionError, "blocks of 5 x 5 pixels with data, but 1,000,000"),
        ({"design": "cluster", "cluster_size": 100}, OptionError, "1 block of 100 x 100 pixels .* but 2 are needed"),
        ({"exclude_class": ["lava"]}, OptionError, "no class 'lava'"),
        ({"exclude_class": "snow"}, OptionError, "must be a list of class names"),
        ({"exclude_class": [1, 2, 3, 9]}, RasterError, "no pixels that can be drawn: 4,4.. are of classes"),
        ({"expected_accuracy": {"forst": 0.9}}, OptionError, "'forst', but the map has .* Did you mean 'forest'"),
        ({"expected_accuracy": {"forest": 9}}, OptionError, "of 'forest' is 9, but must be a number from 0 to 1"),
        ({"expected_accuracy": 1.5}, OptionError, "`expected_accuracy` is 1.5"),
        ({"standard_error": 0}, OptionError, "`standard_error` is 0"),
        ({"confidence_bins": [0.5]}, OptionError, "needs `confidence`"),
        ({"confidence_bins": [0.8, 0.5], "confidence": "a.tif"}, OptionError, "in ascending order"),
        ({"confidence_bins": [1.5], "confidence": "a.tif"}, OptionError, "`confidence_bins` is 1.5"),
        ({"zone_field": "name"}, OptionError, "only applies to `zones`"),
        ({"zones": zones((0, 0, 9, 9)), "design": "simple"}, OptionError, "only applies to `design='stratified'`"),
        ({"zones": zones((0, 0, 9, 9)), "zone_field": "nam"}, LabelError, "Fields: name, number. Did you mean 'name'"),
        ({"zones": zones((900, 0, 909, 9))}, LabelError, "900|away"),
        ({"aoi": zones((900, 0, 909, 9))}, LabelError, "away"),
        ({"minimum_per_class": 9, "allocation": "equal"}, OptionError, "only applies to `allocation='minimum'`"),
        ({"design": "systematic"}, OptionError, "must be one of 'stratified', 'simple', 'cluster'"),
        ({"seed": -1}, OptionError, "`seed` is -1"),
        ({"sized": 3}, OptionError, "Did you mean `size`"),
    ],
)
def test_bad_options_are_refused(map_path, options, error, words):
    with pytest.raises(error, match=words):
        draw(map_path, **options)
    assert not map_path.with_name("points.gpkg").exists()


def test_zones_beyond_the_most_are_refused(map_path):
    many = zones((0, 0, 40, 60)).loc[[0] * 300].reset_index(drop=True)
    with pytest.raises(OptionError, match="300 zones, but 254 are the most"):
        draw(map_path, zones=many)


def test_bad_files_are_refused(tmp_path, map_path):
    empty = write_map(tmp_path / "empty.tif", np.full((5, 6), 255, np.uint8))
    with pytest.raises(RasterError, match="all are nodata"):
        draw(empty)
    small = write_map(tmp_path / "small.tif", np.zeros((5, 6), np.float32), names=None)
    with pytest.raises(GridError, match="is on another grid"):
        draw(map_path, confidence=small)
    geopsp.draw_sample(map_path, tmp_path / "points.gpkg", size=20)
    with pytest.raises(OutputError, match="already exists"):
        geopsp.draw_sample(map_path, tmp_path / "points.gpkg", size=20)
    area = tmp_path / "area.gpkg"
    zones((0, 0, 40, 60)).to_file(area)
    with pytest.raises(OutputError, match="is also an input"):
        geopsp.draw_sample(map_path, area, aoi=area, size=20, overwrite=True)


def test_pixels_beyond_the_crs_count_by_their_size_in_it(tmp_path, caplog):
    """As at the corners of a world map in Mollweide's projection, where no ground is, but the map may have codes."""
    path = tmp_path / "map.tif"
    codes = np.full((8, 16), 2, np.uint8)
    width = 2 * 18_100_000 / 16
    with rasterio.open(
        path, "w", driver="GTiff", width=16, height=8, count=1, dtype="uint8", crs="ESRI:54009",
        transform=Affine(width, 0, -8 * width, 0, -width, 4 * width),
    ) as dataset:  # fmt: skip
        dataset.write(codes, 1)
    sample = draw(path, size=10)
    assert "lie where its CRS does not reach the ground" in caplog.text
    assert np.isfinite(sample.points["pixel_area"]).all()
    assert 0 < sample.strata[0].area_ha <= 8 * 16 * width**2 / 1e4 * 1.01


def test_areas_of_runs_are_those_of_their_pixels(tmp_path):
    """Where they change from column to column, as far from the meridian of a UTM zone."""
    codes = np.repeat(np.random.default_rng(0).choice([1, 2], (6, 12)), 10, axis=1).astype(np.uint8)
    crs, transform = GRIDS["UTM"][0], Affine(5000, 0, 500_000, 0, -5000, 5_000_000)
    path = tmp_path / "map.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=120, height=6, count=1, dtype="uint8", crs=crs, transform=transform
    ) as dataset:
        dataset.write(codes, 1)
    areas = PixelAreas.from_grid(Grid(rasterio.CRS.from_string(crs), transform, 120, 6))
    assert areas.metric.step > 1
    each = areas.at(*(places.ravel() for places in np.indices(codes.shape))).reshape(codes.shape)
    assert each.max() / each.min() > 1.003
    for stratum in draw(path, size=20).strata:
        assert stratum.area_ha == pytest.approx(each[codes == stratum.map_code].sum() / 1e4, rel=1e-7)


def test_areas_do_not_depend_on_where_a_window_begins():
    grid = Grid(rasterio.CRS.from_epsg(4326), Affine(0.001, 0, 10, 0, -0.001, 60), 5000, 4000)
    areas = PixelAreas.from_grid(grid)
    assert areas.metric.step > 1
    rows, cols = np.array([0, 1999, 3999]), np.array([4999, 2500, 0])
    geod = pyproj.Geod(ellps="WGS84")
    for found, row, col in zip(areas.at(rows, cols), rows, cols, strict=True):
        lon, lat = 10 + 0.001 * (col + np.array([0, 1, 1, 0])), 60 - 0.001 * (row + np.array([0, 0, 1, 1]))
        assert found == pytest.approx(abs(geod.polygon_area_perimeter(lon, lat)[0]), rel=1e-6)


def test_the_shell_draws_and_says_what(map_path, tmp_path):
    out = tmp_path / "points.gpkg"
    result = CliRunner().invoke(main, ["sample", str(map_path), "--out", str(out), "--size", "100", "--seed", "4"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["stratum", "pixels", "area", "(ha)", "share", "points"]
    assert [line.split()[0] for line in lines[1:6]] == ["water", "forest", "grass", "snow", "all"]
    assert lines[5].split()[-1] == "100"
    assert lines[-1] == f"Wrote {out}"
    assert len(geopsp.read_sample(out)) == 100


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "3"], "Error: --size is 3, but 4 strata need at least 8 points."),
        (["--expected-accuracy", "0.9,lava=0.5"], "Error: --expected-accuracy names the class 'lava'"),
        (["--expected-accuracy", "x"], "'x' is not a number such as 0.9"),
        (["--confidence-bins", "low"], "'low' is not a list of numbers such as 0.5,0.8"),
        (["--design", "simple", "--zones", "z.gpkg"], "Error: --zones only applies to --design stratified"),
        (["--exclude-class", "lava,4"], "Error: The raster has no class 'lava'."),
    ],
)
def test_the_shell_refuses_in_its_own_words(map_path, tmp_path, arguments, words):
    result = CliRunner().invoke(main, ["sample", str(map_path), "--out", str(tmp_path / "p.gpkg"), *arguments])
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


def test_the_shell_s_accuracies(map_path, tmp_path):
    command = ["sample", str(map_path), "--out", str(tmp_path / "p.gpkg"), "--standard-error", "0.03"]
    assert CliRunner().invoke(main, [*command, "--expected-accuracy", "0.7,grass=0.9"]).exit_code == 0
    stored = geopsp.read_sample(tmp_path / "p.gpkg").options
    assert stored["expected_accuracy"] == {"*": 0.7, "grass": 0.9}


def test_errors_are_ours(map_path):
    """Whatever is asked of the map, a mistake is a GeopspError."""
    for options in ({"size": 2}, {"nodata": 1, "size": 20}, {"nodata": "none", "size": 50}):
        try:
            sample = draw(map_path, **options)
        except GeopspError:
            continue
        assert len(sample) == options["size"]
