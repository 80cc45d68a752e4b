"""Deep learning packages: what is in them, and the map that ArcGIS makes with them."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import rasterio
import torch
from arcgis_common import picture
from arcgis_harness import CELL, LEFT, TOP, classify, load_function, unpack
from click.testing import CliRunner
from rasterio.transform import from_origin
from torch import nn

from geopsp.cli.commands import main
from geopsp.core.bands import BandStats
from geopsp.core.legend import Legend
from geopsp.errors import ExportError, OptionError, OutputError, PackageError
from geopsp.export import onnx_file
from geopsp.export.dlpk import model_definition
from geopsp.export.export_job import ExportJob
from geopsp.export.export_model import export_model
from geopsp.export.options import ExportOptions
from geopsp.inference.classify_pixels import classify_pixels
from geopsp.models.build import ModelSpec, build_network
from geopsp.models.manifest import read_manifest
from geopsp.models.saved_model import TrainedModel, save_model

SIZE, HARNESS = 64, Path(__file__).parents[1] / "arcgis_harness.py"


def small_model(*, cell=CELL, units="metre"):
    """A PSPNet whose map has every class; its weights are drawn, the last layer's made larger."""
    torch.manual_seed(3)
    legend = Legend.from_names({0: "background", 2: "water", 7: "forest", 254: "Straße"})
    spec = ModelSpec("tu-test_resnet", 3, 4, pyramid_sizes=(1, 2), encoder_depth=3, pointrend=False)
    network = build_network(spec).eval()
    with torch.inference_mode():
        logits = network(torch.randn(4, 3, SIZE, SIZE), torch.ones(4, 1, SIZE, SIZE))
        (head,) = [each for each in network.modules() if isinstance(each, nn.Conv2d) and each.out_channels == 4]
        scale = 3 / logits.std(dim=(0, 2, 3))
        head.weight *= scale[:, None, None, None]
        head.bias.copy_((head.bias - logits.mean(dim=(0, 2, 3))) * scale)
    stats = BandStats(9, np.full(3, 120.0), np.full(3, 9 * 60.0**2), np.zeros(3), np.full(3, 255.0))
    bands = ("red", "green", "blue")
    return TrainedModel(spec, legend, bands, stats, "uint8", SIZE, (cell, cell), units, network=network)


@pytest.fixture(scope="session")
def model():
    return small_model()


@pytest.fixture(scope="session")
def package(tmp_path_factory, model):
    return export_model(model, tmp_path_factory.mktemp("package") / "land.dlpk", "dlpk")


@pytest.fixture(scope="session")
def folder(package):
    return unpack(package, package.parent / "unpacked")


def own_map(folder, model, pixels, **options):
    """geopsp's own map of the same pixels."""
    if not (folder / "model").exists():
        save_model(model, folder / "model")
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "crs": "EPSG:32632",
        "transform": from_origin(LEFT, TOP, CELL, CELL),
    }
    profile |= dict(zip(("count", "height", "width"), pixels.shape, strict=True))
    with rasterio.open(folder / "scene.tif", "w", **profile) as dataset:
        dataset.write(pixels)
    options = {"bands": [1, 2, 3], "precision": "fp32", "overwrite": True} | options
    classify_pixels(folder / "scene.tif", folder / "model", folder / "map.tif", **options)
    with rasterio.open(folder / "map.tif") as dataset:
        return dataset.read(1)


@pytest.fixture(scope="session")
def own(tmp_path_factory, model):
    """Pixels and geopsp's own map of them."""
    pixels = picture(230, 310)
    return pixels, own_map(tmp_path_factory.mktemp("own"), model, pixels)


def test_what_is_in_it(package, folder, model):
    with zipfile.ZipFile(package) as archive:
        names = archive.namelist()
    assert sorted(names) == ["GeopspClassifier.emd", "GeopspClassifier.py", "README.txt", "model.onnx"]
    emd = json.loads((folder / "GeopspClassifier.emd").read_text(encoding="utf-8"))
    assert (emd["ModelType"], emd["ModelFile"]) == ("ImageClassification", "model.onnx")
    assert (emd["ImageHeight"], emd["ImageWidth"], emd["ExtractBands"]) == (SIZE, SIZE, [0, 1, 2])
    assert [row["Value"] for row in emd["Classes"]] == [0, 2, 7, 254]
    assert [row["Name"] for row in emd["Classes"]] == model.legend.names
    assert [tuple(row["Color"]) for row in emd["Classes"]] == [each.rgb for each in model.legend]
    assert not {"DataRange", "MinCellSize", "Framework", "ModelConfiguration"} & set(emd)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    assert json.loads(session.get_modelmeta().custom_metadata_map["geopsp_export"])["tile_size"] == SIZE
    assert "red, green, blue" in (folder / "README.txt").read_text(encoding="utf-8")


def test_the_mosaic_is_our_own_map(folder, own):
    pixels, expected = own
    assert set(np.unique(expected)) == {0, 2, 7, 254}
    for request in (None, (77, 101)):
        codes, valid = classify(load_function(folder), pixels, request=request)
        assert valid.all()
        assert (codes == expected).mean() > 0.9999


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [{"padding": 0}, {"padding": 32}, {"test_time_augmentation": True}, {"predict_background": False}]
)
def test_the_mosaic_is_our_own_map_with_the_same_arguments(tmp_path, folder, own, model, arguments):
    pixels, plain = own
    expected = own_map(tmp_path, model, pixels, **arguments)
    assert (expected != plain).any()
    codes, _ = classify(load_function(folder), pixels, batch_size=9, **arguments)
    assert (codes == expected).mean() > 0.9999


def test_it_runs_where_there_is_no_geopsp(tmp_path, package, own):
    """In a process that can import numpy and onnxruntime alone."""
    pixels, expected = own
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    site = Path(np.__file__).parents[1]
    needed = ("numpy", "numpy.libs", "onnxruntime", "google", "flatbuffers", "packaging")
    for name in needed:
        if (site / name).exists():
            (libraries / name).symlink_to(site / name)
    np.savez(tmp_path / "in.npz", pixels=pixels, mask=np.ones_like(pixels))
    code = f"import sys; sys.path.insert(0, {str(libraries)!r}); sys.argv = sys.argv[1:]; "
    code += f"exec(compile(open({str(HARNESS)!r}).read(), 'harness', 'exec'))"
    command = [sys.executable, "-I", "-S", "-c", code, "harness", package, tmp_path / "in.npz", tmp_path / "out.npz"]
    done = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['numpy', 'onnxruntime']"
    codes = np.load(tmp_path / "out.npz")["codes"]
    assert (codes == expected).mean() > 0.9999


@pytest.mark.slow  # exports again
def test_the_same_network_gives_the_same_bytes(tmp_path, package, model):
    again = export_model(model, tmp_path / "again.dlpk", "dlpk")
    assert again.read_bytes() == package.read_bytes()


def test_no_path_of_this_machine_is_in_it(folder):
    content = b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())
    for word in (b"site-packages", b"stack_trace", b"torch.fx", str(Path(onnx_file.__file__).parents[2]).encode()):
        assert word not in content


def test_degrees_are_told_and_other_units_left_out(model):
    found = model_definition(ExportJob(small_model(cell=1e-5, units="degree"), ExportOptions()))
    size = {"x": 1e-5, "y": 1e-5, "spatialReference": {"wkid": 4326, "latestWkid": 4326}}
    assert found["MinCellSize"] == found["MaxCellSize"] == size
    assert "MinCellSize" not in model_definition(ExportJob(model, ExportOptions()))


def test_our_own_package_is_told(package, folder):
    for path in (package, folder, folder / "GeopspClassifier.emd"):
        with pytest.raises(PackageError, match=r"exported by geopsp\. Unpack it .* use the model\.onnx inside"):
            read_manifest(path)
        found = CliRunner().invoke(main, ["info", str(path)])
        assert found.exit_code == 0, found.output
        assert "2 water, 7 forest, 254 Straße" in found.output
        assert "geopsp predict model.onnx IMAGE.tif" in found.output


def test_outputs_that_cannot_be(tmp_path, model):
    with pytest.raises(OptionError, match=r"must end in \.dlpk"):
        export_model(model, tmp_path / "land.zip", "dlpk")
    (tmp_path / "land.dlpk").write_text("mine")
    with pytest.raises(OutputError, match="already exists"):
        export_model(model, tmp_path / "land.dlpk", "dlpk")
    assert (tmp_path / "land.dlpk").read_text() == "mine"
    assert list(tmp_path.iterdir()) == [tmp_path / "land.dlpk"]


def test_nothing_is_left_where_the_network_fails(tmp_path, model, monkeypatch):
    def fails(job, path):
        path.write_bytes(b"half")
        raise ExportError("other results")

    monkeypatch.setattr(onnx_file, "write", fails)
    with pytest.raises(ExportError):
        export_model(model, tmp_path / "land.dlpk", "dlpk")
    assert not list(tmp_path.iterdir())
