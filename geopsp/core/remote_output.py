"""Outputs in object stores and on web servers: checked before the work, uploaded when they are complete.

A file appears complete or not at all. Of a folder the list of its files, by which the next run knows them, comes first
under another name, and what makes the folder one of its kind last. A local copy that could not be uploaded stays.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from geopsp.core import object_store
from geopsp.core.addresses import address_of, is_beside_signed
from geopsp.core.object_store import StoredFile, is_store
from geopsp.core.owned_files import FILE_LIST, MAX_NAMED, FolderKind, is_unfinished, parse_file_list
from geopsp.core.remote_input import UPLOADING, has_record, is_same, read_record, write_record
from geopsp.core.staging import local_copy
from geopsp.core.temporary_folder import scratch_folder
from geopsp.errors import OutputError

logger = logging.getLogger(__name__)

_COLLECTED: ContextVar[list[Path] | None] = ContextVar("collected", default=None)
"""Local copies that were uploaded, and are still needed."""

_writable: set[str] = set()
"""Folders that this process may write to, as it tried."""


@contextmanager
def local_copies_stay() -> Iterator[None]:
    """Let local copies of uploaded files stay to the end of the block, as they are read again."""
    if _COLLECTED.get() is not None:
        yield
        return
    collected: list[Path] = []
    token = _COLLECTED.set(collected)
    try:
        yield
    finally:
        _COLLECTED.reset(token)
        for path in collected:
            path.unlink(missing_ok=True)


def check_remote_file(address: str, *, overwrite: bool, companions: Sequence[str] = (), probe: bool = True) -> None:
    """Check that a file can be written to an address.

    Raises:
        OutputError: if it exists and may not be replaced, or cannot be written.
    """
    if not overwrite:
        found = [each for each in (address, *companions) if object_store.stat(each)]
        if found:
            raise OutputError(f"{found[0]} already exists. Use `overwrite=True` to replace it, or choose another name.")
    if probe:
        _require_writable(address.rpartition("/")[0])


def check_remote_folder(address: str, kind: FolderKind | None, *, overwrite: bool, probe: bool = True) -> None:
    """Check that a folder can be written to an address: only files that geopsp wrote are replaced.

    Raises:
        OutputError: if it exists and may not be replaced, or cannot be written.
    """
    if not is_store(address):
        raise OutputError(
            f"{address} cannot be a folder, as web servers take single files. Use s3://, gs:// or az://, or write to "
            "a local folder and copy that."
        )
    found = object_store.find(address)
    if found and UPLOADING not in found and not overwrite:
        raise OutputError(f"{address} already exists. Use `overwrite=True` to replace it, or choose another name.")
    if foreign := foreign_objects(address, found, kind):
        named = ", ".join(foreign[:MAX_NAMED]) + (f" and {len(foreign) - MAX_NAMED} more" * (len(foreign) > MAX_NAMED))
        raise OutputError(
            f"{address} contains files that geopsp did not write, or that were changed since ({named}), so it is not "
            "replaced. Move them elsewhere, or choose another name."
        )
    if probe:
        _require_writable(address)


def foreign_objects(address: str, found: Mapping[str, StoredFile], kind: FolderKind | None) -> list[str]:
    """Return the files under an address that geopsp did not write, or that were changed since."""
    listed = {
        name: size
        for each in (FILE_LIST, UPLOADING)
        if each in found
        for name, size in (parse_file_list(_read_text(f"{address}/{each}")) or {}).items()
    }
    half = UPLOADING in found  # some of its files may be those of the folder before
    of_kind = kind is not None and (kind.marker is None or kind.marker in found)

    def is_ours(name: str, file: StoredFile) -> bool:
        if name in {FILE_LIST, UPLOADING} or is_unfinished(name) or listed.get(name) == file.size:
            return True
        return (half and name in listed) or (not listed and kind is not None and of_kind and kind.matches(name))

    return sorted(name for name, file in found.items() if not is_ours(name, file))


def upload_file(path: Path) -> None:
    """Upload a complete local copy to its address, and remove it; a path without an address is left alone.

    Raises:
        OutputError: if it cannot be uploaded; the local copy stays.
    """
    address = address_of(path)
    if address is None:
        return
    if is_beside_signed(address):
        logger.info(f"{address} is not written: the address of its output is signed for one file.")
    else:
        try:
            object_store.upload(path, address)
        except OutputError as error:
            raise OutputError(f"{error} What was to be written is complete: {local_copy(path)}.") from error
    _uploaded(path)


def upload_to(source: Path, path: Path) -> None:
    """Upload a complete file to the address of a local copy, and make it that copy as `upload_file` leaves it.

    Raises:
        OutputError: if it cannot be uploaded; the file stays where it is.
    """
    address = address_of(path)
    assert address is not None
    try:
        object_store.upload(source, address)
    except OutputError as error:
        raise OutputError(f"{error} The finished file is {local_copy(source)}.") from error
    source.replace(path)
    _uploaded(path)


def _uploaded(path: Path) -> None:
    """Remove a local copy, now or at the end of `local_copies_stay`; one in the copy of a folder stays."""
    if any(has_record(folder) for folder in path.parents if address_of(folder)):
        return
    collected = _COLLECTED.get()
    if collected is None:
        path.unlink()
    else:
        collected.append(path)


def upload_folder(path: Path, kind: FolderKind | None) -> None:
    """Bring the files of a folder at an address up to date with its local copy; a path without one is left alone.

    Raises:
        OutputError: if they cannot be uploaded; the local copy stays, and the same call goes on.
    """
    address = address_of(path)
    if address is None:
        return
    local = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}
    local = {name: file for name, file in local.items() if not (kind and name == kind.journal)}
    known = read_record(path)
    try:
        found = object_store.find(address)
        changed = [name for name, file in local.items() if not is_same(file, known.get(name), found.get(name))]
        kept = {UPLOADING, *foreign_objects(address, found, kind)}
        old = [name for name in found if name not in local and name not in kept]
        last = [FILE_LIST, *([kind.marker] if kind and kind.marker else [])]
        if changed or old:
            sizes = {name: file.size for name, file in found.items()} | {
                name: file.stat().st_size for name, file in local.items()
            }
            _upload_text("".join(f"{size} {name}\n" for name, size in sorted(sizes.items())), f"{address}/{UPLOADING}")
            object_store.delete([f"{address}/{name}" for name in last if name in changed and name in found])
            for name in sorted(changed, key=lambda name: (name in last and 1 + last.index(name), name)):
                object_store.upload(local[name], f"{address}/{name}")
            object_store.delete([f"{address}/{name}" for name in old])
        object_store.delete([f"{address}/{UPLOADING}"])
    except OutputError as error:
        raise OutputError(f"{error} What was to be written is complete: {local_copy(path)}.") from error
    write_record(path, local, object_store.find(address))


def remove_remote(paths: Sequence[Path]) -> None:
    """Remove files at the addresses of local copies."""
    addresses = [address for path in paths if (address := address_of(path)) and is_store(address)]
    object_store.delete([address for address in addresses if object_store.stat(address)])


def has_file(path: Path) -> bool:
    """Return whether a file or folder is at its place: at its address, if it is a local copy."""
    address = address_of(path)
    if address is None:
        return path.exists()
    return object_store.stat(address) is not None or bool(object_store.find(address))


def _require_writable(folder: str) -> None:
    """Check that files can be written below an address, by an empty one that is removed again."""
    if not is_store(folder) or folder in _writable:
        return
    probe = f".geopsp-probe-{secrets.token_hex(8)}"
    _upload_text("", f"{folder}/{probe}")
    with suppress(OutputError):  # not all who may write may delete
        object_store.delete([f"{folder}/{probe}"])
    _writable.add(folder)


def _upload_text(text: str, address: str) -> None:
    with scratch_folder() as folder:
        path = folder / "text"
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        object_store.upload(path, address)


def _read_text(address: str) -> str:
    file = object_store.stat(address)
    return object_store.read_start(address, file.size).decode("utf-8", "surrogateescape") if file and file.size else ""
