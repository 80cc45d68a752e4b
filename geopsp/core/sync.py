"""Force files to the disk before they take their names, so that a power cut leaves the old output or the new one."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

VARIABLE = "GEOPSP_SYNC"
"""Environment variable; 0 leaves it to the operating system when files get to the disk."""


def sync_file(path: Path) -> None:
    """Return when the content of a file is on the disk."""
    if _wanted():
        _fsync(path)


def sync_folder(path: Path) -> None:
    """Return when the names of the files in a folder are on the disk."""
    if _wanted() and os.name == "posix":  # elsewhere folders cannot be opened
        _fsync(path)


def sync_tree(folder: Path) -> None:
    """Return when a folder and all that it holds is on the disk."""
    if not _wanted() or _sync_file_system(folder):
        return
    for root, _, names in os.walk(folder):
        for name in names:
            sync_file(Path(root, name))
        sync_folder(Path(root))


def _wanted() -> bool:
    return os.environ.get(VARIABLE) != "0"


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
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
            raise OSError(code, os.strerror(code))
        return True
    finally:
        os.close(descriptor)
