"""PNG previews of maps."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt

from geopsp.core.addresses import OutputPath
from geopsp.core.output import atomic_output
from geopsp.raster.class_map import read_overview


def preview(path: str | Path, out: str | Path, *, pixels: int = 1200) -> Path:
    """Write a PNG of a class raster in the colours of its classes, at most `pixels` along its longer side.

    Raises:
        InputNotFoundError, RasterError: as `read_overview`.
        OutputError: if it cannot be written.
    """
    with atomic_output(out, overwrite=True) as partial:
        plt.imsave(partial, read_overview(path, pixels).colors())
    return OutputPath(out)
