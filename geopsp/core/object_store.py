"""Object stores and web servers: uploads, downloads, lists and deletions, with retries."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from geopsp.core.addresses import with_query
from geopsp.core.extras import require_packages
from geopsp.core.owned_files import unfinished_name
from geopsp.core.store_options import STORE_OPTIONS
from geopsp.core.store_variables import get_variable
from geopsp.core.text import format_error
from geopsp.core.time_limit import server_options
from geopsp.errors import GeopspError, OutputError

Result = TypeVar("Result")

FILE_SYSTEMS = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
"""The package of each scheme; others are web servers."""

CHUNK_BYTES, CHUNKS_AT_ONCE = 16 * 2**20, 4
"""Of an upload in several parts: what is in memory at a time."""

DEFAULT_RETRIES, FIRST_WAIT_SECONDS = 3, 0.5

BUSY = {408, 429, 500, 502, 503, 504}
"""Answers of servers after which the request is repeated."""

BROKEN = {"HTTPClientError", "FSTimeoutError", "ClientError", "ServiceRequestError", "ServiceResponseError"}
"""Errors of the stores' libraries after which the request is repeated, too: a connection that breaks."""

FORBIDDEN = "Forbidden: "
"""How gcsfs's error begins where Google refuses."""

NO_ACCOUNT = "Must provide either a connection_string or account_name"
"""Part of adlfs's error without credentials."""

VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_ACCESS_KEY",
}
"""The variables with credentials by scheme, for messages."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in a store."""

    size: int
    version: str
    """Differs if the content does: the store's checksum, else the time of the last change."""


def is_store(address: str) -> bool:
    """True for an address in an object store, False on a web server."""
    return address.partition("://")[0] in FILE_SYSTEMS


def upload(path: Path, address: str) -> None:
    """Copy a local file to an address, where it appears complete or not at all.

    Raises:
        OutputError: if it cannot be written.
    """
    with store_errors(address, "write"):
        if _is_web(address):
            _put(path, address)
            return
        system, key = file_system(address)
        chunks = {"chunksize": CHUNK_BYTES, "max_concurrency": CHUNKS_AT_ONCE} if address.startswith("s3:") else {}
        _retried(lambda: system.put_file(str(path), key, **chunks))


def download(address: str, path: Path) -> None:
    """Copy a file to a local path, where it appears complete or not at all; its folder is made.

    Raises:
        OutputError: if it cannot be read or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(unfinished_name(path.name))
    try:
        with store_errors(address, "read"):
            if _is_web(address):
                _get(address, partial)
            else:
                system, key = file_system(address)
                _retried(lambda: system.get_file(key, str(partial)))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_start(address: str, num_bytes: int) -> bytes:
    """Return the first bytes of a file.

    Raises:
        OutputError: if it cannot be read.
    """
    with store_errors(address, "read"):
        system, key = file_system(address)
        content: bytes = _retried(lambda: system.cat_file(key, start=0, end=num_bytes))
        return content


def stat(address: str) -> StoredFile | None:
    """Return what is known of a file; None if there is none.

    Of a web server that does not tell, such as one that takes only what is signed, it is None too.

    Raises:
        OutputError: if the store refuses.
    """
    with store_errors(address, "read"):
        if _is_web(address):
            return _head(address)
        system, key = file_system(address)
        try:
            info = _retried(lambda: system.info(key))
        except FileNotFoundError:
            return None
        return None if info["type"] == "directory" else _stored(info)


def find(address: str) -> dict[str, StoredFile]:
    """Return the files under an address, by their paths relative to it; {} if there are none.

    Raises:
        OutputError: if the store refuses, or holds a name that no local folder can.
    """
    with store_errors(address, "list"):
        system, key = file_system(address)
        try:
            found = _retried(lambda: system.find(key, detail=True, withdirs=False))
        except FileNotFoundError:
            return {}
    if not isinstance(found, dict):  # adlfs gives a list where a file has the name
        return {}
    prefix = key.rstrip("/") + "/"
    files = {
        name.removeprefix("/").removeprefix(prefix.removeprefix("/")): _stored(info)
        for name, info in found.items()
        if (name.removeprefix("/") + "/") != prefix.removeprefix("/")
    }
    for name in files:
        if {"", ".", ".."} & set(name.split("/")) or "\\" in name:
            raise OutputError(f"{address} holds a file named {name!r}, which no folder can. Remove or rename it.")
    return files


def delete(addresses: Sequence[str]) -> None:
    """Remove files; one that is not there is no error.

    Raises:
        OutputError: if the store refuses.
    """
    for address in addresses:
        with store_errors(address, "delete"):
            system, key = file_system(address)
            try:
                _retried(lambda system=system, key=key: system.rm_file(key))  # type: ignore[misc]
            except FileNotFoundError:
                continue


def file_system(address: str) -> tuple[Any, str]:
    """Return fsspec's file system of an address, and the name of the file there.

    Raises:
        OptionError: if its package is missing.
    """
    scheme, _, key = address.partition("://")
    require_packages(f"{scheme}://", ("fsspec", FILE_SYSTEMS[scheme]), "cloud")
    import fsspec

    return fsspec.filesystem(scheme, use_listings_cache=False, **STORE_OPTIONS[scheme]()), key


def _retried(action: Callable[[], Result]) -> Result:
    """Return what an action gives; while the store is busy or the connection breaks, it is repeated."""
    tries = int(get_variable("GDAL_HTTP_MAX_RETRY") or DEFAULT_RETRIES)
    wait = float(get_variable("GDAL_HTTP_RETRY_DELAY") or FIRST_WAIT_SECONDS)
    while True:
        try:
            return action()
        except Exception as error:
            if tries <= 0 or not _may_pass(error):
                raise
        tries -= 1
        time.sleep(wait)
        wait *= 2


def _may_pass(error: BaseException) -> bool:
    """True for an error that may not come again."""
    answer = _answer(error)
    if answer is not None:
        return answer in BUSY
    if isinstance(error, FileNotFoundError | PermissionError | ImportError | NotImplementedError):
        return False
    passing = ConnectionError | TimeoutError | http.client.HTTPException | urllib.error.URLError
    return isinstance(error, passing) or any(kind.__name__ in BROKEN for kind in type(error).__mro__)


def _answer(error: BaseException | None) -> int | None:
    """Return the HTTP status that an error tells of, however deep; None if it tells of none."""
    while error is not None:
        found = getattr(error, "response", None)
        code = found.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(found, dict) else None
        for value in (code, getattr(error, "code", None), getattr(error, "status_code", None)):
            if isinstance(value, int):
                return value
        error = error.__cause__
    return None


@contextmanager
def store_errors(address: str, action: str) -> Iterator[None]:
    """Turn what a store's library raises in the block into one line that says what to do."""
    scheme = address.partition("://")[0]
    try:
        yield
    except GeopspError:
        raise
    except Exception as error:  # the libraries raise errors of many kinds
        names = " ".join(kind.__name__ for kind in type(error).__mro__)
        answer = _answer(error)
        start = f"Cannot {action} {address}: "
        refused = isinstance(error, PermissionError) or answer in {401, 403} or str(error).startswith(FORBIDDEN)
        none = "Credential" in names or NO_ACCOUNT in str(error)
        if none or (refused and scheme == "s3" and not _has_s3_credentials()):
            advice = f"there are no credentials. Set {VARIABLES.get(scheme, 'them')}."
        elif refused:
            check = VARIABLES.get(scheme, "the address")
            advice = f"these credentials have no right to ({format_error(error)}). Check {check}."
        elif isinstance(error, FileNotFoundError) or answer == 404:
            advice = "there is no such bucket or folder. Create it, or check the address."
        else:
            advice = f"{format_error(error)}. Check the connection, and repeat the same command."
        raise OutputError(start + advice) from error


def _has_s3_credentials() -> bool:
    """Return whether there are any; without them s3fs asks as nobody, which is refused."""
    from botocore.session import Session

    return Session().get_credentials() is not None


def _stored(info: dict[str, Any]) -> StoredFile:
    version = next((info[name] for name in ("ETag", "etag", "md5Hash", "LastModified", "created") if name in info), "")
    return StoredFile(int(info["size"] or 0), str(version).strip('"'))


def _is_web(address: str) -> bool:
    return address.startswith(("http://", "https://"))


def _open(address: str, method: str, data: Any = None, headers: dict[str, str] | None = None) -> Any:
    request = urllib.request.Request(with_query(address), data=data, headers=headers or {}, method=method)  # noqa: S310
    try:
        return urllib.request.urlopen(request, timeout=float(server_options()["GDAL_HTTP_TIMEOUT"]))  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        raise


def _put(path: Path, address: str) -> None:
    def send() -> None:
        with path.open("rb") as file:
            headers = {"Content-Length": str(path.stat().st_size), "Content-Type": "application/octet-stream"}
            _open(address, "PUT", file, headers).close()

    _retried(send)


def _get(address: str, path: Path) -> None:
    def receive() -> None:
        with _open(address, "GET") as answer, path.open("wb") as file:
            while chunk := answer.read(CHUNK_BYTES):
                file.write(chunk)

    _retried(receive)


def _head(address: str) -> StoredFile | None:
    try:
        with _retried(lambda: _open(address, "HEAD")) as answer:
            size, tag = answer.headers.get("Content-Length"), answer.headers.get("ETag") or ""
            return StoredFile(int(size or 0), tag or answer.headers.get("Last-Modified") or "")
    except urllib.error.HTTPError:
        return None
