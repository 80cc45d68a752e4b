"""Addresses of files in object stores and on web servers, and the local paths that stand for them.

An output with an address is written to a local file first: `s3://bucket/a/map.tif` to `s3/bucket/a/map.tif` in one
folder, which keeps what a run that failed had finished, and what was downloaded.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from geopsp.errors import OptionError, OutputError

VARIABLE = "GEOPSP_STAGING"
"""Environment variable with the folder of local copies."""

SCHEMES = ("s3", "gs", "az", "http", "https")

_ADDRESS = re.compile(rf"(?P<scheme>{'|'.join(SCHEMES)}):/{{1,2}}(?P<rest>[^/].*)", re.DOTALL | re.IGNORECASE)
"""`Path` leaves one slash of two."""

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


def with_query(address: str) -> str:
    """Return an address with the query that the user gave it."""
    return f"{address}?{_queries[address]}" if address in _queries else address


def is_beside_signed(address: str) -> bool:
    """True for a file that belongs to an output with a query, as map.qml does to map.tif?...: it is valid for one."""
    return address not in _signed and any(address.startswith(f"{each.rpartition('.')[0]}.") for each in _signed)


def staging_folder() -> Path:
    """Return the folder of local copies."""
    if named := os.environ.get(VARIABLE):
        return Path(named).absolute()
    cache = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "geopsp" / "staging"


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
    """Return the address that a local path stands for; None for a path outside of the folder of local copies."""
    folder = staging_folder()
    if not path.is_relative_to(folder):
        return None
    scheme, *parts = path.relative_to(folder).parts or ("",)
    return f"{scheme}://{'/'.join(parts)}" if len(parts) > 1 else None


def local_path(name: str | Path) -> Path:
    """Return the local path of an output: its own, or that of the local copy of an address.

    Raises:
        OutputError: as `staged_path`.
    """
    return staged_path(name) or Path(name)


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
    return remote_address(name) or address_of(Path(name)) or Path(name).resolve()


class OutputPath(type(Path()) if not TYPE_CHECKING else Path):  # type: ignore[misc]
    """The path of an output: a `Path` in every respect, but as text an address has its two slashes."""

    def __str__(self) -> str:
        return shown(super().__str__())


def shown(path: str | Path) -> str:
    """Return a path for messages: its address, if it has one."""
    text = os.fspath(path)
    return remote_address(text) or address_of(Path(text)) or text
