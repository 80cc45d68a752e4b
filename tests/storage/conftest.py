"""A stand-in for Amazon S3 on loopback."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from uuid import uuid4

import pytest

STARTING = 120
"""Seconds that the server may take to answer."""


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of a server of objects, in a process of its own: GDAL may hold Python's lock while it waits for it."""
    for name in ("moto", "flask"):
        pytest.importorskip(name, reason="moto[server] is not installed: the extra `dev` has it")
    pytest.importorskip("s3fs", reason="s3fs is not installed: the extra `cloud` has it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait_for(port, server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    last = time.monotonic() + STARTING
    while time.monotonic() < last and server.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError("the server of objects does not start")


@pytest.fixture
def credentials(s3_server: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables for the server, and a folder of local copies for one test."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_DEFAULT_REGION": "us-east-1",
        "GEOPSP_STAGING": str(tmp_path / "staging"),
        "GDAL_HTTP_RETRY_DELAY": "0.01",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def store(credentials):
    """The file system of the server, as s3fs shows it."""
    from geopsp.core.object_store import file_system

    return file_system("s3://any/thing")[0]


@pytest.fixture
def bucket(store) -> str:
    """The name of a new bucket."""
    name = f"b{uuid4().hex[:12]}"
    store.call_s3("create_bucket", Bucket=name)
    return name
