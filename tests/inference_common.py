"""Networks and models for tests of maps."""

from __future__ import annotations

import resource
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from geopsp.core.bands import BandStats, Normalization
from geopsp.core.legend import Legend
from geopsp.inference.kernels_numba import NumbaOps
from geopsp.inference.kernels_torch import TorchOps
from geopsp.models.build import ModelSpec
from geopsp.models.saved_model import TrainedModel

CLASSES = 5


CPU = torch.device("cpu")


def numba_ops(normalization=None):
    return NumbaOps(normalization or plain_normalization())


def torch_ops(normalization=None):
    """The operations of other devices, on the CPU."""
    return TorchOps(CPU, normalization or plain_normalization())


def plain_normalization():
    """Leaves a band as it is."""
    return Normalization(np.zeros(1, np.float32), np.ones(1, np.float32))


class Echo(nn.Module):
    """Logits that are high for the class that the pixel's value names: pixel k + 1 is class k."""

    def forward(self, image, valid=None):
        logits = torch.zeros(len(image), CLASSES, *image.shape[-2:])
        index = (image[:, :1].round().long() - 1).clamp(0, CLASSES - 1)
        return logits.scatter(1, index, 12.0)


def trained_model(*, size=32, count=1, bands=None, dtype="uint8", network=None, cell=2.0, units="metre"):
    """A model with classes 0 background, 3 water, 4 forest, 90 road, 254 last, that leaves pixels as they are."""
    legend = Legend.from_names({0: "background", 3: "water", 4: "forest", 90: "road", 254: "last"})
    bands = bands or ("level", *(f"band_{i}" for i in range(2, count + 1)))[:count]
    count = len(bands)
    statistics = BandStats(9, np.zeros(count), np.full(count, 9.0), np.zeros(count), np.full(count, 255.0))
    spec = ModelSpec("tu-test_resnet", count, CLASSES)
    return TrainedModel(spec, legend, bands, statistics, dtype, size, (cell, cell), units, network=network or Echo())


@contextmanager
def disk_of(size):
    """No file can grow beyond so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
