"""Temporary folders: beside an output, to be moved there, or for what no output keeps."""

from __future__ import annotations

import glob
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

from filelock import FileLock, Timeout

from geopsp.core.text import format_error
from geopsp.errors import OutputError

LOCK = ".lock"
"""A file in temporary folders that their process holds."""

CONTENT = "content"
"""The folder in them that is yielded."""

TEMPORARY = re.compile(r"\.partial-.*-[a-z0-9_]{8}", re.DOTALL)
"""Their names."""

MAX_PREFIX = 100
"""Characters of an output's name in that of its temporary folder."""


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside a path, to be moved to it; its name cannot be guessed, and only this user can read it.

    What killed runs left for the same path is removed.
    """
    _clear_temporary_folders(path)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_temporary_prefix(path), dir=path.parent))
        try:
            with FileLock(folder / LOCK):
                content = folder / CONTENT
                if _make_folder(content):
                    yield content
                    return
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new folder for temporary files, on the disk that TMPDIR names.

    Raises:
        OutputError: if none can be made.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="geopsp-", ignore_cleanup_errors=True)
    except OSError as error:
        raise OutputError(
            f"Cannot make a folder for temporary files: {format_error(error)}. Set TMPDIR to a folder that can be "
            "written, on a disk with free space."
        ) from error
    with folder as name:
        yield Path(name)


def in_temporary_folder(parts: Sequence[str]) -> bool:
    """True for the parts of a path that leads into what `temporary_folder` yields."""
    return any(name == CONTENT and TEMPORARY.fullmatch(folder) for folder, name in pairwise(parts))


def _make_folder(folder: Path) -> bool:
    """Make a folder; False where another process removed its parent before this one had locked it."""
    try:
        folder.mkdir()
    except FileNotFoundError:
        return False
    return True


def _temporary_prefix(path: Path) -> str:
    return f".partial-{path.name[:MAX_PREFIX]}-"


def _clear_temporary_folders(path: Path) -> None:
    """Remove temporary folders of a path that no running process holds."""
    for folder in path.parent.glob(f"{glob.escape(_temporary_prefix(path))}????????"):
        lock = folder / LOCK
        if folder.is_symlink() or lock.is_symlink():
            continue  # not one of ours
        if not lock.is_file():
            with suppress(OSError):
                folder.rmdir()  # only an empty one: its process was killed before it had locked it
            continue
        with suppress(Timeout, OSError), FileLock(lock).acquire(timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
