"""The CRF's parameters by the scores on the validation chips."""

from __future__ import annotations

import logging

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch
from common import square
from torch import nn

from geopsp import PixelClassifier, export_training_data, prepare_data
from geopsp.core.bands import BandStats
from geopsp.errors import ChipError, OptionError
from geopsp.models.build import ModelSpec
from geopsp.models.crf import CRFParameters, crf_parameters
from geopsp.models.saved_model import TrainedModel
from geopsp.training import fit_crf as module
from geopsp.training.fit_crf import GRID


class Blurred(nn.Module):
    """Knows the bright field from its mean over a wide neighbourhood, so that its borders are not sharp."""

    def __init__(self, sign=1.0):
        super().__init__()
        self.sign = sign

    def forward(self, image, valid=None):
        kernel = torch.ones(1, 1, 9, 9) / 81
        mean = nn.functional.conv2d(nn.functional.pad(image[:, :1], (4, 4, 4, 4), mode="replicate"), kernel)
        noise = torch.randn(mean.shape[1:], generator=torch.Generator().manual_seed(0))
        logit = self.sign * (2 * mean - 0.8) + 0.5 * noise
        return torch.cat([-logit, logit], dim=1)


@pytest.fixture
def data(make_raster, tmp_path):
    """Bright squares on a dark ground, whose outlines are the labels."""
    rng = np.random.default_rng(0)
    size, image = 32, np.full((1, 96, 128), 60, np.uint8)
    path = make_raster("place.tif", image)
    with rasterio.open(path) as dataset:
        left, top, cell = dataset.bounds.left, dataset.bounds.top, dataset.res[0]
    shapes = []
    for row in range(0, 96, size):
        for col in range(0, 128, size):
            down, across, side = 5 + row, 7 + col, 15
            image[0, down : down + side, across : across + side] = 190
            shapes.append(square(left + across * cell, top - down * cell, side * cell))
    image += rng.integers(0, 6, image.shape).astype(np.uint8)
    path = make_raster("image.tif", image)
    labels = gpd.GeoDataFrame({"kind": ["field"] * len(shapes)}, geometry=shapes, crs="EPSG:32632")
    export_training_data(path, labels, tmp_path / "chips", "kind", size)
    return prepare_data(tmp_path / "chips", batch_size=2, split="random", workers=0)


def classifier_of(data, network):
    found = PixelClassifier.__new__(PixelClassifier)
    found.data, found.device = data, "cpu"
    found.model = TrainedModel(
        ModelSpec("tu-test_resnet", 1, 2), data.legend, data.chips.bands, data.statistics, data.chips.dtype,
        data.chip_size, data.chips.cell_size, data.chips.units, network=network,
    )  # fmt: skip
    assert isinstance(data.statistics, BandStats)
    return found


def test_the_best_parameters_are_kept_with_the_model(data, caplog):
    classifier = classifier_of(data, Blurred())
    found = classifier.fit_crf()
    assert found["with"]["miou"] > found["without"]["miou"] + 0.05
    assert found["with"]["boundary_miou"] > found["without"]["boundary_miou"] + 0.1
    assert found["without"]["miou"] == pytest.approx(classifier.evaluate().mean_iou()), "of all chips, as they are few"
    assert found["without"]["boundary_miou"] == pytest.approx(classifier.evaluate().mean_boundary_iou())
    assert classifier.model.settings["crf"] == found
    used = crf_parameters(crf=True, settings=classifier.model.settings)
    assert used == CRFParameters(**{name: found[name] for name in CRFParameters().to_json()})
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_no_other_setting_that_was_tried_is_better(data, monkeypatch):
    tried = {}
    original = module._score

    def record_call(model, tiles, crf):
        tried[crf] = original(model, tiles, crf)
        return tried[crf]

    monkeypatch.setattr(module, "_score", record_call)
    found = classifier_of(data, Blurred()).fit_crf()
    del tried[None]
    best = max(scores.mean_iou() + scores.mean_boundary_iou() for scores in tried.values())
    assert found["with"]["miou"] + found["with"]["boundary_miou"] == pytest.approx(best)
    assert {crf.color_sigma for crf in tried} >= set(GRID["color_sigma"])
    assert len(tried) <= sum(map(len, GRID.values())) + len(GRID)


def test_a_crf_that_is_worth_nothing_is_a_warning(data, caplog):
    """A network that is right everywhere cannot gain."""

    class Right(nn.Module):
        def forward(self, image, valid=None):
            return torch.cat([-9 * image[:, :1], 9 * image[:, :1]], dim=1)

    with caplog.at_level(logging.WARNING, "geopsp"):
        found = classifier_of(data, Right()).fit_crf()
    assert found["without"]["miou"] == 1
    assert "No CRF raises the scores on the validation chips" in caplog.text


def test_some_tiles_are_enough(data, monkeypatch):
    sizes = []
    original = module._score
    monkeypatch.setattr(module, "GRID", {"iterations": (1, 2)})
    monkeypatch.setattr(
        module, "_score", lambda model, tiles, crf: sizes.append(len(tiles.labels)) or original(model, tiles, crf)
    )
    classifier_of(data, Blurred()).fit_crf(max_pixels=data.chip_size**2)
    assert set(sizes) == {1}


def test_what_is_needed(data):
    classifier = classifier_of(data, Blurred())
    with pytest.raises(OptionError, match="`max_pixels` is 0, but must be"):
        classifier.fit_crf(max_pixels=0)
    classifier.data = None
    with pytest.raises(ChipError, match="fit_crf needs validation chips"):
        classifier.fit_crf()
