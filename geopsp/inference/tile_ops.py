"""The work on every pixel, compiled for the CPU and as tensor operations for other devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from geopsp.core.bands import Normalization
from geopsp.inference.kernels_numba import NumbaOps
from geopsp.models.crf import CRFParameters

Array: TypeAlias = Any
"""An array of numpy on the CPU, a tensor of torch on other devices. Both are indexed and assigned alike."""


class Device(Protocol):
    """A device, as `torch.device` describes it."""

    @property
    def type(self) -> str:
        """Its kind, e.g. "cpu" or "cuda"."""
        ...


class TileOps(Protocol):
    """What a map does with every pixel of finished rows, on one device."""

    def __hash__(self) -> int: ...

    def argmax(self, values: Array, index: Array) -> None:
        """Write the channel of the largest of (classes, rows, cols) whole numbers, the first of equal ones.

        Args:
            values: Contiguous.
            index: (rows, cols) uint8, contiguous.
        """
        ...

    def total(self, values: Array) -> Array:
        """Add up (classes, rows, cols) int32."""
        ...

    def largest(self, values: Array) -> Array:
        """Return the largest of (classes, rows, cols) numbers, (1, rows, cols)."""
        ...

    def fractions(self, values: Array, one: int) -> Array:
        """Return whole numbers divided by what stands for 1, float32."""
        ...

    def calibrated(self, values: Array, one: int, weights: NDArray[np.float32], biases: NDArray[np.float32]) -> Array:
        """Return calibrated probabilities, (classes, rows, cols) float32; see `models.calibration`.

        Args:
            values: (classes, rows, cols) int32.
            one: What stands for 1.
            weights: (classes,)
            biases: (classes,); -inf for classes that are never predicted.
        """
        ...

    def confidence(self, values: Array, one: int, weights: NDArray[np.float32], biases: NDArray[np.float32]) -> Array:
        """Return the largest calibrated probability, (1, rows, cols) float32, as `calibrated` has it."""
        ...

    def whole_numbers(self, fractions: Array, one: int) -> Array:
        """Return fractions times what stands for 1, int32, rounded down."""
        ...

    def mean_field(
        self,
        probabilities: Array,
        image: Array,
        valid: NDArray[np.bool_],
        crf: CRFParameters,
        *,
        excluded: Sequence[int],
        core: slice,
        pool: Executor | None,
    ) -> Array:
        """Return the probabilities of a CRF; see `models.mean_field`."""
        ...

    def zeros(self, shape: Sequence[int], dtype: str = "int32") -> Array:
        """Return an array of zeros."""
        ...

    def copy(self, values: Array) -> Array:
        """Return a copy."""
        ...

    def concatenate(self, arrays: Sequence[Array]) -> Array:
        """Join arrays along their first axis."""
        ...

    def from_numpy(self, array: NDArray[Any]) -> Array:
        """Bring an array to the device."""
        ...

    def from_tensor(self, tensor: Any) -> Array:
        """Return a tensor of torch on the device as an array, with the same memory."""
        ...

    def lookup(self, table: NDArray[np.uint8], index: Array) -> Array:
        """Return the entries of a table of 256, uint8, at each of (rows, cols) uint8."""
        ...

    def where(self, condition: Array, value: int, others: Array) -> Array:
        """Return a value where a condition holds, elsewhere those of an array."""
        ...

    def cast(self, values: Array, dtype: str) -> Array:
        """Return an array of a type."""
        ...

    def to_numpy(self, values: Array) -> NDArray[Any]:
        """Return an array in the main memory."""
        ...

    def host_copy(self, values: Array) -> Callable[[], NDArray[Any]]:
        """Begin to copy an array, which will not change any more, to the main memory; call the result to have it."""
        ...

    def rows_at_once(self, bytes_per_row: int) -> int:
        """Return how many rows of an array to work on at a time."""
        ...


COMPILED = ("geopsp.inference.kernels_numba", "geopsp.inference.classes_numba", "geopsp.raster.cog.overviews")
"""Modules with the compiled functions that a map on a CPU needs."""


def tile_ops(device: Device, normalization: Normalization) -> TileOps:
    """Return the implementation that suits a device."""
    if device.type == "cpu":
        return NumbaOps(normalization)
    from geopsp.inference.kernels_torch import TorchOps

    return TorchOps(device, normalization)  # type: ignore[arg-type]
