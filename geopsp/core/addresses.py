"""Addresses of files in object stores and on web servers, and the local paths that stand for them.

An output with an address is written to a local file first: `s3://bucket/a/map.tif` to `s3/bucket/a/map.tif` in one
folder, which keeps what a run that failed had finished, and what was downloaded.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from geopsp.core.staging import SCHEMES, staging_folder
from geopsp.core.temporary_folder import in_temporary_folder
from geopsp.errors import OptionError, OutputError

_ADDRESS = re.compile(rf"(?P<scheme>{'|'.join(SCHEMES)}):/{{1,2}}(?P<rest>[^/].*)", re.DOTALL | re.IGNORECASE)
"""`Path` leaves one slash of two."""

WORK = "work"
"""The folder, beside the copies, for what has no address."""

_signed: set[str] = set()
"""Outputs that were given with a query."""

_queries: dict[str, str] = {}
"""What follows "?" in addresses of this process, such as a signature; never written to a file or a message."""


def remote_address(name: str | Path) -> str | None:
    """Return the address that a name stands for, with two slashes and without a query; None for other names."""
    found = _ADDRESS.fullmatch(str(name))
    if found is None or os.path.exists(name):  # noqa: PTH110 (False for a name that is too long)
        return None
    scheme, rest = found["scheme"].lower(), found["rest"]
    if scheme in {"http", "https"}:
        rest, _, query = rest.partition("?")
        if query:
            _queries[f"{scheme}://{rest}"] = query
    return f"{scheme}://{rest.rstrip('/')}"


def ending_of(name: str | Path) -> str:
    """Return the ending of a name in lower case, such as ".tif"; what follows "?" in an address is no part of it."""
    return Path(remote_address(name) or name).suffix.lower()


def with_query(address: str) -> str:
    """Return an address with the query that the user gave it."""
    return f"{address}?{_queries[address]}" if address in _queries else address


def is_beside_signed(address: str) -> bool:
    """True for a file that belongs to an output with a query, as map.qml does to map.tif?...: it is valid for one."""
    return address not in _signed and any(address.startswith(f"{each.rpartition('.')[0]}.") for each in _signed)


def staged_path(name: str | Path) -> Path | None:
    """Return the local path of an address; None for a local name.

    Raises:
        OutputError: if the address names no file or folder of a bucket.
    """
    address = remote_address(name)
    if address is None:
        return None
    scheme, _, rest = address.partition("://")
    parts = rest.split("/")
    if len(parts) < 2 or not all(parts) or {".", ".."} & set(parts):
        raise OutputError(
            f"{address} names no file or folder of a bucket. Write {scheme}://BUCKET/NAME, without empty parts."
        )
    if address in _queries:
        _signed.add(address)
    return staging_folder().joinpath(scheme, *parts)


def address_of(path: Path) -> str | None:
    """Return the address that a local path stands for; None for any other.

    What lies in a temporary folder stands for none: it is part of an output that is not complete.
    """
    folder = staging_folder()
    if not path.is_relative_to(folder):
        return None
    scheme, *parts = path.relative_to(folder).parts or ("",)
    if scheme not in SCHEMES or len(parts) < 2 or in_temporary_folder(parts):
        return None
    return f"{scheme}://{'/'.join(parts)}"


def local_path(name: str | Path) -> Path:
    """Return the local path of an output: its own, or that of the local copy of an address.

    Raises:
        OutputError: as `staged_path`.
    """
    return staged_path(name) or Path(name)


def work_path(name: str | Path, work_name: str) -> Path:
    """Return a path beside an output, for what is kept while it is made; of an address it is on this disk.

    Raises:
        OutputError: as `staged_path`.
    """
    path = staged_path(name)
    if path is None:
        return Path(name).with_name(work_name)
    folder = staging_folder()
    return folder / WORK / path.relative_to(folder).with_name(work_name)


def require_local(name: str, value: str | Path | None, instead: str) -> None:
    """Check that an option names a place on a disk.

    Args:
        name: The option.
        value: What it is.
        instead: What the user can do.

    Raises:
        OptionError: if it is an address.
    """
    if value is not None and (address := remote_address(value)):
        raise OptionError(f"`{name}` is {address}, but must be on a disk of this machine. {instead}")


def place_of(name: str | Path) -> str | Path:
    """Return what two names of the same file have in common: an address, or a path with links resolved."""
    return remote_address(name) or address_of(Path(name)) or Path(os.path.realpath(name))


def href(path: Path, folder: Path) -> str:
    """Return the link to a file or folder from a document in a folder: relative on one disk or in one bucket."""
    ours, theirs = _bucket(folder), _bucket(path)
    if ours != theirs:
        return quote(shown(path), safe=":/") if theirs else path.absolute().as_uri()
    try:
        return quote(Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix())
    except ValueError:  # on another drive
        return path.absolute().as_uri()


def _bucket(path: Path) -> tuple[str, ...] | None:
    """Return scheme and bucket of the local copy of an address; None of any other path."""
    folder = staging_folder()
    return path.relative_to(folder).parts[:2] if path.is_relative_to(folder) else None


class OutputPath(type(Path()) if not TYPE_CHECKING else Path):  # type: ignore[misc]
    """The path of an output: a `Path` in every respect, but as text an address has its two slashes."""

    def __str__(self) -> str:
        return shown(super().__str__())


def shown(path: str | Path) -> str:
    """Return a path for messages: its address, if it has one."""
    text = os.fspath(path)
    return remote_address(text) or address_of(Path(text)) or text
