"""Functions that numba compiles, once for all runs where it can write what it compiled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache

Cache: Any = FunctionCache


def jit(function: Callable[..., Any]) -> Any:
    """The function as machine code that leaves other threads alone; a division by zero gives no error.

    It is kept beside its file or in the user's folder; where neither can be written, or what was kept is damaged, it is
    compiled anew.
    """
    dispatcher: Any = njit(nogil=True, error_model="numpy")(function)
    with suppress(RuntimeError):  # numba knows no place for it
        dispatcher._cache = _DiskCache(function)  # noqa: SLF001 (as cache=True does, but for what may go wrong)
    return dispatcher


class _DiskCache(Cache):
    """What was compiled, if it can be read; a full disk only means that it is not kept."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # noqa: BLE001 (whatever is wrong with it, it can be compiled anew)
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)
