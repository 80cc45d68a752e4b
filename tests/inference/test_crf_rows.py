"""Maps with a CRF: the same bytes however they came about, and what their rasters hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from click.testing import CliRunner
from common import slow
from inference_common import CLASSES, trained_model
from torch import nn

from geopsp import CRFOptions, PixelClassifier, classify_pixels
from geopsp.cli import main
from geopsp.core.legend import IGNORE_INDEX
from geopsp.errors import OptionError
from geopsp.inference import crf_rows, outputs, predict_parts
from geopsp.inference.options import MapSettings
from geopsp.inference.part_size import num_tiles_computed, part_width
from geopsp.inference.plan_job import plan_job
from geopsp.inference.predict_parts import measure_cost, predict_missing_parts, predict_part
from geopsp.inference.resources import Resources
from geopsp.inference.run_job import run_job
from geopsp.labels.lazy_area import LazyAreaOfInterest
from geopsp.models.build import ModelSpec, build_network
from geopsp.models.crf import CRFParameters, crf_parameters
from geopsp.models.mean_field import mean_field
from geopsp.models.saved_model import save_model
from geopsp.raster.scene import Scene

CPU = torch.device("cpu")
CRF = CRFOptions(appearance_sigma=2, color_sigma=0.4, smoothness_weight=2, smoothness_sigma=0.6, iterations=3)
"""With a halo of 12 pixels."""


class Mixed(nn.Module):
    """Blobs of classes that differ from tile to tile, so that seams have to be blended."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, CLASSES, 7, padding=3).requires_grad_(False)
        self.mix = nn.Conv2d(1, CLASSES, 1).requires_grad_(False)

    def forward(self, image, valid=None):
        return self.conv(image) + self.mix(image.mean(dim=(2, 3), keepdim=True))


@pytest.fixture
def scene(make_raster):
    """Fields of 10 x 10 pixels, and two rectangles of nodata, one of which parts lie within."""
    rng = np.random.default_rng(0)
    data = np.kron(rng.integers(1, CLASSES + 1, (1, 15, 23)), np.ones((1, 10, 10))).astype(np.uint8)
    data = np.clip(data + rng.integers(-1, 2, data.shape), 1, 255).astype(np.uint8)
    data[:, :70, 100:] = 0
    data[:, 100:110, 20:40] = 0
    return Scene.open(make_raster("image.tif", data, nodata=0))


def products(folder, legend):
    return [
        outputs.class_spec(folder / "map.tif", legend),
        outputs.fraction_spec("confidence", folder / "confidence.tif"),
        outputs.probability_spec(folder / "probabilities.tif", legend, "float16"),
        outputs.fraction_spec("disagreement", folder / "disagreement.tif"),
    ]


def plan(scene, folder, model=None, *, part_side=64, crf=CRF, aoi=None, **options):
    folder.mkdir(exist_ok=True)
    model = model or trained_model(network=Mixed())
    area = None if aoi is None else LazyAreaOfInterest(aoi)
    wanted, settings = products(folder, model.legend), MapSettings(crf=crf, **options)
    return model, plan_job(scene, model, wanted, settings, part_side=part_side, block=32, aoi=area)


def make(scene, folder, model=None, *, threads=1, progress=None, **options):
    model, job = plan(scene, folder, model, **options)
    run_job(job, model, resources=Resources(CPU, batch_size=1, threads=threads), progress=progress)
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def pixels(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


@pytest.fixture
def strips(monkeypatch):
    """Sets the rows of strips."""

    def change(rows):
        monkeypatch.setattr(crf_rows, "MIN_STRIP_ROWS", rows)
        monkeypatch.setattr(crf_rows, "MAX_STRIP_ROWS", rows)

    return change


@pytest.mark.parametrize("options", [{}, *map(slow, ({"padding": 16, "sieve": 9}, {"test_time_augmentation": True}))])
def test_the_bytes_depend_neither_on_parts_nor_on_threads_nor_on_strips(options, scene, tmp_path, strips):
    if not options:
        left, bottom, right, top = scene.grid.bounds()
        inside = shapely.Polygon([(left, bottom + 30), (right - 30, bottom), (right, top - 30), (left, top)])
        options = {"aoi": gpd.GeoDataFrame(geometry=[inside], crs=scene.grid.crs)}
    whole = contents(make(scene, tmp_path / "one", part_side=256, **options))
    assert len(whole) > 4
    for number, (side, threads, rows) in enumerate([(64, 1, 512), (32, 3, 7), (128, 2, 1)]):
        strips(rows)
        assert contents(make(scene, tmp_path / f"other{number}", part_side=side, threads=threads, **options)) == whole


def test_a_map_that_was_interrupted_has_the_same_bytes(scene, tmp_path):
    class StopError(Exception):
        pass

    def progress(done, total, note=""):
        if done > total // 2:
            raise StopError

    whole = contents(make(scene, tmp_path / "whole"))
    with pytest.raises(StopError):
        make(scene, tmp_path / "resumed", progress=progress)
    _, job = plan(scene, tmp_path / "resumed")
    assert 0 < len(job.missing()) < len(job.parts)
    assert contents(make(scene, tmp_path / "resumed", threads=2)) == whole


@pytest.mark.slow
def test_parts_of_workers_are_those_of_one_process(scene, tmp_path):
    """Which make each part by itself, in one thread."""
    before = torch.get_num_threads()
    torch.manual_seed(0)
    model = trained_model(network=build_network(ModelSpec("tu-test_resnet", 1, CLASSES)).eval())
    files = []
    for folder in (tmp_path / "process", tmp_path / "workers"):
        _, job = plan(scene, folder, model)
        job.begin(1)
        save_model(model, job.model_folder)
        if folder.name == "process":
            predict_missing_parts(job, job.missing(), model, Resources(CPU, 1, 2), None)
        else:
            counts = [predict_part(job, number, device="cpu") for number in reversed(job.missing())]
            assert sum(counts) == num_tiles_computed(job.parts, job.tiles, job.halo)
        files.append(contents(job.part_path(job.rasters[0], 0).parent))
    torch.set_num_threads(before)
    assert len(files[0]) == 4 * len(job.parts)
    assert files[0] == files[1]


def test_progress_counts_the_tiles_of_the_halo_too(scene, tmp_path):
    calls = []
    make(scene, tmp_path / "out", part_side=64, progress=lambda done, total, note="": calls.append((done, total)))
    assert calls[-1][0] == calls[-1][1] == max(done for done, _ in calls)


def test_a_map_is_mean_field_inference_on_the_blended_probabilities(scene, tmp_path):
    plain, refined = make(scene, tmp_path / "plain", crf=False), make(scene, tmp_path / "refined")
    probabilities = np.nan_to_num(pixels(plain / "probabilities.tif").astype(np.float32))
    model, data = trained_model(), scene.read()
    image = model.normalization(data.data, data.valid)
    parameters = crf_parameters(CRF, {})
    expected = mean_field(probabilities, image, data.valid, parameters)
    found = pixels(refined / "probabilities.tif").astype(np.float32)
    assert (np.isnan(found) == ~data.valid).all()
    assert np.abs(np.nan_to_num(found) - expected).max() < 0.02, "but for float16"
    classes = pixels(refined / "map.tif")[0]
    assert ((classes == IGNORE_INDEX) == ~data.valid).all()
    wanted = np.array(model.legend.codes)[expected.argmax(axis=0)]
    assert (classes == wanted)[data.valid].mean() > 0.999
    assert (classes != pixels(plain / "map.tif")[0])[data.valid].mean() > 0.05, "it does something"
    np.testing.assert_allclose(found[:, data.valid].sum(axis=0), 1, atol=2e-3)
    sure = pixels(refined / "confidence.tif")[0][data.valid] / outputs.FRACTION_STEPS
    np.testing.assert_allclose(sure, found[:, data.valid].max(axis=0), atol=3e-3)
    assert np.array_equal(pixels(plain / "disagreement.tif"), pixels(refined / "disagreement.tif"))


def test_classes_that_are_not_predicted_stay_out(scene, tmp_path):
    model = trained_model(network=Mixed())
    model.losses = replace(model.losses, ignore_classes=("water",))
    folder = make(scene, tmp_path / "out", model, predict_background=False)
    valid = scene.read().valid
    assert set(np.unique(pixels(folder / "map.tif")[0][valid])) <= {4, 90, 254}
    assert not pixels(folder / "probabilities.tif")[:2][:, valid].any()


def test_an_image_without_a_valid_pixel(make_raster, tmp_path):
    empty = Scene.open(make_raster("empty.tif", np.zeros((1, 90, 70), np.uint8), nodata=0))
    folder = make(empty, tmp_path / "out")
    assert (pixels(folder / "map.tif") == IGNORE_INDEX).all()


def test_the_key_depends_on_the_parameters_that_are_used(scene, tmp_path):
    def key(crf, **fitted):
        model = trained_model(network=Mixed())
        model.settings = {"crf": {**CRFParameters().to_json(), **fitted}} if fitted else {}
        return plan(scene, tmp_path / "out", model, crf=crf)[1].key

    assert key(crf=False) == key(crf=False, iterations=2)
    assert key(crf=True) == key(CRFOptions(color_sigma=0.3)) != key(crf=False)
    assert key(crf=True, iterations=2) == key(CRFOptions(iterations=2)) != key(crf=True)
    assert key(CRFOptions(iterations=4)) != key(crf=True)


def test_memory_and_time_count_the_crf(scene, tmp_path, monkeypatch):
    (model, with_crf), (_, without) = plan(scene, tmp_path / "a"), plan(scene, tmp_path / "a", crf=False)
    resources = Resources(CPU, 1, 1)
    strip = crf_rows.strip_bytes(with_crf.crf, 64 + 24, CLASSES, 1)
    monkeypatch.setattr(predict_parts, "tile_seconds", lambda *_: 0.0)
    monkeypatch.setattr(Resources, "needed_bytes", lambda self, job, model: 1.0)
    assert (
        measure_cost(with_crf, model, resources).tile_seconds
        > 0
        == measure_cost(without, model, resources).tile_seconds
    )
    monkeypatch.undo()
    if torch.cuda.is_available() or hasattr(model.network, "encoder"):
        assert resources.needed_bytes(with_crf, model) == resources.needed_bytes(without, model) + strip
    specs = [outputs.class_spec(Path("m"), model.legend)]
    assert part_width(scene, 512, specs, 5, 512, CRFParameters()) < part_width(scene, 512, specs, 5, 512)


@pytest.mark.parametrize("rows", [1, 100, 5000])
def test_a_strip_fits_the_memory_if_its_halo_does(rows, monkeypatch):
    crf = CRFParameters()
    monkeypatch.setattr(crf_rows, "STRIP_BYTES", (rows + 2 * crf.halo) * 2048 * crf.bytes_per_pixel(6, 3))
    found = crf_rows.strip_rows(crf, 2048, 6, 3)
    assert found == {1: crf_rows.MIN_STRIP_ROWS, 100: crf_rows.MIN_STRIP_ROWS, 5000: crf_rows.MAX_STRIP_ROWS}[rows]
    assert crf_rows.strip_bytes(crf, 2048, 6, 3) == (found + 2 * crf.halo) * 2048 * crf.bytes_per_pixel(6, 3)


# Options


@pytest.mark.parametrize(
    ("crf", "message"),
    [
        ("yes", "`crf` is 'yes', but must be True, False or a `CRFOptions`"),
        (1, "`crf` is 1, but must be"),
        (CRFOptions(radius=300, iterations=5), "is 1500 pixels, but may be at most 512"),
    ],
)
def test_bad_options_are_refused_before_any_work(crf, message, scene, tmp_path):
    classifier = PixelClassifier.__new__(PixelClassifier)
    classifier.model, classifier.device = trained_model(), "cpu"
    with pytest.raises(OptionError, match=message):
        classify_pixels(scene.sources[0].path, classifier, tmp_path / "map.tif", crf=crf)
    assert not list(tmp_path.glob("*map*"))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--crf"], {"crf": True}),
        (["--crf", "--crf-iterations", "2"], {"crf": CRFOptions(iterations=2)}),
        (["--crf-color-sigma", "0.5", "--crf-radius", "9"], {"crf": CRFOptions(color_sigma=0.5, radius=9)}),
        ([], {}),
    ],
)
def test_the_shell_s_options(flags, expected, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # the record of the command lies beside the map
    calls = []
    monkeypatch.setattr("geopsp.models.manifest.read_manifest", lambda _: {})
    monkeypatch.setattr(
        "geopsp.inference.classify_pixels.classify_pixels", lambda *_, **found: calls.append(found) or "m"
    )
    done = CliRunner().invoke(main, ["predict", "model", "image.tif", "--out", "map.tif", *flags])
    assert done.exit_code == 0, done.output
    assert calls == [expected]
