"""Functions compiled by numba, with a disk cache that may fail."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache

Cache: Any = FunctionCache


def jit(function: Callable[..., Any]) -> Any:
    """Compile a function that releases the GIL and divides by zero as numpy does.

    The machine code is cached beside the function's file or in the user's folder. Where neither can be written, or the
    cache is damaged, the function is compiled anew.
    """
    dispatcher: Any = njit(nogil=True, error_model="numpy")(function)
    with suppress(RuntimeError):  # numba finds no folder for the cache
        dispatcher._cache = _DiskCache(function)  # noqa: SLF001 (as cache=True does, with a cache that may fail)
    return dispatcher


class _DiskCache(Cache):
    """numba's cache of machine code, where a damaged file or a full disk is no error."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # noqa: BLE001 (whatever is wrong, the function can be compiled anew)
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)
