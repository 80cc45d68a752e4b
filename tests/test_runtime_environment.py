"""requirements-runtime.txt is enough for chips, predict, polygonize and info, and small."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import rasterio
from common import REPOSITORY, SAMPLE
from onnx_common import NOT_INSTALLED

REQUIREMENTS = REPOSITORY / "requirements-runtime.txt"
MAX_DOWNLOAD, MAX_INSTALLED = 400e6, 1100e6
"""Bytes of the wheels, and of the environment that they are unpacked to."""


def requirements():
    lines = [line.partition("#")[0].strip() for line in REQUIREMENTS.read_text().splitlines()]
    return [line for line in lines if line]


def test_the_versions_are_those_of_the_package():
    """And nothing is there that only training needs."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    known = {*project["dependencies"], *project["optional-dependencies"]["onnx"]}
    assert set(requirements()) <= known
    names = {re.match(r"[\w-]+", line)[0].replace("-", "_") for line in requirements()}
    assert not names & {*NOT_INSTALLED, "cloudpickle"}


def folder_bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


@pytest.mark.slow
def test_a_fresh_environment_maps_the_sample_scene(tmp_path):
    """With a network of four bands and eight classes; the map is PyTorch's but for near-ties."""
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}

    def run(*command):
        done = subprocess.run(
            [*map(str, command)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "venv", "runtime")
    python = tmp_path / "runtime" / "bin" / "python"
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
    constraints = REPOSITORY / "constraints.txt"
    downloaded = subprocess.run(
        [*map(str, (*pip, "download", "--dest", "wheels", "--constraint", constraints, "--requirement", REQUIREMENTS))],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if downloaded.returncode:
        pytest.skip(f"there is no package index here: {downloaded.stderr.splitlines()[-1]}")
    assert folder_bytes(tmp_path / "wheels") < MAX_DOWNLOAD
    run(*pip, "install", "--no-index", "--find-links", "wheels", "--requirement", REQUIREMENTS)
    run(*pip, "install", "--no-deps", REPOSITORY)
    assert folder_bytes(tmp_path / "runtime") < MAX_INSTALLED
    for name in NOT_INSTALLED:
        assert subprocess.run([python, "-c", f"import {name}"], capture_output=True, check=False).returncode, name

    model, scene = exported_model(tmp_path), SAMPLE / "scene_test.tif"
    geopsp = (python, "-m", "geopsp.cli")
    assert "ONNX, fp32" in run(*geopsp, "info", model)
    run(*geopsp, "predict", model, scene, "--out", "map.tif", "--polygons", "map.gpkg", "--confidence", "sure.tif")
    run(*geopsp, "polygonize", "map.tif", "--out", "again.parquet")
    run(
        *geopsp, "chips", scene, "--labels", SAMPLE / "test_labels.gpkg", "--class-field", "landcover", "--out", "chips"
    )
    assert "chips" in run(*geopsp, "info", "chips")
    from geopsp import classify_pixels

    classify_pixels(scene, tmp_path / "model", tmp_path / "torch.tif", device="cpu", precision="fp32")
    ours, theirs = (rasterio.open(tmp_path / f"{name}.tif").read(1) for name in ("map", "torch"))
    assert len(np.unique(theirs)) > 4
    assert (ours != theirs).sum() <= ours.size / 10_000


def exported_model(folder):
    """Save a PSPNet with PointRend and random weights, whose classes vary, for the sample scene, and export it."""
    import torch

    from geopsp.core.bands import BandStats
    from geopsp.core.legend import Legend
    from geopsp.export.export_model import export_model
    from geopsp.models.build import build_network
    from geopsp.models.saved_model import TrainedModel, save_model
    from geopsp.models.spec import ModelSpec
    from geopsp.raster.scene import Scene

    scene = Scene.open(SAMPLE / "scene_test.tif")
    found = scene.read(scene.grid.window)
    torch.manual_seed(0)
    spec = ModelSpec("resnet18", len(scene.bands), 8, pointrend=True)
    network = build_network(spec).eval()
    with torch.no_grad():
        for layer in network.decoder.modules():
            if isinstance(layer, torch.nn.Conv2d) and layer.out_channels == spec.classes:
                layer.weight *= 30
    model = TrainedModel(
        spec, Legend.from_names({code: f"class {code}" for code in range(8)}), tuple(scene.bands),
        BandStats.from_array(found.data, found.valid), str(scene.dtype), 128, scene.grid.cell_size,
        scene.grid.unit, network=network,
    )  # fmt: skip
    save_model(model, folder / "model")
    return export_model(model, folder / "model.onnx", images=SAMPLE / "scene_test.tif")
