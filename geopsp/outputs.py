"""Outputs that appear whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geopsp.errors import GeopspError, OutputError


def check_output(path: str | Path, *, overwrite: bool = False) -> Path:
    """The path, where something may now be written; its folder exists.

    Raises:
        OutputError: if it exists already and `overwrite` is False, or its folder cannot be written.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already. Choose another name, or overwrite it (overwrite=True, --overwrite).")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {path.parent} cannot be made ({error}). Choose another place.") from error
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"The folder {path.parent} cannot be written. Choose another place, or change its rights.")
    return path


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def whole(
    path: str | Path, *, overwrite: bool = False, folder: bool = False, mark: str | None = None
) -> Iterator[Path]:
    """A temporary place of the same ending beside `path`, which takes its name when the block ends without error.

    Args:
        path: Where the file or folder shall appear.
        overwrite: True if it may replace what is there.
        folder: True to make the temporary place a folder.
        mark: The file by which a folder is known as one of ours; a folder without it is not replaced unless empty.

    Raises:
        OutputError: as `check_output`, if something else than our own output would be lost, or if writing fails.
    """
    path = check_output(path, overwrite=overwrite)
    _require_ours(path, folder=folder, mark=mark)
    partial = path.with_name(f".partial-{path.name}")
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


def _require_ours(path: Path, *, folder: bool, mark: str | None) -> None:
    if not path.is_dir():
        return
    if not folder:
        raise OutputError(f"{path} is a folder; needed the name of a file. Choose another name.")
    if mark is not None and any(path.iterdir()) and not (path / mark).exists():
        raise OutputError(f"{path} holds other things, not {mark}, so it is not replaced. Choose another name.")
