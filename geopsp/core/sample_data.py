"""The sample data: small scenes with labels, for the demo and the tutorials."""

from __future__ import annotations

from pathlib import Path

from geopsp.core.addresses import require_local
from geopsp.errors import InputNotFoundError

SCENES, TEST = ("scene_west.tif", "scene_east.tif"), "scene_test.tif"
"""The images: two to train on, and one that is held out."""


def find_sample_data(data: str | Path | None = None) -> Path:
    """Return the folder of the sample data: two scenes and their labels, and a third one for tests.

    Args:
        data: The folder; None: that beside or inside the package.

    Raises:
        InputNotFoundError: if the scenes are not there.
        OptionError: if `data` is an address.
    """
    require_local("data", data, "Copy the sample data first.")
    package = Path(__file__).parents[1]
    places = [Path(data)] if data else [package.parent / "sample_data", package / "sample_data"]
    for place in places:
        if (place / TEST).exists():
            return place
    raise InputNotFoundError(f"{places[0]} does not hold the sample data ({TEST} and others). Run sample_data/make.py.")
