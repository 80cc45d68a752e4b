"""Object stores: uploads whole or not at all, retries, and one line where a store refuses."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from inference_common import CLASSES, trained_model

from geopsp import classify_pixels
from geopsp.core import object_store
from geopsp.core.addresses import OutputPath, address_of, local_path, place_of, remote_address, shown
from geopsp.core.output import atomic_output, check_output
from geopsp.core.paths import gdal_path, is_local
from geopsp.core.remote_input import input_path
from geopsp.errors import InputNotFoundError, OptionError, OutputError


class Server(BaseHTTPRequestHandler):
    """Takes files by PUT; answers 503 as often as it is told."""

    files: ClassVar[dict[str, bytes]] = {}
    refusals = 0
    asked: ClassVar[list[str]] = []

    def _refuses(self):
        Server.asked.append(f"{self.command} {self.path}")
        if Server.refusals <= 0:
            return False
        Server.refusals -= 1
        self.send_response(503)
        self.end_headers()
        return True

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._refuses():
            Server.files[self.path] = body
            self.send_response(201)
            self.end_headers()

    def do_HEAD(self):
        if not self._refuses():
            self.send_response(200 if self.path in Server.files else 404)
            self.send_header("Content-Length", str(len(Server.files.get(self.path, b""))))
            self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(Server.files.get(self.path, b""))

    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path, monkeypatch):
    """The address of a server."""
    monkeypatch.setenv("GEOPSP_STAGING", str(tmp_path / "staging"))
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    Server.files, Server.refusals, Server.asked = {}, 0, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def write(path, text, **options):
    with atomic_output(path, **options) as partial:
        partial.write_text(text)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("s3://b/a/x.tif", "s3://b/a/x.tif"),
        ("S3:/b/x", "s3://b/x"),
        ("https://h/x.tif?sig=1", "https://h/x.tif"),
        ("a/s3/x", None),
        ("/vsis3/b/x", None),
        ("file:///x", None),
    ],
)
def test_names_and_addresses(name, address, tmp_path, monkeypatch):
    monkeypatch.setenv("GEOPSP_STAGING", str(tmp_path))
    assert remote_address(name) == address
    if address:
        assert address_of(local_path(name)) == address == shown(name) == place_of(local_path(name))
        assert not is_local(OutputPath(name))
        assert gdal_path(OutputPath(name)).startswith("/vsi")


@pytest.mark.parametrize("name", ["s3://b", "s3://b//x", "s3://b/../x"])
def test_an_address_names_a_file_of_a_bucket(name):
    with pytest.raises(OutputError, match="names no file or folder of a bucket"):
        local_path(name)


def test_a_local_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:" / "b").mkdir(parents=True)
    assert remote_address("s3:/b") is None


def test_a_file_is_put_and_read_back(web):
    write(f"{web}/a/out.json", "text")
    assert Server.files == {"/a/out.json": b"text"}
    assert input_path(f"{web}/a/out.json").read_text() == "text"
    with pytest.raises(OutputError, match="already exists"):
        check_output(f"{web}/a/out.json")
    write(f"{web}/a/out.json", "new", overwrite=True)
    assert input_path(f"{web}/a/out.json").read_text() == "new"


def test_a_signature_goes_to_the_server_only(web):
    write(f"{web}/out.json?secret=1", "text")
    assert Server.files == {"/out.json?secret=1": b"text"}
    write(f"{web}/out.json.aux.xml", "beside it, for which it is not valid")
    assert list(Server.files) == ["/out.json?secret=1"]
    Server.refusals = 100
    with pytest.raises(OutputError, match=r"Cannot write http://[\d.:]+/out.json: ") as error:
        write(f"{web}/out.json", "text", overwrite=True)
    assert "secret" not in str(error.value)


def test_a_busy_server_is_asked_again(web, monkeypatch):
    Server.refusals = 3
    write(f"{web}/out.json", "text", overwrite=True)
    assert Server.files["/out.json"] == b"text"


def test_what_cannot_be_uploaded_stays(web):
    Server.refusals = 100
    with pytest.raises(OutputError, match=r"Check the connection, .* complete: the local copy /.*out\.json\.$"):
        write(f"{web}/out.json", "text", overwrite=True)
    assert local_path(f"{web}/out.json").read_text() == "text"
    assert not Server.files
    Server.refusals = 0
    write(f"{web}/out.json", "again")
    assert Server.files["/out.json"] == b"again"


def test_nothing_is_uploaded_after_an_error(web):
    with pytest.raises(OutputError, match="Cannot write"), atomic_output(f"{web}/out.json") as partial:
        (partial / "no folder").write_text("text")
    assert not Server.files


def test_a_web_server_takes_no_folder(web):
    with pytest.raises(OutputError, match="cannot be a folder"), atomic_output(f"{web}/folder", folder=True):
        pass


def test_a_map_goes_to_a_signed_address_and_nothing_else(web, make_raster, tmp_path):
    image = make_raster("image.tif", np.random.default_rng(0).integers(1, CLASSES + 1, (1, 40, 50)).astype(np.uint8))
    model = SimpleNamespace(model=trained_model(), device="cpu")
    found = classify_pixels(image, model, f"{web}/map.tif?secret=1")
    assert str(found) == f"{web}/map.tif"
    classify_pixels(image, model, tmp_path / "map.tif")
    assert Server.files == {"/map.tif?secret=1": (tmp_path / "map.tif").read_bytes()}


def test_a_busy_store_is_asked_again_and_one_that_refuses_is_not(store, bucket, tmp_path, monkeypatch):
    from botocore.exceptions import ClientError

    path, calls = tmp_path / "file", []
    path.write_text("text")

    def answer(status):
        def fail(*_, **__):
            calls.append(status)
            raise ClientError({"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {}}, "PutObject")

        return fail

    for status, tries in ((503, 4), (403, 1)):
        calls.clear()
        monkeypatch.setattr(store, "put_file", answer(status))
        with pytest.raises(OutputError, match="Cannot write"):
            object_store.upload(path, f"s3://{bucket}/file")
        assert len(calls) == tries


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("geopsp.core.extras.find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r's3:// needs .*pip install "geopsp\[cloud\]"'):
        object_store.stat("s3://b/x")


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_other_stores_go_the_same_way(scheme, tmp_path, monkeypatch):
    import fsspec

    monkeypatch.setenv("GEOPSP_STAGING", str(tmp_path / "staging"))
    memory = fsspec.filesystem("memory")
    monkeypatch.setattr(object_store, "file_system", lambda address: (memory, "/" + address.partition("://")[2]))
    out = f"{scheme}://bucket-{scheme}/folder"
    with atomic_output(out, folder=True) as partial:
        (partial / "a").mkdir()
        (partial / "a" / "b.txt").write_text("text")
    assert memory.cat(f"/bucket-{scheme}/folder/a/b.txt") == b"text"
    assert set(object_store.find(out)) == {"a/b.txt", ".geopsp-files"}


def test_no_bucket_and_no_credentials(store, bucket, monkeypatch):
    with pytest.raises(OutputError, match="no such bucket or folder"):
        write("s3://no-such-bucket-here/x", "text")
    with pytest.raises(InputNotFoundError, match="No such folder"):
        input_path(f"s3://{bucket}/x")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/none")

    def refuse(*_, **__):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(store, "put_file", refuse)
    with pytest.raises(OutputError, match=r"there are no credentials. Set AWS_ACCESS_KEY_ID and"):
        write(f"s3://{bucket}/x", "text")


def test_a_large_file_goes_in_parts_and_none_stays_after_a_failure(bucket, store, tmp_path, monkeypatch):
    monkeypatch.setattr(object_store, "CHUNK_BYTES", 5 * 2**20)
    path = tmp_path / "large"
    path.write_bytes(bytes(11 * 2**20))
    object_store.upload(path, f"s3://{bucket}/large")
    assert object_store.stat(f"s3://{bucket}/large").size == path.stat().st_size
    assert object_store.stat(f"s3://{bucket}/large").version.endswith("-3")
    calls = type(store)._call_s3

    async def fail(self, method, *args, **kwargs):
        if method == "upload_part" and kwargs["PartNumber"] == 2:
            raise PermissionError("no")
        return await calls(self, method, *args, **kwargs)

    monkeypatch.setattr(type(store), "_call_s3", fail)
    with pytest.raises(OutputError, match="have no right to"):
        object_store.upload(path, f"s3://{bucket}/other")
    assert not store.call_s3("list_multipart_uploads", Bucket=bucket).get("Uploads")
    assert object_store.stat(f"s3://{bucket}/other") is None


def test_a_folder_of_others_is_not_replaced(bucket, store):
    out = f"s3://{bucket}/folder"
    for text in ("one", "two"):
        with atomic_output(out, folder=True, overwrite=text == "two") as partial:
            (partial / text).write_text(text)
    assert set(object_store.find(out)) == {"two", ".geopsp-files"}
    store.pipe_file(f"{bucket}/folder/theirs", b"x")
    with pytest.raises(OutputError, match=r"did not write.*\(theirs\)"):
        check_output(out, folder=True, overwrite=True)
    with pytest.raises(OutputError, match="already exists"):
        check_output(out, folder=True)
