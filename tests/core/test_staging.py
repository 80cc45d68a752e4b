"""Local copies of what lies at addresses: in messages, in links, and what is none."""

from __future__ import annotations

import logging

import pytest

from geopsp.core.addresses import address_of, ending_of, href, local_path, place_of, work_path
from geopsp.core.output import atomic_output, check_output, partial_path, write_errors
from geopsp.core.owned_files import require_not_inputs
from geopsp.core.staging import local_copy, name_addresses
from geopsp.core.temporary_folder import temporary_folder
from geopsp.errors import LabelError, OutputError


@pytest.fixture(autouse=True)
def staging(tmp_path, monkeypatch):
    folder = tmp_path / "sta ging (1)"
    monkeypatch.setenv("GEOPSP_STAGING", str(folder))
    return folder


def test_messages_name_addresses(staging, caplog):
    path = local_path("s3://b/a/x y.tif")
    told = f"{path} and {local_path('https://h/y.tif?sig=1')} beside /elsewhere/s3/b"
    assert name_addresses(told) == "s3://b/a/x y.tif and https://h/y.tif beside /elsewhere/s3/b"
    assert str(LabelError(f"{path}, no labels.")) == "s3://b/a/x y.tif, no labels."
    assert str(LabelError(f"At {LabelError(str(path))}.")) == "At s3://b/a/x y.tif."
    with caplog.at_level(logging.INFO, "geopsp"):
        logging.getLogger("geopsp.any").warning("%s is large", path)
    assert caplog.messages == ["s3://b/a/x y.tif is large"]


def test_but_for_copies_that_are_meant(staging, tmp_path):
    path = local_path("s3://b/a/x.tif")
    error = OutputError(f"{path} failed: {local_copy(path)}.")
    assert str(error) == str(OutputError(str(error))) == f"s3://b/a/x.tif failed: the local copy {path}."
    assert local_copy(tmp_path / "x") == str(tmp_path / "x")
    with pytest.raises(OutputError, match=r"Cannot write the local copy .*x\.tif: "), write_errors(path):
        raise OSError(28, "No space left on device")


def test_a_folder_of_copies_that_cannot_be_written_is_named(staging, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setattr("geopsp.core.output.check_remote_file", lambda *_, **__: None)
    with pytest.raises(OutputError, match=r"The folder of the local copy .*x is not writable. Name .* GEOPSP_STAGING"):
        check_output("s3://b/a/x")


def test_what_has_no_address(staging):
    """A part of an output that is not complete, and what is kept for a run; the folder of a map's parts has one."""
    path = local_path("s3://b/a/x.tif")
    path.parent.mkdir(parents=True)
    with temporary_folder(path) as temporary:
        assert address_of(temporary / "x.tif") is None
        assert address_of(temporary / "folder" / "x.tif") is None
    assert address_of(partial_path(path) / "job.json") == "s3://b/a/.partial-x.tif/job.json"
    assert address_of(staging / "s3" / "b") is None
    run = work_path("s3://b/a/model", "model.run")
    assert run == staging / "work" / "s3" / "b" / "a" / "model.run"
    assert address_of(run) is None
    assert work_path(staging / "model", "model.run") == staging / "model.run"


def test_what_is_written_within_an_output_is_part_of_it(staging, monkeypatch):
    """Nothing is asked of a store, and nothing is uploaded."""
    path = local_path("s3://b/a/model")
    path.parent.mkdir(parents=True)
    with temporary_folder(path) as temporary:
        with atomic_output(temporary / "history.csv") as partial:
            partial.write_text("epoch")
        assert (temporary / "history.csv").read_text() == "epoch"


def test_links_are_relative_on_one_disk_and_in_one_bucket(staging, tmp_path):
    folder = local_path("s3://b/maps/x").parent
    assert href(local_path("s3://b/models/a b"), folder) == "../models/a%20b"
    assert href(local_path("s3://c/models/a b"), folder) == "s3://c/models/a%20b"
    assert href(local_path("s3://b/models/a b"), tmp_path) == "s3://b/models/a%20b"
    assert href(tmp_path / "model", folder) == (tmp_path / "model").as_uri()
    assert href(tmp_path / "model", tmp_path / "maps") == "../model"
    assert href(local_path("s3://b/model"), staging / "s3" / "b") == "model"


def test_endings_and_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ending_of("https://h/x.TIF?sig=a.b") == ending_of(tmp_path / "x.tif") == ".tif"
    assert place_of("s3:/b/x") == place_of(local_path("s3://b/x")) == "s3://b/x"
    assert place_of("x") == tmp_path / "x"


@pytest.mark.parametrize("inside", ["", "/a.tif"])
def test_an_output_is_no_input_at_an_address_either(inside):
    with pytest.raises(OutputError, match=r"The output s3://b/x (is also an|contains the) input"):
        require_not_inputs([local_path("s3://b/x")], [f"s3://b/x{inside}"])
    require_not_inputs([local_path("s3://b/x")], ["s3://b/xy", "x"])
