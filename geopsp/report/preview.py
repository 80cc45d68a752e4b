"""PNG previews of rasters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from geopsp.core.addresses import OutputPath
from geopsp.core.grid import Window
from geopsp.core.legend import IGNORE_INDEX
from geopsp.core.output import atomic_output
from geopsp.raster.legend_io import read_legend
from geopsp.raster.scene import Scene
from geopsp.training.plots import colorize, rgb_band_indices, to_rgb


def preview(path: str | Path, out: str | Path, *, pixels: int = 1200) -> Path:
    """Write a PNG of a raster, at most `pixels` along its longer side; classes in their colours, images stretched."""
    scene, legend = Scene.open(path), read_legend(path)
    step = max(1, -(-max(scene.grid.width, scene.grid.height) // pixels))
    data, valid = _read_every(scene, step)
    if legend:
        index = legend.codes_to_indices(np.where(valid, data[0], IGNORE_INDEX).astype(np.uint8))
        image: NDArray[Any] = colorize(index, legend)
    else:
        image = to_rgb(data, valid, rgb_band_indices(scene.bands))
    with atomic_output(out, overwrite=True) as partial:
        plt.imsave(partial, image)
    return OutputPath(out)


def _read_every(scene: Scene, step: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read every `step`-th pixel, a few rows at a time; return data, (bands, rows, cols), and valid mask."""
    slabs = [
        scene.read(Window(0, row, scene.grid.width, min(step * 256, scene.grid.height - row)))
        for row in range(0, scene.grid.height, step * 256)
    ]
    data = np.concatenate([slab.data[:, ::step, ::step] for slab in slabs], axis=1)
    return data, np.concatenate([slab.valid[::step, ::step] for slab in slabs])
