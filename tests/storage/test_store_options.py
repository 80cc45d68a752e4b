"""Google Cloud and Azure without a network: GDAL's variables as options of fsspec, and files in memory instead."""

from __future__ import annotations

import inspect

import pytest

from geopsp.core import object_store
from geopsp.core.addresses import local_path
from geopsp.core.output import atomic_output, check_output
from geopsp.core.remote_input import find_folder, input_folder, input_path
from geopsp.core.store_options import STORE_OPTIONS
from geopsp.errors import InputNotFoundError, OutputError

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: the extra `cloud` has it")

NAMES = (
    "GS_NO_SIGN_REQUEST", "CPL_GS_ENDPOINT", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_NO_SIGN_REQUEST", "AWS_NO_SIGN_REQUEST",
    "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_S3_ENDPOINT", "AWS_HTTPS", "AWS_VIRTUAL_HOSTING", "AWS_REGION",
    "AWS_DEFAULT_REGION",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["gs", "az"])
def memory(request, tmp_path, monkeypatch):
    """The address of a bucket that is in memory, and the file system; requests are repeated at once."""
    monkeypatch.setenv("GEOPSP_STAGING", str(tmp_path / "staging"))
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.001")
    monkeypatch.setattr("geopsp.core.extras.find_spec", lambda name: object())
    system, asked = fsspec.filesystem("memory"), []

    def open_system(scheme, **options):
        asked.append((scheme, options))
        return system

    monkeypatch.setattr(fsspec, "filesystem", open_system)
    yield f"{request.param}://bucket", system
    assert {scheme for scheme, _ in asked} == {request.param}
    system.store.clear()


@pytest.mark.parametrize(
    ("scheme", "variables", "options"),
    [
        ("gs", {}, {}),
        ("gs", {"GS_NO_SIGN_REQUEST": "yes"}, {"token": "anon"}),
        ("gs", {"GS_NO_SIGN_REQUEST": "NO"}, {}),
        ("gs", {"CPL_GS_ENDPOINT": "http://127.0.0.1:4443/"}, {"endpoint_url": "http://127.0.0.1:4443"}),
        ("az", {}, {}),
        ("az", {"AZURE_STORAGE_CONNECTION_STRING": "A=b;C=d"}, {"connection_string": "A=b;C=d"}),
        (
            "az",
            {"AZURE_STORAGE_ACCOUNT": "name", "AZURE_STORAGE_ACCESS_KEY": "a2V5"},
            {"account_name": "name", "account_key": "a2V5"},
        ),
        (
            "az",
            {"AZURE_STORAGE_ACCOUNT": "name", "AZURE_STORAGE_SAS_TOKEN": "sv=1"},
            {"account_name": "name", "sas_token": "sv=1"},
        ),
        (
            "az",
            {"AZURE_STORAGE_ACCOUNT": "name", "AZURE_NO_SIGN_REQUEST": "TRUE"},
            {"account_name": "name", "anon": True},
        ),
    ],
)
def test_variables_of_gdal_are_options_of_fsspec(scheme, variables, options, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert STORE_OPTIONS[scheme]() == options


@pytest.mark.parametrize(
    ("variables", "endpoint"),
    [
        ({}, None),
        ({"AWS_ENDPOINT_URL": "http://a:1"}, "http://a:1"),
        ({"AWS_ENDPOINT_URL": "http://a:1", "AWS_ENDPOINT_URL_S3": "https://b"}, "https://b"),
        ({"AWS_S3_ENDPOINT": "c:2", "AWS_HTTPS": "no"}, "http://c:2"),
        ({"AWS_S3_ENDPOINT": "c:2"}, "https://c:2"),
    ],
)
def test_other_services_than_amazons(variables, endpoint, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert STORE_OPTIONS["s3"]()["endpoint_url"] == endpoint


def arguments_of(kind):
    inits = [each.__init__ for each in kind.__mro__ if "__init__" in vars(each) and each is not object]
    return {name for init in inits for name in inspect.signature(init).parameters}


def test_the_packages_know_these_options(monkeypatch):
    gcsfs, adlfs = pytest.importorskip("gcsfs"), pytest.importorskip("adlfs")
    for name in ("GS_NO_SIGN_REQUEST", "AZURE_NO_SIGN_REQUEST"):
        monkeypatch.setenv(name, "YES")
    for name in ("CPL_GS_ENDPOINT", *(name for name in NAMES if name.startswith("AZURE_STORAGE"))):
        monkeypatch.setenv(name, "x")
    assert set(STORE_OPTIONS["gs"]()) <= arguments_of(gcsfs.GCSFileSystem)
    assert len(STORE_OPTIONS["gs"]()) == 2
    assert set(STORE_OPTIONS["az"]()) <= arguments_of(adlfs.AzureBlobFileSystem)
    assert len(STORE_OPTIONS["az"]()) == 5


def test_files_are_uploaded_listed_read_and_deleted(memory, tmp_path):
    bucket, system = memory
    source = tmp_path / "source"
    source.write_text("one")
    for name in ("a/x.txt", "a/b/y.txt", "ab/z.txt"):
        object_store.upload(source, f"{bucket}/{name}")
    assert set(object_store.find(f"{bucket}/a")) == {"x.txt", "b/y.txt"}
    assert object_store.find(f"{bucket}/none") == {}
    first = object_store.stat(f"{bucket}/a/x.txt")
    assert first.size == 3
    assert object_store.stat(f"{bucket}/a") is None
    assert object_store.stat(f"{bucket}/none") is None
    assert object_store.read_start(f"{bucket}/a/x.txt", 2) == b"on"
    object_store.download(f"{bucket}/a/x.txt", tmp_path / "new" / "copy")
    assert (tmp_path / "new" / "copy").read_text() == "one"
    object_store.delete([f"{bucket}/a/x.txt", f"{bucket}/a/never-there"])
    assert set(object_store.find(f"{bucket}/a")) == {"b/y.txt"}
    assert system.cat("/bucket/ab/z.txt") == b"one"


def test_folders_are_kept_up_to_date(memory, tmp_path, monkeypatch):
    bucket, system = memory
    for text in ("one", "two"):
        with atomic_output(f"{bucket}/folder", folder=True, overwrite=text == "two") as partial:
            (partial / text).write_text(text)
    assert set(object_store.find(f"{bucket}/folder")) == {"two", ".geopsp-files"}
    monkeypatch.setenv("GEOPSP_STAGING", str(tmp_path / "other"))
    assert (input_folder(f"{bucket}/folder") / "two").read_text() == "two"
    assert find_folder(f"{bucket}/folder", holding=("one",)) is None
    assert find_folder(f"{bucket}/folder", holding=("one", "two")) == local_path(f"{bucket}/folder")
    system.pipe("/bucket/folder/theirs", b"x")
    with pytest.raises(OutputError, match=r"did not write.*\(theirs\)"):
        check_output(f"{bucket}/folder", folder=True, overwrite=True)


def test_a_list_of_a_file_is_empty(memory, monkeypatch):
    """adlfs gives the name itself."""
    bucket, system = memory
    system.pipe("/bucket/file", b"x")
    monkeypatch.setattr(system, "find", lambda key, **_: [key])
    assert object_store.find(f"{bucket}/file") == {}


def azure(name, status=None):
    """An error as adlfs lets it through."""
    exceptions = pytest.importorskip("azure.core.exceptions")
    error = getattr(exceptions, name)("told")
    error.status_code = status
    return error


def google(status, message="told"):
    """An error as gcsfs raises it."""
    return pytest.importorskip("gcsfs.retry").HttpError({"code": status, "message": message})


def no_google_credentials():
    return pytest.importorskip("google.auth.exceptions").DefaultCredentialsError("told")


@pytest.fixture
def error(make_error):
    """Asked for before `memory`, which a skipped test does not use."""
    return make_error()


@pytest.mark.parametrize(
    ("make_error", "tries"),
    [
        (lambda: azure("ServiceRequestError"), 4),
        (lambda: azure("ServiceResponseError"), 4),
        (lambda: azure("HttpResponseError", 503), 4),
        (lambda: azure("HttpResponseError", 403), 1),
        (lambda: google(503), 4),
        (lambda: google(429), 4),
        (lambda: google(400), 1),
        (ConnectionResetError, 4),
        (PermissionError, 1),
    ],
)
def test_what_may_pass_is_tried_again(error, tries, memory, tmp_path, monkeypatch):
    bucket, system = memory
    calls, source = [], tmp_path / "source"
    source.write_text("one")

    def fail(*_, **__):
        calls.append(1)
        raise error

    monkeypatch.setattr(system, "put_file", fail)
    with pytest.raises(OutputError, match=f"Cannot write {bucket}/x: "):
        object_store.upload(source, f"{bucket}/x")
    assert len(calls) == tries


def test_a_second_answer_counts(memory, tmp_path, monkeypatch):
    bucket, system = memory
    source, put, errors = tmp_path / "source", system.put_file, [TimeoutError(), ConnectionResetError()]
    source.write_text("one")

    def busy(*arguments, **options):
        if errors:
            raise errors.pop()
        put(*arguments, **options)

    monkeypatch.setattr(system, "put_file", busy)
    object_store.upload(source, f"{bucket}/x")
    assert input_path(f"{bucket}/x").read_text() == "one"


@pytest.mark.parametrize(
    ("make_error", "advice"),
    [
        (no_google_credentials, "there are no credentials. Set "),
        (
            lambda: ValueError(
                "unable to connect to account for Must provide either a connection_string or account_name with "
                "credentials!!"
            ),
            "there are no credentials. Set ",
        ),
        (
            lambda: OSError("Forbidden: https://storage.googleapis.com/b/o/x\nnot you"),
            "these credentials have no right",
        ),
        (lambda: google(401), "these credentials have no right"),
        (lambda: azure("ClientAuthenticationError", 403), "these credentials have no right"),
        (lambda: FileNotFoundError("No such container"), "there is no such bucket or folder"),
        (lambda: google(404), "there is no such bucket or folder"),
        (lambda: google(400, "what is this?"), r"what is this\?, 400. Check the connection, and repeat"),
    ],
)
def test_what_a_store_refuses_is_one_line(error, advice, memory, tmp_path, monkeypatch):
    bucket, system = memory

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(system, "put_file", fail)
    (tmp_path / "source").write_text("text")
    with pytest.raises(OutputError, match=rf"Cannot write {bucket}/x: {advice}") as told:
        object_store.upload(tmp_path / "source", f"{bucket}/x")
    assert "\n" not in str(told.value)
    variable = "GOOGLE_APPLICATION_CREDENTIALS" if bucket.startswith("gs") else "AZURE_STORAGE_CONNECTION_STRING"
    assert (variable in str(told.value)) == ("credentials" in advice)


def test_what_is_not_there_is_one_line(memory):
    bucket, _ = memory
    with pytest.raises(InputNotFoundError, match=f"No such folder: {bucket}/x"):
        input_path(f"{bucket}/x")
