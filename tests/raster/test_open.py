import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.errors import RasterioIOError
from rasterio.windows import Window as RioWindow

from geopsp.core.grid import Window
from geopsp.core.paths import gdal_path, is_local, is_remote, is_subdataset
from geopsp.errors import GridError, InputNotFoundError, RasterError
from geopsp.raster.open import gdal_env, open_raster, read_error, read_tags
from geopsp.raster.scene import Scene


class Ranges(BaseHTTPRequestHandler):
    """Serves one file by byte ranges, and fails where told to."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        server = self.server
        server.asked.append(self.path)
        status = server.failing or {"/a.tif": 200, "/page.tif": 200, "/slow.tif": 0}.get(self.path, 404)
        if not status:
            server.released.wait(10)
            self.close_connection = True
            return
        content = b"<html>" if self.path == "/page.tif" else server.content
        first, last = 0, len(content) - 1
        if status == 200 and (asked := self.headers.get("Range")):
            first, last = (int(end) for end in asked.removeprefix("bytes=").split("-"))
            status, last = 206, min(last, len(content) - 1)
        part = content[first : last + 1] if status < 300 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        if body:
            server.sent += len(part)
            self.wfile.write(part)


@pytest.fixture
def cog(make_raster, monkeypatch):
    """A server with a COG of 1 MB, and its local copy."""
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    path = make_raster(
        "a.tif", size=(600, 700), driver="COG", blocksize=128, compress="none", overviews="none", nodata=0
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ranges)
    server.content, server.sent, server.asked, server.failing = path.read_bytes(), 0, [], 0
    server.released = threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.local = path
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_window_over_http_costs_little_more_than_its_bytes(cog):
    scene, window = Scene.open(f"{cog.url}/a.tif"), Window(130, 135, 100, 90)
    patch, local = scene.read(window), Scene.open(cog.local).read(window)
    np.testing.assert_array_equal(patch.data, local.data)
    np.testing.assert_array_equal(patch.valid, local.valid)
    assert patch.grid == local.grid
    assert cog.sent < len(cog.content) / 4
    assert set(cog.asked) == {"/a.tif"}  # no listing, no search for files beside it
    np.testing.assert_array_equal(scene.read().data, Scene.open(cog.local).read().data)
    assert scene.fingerprint() == [f"{cog.url}/a.tif"]
    assert scene.name == f"{cog.url}/a.tif"


def test_what_the_server_refuses_is_said(cog, monkeypatch):
    with pytest.raises(InputNotFoundError, match=r"No such file: http.*/gone\.tif \(.*404"):
        Scene.open(f"{cog.url}/gone.tif")
    with monkeypatch.context() as patch:
        patch.setenv("GEOPSP_TIMEOUT", "1")
        with pytest.raises(RasterError, match=r"Cannot download .*slow\.tif: .*timed out"):
            Scene.open(f"{cog.url}/slow.tif")
    with pytest.raises(RasterError, match=r"Cannot download .*page\.tif: .*not recognized"):
        Scene.open(f"{cog.url}/page.tif")
    scene = Scene.open(f"{cog.url}/a.tif")
    cog.failing = 500
    with pytest.raises(RasterError, match=r"Cannot download .*a\.tif: .*500|Cannot read .*a\.tif at .*the server ref"):
        scene.read()


@pytest.mark.parametrize(
    ("name", "located", "local", "remote"),
    [
        ("a/b.tif", "a/b.tif", True, False),
        ("C:\\maps\\a.tif", "C:\\maps\\a.tif", True, False),
        ("https://a.org/b.tif?c=%20", "/vsicurl/https://a.org/b.tif?c=%20", False, True),
        ("s3://bucket/b.tif", "/vsis3/bucket/b.tif", False, True),
        ("file:///a/b%20c.tif", "/a/b c.tif", False, False),
        ("/vsizip//vsicurl/http://a.org/b.zip/c.tif", "/vsizip//vsicurl/http://a.org/b.zip/c.tif", False, True),
        ("/vsimem/a.tif", "/vsimem/a.tif", False, False),
        ('NETCDF:"a.nc":x', 'NETCDF:"a.nc":x', False, False),
    ],
)
def test_where_a_name_leads(name, located, local, remote):
    assert (gdal_path(name), is_local(name), is_remote(name)) == (located, local, remote)


def test_what_the_user_set_for_gdal_stays(monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "7")
    with rasterio.Env(GDAL_HTTP_MAX_RETRY=9), gdal_env("https://a.org/b.tif"):
        options = rasterio.env.getenv()
    assert options["GDAL_HTTP_MAX_RETRY"] == 9
    assert "GDAL_HTTP_TIMEOUT" not in options
    assert options["GDAL_DISABLE_READDIR_ON_OPEN"] == "EMPTY_DIR"


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputNotFoundError, match="No such file"):
        open_raster(str(tmp_path / "none.tif"))


def test_too_many_open_files_are_said_to_be_so(make_raster):
    resource = pytest.importorskip("resource")
    path = make_raster()
    with open_raster(path) as dataset:
        told = read_error(path, RioWindow(0, 0, 1, 1), RasterioIOError("Too many open files"))
        assert "ulimit" in str(told)
        assert "truncated" not in str(told)
        assert dataset.count == 3
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limit[1]))
    try:
        with pytest.raises(RasterError) as refused:
            open_raster(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert "as many files open as the system allows" in str(refused.value)


@pytest.mark.parametrize("nested", [False, True])
def test_the_file_that_a_vrt_lacks_is_named(nested, make_raster, tmp_path):
    rasterio.shutil.copy(make_raster("lost.tif"), tmp_path / "a.vrt", driver="VRT")
    name = tmp_path / "a.vrt"
    if nested:
        name = tmp_path / "b.vrt"
        rasterio.shutil.copy(tmp_path / "a.vrt", name, driver="VRT")
    (tmp_path / "lost.tif").unlink()
    with pytest.raises(RasterError, match=r"b?\.?vrt, because .*lost\.tif, which it refers to, does not exist"):
        Scene.open(name).read()


# Rasters inside a file


@pytest.fixture
def container(make_raster, tmp_path):
    """A NetCDF file with two variables."""
    with rasterio.Env() as env:
        if "netCDF" not in env.drivers():
            pytest.skip("this GDAL reads no NetCDF")
    rasterio.shutil.copy(make_raster(bands=2), tmp_path / "a b.nc", driver="netCDF", format="NC4")
    return tmp_path / "a b.nc"


def test_the_names_in_the_message_can_be_opened(container, make_raster):
    """As rasterio prints them, and as GDAL does."""
    with pytest.raises(RasterError, match="Name one of its subdatasets") as error:
        Scene.open(container)
    names = re.findall(r"netcdf:.*?:Band\d", str(error.value))
    assert len(names) == 2
    expected = rasterio.open(make_raster(bands=2)).read()
    with rasterio.open(container) as dataset:
        tags = dataset.tags(ns="SUBDATASETS")
    for i, name in enumerate(names):
        others = [name.replace("netcdf", prefix) for prefix in ("NETCDF", "NetCDF")]
        for spelt in (name, *others, tags[f"SUBDATASET_{i + 1}_NAME"]):
            assert is_subdataset(spelt)
            scene = Scene.open(spelt)
            np.testing.assert_array_equal(scene.read().data[0], expected[i])
            assert str(container) in scene.fingerprint()[1]
    both = Scene.open({"one": names[0], "two": names[1]})
    np.testing.assert_array_equal(both.read().data, expected)


def test_a_local_file_with_such_a_name_is_one(make_raster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_raster("a.tif").rename("netcdf:a.tif")
    assert is_local("netcdf:a.tif")
    assert not is_subdataset("netcdf:a.tif")
    assert Scene.open("netcdf:a.tif").grid


def test_another_page_of_a_tiff(make_raster):
    path = make_raster("a.tif", np.full((1, 9, 9), 1, np.uint8))
    with rasterio.open(path) as dataset:
        profile = dataset.profile
    with rasterio.open(path, "w", APPEND_SUBDATASET="YES", **profile) as dataset:
        dataset.write(np.full((1, 9, 9), 2, np.uint8))
    for name in ("GTIFF_DIR:2:{}", "gtiff_dir:2:{}"):
        assert (Scene.open(name.format(path)).read().data == 2).all()


@pytest.mark.parametrize(
    "name", ["zip:b.tif", "file:b.tif", "http:b.tif", "a:b/c!d.tif", "!b;c?.tif", "~b.tif", "[b.tif"]
)
def test_a_local_file_may_look_like_a_url(name, make_raster, tmp_path, monkeypatch):
    data = np.arange(12, dtype="uint8").reshape(1, 3, 4)
    path = make_raster("plain.tif", data)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    path.rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for given in (name, Path(name), tmp_path / name):
        with open_raster(given) as dataset:
            np.testing.assert_array_equal(dataset.read(), data)
    np.testing.assert_array_equal(Scene.open(name).read(Window(0, 0, 4, 3)).data, data)


def test_texts_that_are_not_utf8(tmp_path, make_raster):
    """A description, tags, and a CRS, as damage or other encodings leave them."""
    path = make_raster("a.tif", names=("Gr\u00fcn", "rot", "blau"))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(AUTHOR="J\u00fcrgen")
    content = path.read_bytes()
    assert content.count("\u00fc".encode()) >= 2
    path.write_bytes(content.replace("\u00fc".encode(), b"\xfc?"))
    scene = Scene.open(path)
    assert scene.bands == ("red", "green", "blue")
    with open_raster(path) as dataset:
        assert read_tags(dataset)["AREA_OR_POINT"] == "Area"
    (tmp_path / "b.vrt").write_bytes(b"<VRTDataset rasterXSize='1' rasterYSize='1'><SRS>\xa9</SRS></VRTDataset>")
    with pytest.raises(RasterError, match="Cannot read"):
        open_raster(tmp_path / "b.vrt")


@pytest.mark.parametrize("value", [1e200, float("nan"), float("inf")])
def test_a_georeference_beyond_all_coordinates(make_raster, value):
    path = make_raster("a.tif", transform=Affine(2, 0, value, 0, -2, 0))
    with pytest.raises(GridError, match=r"beyond all coordinates|no georeference"):
        Scene.open(path)
