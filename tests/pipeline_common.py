"""Maps of small rasters, in memory, for tests of the pipeline."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rasterio
import torch
from inference_common import CLASSES, Echo, trained_model
from rasterio.transform import from_origin
from torch import nn

from geopsp.inference import outputs
from geopsp.inference.pipeline import TilePipeline
from geopsp.inference.tile_plan import TilePlan
from geopsp.inference.torch_predictor import TorchPredictor
from geopsp.raster.scene import Scene

PLACES = {
    "EPSG:32632": ((601234.0, 5301717.0), 2.0),
    "EPSG:4326": ((11.5, 48.25), 1e-5),
    "EPSG:3857": ((-1e6, -2e6), 0.3),
}
CPU = torch.device("cpu")
NOWHERE = Path("nowhere")


@contextmanager
def raster(data, *, crs="EPSG:32632", **profile):
    """The scene of a raster that is gone afterwards."""
    origin, cell = PLACES[crs]
    data = data[None] if data.ndim == 2 else data
    with TemporaryDirectory() as folder:
        path = Path(folder) / "image.tif"
        with rasterio.open(
            path, "w", driver="GTiff", dtype=data.dtype, count=len(data), height=data.shape[1], width=data.shape[2],
            crs=crs, transform=from_origin(*origin, cell, cell), **profile,
        ) as dataset:  # fmt: skip
            dataset.write(data)
        scene = Scene.open(path)
        yield scene
        del scene


def pipeline_of(scene, *, size=32, overlap=8, network=None, batch_size=3, threads=1, wants=(), area=None, **options):
    model = trained_model(network=network or Echo(), size=size, count=len(scene.bands))
    plan = TilePlan(scene.grid.width, scene.grid.height, size, overlap)
    wanted = [outputs.class_spec(NOWHERE, model.legend)]
    wanted += [outputs.fraction_spec(name, NOWHERE) for name in wants if name != "probabilities"]
    wanted += [outputs.probability_spec(NOWHERE, model.legend, "float16")] if "probabilities" in wants else []
    predictor = TorchPredictor(model, CPU, batch_size=batch_size, **options)
    return TilePipeline(scene, area, plan, model.legend, tuple(wanted), predictor, threads)


def joined(pipeline, window=None):
    """Each product over a window, all of its rows together."""
    window = window or pipeline.scene.grid.window
    found = list(pipeline.rows(window))
    rows = {name: np.concatenate([np.array(piece[name]) for piece in found], axis=1) for name in found[0]}
    assert all(array.shape[1:] == (window.height, window.width) for array in rows.values())
    return rows


def holes(rng, height, width, kind):
    """True where there is no ground: none, all of it, a wedge, a half, scattered pixels, all but one pixel."""
    rows, cols = np.indices((height, width))
    return {
        "none": np.zeros((height, width), bool),
        "all": np.ones((height, width), bool),
        "wedge": cols * height > rows * width,
        "top": rows < height - height // 3,
        "bottom": rows >= height // 3,
        "left": cols < width - width // 3,
        "scattered": rng.random((height, width)) < 0.3,
        "one": (rows != height // 2) | (cols != width - 1),
    }[kind]


class Noisy(nn.Module):
    """A network whose tiles disagree: what it says of a pixel depends on the whole tile."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, CLASSES, 5, padding=2).requires_grad_(False)
        self.mix = nn.Conv2d(1, CLASSES, 1).requires_grad_(False)

    def forward(self, image, valid=None):
        return self.conv(image / 50 - 2) + self.mix(image.mean(dim=(2, 3), keepdim=True) / 50 - 2)
