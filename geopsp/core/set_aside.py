"""Several files that change places as one: the old ones wait in a folder until the new ones are there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


def follow_umask(files: Sequence[Path], folder: Path) -> None:
    """Give files the permissions of every new file: SQLite, for one, lets no group write."""
    sample = folder / "sample"
    sample.touch()
    for file in files:
        shutil.copymode(sample, file)


@contextmanager
def set_aside(files: Sequence[Path], folder: Path) -> Iterator[list[Path]]:
    """Move what exists of the files to a folder, to be deleted: never is an old file beside new companions.

    If the block fails, they come back, and the new files that it appended to the list are removed.
    """
    aside, placed = folder / "aside", list[Path]()
    aside.mkdir()
    try:
        for file in files:
            if os.path.lexists(file):
                file.replace(aside / file.name)
        yield placed
    except BaseException:
        for file in placed:
            file.unlink(missing_ok=True)
        for file in files:
            with suppress(FileNotFoundError):
                (aside / file.name).replace(file)
        raise
