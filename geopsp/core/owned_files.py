"""Files that geopsp wrote: the only ones that it replaces or removes, beside the output that the user names.

Each output folder holds a list of its files with their sizes. A folder is replaced or removed only if all that it holds
is on the list and has the listed size. Links inside such a folder are never followed.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from geopsp.core.addresses import place_of, shown
from geopsp.errors import OutputError

FILE_LIST = ".geopsp-files"
"""The list: a line per file, with its size in bytes and its path relative to the folder."""

UNFINISHED = ".geopsp-"
"""In the names of files, and of folders of files, that are written beside their place."""

MAX_NAMED = 3
"""Files that a message names."""


@dataclass(frozen=True, slots=True)
class FolderKind:
    """A kind of folder that geopsp writes."""

    marker: str | None
    """A file that every folder of this kind holds; None: the patterns match no files of others."""

    patterns: tuple[str, ...]
    """Paths of all files, as in `fnmatch`: what folders without a list hold, which earlier versions wrote."""

    journal: str | None = None
    """A file that lies there only while a run writes the folder; a kill may leave it."""

    def matches(self, path: str) -> bool:
        """True for the relative path of a file that a folder of this kind may hold."""
        names = filter(None, (self.marker, self.journal, FILE_LIST))
        return is_unfinished(path) or _matches(path, (*names, *self.patterns))


def unfinished_name(name: str) -> str:
    """Return a new name for a file, or a folder of files, written beside its place; a kill may leave it."""
    return f".{name}{UNFINISHED}{secrets.token_hex(4)}"


def is_unfinished(path: str) -> bool:
    """True for a name that `unfinished_name` made, or a path inside of a folder with such a name."""
    return any(name.startswith(".") and UNFINISHED in name for name in PurePosixPath(path).parts)


def remove_unfinished(folder: Path, name: str) -> None:
    """Remove the folders with names that `unfinished_name` made of a name, which a killed run may have left."""
    for path in folder.glob(f".{name}{UNFINISHED}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def write_file_list(folder: Path, kind: FolderKind | None) -> None:
    """Write the list of all files in a folder but the journal of its kind, replacing an earlier one."""
    left_out = {FILE_LIST, kind.journal if kind else None}
    lines = [f"{size} {path}\n" for path, size in sorted(_files(folder)) if path not in left_out and size is not None]
    (folder / FILE_LIST).write_text("".join(lines), encoding="utf-8", errors="surrogateescape")


def add_to_file_list(folder: Path, name: str) -> None:
    """Add a file of ours, or its new size, to the list of its folder, if that has one."""
    sizes = _read_file_list(folder)
    if sizes is not None:
        sizes[name] = (folder / name).stat().st_size
        lines = [f"{size} {path}\n" for path, size in sorted(sizes.items())]
        (folder / FILE_LIST).write_text("".join(lines), encoding="utf-8", errors="surrogateescape")


def foreign_files(folder: Path, kind: FolderKind | None, *, any_size: bool = False, use_list: bool = True) -> list[str]:
    """Return the relative paths of files in a folder that are not ours: unknown, changed, or links.

    Args:
        folder: An existing folder, not a link.
        kind: What the folder should be. None: only a list tells which files are ours.
        any_size: True if only names count, as the files may be damaged.
        use_list: False if the list does not count, as the folder is being written.
    """
    listed = _read_file_list(folder) if use_list else None
    if kind is not None and kind.marker is not None and not (folder / kind.marker).is_file():
        kind, listed = None, listed if any_size else None  # a folder of another kind, unless files may be damaged
    foreign = []
    for path, size in _files(folder):
        if size is None:
            is_ours = False
        elif is_unfinished(path) or (kind is not None and path == kind.journal):
            is_ours = True
        elif listed is not None:
            is_ours = path == FILE_LIST or listed.get(path) == size or (any_size and path in listed)
        else:
            is_ours = kind is not None and kind.matches(path)
        if not is_ours:
            foreign.append(path)
    return sorted(foreign)


def require_owned(folder: Path, kind: FolderKind | None, *, any_size: bool = False, use_list: bool = True) -> None:
    """Check that all files in a folder are ours.

    Raises:
        OutputError: if there is another one, or if the folder is a link.
    """
    if folder.is_symlink():
        raise OutputError(f"{folder} is a link, so it is not replaced. Remove the link, or choose another name.")
    if foreign := foreign_files(folder, kind, any_size=any_size, use_list=use_list):
        named = ", ".join(foreign[:MAX_NAMED]) + (f" and {len(foreign) - MAX_NAMED} more" * (len(foreign) > MAX_NAMED))
        raise OutputError(
            f"{folder} contains files that geopsp did not write, or that were changed since ({named}), so it is not "
            "replaced. Move them elsewhere, or choose another name."
        )


def remove_owned(folder: Path, kind: FolderKind | None, *, any_size: bool = False) -> None:
    """Remove a folder if all that it holds is ours; one that does not exist is no error.

    Raises:
        OutputError: as `require_owned`.
    """
    if not os.path.lexists(folder):
        return
    require_owned(folder, kind, any_size=any_size)
    shutil.rmtree(folder)


def remove_matching(folder: Path, kind: FolderKind, *, keep: Sequence[str] = ()) -> None:
    """Remove the files of a folder that belong to its kind, and what is then empty; other files stay.

    Args:
        folder: An existing folder.
        kind: Says which files belong to it.
        keep: Patterns of such files that stay.
    """
    for path, size in list(_files(folder)):
        if size is not None and kind.matches(path) and not _matches(path, keep):
            (folder / path).unlink()
    for root, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # it holds other files
            Path(root).rmdir()


def require_no_links(folder: Path) -> None:
    """Check that a folder and what it holds are no links, through which files elsewhere would be written.

    Raises:
        OutputError: if there is one.
    """
    links = [folder] if folder.is_symlink() else [folder / path for path, size in _files(folder) if size is None]
    if links:
        raise OutputError(
            f"{links[0]} is a link or a special file, through which other files could be changed. Replace it by a "
            "copy, or remove it."
        )


def require_not_inputs(outputs: Iterator[Path] | list[Path], inputs: Iterator[Path] | list[Path]) -> None:
    """Check that no output is an input, or a folder that contains one.

    Raises:
        OutputError: if one is.
    """
    resolved = {Path(place_of(path)): path for path in inputs}
    folders = {folder for path in resolved for folder in path.parents}
    for output in outputs:
        target = Path(place_of(output))
        if target in resolved:
            raise OutputError(f"The output {shown(output)} is also an input, which would be lost. Choose another name.")
        if target in folders:
            inside = next(path for path in resolved if target in path.parents)
            raise OutputError(
                f"The output {shown(output)} contains the input {shown(resolved[inside])}, which would be lost. Choose "
                "another name."
            )


def _matches(path: str, patterns: Sequence[str]) -> bool:
    """True if a relative path has as many parts as a pattern, and each fits."""
    parts = PurePosixPath(path).parts
    return any(
        len(parts) == len(PurePosixPath(pattern).parts) and PurePosixPath(path).match(pattern) for pattern in patterns
    )


def _files(folder: Path) -> Iterator[tuple[str, int | None]]:
    """Yield the relative path of each file and its size; None for links and special files."""
    for root, folders, names in os.walk(folder):
        for name in names + [name for name in folders if os.path.islink(os.path.join(root, name))]:  # noqa: PTH114, PTH118
            path = Path(root, name)
            status = path.lstat()
            regular = (status.st_mode & 0o170000) == 0o100000
            yield path.relative_to(folder).as_posix(), status.st_size if regular else None


def _read_file_list(folder: Path) -> dict[str, int] | None:
    """Return sizes by path; None without a list, or with one that is not ours."""
    path = folder / FILE_LIST
    if path.is_symlink() or not path.is_file():
        return None
    return parse_file_list(path.read_text(encoding="utf-8", errors="surrogateescape"))


def parse_file_list(text: str) -> dict[str, int] | None:
    """Return sizes by path; None of a list that is not ours."""
    sizes = {}
    for line in text.splitlines():
        size, _, name = line.partition(" ")
        if not size.isdecimal() or not name:
            return None
        sizes[name] = int(size)
    return sizes
