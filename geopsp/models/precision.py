"""Precision in which a network runs in inference."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import torch

NetworkPrecision: TypeAlias = Literal["fp32", "bf16", "fp16"]

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def network_autocast(precision: NetworkPrecision, device: torch.device) -> torch.autocast:
    """Return the context manager in which a network runs in a precision."""
    return torch.autocast(device.type, HALVES.get(precision, torch.bfloat16), enabled=precision in HALVES)


class _Float32:
    """Switches of torch for all threads, which the first one turns and the last one puts back."""

    def __init__(self) -> None:
        self._lock, self._users, self._before = threading.Lock(), 0, list[str]()
        self._cudnn: Any = torch.backends.cudnn
        self._switches = self._cudnn.conv, self._cudnn.rnn, torch.backends.cuda.matmul

    def begin(self) -> None:
        with self._lock:
            if not self._users:
                self._before = [switch.fp32_precision for switch in self._switches]
                self._set(["ieee", "ieee", "ieee" if self._before[-1] == "tf32" else self._before[-1]])
            self._users += 1

    def end(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._set(self._before)

    def _set(self, values: list[str]) -> None:
        self._cudnn.allow_tf32 = values[0] == "tf32"  # code that reads the old switch fails where the new ones differ
        for switch, value in zip(self._switches, values, strict=True):
            if switch.fp32_precision != value:
                switch.fp32_precision = value


_FLOAT32 = _Float32()


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Compute float32 as such on a GPU: torch's default for convolutions is TF32, with 10 bits of 23."""
    if device.type != "cuda":
        yield
        return
    _FLOAT32.begin()
    try:
        yield
    finally:
        _FLOAT32.end()
