"""Results of a GPU in the main memory, without waiting for all else that it was asked to do."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


class HostCopy:
    """Numbers of a device that are on their way to the main memory."""

    def __init__(self, values: Tensor) -> None:
        """Ask for the copy; the values must not change any more."""
        self._values, self._arrived = values, None
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record(torch.cuda.current_stream(values.device))

    def wait(self) -> NDArray[Any]:
        """Return the numbers as soon as the device has come that far."""
        if self._arrived is not None:
            self._arrived.synchronize()
        found: NDArray[Any] = self._values.cpu().numpy()
        return found
