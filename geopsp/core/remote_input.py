"""Inputs in object stores and on web servers: copied to this disk, and again only where they changed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geopsp.core import object_store
from geopsp.core.addresses import address_of, local_path, remote_address, staged_path
from geopsp.core.documents import DocumentError, read_json
from geopsp.core.object_store import StoredFile, is_store
from geopsp.errors import InputNotFoundError, OutputError

UPLOADING = ".geopsp-uploading"
"""The list of the files of a folder whose upload has begun."""


def fetch_file(path: Path) -> bool:
    """Download the file of a local copy that is missing; False if there is none, or `path` has no address."""
    address = address_of(path)
    if address is None or path.exists() or object_store.stat(address) is None:
        return False
    object_store.download(address, path)
    return True


def has_record(path: Path) -> bool:
    """True for the local copy of a folder that was uploaded or downloaded as a whole."""
    return _record(path).exists()


def fetch_folder(path: Path) -> None:
    """Bring a local copy of a folder up to date; one that was not uploaded yet, and a path without an address, stay.

    Raises:
        OutputError: if the folder cannot be read.
    """
    address = address_of(path)
    if address is None or not is_store(address) or (path.exists() and not _record(path).exists()):
        return
    found = object_store.find(address)
    if UPLOADING in found:
        raise OutputError(f"{address} is not complete: its upload was interrupted. Repeat the command that writes it.")
    known, local = read_record(path), {name: path / name for name in found}
    for name, file in local.items():
        if not is_same(file, known.get(name), found[name]):
            object_store.download(f"{address}/{name}", file)
    for name in set(known) - set(found):
        (path / name).unlink(missing_ok=True)
    if found:
        write_record(path, local, found)


def input_folder(name: str | Path, *, holding: Sequence[str] = ()) -> Path:
    """Return the local path of a folder that is read: of an address a copy, which is brought up to date.

    Args:
        name: The folder.
        holding: Files, of which a folder in a store must hold one; nothing of another is downloaded.

    Raises:
        InputNotFoundError: if there is no such folder, or it cannot be read.
    """
    try:
        path = staged_path(name)
        if path is None:
            return Path(name)
        address = remote_address(name)
        if holding and address is not None and is_store(address) and not _holds_one(address, holding):
            raise InputNotFoundError(
                f"There is no folder {address} with a file {' or '.join(holding)}. Check the address."
            )
        fetch_folder(path)
    except OutputError as error:
        raise InputNotFoundError(str(error)) from error
    if not path.exists():
        raise InputNotFoundError(f"No such folder: {remote_address(name)}. Check the address.")
    return path


def find_folder(name: str | Path, *, holding: Sequence[str] = ()) -> Path | None:
    """Return the local path of a folder at an address, as `input_folder`; None if there is none.

    Args:
        name: The address; None is returned of any other name.
        holding: Files, of which the folder must hold one.

    Raises:
        InputNotFoundError: if the store refuses.
    """
    address = remote_address(name)
    if address is None or not is_store(address):
        return None
    try:
        if holding:
            found = _holds_one(address, holding)
        else:
            found = object_store.stat(address) is None and bool(object_store.find(address))
    except OutputError as error:
        raise InputNotFoundError(str(error)) from error
    return input_folder(name) if found else None


def input_path(name: str | Path) -> Path:
    """Return the local path of a file or folder that is read, as `input_folder`.

    Raises:
        InputNotFoundError: if there is none, or it cannot be read.
    """
    address = remote_address(name)
    if address is None:
        return Path(name)
    try:
        found = object_store.stat(address)
        if found is None and is_store(address):
            return input_folder(name)
        path = local_path(name)
        if not is_same(path, read_record(path).get(""), found):
            object_store.download(address, path)
            if found is not None:  # some web servers do not tell
                write_record(path, {"": path}, {"": found})
    except OutputError as error:
        raise InputNotFoundError(str(error)) from error
    return path


def _holds_one(address: str, names: Sequence[str]) -> bool:
    return any(object_store.stat(f"{address}/{name}") for name in names)


def _record(path: Path) -> Path:
    """Return the file beside a local copy with what its files were when both were the same."""
    return path.with_name(f".{path.name}.objects.json")


def read_record(path: Path) -> dict[str, Any]:
    """Return what the files of a local copy were when they were those of its address, by name; {}: not known."""
    try:
        found = read_json(_record(path))
        return found if isinstance(found, dict) else {}
    except (OSError, DocumentError):
        return {}


def write_record(path: Path, local: Mapping[str, Path], found: Mapping[str, StoredFile]) -> None:
    """Note that the files of a local copy are those of its address, by name."""
    content = {name: [*_times(file), found[name].version] for name, file in local.items() if name in found}
    _record(path).write_text(json.dumps(content), encoding="utf-8")


def is_same(file: Path, known: Any, stored: StoredFile | None) -> bool:
    """True if neither the local copy nor the file in the store changed since they were the same."""
    return stored is not None and os.path.exists(file) and known == [*_times(file), stored.version]  # noqa: PTH110


def _times(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]
