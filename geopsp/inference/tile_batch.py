"""Tiles of a scene on their way through the network."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geopsp.core.grid import Window


class Tile(NamedTuple):
    """Pixels of one tile."""

    window: Window
    data: NDArray[Any]
    """(bands, s, s)"""

    valid: NDArray[np.bool_]
    """(s, s)"""


class Batch(NamedTuple):
    """Tiles that go through the network together."""

    tiles: list[Tile]
    done: int
    """Tiles of the window up to the last of this batch, those without a valid pixel included."""
