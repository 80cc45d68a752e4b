"""Maps with a known truth, assessed by samples, points, polygons and rasters."""

from __future__ import annotations

import json
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner
from pyproj import Geod

from geopsp.assessment.accuracy.assess_map import assess_map
from geopsp.assessment.sampling.draw_sample import draw_sample
from geopsp.assessment.sampling.sample_file import read_sample, write_sample
from geopsp.cli import main
from geopsp.errors import LabelError, OptionError, OutputError

NAMES = {1: "water", 2: "forest", 3: "urban"}
SIZE = (300, 200)
DEGREES = Affine(0.1, 0, 10, 0, -0.1, 60)
"""From 60 to 30 degrees north: the last row of pixels has 1.7 times the area of the first."""


def write_map(path, codes, names=NAMES, transform=DEGREES, crs="EPSG:4326"):
    shape = {"height": codes.shape[0], "width": codes.shape[1], "count": 1, "dtype": "uint8", "nodata": 255}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **shape) as file:
        file.write(codes, 1)
        rows = [{"code": code, "name": name, "color": f"#{code:02x}0000"} for code, name in names.items()]
        file.update_tags(GEOPSP_CLASSES=json.dumps(rows))
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A truth with more water in the south, a map of it with errors, another one with fewer, and a sample."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    south = np.linspace(0, 1, SIZE[0] // 5)[:, None]
    patches = rng.random((SIZE[0] // 5, SIZE[1] // 5))
    truth = np.kron(np.where(patches < 0.3 + 0.4 * south, 1, np.where(patches < 0.9, 2, 3)), np.ones((5, 5), int))
    codes = {"truth": truth.astype(np.uint8)}
    for name, wrong in (("map", 0.25), ("better", 0.1)):
        codes[name] = np.where(rng.random(SIZE) < wrong, rng.choice([1, 2, 3], size=SIZE), truth).astype(np.uint8)
    codes["map"][:10, :30] = 255
    for name, pixels in codes.items():
        write_map(folder / f"{name}.tif", pixels)
    return folder, codes


def labelled(world, path, *, only=None, name="map", **options):
    """A sample of a map with the truth as reference, written to a file."""
    folder, codes = world
    sample = draw_sample(folder / f"{name}.tif", path, **options)
    reference = [NAMES[code] for code in codes["truth"][sample.points["pixel_row"], sample.points["pixel_col"]]]
    points = sample.points.assign(reference=reference)
    if only is not None:
        points["reference"] = points["reference"].where(only(points), None)
    sample = replace(sample, points=points)
    write_sample(sample, path, overwrite=True)
    return sample


def true_areas(codes, mapped="map"):
    """Hectares of each class of the truth on valid pixels of a map, by geodesic polygons of its rows."""
    geod = Geod(ellps="WGS84")
    tops = [60 - 0.1 * row for row in range(SIZE[0])]
    pixels = [shapely.segmentize(shapely.box(10, top - 0.1, 10.1, top), 0.01) for top in tops]
    rows = [abs(geod.geometry_area_perimeter(pixel)[0]) for pixel in pixels]
    area = np.repeat(np.array(rows)[:, None] / 10_000, SIZE[1], axis=1)
    valid = codes[mapped] != 255
    return {name: area[valid & (codes["truth"] == code)].sum() for code, name in NAMES.items()}, area


def covers(row, truth):
    return abs(row["estimate"] - truth) <= 3.5 * row["standard_error"]


@pytest.mark.parametrize("options", [{"design": "stratified", "size": 600}, {"design": "simple", "size": 600},
                                     {"design": "cluster", "size": 60, "cluster_size": 3}])  # fmt: skip
@pytest.mark.parametrize("assessed", ["map", "better"])
def test_a_sample_gives_hectares_and_accuracies_near_the_truth(world, tmp_path, options, assessed):
    folder, codes = world
    labelled(world, tmp_path / "sample.gpkg", **options)
    found = assess_map(folder / f"{assessed}.tif", tmp_path / "sample.gpkg")
    areas, pixel_area = true_areas(codes)
    valid = codes["map"] != 255
    right = (codes[assessed] == codes["truth"]) & valid
    assert covers(found.overall, pixel_area[right].sum() / pixel_area[valid].sum())
    assert found.overall["lower"] < found.overall["estimate"] < found.overall["upper"]
    for code, name in NAMES.items():
        of_class, in_map = codes["truth"] == code, (codes[assessed] == code) & valid
        assert covers(found.areas.loc[name], areas[name])
        assert covers(found.users.loc[name], pixel_area[in_map & right].sum() / pixel_area[in_map].sum())
        assert covers(
            found.producers.loc[name], pixel_area[of_class & right].sum() / pixel_area[of_class & valid].sum()
        )
        whole = pixel_area[codes[assessed] == code].sum()
        assert found.areas.loc[name, "mapped"] == pytest.approx(whole, rel=1e-4)
    assert found.total_area == pytest.approx(pixel_area[valid].sum(), rel=1e-4)
    assert found.area_shares.to_numpy().sum() == pytest.approx(1)
    assert any("is not the map that" in text for text in found.warnings) is (assessed == "better")
    assert ("Stehman 2014" in found.method) is (assessed == "better" and options["design"] == "stratified")


def test_the_estimates_are_those_of_olofsson_2014_computed_by_hand(tmp_path):
    """In a CRS of equal areas, with pixels of 0.01 ha."""
    rng = np.random.default_rng(2)
    codes = rng.choice([1, 2], p=[0.7, 0.3], size=(80, 80)).astype(np.uint8)
    equal_area = Affine(10, 0, 4_321_000, 0, -10, 3_210_000)
    write_map(tmp_path / "map.tif", codes, transform=equal_area, crs="EPSG:3035")
    sample = draw_sample(tmp_path / "map.tif", tmp_path / "s.gpkg", size=60, allocation="equal")
    reference = np.where(rng.random(60) < 0.8, sample.points["map_class"], "urban")
    found = assess_map(tmp_path / "map.tif", replace(sample, points=sample.points.assign(reference=reference)))
    pixels = np.array([(codes == code).sum() for code in (1, 2)])
    share = pixels / pixels.sum()
    right = [(reference[sample.points["map_class"] == name] == name).mean() for name in ("water", "forest")]
    number = np.array([(sample.points["map_class"] == name).sum() for name in ("water", "forest")])
    spread = share**2 * np.array(right) * (1 - np.array(right)) / (number - 1) * (1 - number / pixels)
    assert found.overall["estimate"] == pytest.approx(share @ right)
    assert found.overall["standard_error"] == pytest.approx(np.sqrt(spread.sum()), rel=1e-5)
    assert found.areas.loc["urban", "estimate"] == pytest.approx((1 - share @ right) * 64, rel=1e-5)
    assert found.areas.loc["urban", "mapped"] == 0
    assert np.isnan(found.users.loc["urban", "estimate"])
    assert found.overall["upper"] - found.overall["lower"] == pytest.approx(3.919928 * np.sqrt(spread.sum()), rel=1e-5)


def test_points_without_a_label_are_counted_and_named(world, tmp_path):
    folder, _ = world
    labelled(world, tmp_path / "s.gpkg", only=lambda points: points["id"] > 7, size=300)
    found = assess_map(folder / "map.tif", tmp_path / "s.gpkg")
    assert (found.num_points, found.num_unlabelled) == (293, 7)
    assert any("7 points of 300 without a reference label do not count" in text for text in found.warnings)
    assert found.strata["labelled"].sum() == 293
    labelled(world, tmp_path / "none.gpkg", only=lambda points: points["id"] > 1000, size=300)
    with pytest.raises(LabelError, match=r"No point of none\.gpkg has a reference label"):
        assess_map(folder / "map.tif", tmp_path / "none.gpkg")


def test_strata_with_one_point_or_none_are_said_and_merged_if_asked(world, tmp_path):
    folder, _ = world

    def one_urban(points):
        urban = points["map_class"] == "urban"
        return ~urban | (urban.cumsum() == 1)

    labelled(world, tmp_path / "s.gpkg", only=one_urban, size=300)
    found = assess_map(folder / "map.tif", tmp_path / "s.gpkg")
    assert any("A single labelled point lies in urban" in text for text in found.warnings)
    assert np.isnan(found.overall["standard_error"])
    assert np.isnan(found.users.loc["urban", "standard_error"])
    assert np.isfinite(found.users.loc["water", "standard_error"])
    assert found.to_json()["overall_accuracy"]["lower"] is None
    merged = assess_map(folder / "map.tif", tmp_path / "s.gpkg", merge_strata=True)
    assert merged.overall["estimate"] == pytest.approx(found.overall["estimate"])
    assert merged.overall["standard_error"] > 0
    labelled(world, tmp_path / "t.gpkg", only=lambda points: points["map_class"] != "urban", size=300)
    rest = assess_map(folder / "map.tif", tmp_path / "t.gpkg")
    assert any("No labelled point lies in urban" in text for text in rest.warnings)
    assert any("The map has urban, but no labelled point lies there" in text for text in rest.warnings)
    assert rest.total_area == pytest.approx(found.total_area - found.areas.loc["urban", "mapped"])


def test_zones_are_estimated_from_their_own_strata(world, tmp_path):
    folder, codes = world
    halves = [shapely.box(10, 45, 30, 60), shapely.box(10, 30, 30, 45)]
    zones = gpd.GeoDataFrame({"name": ["north", "south"]}, geometry=halves, crs=4326)
    labelled(world, tmp_path / "s.gpkg", size=600, zones=zones, zone_field="name")
    found = assess_map(folder / "map.tif", tmp_path / "s.gpkg")
    assert found.zones.index.tolist() == ["north", "south"]
    assert found.zones["area_ha"].sum() == pytest.approx(found.total_area)
    areas = found.zone_areas.set_index(["zone", "class"])["estimate"]
    assert areas.groupby("class").sum().loc["water"] == pytest.approx(found.areas.loc["water", "estimate"])
    _, pixel_area = true_areas(codes)
    north = (codes["truth"] == 1)[:150] & (codes["map"] != 255)[:150]
    row = found.zone_areas.set_index(["zone", "class"]).loc[("north", "water")]
    assert covers(row, pixel_area[:150][north].sum())


def layer_of(sample, crs=4326, **columns):
    return gpd.GeoDataFrame(columns, geometry=sample.points.geometry.to_numpy(), crs=sample.points.crs).to_crs(crs)


def test_points_of_no_known_design_get_no_intervals(world, tmp_path):
    folder, _ = world
    sample = labelled(world, tmp_path / "s.gpkg", design="simple", size=300)
    values = [{name: code for code, name in NAMES.items()}[name] for name in sample.points["reference"]]
    points = layer_of(sample, crs=3857, code=values)
    found = assess_map(folder / "map.tif", points, reference_field="code")
    assert found.design == "unknown"
    assert found.overall["estimate"] == pytest.approx(np.trace(found.error_matrix) / 300)
    assert np.isnan([found.overall["lower"], found.total_area, *found.areas["estimate"]]).all()
    assert any("How the points were chosen is not known" in text for text in found.warnings)
    simple = assess_map(folder / "map.tif", points, reference_field="code", design="simple")
    own = assess_map(folder / "map.tif", tmp_path / "s.gpkg")
    assert simple.areas.to_numpy() == pytest.approx(own.areas.to_numpy(), rel=1e-6)


def test_points_on_nodata_outside_and_in_one_pixel_are_said(world):
    folder, _ = world
    places = [(20.05, 40.05), (20.06, 40.06), (22.05, 41.05), (10.05, 59.95), (100, 40)]
    points = gpd.GeoDataFrame(
        {"k": ["water", "forest", "water", "water", "water"]}, geometry=[shapely.Point(*at) for at in places], crs=4326
    )
    found = assess_map(folder / "map.tif", points, reference_field="k")
    assert found.num_points == 2
    said = " ".join(found.warnings)
    assert "1 point of 5 lies outside of the map" in said
    assert "1 point of 3 lies on nodata of the map" in said
    assert "1 point of 4 lies in the pixel of another point" in said
    assert "In 1 pixel they have different classes" in said


def test_a_reference_raster_is_a_census_of_its_pixels(world):
    folder, codes = world
    found = assess_map(folder / "map.tif", folder / "truth.tif")
    valid = codes["map"] != 255
    expected = pd.crosstab(codes["map"][valid], codes["truth"][valid]).to_numpy()
    assert found.error_matrix.to_numpy().tolist() == expected.tolist()
    areas, pixel_area = true_areas(codes)
    assert found.areas["estimate"].to_dict() == pytest.approx(areas, rel=1e-4)
    assert found.overall["estimate"] == pytest.approx(
        pixel_area[valid & (codes["map"] == codes["truth"])].sum() / pixel_area[valid].sum(), rel=1e-5
    )
    assert np.isnan(found.overall["standard_error"])
    assert any("300 labelled pixels" in text and "nodata in the map" in text for text in found.warnings)


def test_reference_polygons_count_where_they_are(world, tmp_path):
    folder, codes = world
    boxes = [shapely.box(12, 40, 14, 42), shapely.box(20, 50, 23, 51)]
    polygons = gpd.GeoDataFrame({"k": ["See", "forest"]}, geometry=boxes, crs=4326)
    mapping = {"See": "water"}
    found = assess_map(folder / "map.tif", polygons, reference_field="k", class_mapping=mapping)
    assert found.num_points == 20 * 20 + 30 * 10
    inside = codes["map"][180:200, 20:40]
    assert found.error_matrix["water"].tolist() == [(inside == code).sum() for code in NAMES]
    with pytest.raises(OptionError, match="reference_field"):
        assess_map(folder / "map.tif", polygons)
    with pytest.raises(LabelError, match="No class of the GeoDataFrame"):
        assess_map(folder / "map.tif", polygons.iloc[:1], reference_field="k")


def test_names_that_are_nearly_those_of_the_map_are_an_error(world):
    folder, _ = world
    points = gpd.GeoDataFrame(
        {"k": ["water", "Forrest"]}, geometry=[shapely.Point(20, 40), shapely.Point(21, 41)], crs=4326
    )
    with pytest.raises(LabelError, match=r"'Forrest', which the map does not have\. Did you mean 'forest'"):
        assess_map(folder / "map.tif", points, reference_field="k")
    found = assess_map(folder / "map.tif", points, reference_field="k", class_mapping={"Forrest": "Forrest"})
    assert "Forrest" in found.classes
    found = assess_map(folder / "map.tif", points, reference_field="k", class_mapping={"Forrest": None})
    assert (found.num_points, found.num_unlabelled) == (1, 1)


def test_reference_values_of_a_sample_are_renamed(world, tmp_path):
    folder, _ = world
    path = tmp_path / "s.gpkg"
    sample = labelled(world, path, size=300)
    own = assess_map(folder / "map.tif", path)
    points = sample.points.assign(reference=sample.points["reference"].replace({"water": "See", "forest": "12"}))
    write_sample(replace(sample, points=points), path, overwrite=True)
    found = assess_map(folder / "map.tif", path, class_mapping={"See": "water", 12: "forest"})
    assert found.areas.equals(own.areas)
    with pytest.raises(LabelError, match="'See'"):
        assess_map(folder / "map.tif", path, class_mapping={12: "forest"})


def test_a_map_on_another_grid_is_read_at_the_points(world, tmp_path):
    folder, codes = world
    labelled(world, tmp_path / "s.gpkg", size=300)
    fine = np.kron(codes["map"], np.ones((2, 2), np.uint8))
    write_map(tmp_path / "fine.tif", fine, transform=DEGREES * Affine.scale(0.5))
    found = assess_map(tmp_path / "fine.tif", tmp_path / "s.gpkg")
    own = assess_map(folder / "map.tif", tmp_path / "s.gpkg")
    assert found.error_matrix.equals(own.error_matrix)
    assert found.areas.to_numpy() == pytest.approx(own.areas.to_numpy(), rel=1e-4)
    assert any("lies on another grid" in text for text in found.warnings)
    crop = codes["map"][100:]
    write_map(tmp_path / "crop.tif", crop, transform=DEGREES * Affine.translation(0, 100))
    part = assess_map(tmp_path / "crop.tif", tmp_path / "s.gpkg")
    assert any("on nodata or outside of the map" in text for text in part.warnings)
    assert part.total_area == pytest.approx(part.areas["estimate"].sum())
    assert part.num_points == (read_sample(tmp_path / "s.gpkg").points["pixel_row"] >= 100).sum()


def test_the_shell_prints_and_writes_all(world, tmp_path):
    folder, _ = world
    labelled(world, tmp_path / "s.gpkg", size=300)
    outputs = [f"--{kind}={tmp_path / 'out'}.{kind}" for kind in ("json", "csv", "html")]
    result = CliRunner().invoke(main, ["assess", str(folder / "map.tif"), str(tmp_path / "s.gpkg"), *outputs])
    assert result.exit_code == 0, result.output
    found = assess_map(folder / "map.tif", tmp_path / "s.gpkg")
    assert found.text() in result.output
    assert json.loads((tmp_path / "out.json").read_text()) == found.to_json()
    again = CliRunner().invoke(main, ["assess", str(folder / "map.tif"), str(tmp_path / "s.gpkg"), outputs[0]])
    assert again.exit_code == 2
    assert "--overwrite" in again.output


def test_results_are_saved_by_ending(world, tmp_path):
    folder, _ = world
    labelled(world, tmp_path / "s.gpkg", size=300)
    found = assess_map(folder / "map.tif", tmp_path / "s.gpkg", confidence_level=0.9)
    table = pd.read_csv(found.save(tmp_path / "a.csv"))
    row = table[(table["measure"] == "area") & (table["class"] == "water")].iloc[0]
    assert row["estimate"] == pytest.approx(found.areas.loc["water", "estimate"])
    assert row["upper"] - row["estimate"] == pytest.approx(1.644854 * row["standard_error"], rel=1e-5)
    assert table[table["measure"] == "error matrix"]["estimate"].sum() == 300
    with pytest.raises(OutputError, match="already exists"):
        found.save(tmp_path / "a.csv")
    with pytest.raises(OptionError, match=r"must end in \.json, \.csv or \.html"):
        found.save(tmp_path / "a.xlsx")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"confidence_level": 1}, "confidence_level"),
        ({"design": "random"}, "design"),
        ({"design": "simple"}, "does not apply to a sample"),
        ({"where": "id > 3"}, "does not apply to a sample"),
        ({"reference_fild": "k"}, "Did you mean `reference_field`"),
    ],
)
def test_options_out_of_place_are_errors(world, tmp_path, options, words):
    folder, _ = world
    labelled(world, tmp_path / "s.gpkg", size=60)
    with pytest.raises(OptionError, match=words):
        assess_map(folder / "map.tif", tmp_path / "s.gpkg", **options)
