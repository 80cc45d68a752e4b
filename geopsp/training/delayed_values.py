"""Numbers that a step leaves on its device, read one step later, so that a GPU never waits for the host."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class DelayedValues:
    """Numbers on their way from a device to the host."""

    def __init__(self, values: Tensor) -> None:
        """Start the copy; a GPU goes on computing."""
        self._values = values
        self._copied: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            self._values = torch.empty_like(values, device="cpu", pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record(torch.cuda.current_stream(values.device))

    def tolist(self) -> list[float]:
        """Return the numbers; waits for the step that made them, not for those after it."""
        if self._copied is not None:
            self._copied.synchronize()
        values: list[float] = self._values.tolist()
        return values


class StepRecord(NamedTuple):
    """What there is to check of a step."""

    loss_and_norm: DelayedValues
    """The loss, and the norm of the gradients."""

    rows: Tensor
    """(n,) rows of its chips in the index."""

    number: int
    """Steps before it."""
