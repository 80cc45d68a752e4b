"""The network in PyTorch: normalise, batch, augment."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from copy import copy
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geopsp.core.text import format_error
from geopsp.inference.kernels_numba import NumbaOps
from geopsp.inference.predictor import SYMMETRIES, TilePredictor
from geopsp.inference.tile_ops import Array, TileOps, tile_ops
from geopsp.models.device import memory_format
from geopsp.models.memory import is_out_of_memory
from geopsp.models.precision import NetworkPrecision, exact_float32, network_autocast
from geopsp.models.saved_model import TrainedModel

if TYPE_CHECKING:
    from geopsp.inference.kernels_torch import TorchOps

logger = logging.getLogger(__name__)


class TorchPredictor(TilePredictor):
    """Logits of a network of PyTorch."""

    device: torch.device

    def __init__(
        self,
        model: TrainedModel,
        device: torch.device,
        *,
        batch_size: int = 1,
        precision: NetworkPrecision = "fp32",
        test_time_augmentation: bool = False,
        excluded_channels: Sequence[int] = (),
        compiled: bool = False,
        ops: TileOps | None = None,
    ) -> None:
        """Move the network to the device.

        Args:
            model: Its network is moved.
            device: Where it runs.
            batch_size: Tiles in a batch.
            precision: Of the network.
            test_time_augmentation: True takes the mean over the eight symmetries of a tile.
            excluded_channels: Channels that are never predicted.
            compiled: True compiles the network.
            ops: None: as suits the device.
        """
        ops = ops or tile_ops(device, model.normalization)
        super().__init__(device, ops, batch_size=batch_size, excluded_channels=excluded_channels)
        self.precision, self.augmented = precision, test_time_augmentation
        self._excluded = torch.tensor(self.excluded_channels, dtype=torch.int64, device=device)
        self._layout = memory_format(device, half=precision != "fp32")
        network: nn.Module = model.network.to(device).to(memory_format=self._layout).eval()
        self.network: Callable[[Tensor, Tensor], Tensor] = _Compiled(network) if compiled else network

    def __call__(self, data: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]]) -> Array:
        """Return the logits of tiles; see `TilePredictor`."""
        logits = super().__call__(data, valid)
        if self.precision != "fp16" or bool(torch.isfinite(torch.as_tensor(logits).amax(dim=1)).all()):
            return logits
        return self.in_float32()(data, valid)

    def in_float32(self) -> TorchPredictor:
        """Return the same network, which computes in float32."""
        other = copy(self)
        other.precision = "fp32"
        return other

    @torch.inference_mode()
    def _logits(self, data: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], size: int) -> Array:
        image, mask = self._batch(data, valid, size)
        if not self.augmented:
            return self.ops.from_tensor(self._forward(image, mask)[: len(data)])
        total = torch.zeros((), device=self.device)
        for turns, flip in SYMMETRIES:
            logits = self._forward(_transformed(image, turns, flip=flip), _transformed(mask, turns, flip=flip))
            total = total + _transformed_back(logits.softmax(dim=1), turns, flip=flip)
        return self.ops.from_tensor(total[: len(data)].log())

    def _forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Run the network; return (n, classes, s, s) logits, float32."""
        exact = exact_float32(self.device) if self.precision == "fp32" else nullcontext()
        with network_autocast(self.precision, self.device), exact:
            logits = self.network(image.contiguous(memory_format=self._layout), mask)
        return logits.float().index_fill(1, self._excluded, -torch.inf) if self.excluded_channels else logits.float()

    def _batch(
        self, data: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], size: int
    ) -> tuple[Tensor, Tensor]:
        """Return normalised pixels, (size, bands, s, s), and their valid mask, (size, 1, s, s), on the device."""
        if not isinstance(self.ops, NumbaOps):
            ops: TorchOps = self.ops  # type: ignore[assignment]
            return ops.load(data, valid, size)
        bands, side = data[0].shape[0], data[0].shape[-1]
        shape = (size, bands, side, side)
        image = torch.empty(shape, device=self.device, memory_format=torch.channels_last)
        mask = torch.empty(size, 1, side, side, device=self.device)
        image[len(data) :], mask[len(data) :] = 0, 0
        for number, (pixels, tile_valid) in enumerate(zip(data, valid, strict=True)):
            self.ops.normalise(pixels, tile_valid, image[number].numpy(), mask[number, 0].numpy())
        return image, mask

    def _is_out_of_memory(self, error: Exception) -> bool:
        return is_out_of_memory(error)

    def _free_memory(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @contextmanager
    def threads(self, count: int) -> Iterator[ThreadPoolExecutor]:
        """Yield threads in which to call this; see `TilePredictor`."""
        if self.device.type != "cpu":
            thread = network_thread(self.device)
            try:
                yield thread
            finally:
                thread.submit(int).result()  # after what is still running
            return
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            # in each thread, too: OpenMP, which convolutions use, counts its own for each of them
            with ThreadPoolExecutor(count, "geopsp-network", torch.set_num_threads, (1,)) as pool:
                yield pool
        finally:
            torch.set_num_threads(before)


@cache
def network_thread(device: torch.device) -> ThreadPoolExecutor:  # noqa: ARG001 (each has its own)
    """Return the thread that starts networks on a device, always the same: cuDNN keeps its plans by thread."""
    return ThreadPoolExecutor(1, thread_name_prefix="geopsp-network")


class _Compiled:
    """A compiled network; where it cannot be compiled, the network as it is."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._run: Callable[[Tensor, Tensor], Tensor] = torch.compile(network)

    def __call__(self, image: Tensor, mask: Tensor) -> Tensor:
        try:
            return self._run(image, mask)
        except RuntimeError as error:
            is_compiler = type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
            if self._run is self._network or not is_compiler or is_out_of_memory(error):
                raise
            logger.warning(f"The network cannot be compiled here and runs as it is, slower: {format_error(error)}")
            self._run = self._network
            return self(image, mask)


def _transformed(image: Tensor, turns: int, *, flip: bool) -> Tensor:
    """Mirror (..., s, s) if asked, then rotate it by quarter turns."""
    return torch.rot90(image.flip(-1) if flip else image, turns, (-2, -1)) if turns or flip else image


def _transformed_back(image: Tensor, turns: int, *, flip: bool) -> Tensor:
    image = torch.rot90(image, -turns, (-2, -1)) if turns else image
    return image.flip(-1) if flip else image
