"""The network in ONNX Runtime: raw pixels in, probabilities out; their logarithms are the logits."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.inference.kernels_numba import NumbaOps
from geopsp.inference.predictor import SYMMETRIES, TilePredictor
from geopsp.inference.tile_ops import Device
from geopsp.models.onnx_file import INPUT, OnnxModel

OUT_OF_MEMORY = ("failed to allocate memory", "bad_alloc", "bad allocation")
"""Messages of ONNX Runtime where memory is too small."""

DARK = np.finfo(np.float32).tiny
"""What stands for 0 in the first band of a valid pixel that is 0 in all: the graph takes such pixels for nodata. Beside
any mean it is lost, and so small that it moves no other normalised value by more than 1e-30."""

LEAST_PROBABILITY = np.float32(1e-45)
"""Softmax in float32 gives 0 below, whose logarithm would leave a pixel without a class if the others are excluded."""


class OnnxPredictor(TilePredictor):
    """Logits of an ONNX file."""

    def __init__(
        self,
        model: OnnxModel,
        device: Device,
        *,
        batch_size: int = 1,
        test_time_augmentation: bool = False,
        excluded_channels: Sequence[int] = (),
    ) -> None:
        """Open the file in ONNX Runtime, once for each model.

        Args:
            model: The file.
            device: The CPU.
            batch_size: Tiles in a batch.
            test_time_augmentation: True takes the mean over the eight symmetries of a tile.
            excluded_channels: Channels that are never predicted.
        """
        ops = NumbaOps(model.normalization)
        super().__init__(device, ops, batch_size=batch_size, excluded_channels=excluded_channels)
        self.augmented, self.session = test_time_augmentation, model.session()
        self._output = model.network_output

    def _logits(
        self, data: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], size: int
    ) -> NDArray[np.float32]:
        side = data[0].shape[-1]
        image = np.zeros((size, len(data[0]), side, side), np.float32)
        for shown, pixels, tile_valid in zip(image, data, valid, strict=False):
            _fill(shown, pixels, tile_valid)
        if not self.augmented:
            return self._log(self._probabilities(image)[: len(data)])
        total = np.zeros((1, 1, side, side), np.float32)
        for turns, flip in SYMMETRIES:
            found = self._probabilities(_transformed(image, turns, flip=flip))
            found[:, self.excluded_channels] = 0
            found /= np.maximum(found.sum(axis=1, keepdims=True), LEAST_PROBABILITY)
            total = total + _transformed_back(found, turns, flip=flip)
        return self._log(total[: len(data)])

    def _probabilities(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network; return (n, classes, s, s) probabilities."""
        found: NDArray[np.float32] = self.session.run([self._output], {INPUT: np.ascontiguousarray(image)})[0]
        return found

    def _log(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits of probabilities; NaN stays NaN, which is an error of the network."""
        logits = np.log(np.maximum(probabilities, LEAST_PROBABILITY))
        logits[:, self.excluded_channels] = -np.inf
        return logits

    def _is_out_of_memory(self, error: Exception) -> bool:
        return isinstance(error, MemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY)

    def _free_memory(self) -> None:
        pass  # ONNX Runtime keeps what it has for the next batch

    def threads(self, count: int) -> ThreadPoolExecutor:
        """Return threads; a session runs each call in the caller's."""
        return ThreadPoolExecutor(count, thread_name_prefix="geopsp-network")


def _fill(shown: NDArray[np.float32], pixels: NDArray[Any], valid: NDArray[np.bool_]) -> None:
    """Write the pixels of a tile, (bands, s, s), to `shown`: 0 where invalid, and in some band not where valid."""
    with np.errstate(over="ignore"):  # the graph takes infinite pixels for nodata
        np.copyto(shown, pixels, where=valid, casting="unsafe")
    if (dark := valid & ~shown.any(axis=0)).any():
        shown[0][dark] = DARK


def _transformed(image: NDArray[np.float32], turns: int, *, flip: bool) -> NDArray[np.float32]:
    """Mirror (..., s, s) if asked, then rotate it by quarter turns."""
    return np.rot90(image[..., ::-1] if flip else image, turns, (-2, -1))


def _transformed_back(image: NDArray[np.float32], turns: int, *, flip: bool) -> NDArray[np.float32]:
    image = np.rot90(image, -turns, (-2, -1))
    return image[..., ::-1] if flip else image
