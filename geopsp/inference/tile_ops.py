"""The work on every pixel of a tile, compiled for the CPU and as tensor operations for other devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geopsp.core.bands import Normalization
from geopsp.inference.kernels_numba import NumbaOps
from geopsp.inference.kernels_torch import TorchOps
from geopsp.inference.tile_plan import RowsCols


class TileOps(Protocol):
    """What a map does with every pixel of a tile, on one device.

    All implementations give the same classes; scores may differ by 1, as probabilities are rounded.
    """

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        ...

    def normalise(self, pixels: NDArray[Any], valid: NDArray[np.bool_], image: Tensor, mask: Tensor) -> None:
        """Normalise the pixels of a tile, as `Normalization` does in training.

        Args:
            pixels: (bands, s, s) of any type.
            valid: (s, s)
            image: (bands, s, s) float32, channels last; filled with the normalised pixels, 0 where invalid.
            mask: (s, s) float32; filled with 1 where valid, else 0.
        """
        ...

    def score(
        self, logits: Tensor, interior: RowsCols, overlaps: Sequence[RowsCols]
    ) -> tuple[Tensor, list[Tensor], bool]:
        """Return the classes of a tile's interior, the scores of its overlaps, and whether all logits are usable.

        Logits are (classes, s, s). Classes are (rows, cols) uint8 channel indices, the first of equal ones. Scores are
        (classes, rows, cols) int32: round((SCORE_ONE - 1) p) of a probability p, and 1 more for the largest. Logits
        are not usable if one is NaN or +inf, or if all of a pixel are -inf.
        """
        ...

    def add_weighted(self, sums: Tensor, target: RowsCols, scores: Tensor, weights: Tensor, source: RowsCols) -> None:
        """Add scores times weights to the sums, (classes, rows, cols) int32.

        Args:
            sums: Changed at `target`.
            target: As large as the scores.
            scores: (classes, rows, cols) int32.
            weights: (s, s) int32 of the whole tile; `source` is where the scores lie in it.
            source: As large as the scores.
        """
        ...

    def argmax(self, values: Tensor, index: Tensor, area: RowsCols | None = None) -> None:
        """Write the channel of the largest of (classes, rows, cols) whole numbers, the first of equal ones.

        Args:
            values: Contiguous.
            index: (rows, cols) uint8, contiguous; changed in the area.
            area: None: everywhere.
        """
        ...

    def rows_at_once(self, bytes_per_row: int) -> int:
        """Return how many rows of an array to work on at a time."""
        ...


COMPILED = ("geopsp.inference.kernels_numba", "geopsp.raster.cog.overviews")
"""Modules with the compiled functions that a map on a CPU needs."""


def tile_ops(device: torch.device, normalization: Normalization) -> TileOps:
    """Return the implementation that suits a device."""
    return NumbaOps(normalization) if device.type == "cpu" else TorchOps(device, normalization)
