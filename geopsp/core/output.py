"""Outputs that appear whole or not at all: written beside their place, then renamed.

Where a link lies in an output's place, what it points to is written or replaced, and the link stays.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from geopsp.errors import GeopspError, OutputError


def check_output(path: str | Path, *, overwrite: bool = False, folder: bool = False, marker: str | None = None) -> Path:
    """The path, its link followed, where something may now be written; the folder that it lies in exists.

    Args:
        path: Where the output shall appear.
        overwrite: True if it may replace what is there.
        folder: True if the output is a folder.
        marker: The file by which a folder is known as one of ours; a folder without it is not replaced unless empty.

    Raises:
        OutputError: if it exists and may not be replaced, or cannot be written.
    """
    asked, path = path, resolve_link(path)
    try:
        if path.exists() and not overwrite:
            raise OutputError(
                f"{asked} already exists. Choose another name, or overwrite it (overwrite=True, --overwrite)."
            )
        _require_ours(path, folder=folder, marker=marker)
        path.parent.mkdir(parents=True, exist_ok=True)
    except GeopspError:
        raise
    except OSError as error:
        raise OutputError(f"{path} cannot be made ({error}). Choose another place or a shorter name.") from error
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"The folder {path.parent} cannot be written. Choose another place, or change its rights.")
    return path


def resolve_link(path: str | Path) -> Path:
    """The path; of a link, where the file or folder that it points to lies, or would lie.

    Raises:
        OutputError: if it points to itself, or into a folder that there is not: its disk may not be mounted.
    """
    path = Path(path)
    if not os.path.islink(path):  # noqa: PTH114 (False of a name that is too long)
        return path
    place = Path(os.path.realpath(path))
    if os.path.islink(place) or not os.path.isdir(place.parent):  # noqa: PTH112, PTH114
        raise OutputError(
            f"{path} is a link to {path.readlink()}, where nothing can be written: needed a folder {place.parent}. "
            "Make it, mount its disk, or remove the link."
        )
    return place


def _require_ours(path: Path, *, folder: bool, marker: str | None) -> None:
    if not path.exists():
        return
    if path.is_dir() != folder:
        found, needed = ("a folder", "a file") if path.is_dir() else ("a file", "a folder")
        raise OutputError(f"{path} is {found}; needed the name of {needed}. Choose another name.")
    if folder and marker is not None and any(path.iterdir()) and not (path / marker).exists():
        raise OutputError(f"{path} holds other things, not {marker}, so it is not replaced. Choose another name.")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def atomic_output(
    path: str | Path, *, overwrite: bool = False, folder: bool = False, marker: str | None = None
) -> Iterator[Path]:
    """A temporary place of the same ending beside `path`, which takes its name when the block ends without error.

    Args:
        path: Where the file or folder shall appear.
        overwrite: True if it may replace what is there.
        folder: True to make the temporary place a folder.
        marker: As for `check_output`.

    Raises:
        OutputError: as `check_output`, if something else than our own output would be lost, or if writing fails.
    """
    path = check_output(path, overwrite=overwrite, folder=folder, marker=marker)
    partial = partial_path(path)
    try:
        _remove(partial)
        if folder:
            partial.mkdir()
        yield partial
        if path.is_dir():
            _remove(path)
        partial.replace(path)
    except GeopspError:
        raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error}). Is the disk full, or the place read-only?") from error
    finally:
        _remove(partial)


@contextmanager
def resumable_folder(
    path: str | Path, *, state_file: str, overwrite: bool = False, marker: str | None = None
) -> Iterator[Path]:
    """A temporary folder beside `path`, which takes its name when the block ends without error.

    After an error it stays, if it holds the file `state_file`, so that the next call resumes; a new one is empty. At no
    moment is there neither the old folder nor the new one, under this name, the temporary one or .old-NAME.

    Args:
        path: Where the folder shall appear.
        state_file: The name of a file that tells how far it is.
        overwrite: True if it may replace what is there.
        marker: As for `check_output`.

    Raises:
        OutputError: as `check_output`, or if writing fails.
    """
    path = check_output(path, overwrite=overwrite, folder=True, marker=marker)
    partial = partial_path(path)
    try:
        if not (partial / state_file).exists():
            _remove(partial)
        partial.mkdir(exist_ok=True)
        yield partial
        old = path.with_name(f".old-{path.name}")
        _remove(old)
        if path.is_dir():
            path.replace(old)
        partial.replace(path)
        _remove(old)
    except GeopspError:
        raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error}). Is the disk full, or the place read-only?") from error
    finally:
        if not (partial / state_file).exists():
            _remove(partial)


@contextmanager
def output_lock(out: Path) -> Iterator[None]:
    """While this lasts, no other run writes to the same place.

    Raises:
        OutputError: if one does, or if the disk is full.
    """
    place = resolve_link(out)
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    try:
        with lock.acquire(timeout=0):
            try:
                yield
            finally:
                Path(lock.lock_file).unlink(missing_ok=True)
    except Timeout as error:
        raise OutputError(f"Another run writes to {out}. Wait for it, or choose another name.") from error
    except GeopspError:
        raise
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({error}). Is the disk full, or the place read-only?") from error


def partial_path(path: Path) -> Path:
    """Where an output is made before it takes its name: beside what a link points to, so that it can be renamed."""
    path = resolve_link(path)
    return path.with_name(f".partial-{path.name}")


def write_text_atomic(path: Path, text: str) -> None:
    """Write a small text file beside its place, then rename it; a kill leaves the old file or the new one.

    Raises:
        OSError: if it cannot be written.
    """
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
