"""Outputs that appear complete or not at all: written beside their path, then renamed.

If an output path is a link, the link stays and its target is written or replaced. An address in an object store is
like a link to its local copy, which is uploaded when it is complete.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from geopsp.core.addresses import address_of, staged_path
from geopsp.core.full_disk import full_disk_hint
from geopsp.core.owned_files import (
    FolderKind,
    foreign_files,
    remove_owned,
    require_owned,
    unfinished_name,
    write_file_list,
)
from geopsp.core.paths import describe_bad_name
from geopsp.core.remote_output import (
    check_remote_file,
    check_remote_folder,
    remove_remote,
    upload_file,
    upload_folder,
)
from geopsp.core.set_aside import follow_umask, set_aside
from geopsp.core.staging import VARIABLE, local_copy
from geopsp.core.sync import sync_file, sync_folder, sync_tree
from geopsp.core.temporary_folder import temporary_folder
from geopsp.core.text import format_error
from geopsp.errors import GeopspError, OutputError

MAX_NAME = 255
"""Bytes that a name can have on common file systems."""


LONGEST_ADDITION = len(".partial-" + ".cleaned" + ".lock")
"""Bytes that the name of a temporary file has beside that of its output."""


_CHECKS_ONLY: ContextVar[bool] = ContextVar("checks_only", default=False)


@contextmanager
def checks_only() -> Iterator[None]:
    """Let `check_output` make no folders: for dry runs, which leave the disk as it is."""
    token = _CHECKS_ONLY.set(True)
    try:
        yield
    finally:
        _CHECKS_ONLY.reset(token)


def existing_folder(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists.

    Raises:
        NotADirectoryError: if a file is in its place.
    """
    found = next((each for each in (folder, *folder.parents) if each.exists()), folder)
    if not found.is_dir():
        raise NotADirectoryError(f"{found} is no folder")
    return found


def check_output(
    path: str | Path,
    *,
    overwrite: bool = False,
    folder: bool = False,
    kind: FolderKind | None = None,
    companions: Sequence[Path] = (),
) -> Path:
    """Check that an output can be written, make its parent folder, and return the path with links resolved.

    Inside `checks_only` no folder is made.

    Args:
        path: The output.
        overwrite: True to allow replacing what exists.
        folder: True if the output is a folder.
        kind: What a folder of earlier versions holds, which wrote no list of their files.
        companions: Files that are replaced or removed with the output.

    Raises:
        OutputError: if it exists and may not be replaced, or cannot be written.
    """
    if problem := describe_bad_name(path):
        raise OutputError(problem)
    require_short_name(Path(path))
    asked, path = path, resolve_link(path)
    try:
        if folder and not _CHECKS_ONLY.get():
            _restore_replaced(path, kind)
        if _check_address(path, overwrite=overwrite, folder=folder, kind=kind, companions=companions):
            overwrite, companions = True, ()  # a local copy is no output
        if path.exists() and not overwrite:
            raise OutputError(f"{asked} already exists. Use `overwrite=True` to replace it, or choose another name.")
        _require_replaceable(path, folder=folder, kind=kind)
        existing = [file.name for file in companions if os.path.lexists(file)]
        if existing and not overwrite:
            raise OutputError(
                f"{asked} would replace or remove files that already exist beside it ({', '.join(existing)}). "
                "Use `overwrite=True` to do so, or choose another name."
            )
        parent = existing_folder(path.parent)
        if not _CHECKS_ONLY.get():
            path.parent.mkdir(parents=True, exist_ok=True)
    except GeopspError:
        raise
    except (OSError, RecursionError) as error:  # pathlib goes up a long path by recursion
        raise OutputError(
            f"Cannot create {local_copy(path)[:300]}: {format_error(error)}. Choose another folder or a shorter name."
        ) from error
    _require_writable(path, parent)
    return path


def _require_writable(path: Path, parent: Path) -> None:
    if os.access(parent, os.W_OK):
        return
    where, remedy = str(parent), "Choose another one"
    if address_of(path):
        where, remedy = f"of {local_copy(path)}", f"Name another one in {VARIABLE}"
    raise OutputError(f"The folder {where} is not writable. {remedy}, or change its permissions.")


def _check_address(
    path: Path, *, overwrite: bool, folder: bool, kind: FolderKind | None, companions: Sequence[Path]
) -> bool:
    """Check an output that is uploaded; False if the path is no local copy of one."""
    address = address_of(path)
    if address is None:
        return False
    probe = not _CHECKS_ONLY.get()
    if folder:
        check_remote_folder(address, kind, overwrite=overwrite, probe=probe)
    else:
        beside = [found for file in companions if (found := address_of(file))]
        check_remote_file(address, overwrite=overwrite, companions=beside, probe=probe)
    return True


def require_short_name(path: Path) -> None:
    """Check that temporary files beside an output can have its name and more.

    Raises:
        OutputError: if they cannot.
    """
    length, most = len(os.fsencode(path.name)), MAX_NAME - LONGEST_ADDITION
    if length > most:
        raise OutputError(
            f"Cannot create {path}: a name of {length} bytes is too long, as temporary files beside it have longer "
            f"ones. Choose a shorter name, of at most {most} bytes."
        )


def resolve_link(path: str | Path) -> Path:
    """Return the path, or the target if it is a link, or the local copy if it is an address.

    Raises:
        OutputError: if it links to itself or into a folder that does not exist, as on a disk that is not mounted.
    """
    path = staged_path(path) or Path(path)
    if not os.path.islink(path):  # noqa: PTH114 (False for a name that is too long)
        return path
    target = Path(os.path.realpath(path))
    if os.path.islink(target):  # noqa: PTH114
        raise OutputError(f"{path} is a link that leads to itself. Remove it, or choose another name.")
    if not os.path.isdir(target.parent):  # noqa: PTH112
        raise OutputError(
            f"{path} is a link to {path.readlink()}, but there is no folder {target.parent}. "
            "Create it, mount its disk, or remove the link."
        )
    return target


def _require_replaceable(path: Path, *, folder: bool, kind: FolderKind | None) -> None:
    if not path.exists():
        return
    if not path.is_dir() and not path.is_file():
        raise OutputError(f"{path} is no regular file, so it is not replaced. Choose another name.")
    if path.is_dir() != folder:
        found, needed = ("a folder", "a file") if path.is_dir() else ("a file", "a folder")
        raise OutputError(f"{path} is {found}, but must be {needed}. Choose another name.")
    if folder:
        require_owned(path, kind)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn an error of the file system in the block into an `OutputError` that names the output."""
    try:
        yield
    except GeopspError:
        raise
    except OSError as error:
        hint = full_disk_hint(error) or " Is the folder read-only?" * (error.errno in {errno.EACCES, errno.EROFS})
        raise OutputError(f"Cannot write {local_copy(path)}: {format_error(error)}.{hint}") from error


@contextmanager
def atomic_output(
    path: str | Path, *, overwrite: bool = False, folder: bool = False, kind: FolderKind | None = None
) -> Iterator[Path]:
    """Yield a temporary path on the disk of `path`, with the same name; move it there if the block ends without error.

    Args:
        path: The output.
        overwrite: True to allow replacing what exists.
        folder: True to make the temporary path a folder.
        kind: As for `check_output`.

    Raises:
        OutputError: as `check_output`, or if writing fails.
    """
    path = check_output(path, overwrite=overwrite, folder=folder, kind=kind)
    with write_errors(path), temporary_folder(path) as temporary:
        partial = temporary / path.name
        if folder:
            partial.mkdir()
        yield partial
        if folder:
            publish_folder(partial, path, kind)
        else:
            follow_umask([partial], temporary.parent)
            sync_file(partial)
            partial.replace(path)
            sync_folder(path.parent)
            upload_file(path)


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
    with write_errors(path), temporary_folder(path) as temporary:
        partial = temporary / f"{path.stem}{path.suffix.lower()}"
        yield partial
        others = [file for file in temporary.iterdir() if file != partial]
        follow_umask([*others, partial], temporary.parent)
        for file in (*others, partial):
            sync_file(file)
        with set_aside([path, *companions] if others else companions, temporary.parent) as placed:
            for file in others:
                placed.append(file.replace(path.with_name(file.name)))
            partial.replace(path)
        sync_folder(path.parent)
        remove_remote(companions)
        for file in (*others, partial):
            upload_file(path.with_name(file.name))


@contextmanager
def resumable_folder(path: str | Path, *, state_file: str, overwrite: bool = False, kind: FolderKind) -> Iterator[Path]:
    """Yield the temporary folder `.partial-NAME` beside `path`; rename it when the block ends without an error.

    After an error the temporary folder stays if it holds `state_file`, so that the next call resumes.

    Args:
        path: The output folder.
        state_file: Name of the file that records the progress.
        overwrite: True to allow replacing what exists.
        kind: As for `check_output`; the temporary folder holds the same files, and the state file.

    Raises:
        OutputError: as `check_output`, if the temporary folder holds files of others, or if writing fails.
    """
    path = check_output(path, overwrite=overwrite, folder=True, kind=kind)
    partial = partial_path(path)
    unfinished = FolderKind(state_file, (*filter(None, [kind.marker]), *kind.patterns))
    with write_errors(path):
        if os.path.lexists(partial):
            require_owned(partial, unfinished, use_list=False)
            if not (partial / state_file).exists():
                shutil.rmtree(partial)
        partial.mkdir(exist_ok=True)
    try:
        with write_errors(path):
            yield partial
            publish_folder(partial, path, kind)
    finally:
        if partial.exists() and not (partial / state_file).exists():
            shutil.rmtree(partial, ignore_errors=True)


def publish_folder(folder: Path, path: Path, kind: FolderKind | None) -> None:
    """Give a finished folder its name; one that it replaces is removed afterwards, so that a kill never loses both."""
    write_file_list(folder, kind)
    sync_tree(folder)
    old = path.with_name(f".old-{path.name}")
    remove_owned(old, kind)
    if path.is_dir():
        require_owned(path, kind)
        path.replace(old)
    try:
        folder.replace(path)
    except BaseException:
        _restore_replaced(path, kind)
        raise
    sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)  # what is left of it, the next run removes
    upload_folder(path, kind)


def _restore_replaced(path: Path, kind: FolderKind | None) -> None:
    """Give a folder its name back that a killed run had set aside to replace it."""
    old = path.with_name(f".old-{path.name}")
    if not os.path.lexists(path) and old.is_dir() and not old.is_symlink() and not foreign_files(old, kind):
        old.replace(path)


def partial_path(path: Path) -> Path:
    """Return the temporary path of an output; it lies beside a link's target, as renaming works within one disk."""
    path = resolve_link(path)
    return path.with_name(f".partial-{path.name}")


def write_text_atomic(path: Path, text: str) -> None:
    """Write a small text file under a temporary name, then rename it; a kill leaves the old file or the new one.

    Raises:
        OSError: if it cannot be written.
    """
    temporary = path.with_name(unfinished_name(path.name))
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
        sync_file(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
