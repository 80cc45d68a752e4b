"""The wide sample scenes: only what lies beyond an FCN's field of view tells lakes from aprons, and boats from cars."""

from __future__ import annotations

import copy
import importlib.util
import subprocess
import sys
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from common import REPOSITORY, SAMPLE
from scipy.ndimage import label as label_components

from geopsp.models.build import ModelSpec, build_network


def load(path):
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


make = load(SAMPLE / "make.py")
OBJECTS = {"boat": "water", "car": "road"}


@pytest.fixture(scope="module")
def land():
    site = replace(make.WIDE["test"], width=4 * make.CELL, height=2 * make.CELL, lakes=4, estates=4)
    return make.make_wide_land(site, 7)


def bodies(land, name):
    return shapely.STRtree([piece.shape for piece in land.ground if piece.name == name])


@pytest.mark.parametrize("name", OBJECTS)
def test_three_of_four_lie_far_from_the_rim(land, name):
    around = bodies(land, OBJECTS[name])
    shapes = [piece.shape for piece in land.objects if piece.name == name]
    homes = around.query(shapes, predicate="within")
    assert homes.shape[1] == len(shapes), "each lies on one lake or apron"
    rims = shapely.boundary(around.geometries[homes[1]])
    far = shapely.distance(rims, np.array(shapes)[homes[0]]) >= make.FAR - 1e-6
    assert len(shapes) >= 4 * 7
    assert far.mean() == pytest.approx(0.75, abs=0.05)


def test_halls_touch_neither_aprons_nor_lakes(land):
    halls = [piece.shape for piece in land.objects if piece.name == "building"]
    assert len(halls) > 8
    for name in OBJECTS.values():
        assert bodies(land, name).query(halls, predicate="intersects").size == 0


def test_the_name_of_a_surface_does_not_change_how_it_looks(land):
    """Lakes painted as aprons, boats as cars, and the other way round: the same pixels."""
    exchange = {"boat": "car", "car": "boat", "water": "road", "road": "water"}
    swapped = copy.deepcopy(land)
    for piece in swapped.ground + swapped.objects:
        piece.name = exchange.get(piece.name, piece.name)
    assert np.array_equal(make.paint_wide(copy.deepcopy(land)), make.paint_wide(swapped))


def field_of_view(**context):
    """Greatest distance of a pixel that the centre's logits depend on, of networks whose units are all active."""
    network = build_network(ModelSpec("resnet18", 4, 7, decoder="plain", encoder_depth=3, **context)).eval()
    for parameter in network.parameters():
        parameter.data.abs_()
    rows, cols = np.mgrid[:256, :256]
    reach = 0.0
    for seed, centre in enumerate((124, 126, 128, 131)):
        torch.manual_seed(seed)
        image = torch.rand(1, 4, 256, 256, dtype=torch.float32, requires_grad=True)
        network(image, torch.ones(1, 1, 256, 256))[..., centre, centre].sum().backward()
        seen = (image.grad.abs().sum(dim=(0, 1)) > 0).numpy()
        reach = max(reach, np.maximum(abs(rows - centre), abs(cols - centre))[seen].max())
    return reach


def test_what_an_fcn_sees_around_far_objects_has_no_rim(land):
    """For most of them not even the corners of the square that it sees have one; the pyramid sees the whole tile."""
    reach = field_of_view(pyramid_sizes=())
    assert 50 < reach < make.FAR
    assert field_of_view(pyramid_sizes=(1, 2, 3, 6)) > 110
    surfaces = shapely.STRtree([piece.shape for piece in land.ground if piece.name in OBJECTS.values()])
    far = [shapely.centroid(p.shape) for p in land.objects if p.name in OBJECTS
           and surfaces.query(p.shape.buffer(make.FAR - 0.1), predicate="within").size]  # fmt: skip
    views = [shapely.box(at.x - reach, at.y - reach, at.x + reach, at.y + reach) for at in far]
    assert len(far) == 8 * 6
    assert surfaces.query(views, predicate="within").shape[1] > 0.75 * len(far)


@pytest.mark.slow
def test_it_writes_scenes_and_labels(tmp_path):
    command = [sys.executable, SAMPLE / "make.py", "--kind", "wide", "--small", "--out", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        "wide_train.tif", "wide_train.gpkg", "wide_test.tif", "wide_test.gpkg"
    }  # fmt: skip
    for name in ("train", "test"):
        with rasterio.open(tmp_path / f"wide_{name}.tif") as dataset:
            assert (dataset.width, dataset.height, dataset.count) == (1024, 512, 4)
            assert (dataset.dataset_mask() > 0).all()
            bounds = shapely.box(*dataset.bounds)
        labels = gpd.read_file(tmp_path / f"wide_{name}.gpkg", layer="landcover").to_crs("EPSG:32632")
        assert set(labels["landcover"]) == {"bare", "boat", "building", "car", "crop", "road", "water"}
        assert labels.union_all().intersection(bounds).area == pytest.approx(bounds.area, rel=1e-4)


@pytest.fixture(scope="module")
def benchmark():
    if not (REPOSITORY / "benchmarks").is_dir():
        pytest.skip("the benchmarks are not here, but in the repository")
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    tests_common = sys.modules.pop("common")
    try:
        return load(REPOSITORY / "benchmarks" / "context.py")
    finally:
        sys.path.remove(str(REPOSITORY / "benchmarks"))
        sys.modules["common"] = tests_common


def test_objects_are_counted_by_most_of_their_pixels(benchmark):
    labels, predicted = np.zeros((2, 20, 20), int)
    labels[1:5, 1:5], predicted[1:5, 1:4], predicted[1:5, 4] = 1, 1, 2  # found as what it is
    labels[1:5, 8:12], predicted[1:5, 8:11] = 1, 2  # confused
    labels[8:12, 1:5], predicted[8:12, 1:3] = 2, 1  # half of it is no object: not found
    labels[8:12, 8:12], predicted[8:12, 8:12] = 2, 1  # confused
    labels[14:18, 8:12], predicted[14:18, 8:12] = 2, 2
    assert benchmark.count_objects(labels, predicted, 1, 2) == (5, 4, 2)


def test_objects_by_a_loop(benchmark):
    rng = np.random.default_rng(0)
    labels, predicted = (np.kron(rng.integers(0, 4, (12, 12)), np.ones((3, 3), int)) for _ in range(2))
    predicted = np.where(rng.random(labels.shape) < 0.5, labels, predicted)
    expected = np.zeros(3, int)
    for mine, wrong in ((1, 3), (3, 1)):
        components, count = label_components(labels == mine)
        for number in range(1, count + 1):
            pixels = predicted[components == number].tolist()
            right, lost = pixels.count(mine), pixels.count(wrong)
            found = right + lost > len(pixels) / 2
            expected += [1, found, found and lost > right]
    assert benchmark.count_objects(labels, predicted, 1, 3) == tuple(expected)
    assert expected[2] > 0


def test_a_share_of_none_is_not_zero(benchmark):
    scores = benchmark.Scores(None, 10, 9, 0)
    assert benchmark.confused_share([scores, scores]) == pytest.approx(0.5 / 18.5)
