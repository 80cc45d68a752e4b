"""Outputs that appear complete or not at all: written beside their path, then renamed.

If an output path is a link, the link stays and its target is written or replaced.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from geopsp.core.full_disk import full_disk_hint
from geopsp.core.paths import describe_bad_name
from geopsp.core.text import format_error
from geopsp.errors import GeopspError, OutputError


def check_output(
    path: str | Path,
    *,
    overwrite: bool = False,
    folder: bool = False,
    marker: str | None = None,
    companions: Sequence[Path] = (),
) -> Path:
    """Check that an output can be written, make its parent folder, and return the path with links resolved.

    Args:
        path: The output.
        overwrite: True to allow replacing what exists.
        folder: True if the output is a folder.
        marker: A file that every output folder of this kind holds; a folder without it is replaced only if empty.
        companions: Files that are replaced or removed with the output.

    Raises:
        OutputError: if it exists and may not be replaced, or cannot be written.
    """
    if problem := describe_bad_name(path):
        raise OutputError(problem)
    asked, path = path, resolve_link(path)
    try:
        if path.exists() and not overwrite:
            raise OutputError(f"{asked} already exists. Use `overwrite=True` to replace it, or choose another name.")
        _require_replaceable(path, folder=folder, marker=marker)
        existing = [file.name for file in companions if os.path.lexists(file)]
        if existing and not overwrite:
            raise OutputError(
                f"{asked} would replace or remove files that already exist beside it ({', '.join(existing)}). "
                "Use `overwrite=True` to do so, or choose another name."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
    except GeopspError:
        raise
    except OSError as error:
        raise OutputError(
            f"Cannot create {path}: {format_error(error)}. Choose another folder or a shorter name."
        ) from error
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"The folder {path.parent} is not writable. Choose another one, or change its permissions.")
    return path


def resolve_link(path: str | Path) -> Path:
    """Return the path, or the target if it is a link.

    Raises:
        OutputError: if it links to itself or into a folder that does not exist, as on a disk that is not mounted.
    """
    path = Path(path)
    if not os.path.islink(path):  # noqa: PTH114 (False for a name that is too long)
        return path
    target = Path(os.path.realpath(path))
    if os.path.islink(target) or not os.path.isdir(target.parent):  # noqa: PTH112, PTH114
        raise OutputError(
            f"{path} is a link to {path.readlink()}, but there is no folder {target.parent}. "
            "Create it, mount its disk, or remove the link."
        )
    return target


def _require_replaceable(path: Path, *, folder: bool, marker: str | None) -> None:
    if not path.exists():
        return
    if path.is_dir() != folder:
        found, needed = ("a folder", "a file") if path.is_dir() else ("a file", "a folder")
        raise OutputError(f"{path} is {found}, but must be {needed}. Choose another name.")
    if folder and marker is not None and any(path.iterdir()) and not (path / marker).exists():
        raise OutputError(f"{path} contains other files and no {marker}, so it is not replaced. Choose another name.")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn an error of the file system in the block into an `OutputError` that names the output."""
    try:
        yield
    except GeopspError:
        raise
    except OSError as error:
        hint = full_disk_hint(error) or " Is the folder read-only?" * (error.errno in {errno.EACCES, errno.EROFS})
        raise OutputError(f"Cannot write {path}: {format_error(error)}.{hint}") from error


@contextmanager
def atomic_output(
    path: str | Path, *, overwrite: bool = False, folder: bool = False, marker: str | None = None
) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same ending; rename it when the block ends without an error.

    Args:
        path: The output.
        overwrite: True to allow replacing what exists.
        folder: True to make the temporary path a folder.
        marker: As for `check_output`.

    Raises:
        OutputError: as `check_output`, or if writing fails.
    """
    path = check_output(path, overwrite=overwrite, folder=folder, marker=marker)
    partial = partial_path(path)
    try:
        with write_errors(path):
            _remove(partial)
            if folder:
                partial.mkdir()
            yield partial
            if path.is_dir():
                _remove(path)
            partial.replace(path)
    finally:
        _remove(partial)


@contextmanager
def atomic_files(path: str | Path, *, overwrite: bool = False, companions: Sequence[Path] = ()) -> Iterator[Path]:
    """Yield a path in a temporary folder; at the end move all files of the folder beside `path`, this one last.

    Args:
        path: The output; the temporary path has its name, with the ending in lower case.
        overwrite: True to allow replacing what exists.
        companions: Files that may belong to an older output; they are removed first.

    Raises:
        OutputError: as `check_output`, or if writing fails.
    """
    path = check_output(path, overwrite=overwrite, companions=companions)
    folder = partial_path(path)
    try:
        with write_errors(path):
            _remove(folder)
            folder.mkdir()
            partial = folder / f"{path.stem}{path.suffix.lower()}"
            yield partial
            others = [file for file in folder.iterdir() if file != partial]
            if others:  # never an old file beside new companions
                path.unlink(missing_ok=True)
            for old in companions:
                old.unlink(missing_ok=True)
            for file in others:
                file.replace(path.with_name(file.name))
            partial.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def resumable_folder(
    path: str | Path, *, state_file: str, overwrite: bool = False, marker: str | None = None
) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it when the block ends without an error.

    After an error the temporary folder stays if it holds `state_file`, so that the next call resumes. The old folder is
    renamed to .old-NAME before the new one takes its name, so that a kill never loses both.

    Args:
        path: The output folder.
        state_file: Name of the file that records the progress.
        overwrite: True to allow replacing what exists.
        marker: As for `check_output`.

    Raises:
        OutputError: as `check_output`, or if writing fails.
    """
    path = check_output(path, overwrite=overwrite, folder=True, marker=marker)
    partial = partial_path(path)
    try:
        with write_errors(path):
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
    finally:
        if not (partial / state_file).exists():
            _remove(partial)


@contextmanager
def output_lock(out: Path) -> Iterator[None]:
    """Hold a lock file, so that no other run writes to the same output.

    Raises:
        OutputError: if another run holds it, or if the disk is full.
    """
    path = resolve_link(out)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    with write_errors(out):
        try:
            with lock.acquire(timeout=0):
                try:
                    yield
                finally:
                    Path(lock.lock_file).unlink(missing_ok=True)
        except Timeout as error:
            raise OutputError(f"Another run is writing to {out}. Wait for it, or choose another name.") from error


def partial_path(path: Path) -> Path:
    """Return the temporary path of an output; it lies beside a link's target, as renaming works within one disk."""
    path = resolve_link(path)
    return path.with_name(f".partial-{path.name}")


def write_text_atomic(path: Path, text: str) -> None:
    """Write a small text file under a temporary name, then rename it; a kill leaves the old file or the new one.

    Raises:
        OSError: if it cannot be written.
    """
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
