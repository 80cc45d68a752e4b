"""Functions that numba compiles, once for all runs where it can write what it compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """The function as machine code that leaves other threads alone; a division by zero gives no error.

    It is kept beside its file or in the user's folder; where neither can be written, each run compiles it anew.
    """
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # numba knows no place for it
        return njit(nogil=True, error_model="numpy")(function)
