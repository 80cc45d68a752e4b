"""A raster that a map can give is one entry in a table."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from inference_common import CLASSES, trained_model

from geopsp.core.legend import Legend
from geopsp.inference import outputs
from geopsp.inference.blend import SUM_ONE
from geopsp.inference.options import MapOptions, MapSettings
from geopsp.inference.output_paths import OutputPaths
from geopsp.inference.outputs import OUTPUTS, MapOutput, encode_fractions, extra_outputs, fraction_spec
from geopsp.inference.part_size import part_width
from geopsp.inference.plan_job import plan_job
from geopsp.inference.run_job import run_job
from geopsp.raster.raster_style import write_disagreement_style
from geopsp.raster.scene import Scene


def entropy(spec, rows, legend):
    """The entropy of the probabilities, 1 where all classes are equally likely."""
    p = rows.ops.fractions(rows.sums, SUM_ONE)
    found = -(p * np.log(np.maximum(p, 1e-30))).sum(axis=0, keepdims=True) / np.float32(np.log(len(legend)))
    return encode_fractions(spec, found, rows.ops)


@pytest.fixture
def with_entropy(monkeypatch):
    output = MapOutput(lambda path, *_: fraction_spec("entropy", path), entropy, write_disagreement_style)
    monkeypatch.setitem(OUTPUTS, "entropy", output)


class Blurred(torch.nn.Module):
    """The higher a pixel's value, the less certain its class."""

    def forward(self, image, valid=None):
        return torch.arange(CLASSES).view(1, -1, 1, 1) / image[:, :1].clamp(min=1)


def test_a_new_raster_is_one_entry(with_entropy, make_raster, tmp_path):
    """Its file name, its parts and its pixels come from there."""
    data = np.random.default_rng(0).integers(1, 9, (1, 70, 90)).astype("uint8")
    data[:, :20, :30] = 0
    scene, model = Scene.open(make_raster(data=data, nodata=0)), trained_model(network=Blurred())
    folders = OutputPaths(tmp_path / "maps", {"entropy": tmp_path / "entropy", "polygons": tmp_path / "lines"})
    paths = folders.for_image("a")
    assert paths.all_paths == [tmp_path / "maps/a.tif", tmp_path / "entropy/a.tif", tmp_path / "lines/a.gpkg"]
    rasters = paths.raster_specs(model.legend)
    assert [raster.name for raster in rasters] == ["classes", "entropy"]
    for path in paths.all_paths:
        path.parent.mkdir(exist_ok=True)
    run_job(plan_job(scene, model, rasters, MapSettings(), part_side=64, block=32), model)
    with rasterio.open(tmp_path / "entropy" / "a.tif") as dataset:
        found = dataset.read(1)
        assert (dataset.nodata, dataset.descriptions) == (255, ("entropy",))
    p = torch.softmax(torch.arange(CLASSES) / torch.arange(1, 9).view(-1, 1), dim=1).numpy()
    expected = np.append(255, -(p * np.log(p)).sum(axis=1) / np.log(CLASSES) * 254)[data[0]]
    np.testing.assert_allclose(found, expected, atol=1)


def test_each_raster_is_an_option():
    options = {field.name for field in fields(MapOptions)}
    assert set(extra_outputs()) <= options
    assert extra_outputs() == ("polygons", "probabilities", "confidence", "disagreement")


def test_what_rasters_need():
    """Classes alone go without scores of all pixels; only disagreement keeps a second buffer."""
    legend = Legend.from_names({0: "a", 1: "b"})
    every = OutputPaths(Path("m.tif"), dict.fromkeys(extra_outputs(), Path("x.tif"))).raster_specs(legend)
    assert [raster.name for raster in every] == list(OUTPUTS)
    assert not outputs.needs_scores(every[:1])
    assert all(outputs.needs_scores([raster]) for raster in every[1:])
    assert [outputs.needs_agreement([raster]) for raster in every] == [False, False, False, True]


def test_a_second_buffer_makes_parts_narrower(make_raster):
    scene = Scene.open(make_raster(bands=1))
    legend = Legend.from_names({code: f"class {code}" for code in range(12)})
    paths = {"confidence": Path("c.tif")}
    few = OutputPaths(Path("m.tif"), paths).raster_specs(legend)
    more = OutputPaths(Path("m.tif"), {"disagreement": Path("d.tif")}).raster_specs(legend)
    assert part_width(scene, 512, few, 12, 512) > part_width(scene, 512, more, 12, 512)
