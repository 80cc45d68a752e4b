"""A stand-in for Amazon S3 on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of a server of objects."""
    server = pytest.importorskip("moto.server", reason="moto is not installed: the extra `dev` has it")
    pytest.importorskip("s3fs", reason="s3fs is not installed: the extra `cloud` has it")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


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
