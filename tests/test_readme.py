"""The code of the README runs as it stands, on small pieces of the sample data and with short trainings."""

from __future__ import annotations

import shlex
import shutil

import pytest
import rasterio
from click.testing import CliRunner
from common import REPOSITORY, SAMPLE
from rasterio.windows import Window
from test_docs import blocks

import geopsp
from geopsp.cli.commands import main
from geopsp.training.classifier import PixelClassifier

README = REPOSITORY / "README.md"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not README.exists(), reason="only the repository has it")]


@pytest.fixture
def world(tmp_path, monkeypatch):
    """The files that the README names, in the current folder; one epoch of a small backbone, no network."""
    for name in ("west", "east", "test"):
        cut(SAMPLE / f"scene_{name}.tif", tmp_path / f"{name}.tif")
    shutil.copy(SAMPLE / "labels.gpkg", tmp_path / "labels.gpkg")
    shutil.copy(SAMPLE / "test_labels.gpkg", tmp_path / "test.gpkg")
    monkeypatch.chdir(tmp_path)
    fit, init = PixelClassifier.fit, geopsp.PSPNetClassifier.__init__
    monkeypatch.setattr(PixelClassifier, "fit", lambda self, **options: fit(self, **options | {"epochs": 1}))
    small = {"backbone": "resnet18", "encoder_weights": None}
    monkeypatch.setattr(geopsp.PSPNetClassifier, "__init__", lambda *args, **options: init(*args, **options | small))
    return tmp_path


def cut(scene, out, side=640):
    """Write the middle of a scene."""
    with rasterio.open(scene) as source:
        window = Window((source.width - side) // 2, (source.height - side) // 2, side, side)
        profile = {**source.profile, "width": side, "height": side, "transform": source.window_transform(window)}
        with rasterio.open(out, "w", **profile) as target:
            target.write(source.read(window=window))
            target.descriptions = source.descriptions


def test_the_python_runs(world):
    (code,) = blocks(README, "python")
    exec(compile(code, "README.md", "exec"), {})
    assert {path.name for path in world.iterdir()} >= {"chips", "landcover", "map.tif", "map.gpkg"}


def test_the_shell_lines_run(world):
    (lines,) = [block.splitlines() for block in blocks(README, "sh") if "geopsp train" in block]
    for line in lines:
        program, *args = shlex.split(line, comments=True)
        assert program == "geopsp"
        result = CliRunner().invoke(main, args, catch_exceptions=False)
        assert result.exit_code == 0, f"{line}\n{result.output}"
    names = {path.name for path in world.iterdir()}
    assert names >= {
        "landcover",
        "report.html",
        "map.tif",
        "confidence.tif",
        "fields.gpkg",
        "points.gpkg",
        "landcover.onnx",
    }
