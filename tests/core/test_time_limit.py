"""Pipes, devices and sleeping servers are told in one line, in time."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest
from click.testing import CliRunner
from common import SOON

from geopsp.cli.commands import main
from geopsp.core.time_limit import limit_servers, time_limit
from geopsp.errors import GeopspError
from geopsp.raster.open import open_raster
from geopsp.vector.open import open_layer


@pytest.fixture
def sleeping_server():
    """The address of a server that takes connections and never answers."""
    listener, taken = socket.socket(), []
    listener.bind(("127.0.0.1", 0))
    listener.listen()

    def take():
        try:
            while True:
                taken.append(listener.accept()[0])
        except OSError:
            return

    threading.Thread(target=take, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    for connection in taken:
        connection.close()


@pytest.mark.filterwarnings("ignore:HTTP response code")
@pytest.mark.parametrize(("open_it", "name"), [(open_raster, "a.tif"), (open_layer, "a.gpkg")])
def test_a_sleeping_server_is_told(sleeping_server, open_it, name):
    start = time.monotonic()
    with time_limit(1), pytest.raises(GeopspError, match="timed out"):
        open_it(f"{sleeping_server}/{name}")
    assert time.monotonic() - start < SOON


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("command", ["info {}", "chips {} --labels l.gpkg --out o", "polygonize {} --out o.gpkg"])
def test_a_pipe_or_a_device_is_told(tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.tif")
    for name in ("pipe.tif", "/dev/zero"):
        result = CliRunner().invoke(main, command.format(name).split())
        assert result.exit_code == 2
        assert f"{name} is a pipe, a device or a socket, but must be a file" in result.stderr.splitlines()[-1]


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="this system has no such device")  # noqa: PTH110
def test_a_device_is_no_output(tmp_path, make_raster):
    image = make_raster(bands=1)
    result = CliRunner().invoke(main, ["polygonize", str(image), "--out", "/dev/null", "--overwrite"])
    assert result.exit_code == 2
    link = tmp_path / "link.json"
    link.symlink_to("/dev/null")
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path), str(tmp_path), "--json", str(link), "--overwrite"])
    assert "no regular file" in result.stderr
    assert os.stat("/dev/null").st_mode & 0o170000 == 0o020000  # noqa: PTH116


def test_options_of_the_user_stay(monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "7")
    monkeypatch.delenv("GDAL_HTTP_CONNECTTIMEOUT", raising=False)
    with time_limit(3):
        limit_servers()
    assert os.environ["GDAL_HTTP_TIMEOUT"] == "7"
    assert os.environ["GDAL_HTTP_CONNECTTIMEOUT"] == "3"
    limit_servers()
    assert os.environ["GDAL_HTTP_CONNECTTIMEOUT"] == "15"
