"""A layer of faults below the files: the nth rename or sync fails, or no file can grow beyond so many bytes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from inference_common import disk_of

CALLS = {"rename": ("rename", "replace"), "sync": ("fsync",), "mkdir": ("mkdir",)}
"""Functions of `os` that fail, by the name of the fault."""

CODES = {"rename": errno.EACCES, "sync": errno.EIO, "mkdir": errno.ENOSPC}


@dataclass
class Counter:
    """Calls so far."""

    count: int = 0


@contextmanager
def faults(kind: str, number: int) -> Iterator[Counter]:
    """Let the nth call of a kind fail, or with "write" each write beyond so many bytes of a file, GDAL's too.

    With number 0 nothing fails, and the calls are counted.
    """
    counter = Counter()
    if kind == "write":
        with disk_of(number):
            yield counter
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEOPSP_SYNC", "1")
        patch.setattr("geopsp.core.sync._sync_file_system", lambda _: False)
        for name in CALLS[kind]:
            call = (lambda _: None) if name == "fsync" else getattr(os, name)
            patch.setattr(os, name, _counting(call, counter, number, CODES[kind]))
        yield counter


def _counting(call: Callable[..., Any], counter: Counter, number: int, code: int) -> Callable[..., Any]:
    def counted(*args: Any, **options: Any) -> Any:
        counter.count += 1
        if counter.count == number:
            raise OSError(code, os.strerror(code))
        return call(*args, **options)

    return counted
