"""Chips, models and polygons in object stores, and the shell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from click.testing import CliRunner
from inference_common import CLASSES, trained_model

from geopsp import ChipSet, PixelClassifier, export_training_data, raster_to_polygons
from geopsp.cli import main
from geopsp.core import object_store
from geopsp.errors import InputNotFoundError, OptionError, OutputError
from geopsp.models.build import ModelSpec, build_network
from geopsp.models.hub_model import local_model
from geopsp.models.saved_model import save_model
from geopsp.raster.scene import Scene
from geopsp.training.fit_options import RunConfig

OPTIONS = {"class_field": "class", "tile_size": 16}


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()
    }


def stored(store, address):
    key = address.removeprefix("s3://")
    return {name.removeprefix(f"{key}/"): store.cat_file(name) for name in store.find(key)}


@pytest.fixture
def labelled(make_raster, make_labels):
    image = make_raster("image.tif", np.random.default_rng(0).integers(1, 200, (1, 48, 64)).astype("uint8"))
    left, bottom, right, top = Scene.open(image).grid.bounds()
    x, y = (left + right) / 2, (bottom + top) / 2
    shapes = [shapely.box(left, bottom, x, top), shapely.box(x, bottom, right, y)]
    return str(image), str(make_labels("labels.gpkg", shapes, {"class": ["water", "forest"]}))


def test_a_folder_without_chips_is_not_downloaded(bucket, store, monkeypatch):
    store.pipe_file(f"{bucket}/images/large.tif", b"x")
    monkeypatch.setattr(object_store, "download", lambda address, path: pytest.fail(f"{address} is downloaded"))
    with pytest.raises(InputNotFoundError, match=r"no folder s3://\S+/images with a file chips.json or map.txt"):
        ChipSet.open(f"s3://{bucket}/images")


def test_chips_of_a_bucket(labelled, bucket, store, tmp_path, monkeypatch):
    """They are written, kept, appended to, and read on another machine."""
    image, labels = labelled
    out = f"s3://{bucket}/chips"
    made = export_training_data(image, labels, out, **OPTIONS)
    local = tmp_path / "local"
    export_training_data(image, labels, local, **OPTIONS)
    assert stored(store, out) == content(local)
    uploads = []
    with monkeypatch.context() as patch:
        patch.setattr(object_store, "upload", lambda path, address: uploads.append(address))
        assert len(export_training_data(image, labels, out, **OPTIONS)) == len(made)
    assert not uploads
    monkeypatch.setenv("GEOPSP_STAGING", str(tmp_path / "other"))
    assert len(ChipSet.open(out)) == len(made)
    with pytest.raises(OutputError, match="already exists"):
        export_training_data(image, labels, out, **OPTIONS | {"stride": 8})
    more = export_training_data(image, labels, out, **OPTIONS, stride=8, append=True)
    export_training_data(image, labels, local, **OPTIONS, stride=8, append=True)
    assert len(more) > len(made)
    assert stored(store, out) == content(local)


def test_an_interrupted_upload_goes_on(labelled, bucket, store, monkeypatch):
    image, labels = labelled
    out, upload, done = f"s3://{bucket}/chips", object_store.upload, []

    def die(path, address):
        if len(done) > 4:
            raise OutputError("the connection is lost.")
        done.append(address)
        upload(path, address)

    with monkeypatch.context() as patch:
        patch.setattr(object_store, "upload", die)
        with pytest.raises(OutputError, match=r"lost. What was to be written is complete: the local copy "):
            export_training_data(image, labels, out, **OPTIONS)
    assert "chips.json" not in stored(store, out)
    assert len(export_training_data(image, labels, out, **OPTIONS))
    assert "chips.json" in stored(store, out)
    assert ".geopsp-uploading" not in stored(store, out)


def test_a_model_goes_to_a_bucket_and_back(bucket, store, tmp_path, monkeypatch):
    model = trained_model(network=build_network(ModelSpec("tu-test_resnet", 1, CLASSES)).eval())
    out = f"s3://{bucket}/models/one"
    assert str(save_model(model, out)) == out
    files, local = stored(store, out), content(save_model(model, tmp_path / "local"))
    assert files.keys() == local.keys()
    assert all(files[name] == local[name] for name in ("model.json", "weights.safetensors"))
    monkeypatch.setenv("GEOPSP_STAGING", str(tmp_path / "other"))
    assert content(local_model(out)) == files
    assert PixelClassifier.from_model(local_model(out)).model.fingerprint() == model.fingerprint()


def test_polygons_and_the_shell(make_raster, bucket, store, tmp_path):
    raster = make_raster("map.tif", np.random.default_rng(0).integers(0, 3, (1, 20, 30)).astype("uint8"))
    raster_to_polygons(raster, tmp_path / "local.parquet")
    address = f"s3://{bucket}/map.parquet"
    arguments = ["polygonize", str(raster), "--out", address, "--json"]
    found = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["wrote"] == [address]
    assert store.cat_file(address) == (tmp_path / "local.parquet").read_bytes()
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code != 0
    assert f"{address} already exists. Use --overwrite" in again.stderr


def test_images_and_labels_of_a_bucket(labelled, bucket, store, tmp_path):
    """The credentials of one set of variables are those of GDAL and of the uploads."""
    there = []
    for path in map(Path, labelled):
        store.put_file(str(path), f"{bucket}/in/{path.name}")
        there.append(f"s3://{bucket}/in/{path.name}")
    export_training_data(*there, tmp_path / "there", **OPTIONS)
    export_training_data(*labelled, tmp_path / "here", **OPTIONS)
    ours, theirs = content(tmp_path / "there"), content(tmp_path / "here")
    assert ours.keys() == theirs.keys()
    assert all(ours[name] == theirs[name] for name in ours if name.startswith(("images/", "labels/")))


def test_what_must_be_on_a_disk_is_refused():
    with pytest.raises(OptionError, match=r"`folder` is s3://b/x, but must be on a disk of this machine"):
        RunConfig(folder="s3://b/x")
    found = CliRunner().invoke(main, ["info", "chips", "--log-file", "s3://b/x"])
    assert "s3://b/x, but must be on a disk of this machine" in found.stderr.replace("\n", " ")
