"""Force files to the disk before they take their names, so that a power cut leaves the old output or the new one."""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress
from pathlib import Path

VARIABLE = "GEOPSP_SYNC"
"""Environment variable; 0 leaves it to the operating system when files get to the disk."""

UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}
"""Errors of disks that cannot be told to write, such as some shared ones."""


def sync_file(path: Path) -> None:
    """Return when the content of a file is on the disk."""
    if syncs():
        _fsync(path)


def sync_descriptor(descriptor: int) -> None:
    """Return when the content of an open file is on the disk."""
    if syncs():
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise


def sync_folder(path: Path) -> None:
    """Return when the names of the files in a folder are on the disk.

    An error is none of the files, which are complete under their old name or the new one.
    """
    if syncs() and os.name == "posix":  # elsewhere folders cannot be opened
        with suppress(OSError):
            _fsync(path)


def sync_tree(folder: Path) -> None:
    """Return when a folder and all that it holds is on the disk."""
    if not syncs() or _sync_file_system(folder):
        return
    for root, _, names in os.walk(folder):
        for name in names:
            sync_file(Path(root, name))
        sync_folder(Path(root))


def syncs() -> bool:
    """True unless `GEOPSP_SYNC` turns it off."""
    return os.environ.get(VARIABLE) != "0"


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        sync_descriptor(descriptor)
    finally:
        os.close(descriptor)


def _sync_file_system(path: Path) -> bool:
    """True if the whole file system could be synced by one call, which is quicker for many files (Linux)."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None) if os.name == "posix" else None
    if syncfs is None:
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if syncfs(descriptor):
            code = ctypes.get_errno()
            if code in UNSUPPORTED:
                return False
            raise OSError(code, os.strerror(code))
        return True
    finally:
        os.close(descriptor)
