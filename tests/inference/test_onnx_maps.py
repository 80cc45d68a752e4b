"""A map by ONNX Runtime is PyTorch's map, and needs no PyTorch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from common import slow
from inference_common import CPU
from onnx_common import BLOCK, GOLDEN, MODEL, without

from geopsp import PixelClassifier, classify_pixels
from geopsp.core.legend import IGNORE_INDEX
from geopsp.errors import OptionError
from geopsp.inference import outputs
from geopsp.inference.engines import engine_in, engine_of, opened_model
from geopsp.inference.job import KEY_TAG
from geopsp.inference.onnx_engine import ENGINE, Processor
from geopsp.inference.onnx_predictor import DARK, OnnxPredictor
from geopsp.inference.options import MapSettings
from geopsp.inference.plan_job import plan_job
from geopsp.inference.predict_parts import measure_cost, predict_missing_parts, predict_part
from geopsp.inference.resources import Resources
from geopsp.inference.run_job import run_job
from geopsp.inference.torch_predictor import TorchPredictor
from geopsp.models.onnx_file import read_onnx
from geopsp.models.saved_model import load_model
from geopsp.raster.scene import Scene

SAVED, SCENE = GOLDEN / "model", GOLDEN / "scene.tif"
EXTENT = (601234.0 + 38, 5301717.0 - 2 * 301, 601234.0 + 38 + 2 * 333, 5301717.0)
"""333 x 301 pixels of the scene, no multiple of a tile."""


@pytest.fixture(scope="module")
def model():
    return read_onnx(MODEL)


@pytest.fixture(scope="module")
def network():
    return load_model(SAVED)


def pixels(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


def same_but_for_near_ties(ours, theirs):
    return (ours != theirs).sum() <= ours.size / 10_000


@pytest.mark.parametrize(
    "options",
    [
        slow({}),
        slow({"extent": EXTENT, "padding": 31}),
        slow({"extent": EXTENT, "padding": 0, "batch_size": 3}),
        slow({"extent": EXTENT, "test_time_augmentation": True}),
        slow({"extent": EXTENT, "predict_background": False}),
        slow({"extent": EXTENT, "crf": True}),
        {"extent": EXTENT, "cell_size": 3.0, "sieve": 9},
    ],
)
def test_the_map_is_that_of_torch(options, tmp_path):
    """Of an image with two bands and nodata."""
    products = ("probabilities", "confidence", "disagreement")
    for name, model in (("onnx", MODEL), ("torch", SAVED)):
        places = {product: tmp_path / f"{name}_{product}.tif" for product in products}
        device = {} if name == "onnx" else {"device": "cpu", "precision": "fp32"}
        classify_pixels(SCENE, model, tmp_path / f"{name}.tif", **places, **options, **device)
    ours, theirs = (pixels(tmp_path / f"{name}.tif") for name in ("onnx", "torch"))
    assert len(np.unique(ours)) > 1
    assert same_but_for_near_ties(ours, theirs)
    for product in products:
        ours, theirs = (pixels(tmp_path / f"{name}_{product}.tif").astype(int) for name in ("onnx", "torch"))
        assert np.abs(ours - theirs).max() <= 1 + 2 * (product == "disagreement"), product


def test_the_golden_map_is_made_too(tmp_path):
    with np.load(GOLDEN / "expected.npz") as stored:
        expected = next(stored[name] for name in stored.files if stored[name].shape[-2:] == (560, 640))
    found = pixels(classify_pixels(SCENE, MODEL, tmp_path / "map.tif"))[0]
    assert same_but_for_near_ties(found, expected.reshape(found.shape))


# ---- what the graph is shown


def tiles(count=3, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    data = np.kron(rng.integers(20, 160, (count, 2, 8, 8)), np.ones((8, 8))).astype(dtype)
    valid = np.ones((count, 64, 64), bool)
    valid[1, :20] = False
    valid[2:] = rng.random((count - 2, 64, 64)) < 0.7
    return data, valid


def softmax(logits):
    return torch.from_numpy(np.ascontiguousarray(logits)).softmax(1).numpy()


@pytest.mark.parametrize("dtype", ["uint8", "float32", *map(slow, ("int16", "uint16", "float64"))])
@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("excluded", [(), (1, 2), slow((0,))])
def test_logits_are_those_of_torch(dtype, augmented, excluded, model, network):
    data, valid = tiles(dtype=dtype)
    if np.dtype(dtype).kind == "f":
        data[1, :, ~valid[1]] = np.nan
    options = {"batch_size": 2, "test_time_augmentation": augmented, "excluded_channels": excluded}
    ours = OnnxPredictor(model, Processor(), **options)(data, valid)
    theirs = TorchPredictor(network, CPU, **options)(data, valid)
    assert (ours[:, list(excluded)] == -np.inf).all()
    shown = np.broadcast_to(valid[:, None], ours.shape)
    np.testing.assert_allclose(softmax(ours)[shown], softmax(theirs)[shown], atol=2e-5)


def test_valid_pixels_that_are_0_in_all_bands_are_no_nodata(model, network):
    """The graph takes 0 in all bands for nodata; ground that is that dark is told apart by the smallest number."""
    data, valid = tiles(2)
    data[0, :, 10:50, 10:50] = 0
    ours = softmax(OnnxPredictor(model, Processor(), batch_size=2)(data, valid))
    theirs = softmax(TorchPredictor(network, CPU, batch_size=2)(data, valid))
    np.testing.assert_allclose(ours[0], theirs[0], atol=2e-5)
    valid[0, 10:50, 10:50] = False
    as_nodata = softmax(OnnxPredictor(model, Processor(), batch_size=2)(data, valid))
    assert np.abs(as_nodata - ours).max() > 1e-3, "so it does something"
    normalization = model.normalization
    dark, zero = ((np.float32(value) - normalization.mean) / normalization.std for value in (DARK, 0))
    assert np.array_equal(dark, zero)


def test_a_tile_does_not_depend_on_those_beside_it(model):
    data, valid = tiles(3)
    predictor = OnnxPredictor(model, Processor(), batch_size=2)
    together = predictor(data, valid)
    for number in range(3):
        alone = predictor(data[number : number + 1], valid[number : number + 1])
        assert np.array_equal(alone[0], together[number])


def test_less_memory_makes_smaller_batches(model, monkeypatch):
    class Small:
        def __init__(self, session):
            self.session = session

        def run(self, names, feed):
            if len(feed["image"]) > 1:
                raise RuntimeError("Failed to allocate memory for requested buffer of size 99")
            return self.session.run(names, feed)

    data, valid = tiles(3)
    predictor = OnnxPredictor(model, Processor(), batch_size=4)
    predictor.session = Small(predictor.session)
    assert predictor(data, valid).shape == (3, 3, 64, 64)
    assert predictor.batch_size == 1


# ---- keys, workers, memory


def plan(folder, model, **options):
    folder.mkdir(exist_ok=True)
    specs = [outputs.class_spec(folder / "map.tif", model.legend)]
    return plan_job(Scene.open(SCENE), model, specs, MapSettings(**options), part_side=256, block=64)


def test_the_key_names_the_engine_and_the_file(model, network, tmp_path):
    other = read_onnx(MODEL)
    other.sha256 = "0" * 64
    of_weights = read_onnx(MODEL)
    of_weights.exported_here = True
    jobs = [plan(tmp_path / "out", each) for each in (model, network, other, of_weights)]
    assert len({job.key for job in jobs}) == 4
    assert plan(tmp_path / "out", read_onnx(MODEL)).key == jobs[0].key
    assert jobs[3].model.endswith(network.fingerprint())


class StopError(Exception):
    pass


def test_a_map_resumes_and_never_with_another_engine(model, network, tmp_path, capsys):
    def stop(done, total, note=""):
        if done > total // 2:
            raise StopError

    resources = Resources(Processor(), 1, 1)
    whole = plan(tmp_path / "whole", model)
    run_job(whole, model, resources=resources)
    job = plan(tmp_path / "part", model)
    with pytest.raises(StopError):
        run_job(job, model, resources=resources, progress=stop)
    assert 0 < len(job.missing()) < len(job.parts)
    run_job(job, model, resources=resources)
    assert (tmp_path / "part" / "map.tif").read_bytes() == (tmp_path / "whole" / "map.tif").read_bytes()
    with pytest.raises(StopError):
        run_job(plan(tmp_path / "other", model), model, resources=resources, progress=stop)
    other = plan(tmp_path / "other", network)
    other.begin(1)
    assert len(other.missing()) == len(other.parts)
    assert "used a different model" in capsys.readouterr().err


@pytest.mark.slow
def test_workers_make_the_same_parts(model, tmp_path):
    """Of the file in the job's folder, without a GPU."""
    files = []
    for folder in (tmp_path / "process", tmp_path / "workers"):
        job = plan(folder, model, batch_size=2)
        job.begin(2)
        if folder.name == "process":
            predict_missing_parts(job, job.missing(), model, Resources(Processor(), 2, 2), None)
        else:
            engine_of(model).save(model, job.model_folder)
            assert engine_in(job.model_folder) is ENGINE
            for number in job.missing():
                predict_part(job, number)
        files.append({path.name: path.read_bytes() for path in job.part_path(job.rasters[0], 0).parent.iterdir()})
    assert len(files[0]) == len(job.parts)
    assert files[0] == files[1]


def test_time_and_memory_are_measured(model, tmp_path):
    job = plan(tmp_path / "out", model, crf=True)
    resources = Resources.for_job(job, model, Processor())
    assert resources.batch_size == 1
    cost = measure_cost(job, model, resources)
    assert cost.tile_seconds > 0
    assert len(model.content) < cost.needed_bytes < 1e10
    assert cost.free_bytes > 0


# ---- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile_size": 128}, "`tile_size` is 128, but .*model.onnx takes tiles of 64 pixels only"),
        ({"device": "cuda"}, "`device` is 'cuda', but an ONNX model runs on the CPU only"),
        ({"precision": "bf16"}, "`precision='bf16'` does not apply to ONNX models"),
        ({"compiled": True}, "`compiled` does not apply to ONNX models"),
        ({"engine": "torch"}, "`engine` is 'torch', but .*model.onnx is an ONNX file"),
        ({"engine": "tensorflow"}, "`engine` is 'tensorflow', but must be one of 'auto', 'torch', 'onnx'"),
    ],
)
def test_what_does_not_apply_is_refused_before_any_work(options, message, tmp_path):
    with pytest.raises(OptionError, match=message):
        classify_pixels(SCENE, MODEL, tmp_path / "map.tif", **options)
    assert not list(tmp_path.iterdir())


def test_the_model_itself_is_not_written_over(tmp_path):
    copy = shutil.copy(MODEL, tmp_path / "model.onnx")
    with pytest.raises(OptionError, match="which would be lost"):
        classify_pixels(SCENE, copy, tmp_path / "map.tif", polygons=copy, overwrite=True)


def test_without_onnx_runtime_or_torch_one_is_told_what_to_install(tmp_path, monkeypatch):
    without(monkeypatch, "onnxruntime")
    with pytest.raises(OptionError, match=r"need onnxruntime, which is not installed. Run: pip install onnxruntime"):
        classify_pixels(SCENE, MODEL, tmp_path / "map.tif")
    without(monkeypatch, "torch")
    with pytest.raises(OptionError, match=r"needs PyTorch, which is not installed. Run: pip install geopsp"):
        classify_pixels(SCENE, SAVED, tmp_path / "map.tif")


def test_auto_is_torch_for_a_folder_and_onnx_for_a_file():
    for given, engine in ((MODEL, "OnnxEngine"), (SAVED, "TorchEngine")):
        with opened_model(given, "auto", None) as model:
            assert type(engine_of(model)).__name__ == engine


@pytest.mark.slow
@pytest.mark.parametrize("given", [SAVED, "classifier"])
def test_a_saved_model_runs_on_onnx_runtime_too(given, tmp_path):
    """It is exported for the map; the key holds its weights, so that a map goes on with another export."""
    model = PixelClassifier.from_model(SAVED) if given == "classifier" else given
    out = classify_pixels(SCENE, model, tmp_path / "map.tif", engine="onnx", extent=EXTENT)
    expected = classify_pixels(SCENE, MODEL, tmp_path / "expected.tif", extent=EXTENT)
    assert same_but_for_near_ties(pixels(out), pixels(expected))
    again = classify_pixels(SCENE, model, tmp_path / "again.tif", engine="onnx", extent=EXTENT)
    keys = []
    for path in (out, again, expected):
        with rasterio.open(path) as dataset:
            keys.append(dataset.tags()[KEY_TAG])
    assert keys[0] == keys[1] != keys[2]


# ---- without PyTorch


def run_blocked(code, *arguments, folder):
    command = [sys.executable, "-c", f"{BLOCK}\n{code}", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_chips_predict_polygonize_and_info_import_no_torch(tmp_path):
    """All in one process in which its import, and those of its companions, fail."""
    code = f"""
import sys
from click.testing import CliRunner
from geopsp.cli import main
def run(*words):
    done = CliRunner().invoke(main, [*map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output
golden, model = {str(GOLDEN)!r}, {str(MODEL)!r}
run("chips", f"{{golden}}/field.tif", "--labels", f"{{golden}}/labels.geojson", "--class-field", "kind", "--size", 64,
    "--out", "chips")
run("predict", model, f"{{golden}}/scene.tif", "--out", "map.tif", "--confidence", "confidence.tif", "--tta", "--crf",
    "--probabilities", "p.tif", "--polygons", "map.gpkg", "--extent", "601400,5301500,601560,5301640",
    "--aoi", f"{{golden}}/labels.geojson")
run("polygonize", "map.tif", "--out", "again.gpkg", "--smooth", 1)
for path in ("chips", "map.tif", "map.gpkg", model, f"{{golden}}/model"):
    assert run("info", path)
done = CliRunner().invoke(main, ["train", "chips", "--out", "model"])
assert "`geopsp train` needs PyTorch, which is not installed. Run: pip install geopsp" in done.output, done.output
assert done.exit_code == 2
assert not [name for name, module in sys.modules.items() if name.split(".")[0] == "torch" and module]
"""
    done = run_blocked(code, folder=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    assert set(np.unique(pixels(tmp_path / "map.tif"))) <= {0, 1, 7, IGNORE_INDEX}
    assert Path(tmp_path / "again.gpkg").exists()
