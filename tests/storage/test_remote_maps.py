"""Maps in object stores: the bytes that a disk gets, whatever befalls."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest
from common import REPOSITORY
from inference_common import CLASSES, trained_model
from kill_maps import contents, make_image

from geopsp import classify_pixels
from geopsp.core import object_store
from geopsp.core.addresses import local_path
from geopsp.core.output import partial_path
from geopsp.errors import OutputError
from geopsp.inference import outputs
from geopsp.inference.options import MapSettings
from geopsp.inference.plan_job import plan_job
from geopsp.inference.run_job import run_job
from geopsp.models.build import ModelSpec, build_network
from geopsp.raster.scene import Scene


@pytest.fixture
def image(make_raster):
    rng = np.random.default_rng(0)
    return make_raster("image.tif", rng.integers(1, CLASSES + 1, (1, 60, 90)).astype(np.uint8))


@pytest.fixture
def model():
    return SimpleNamespace(model=trained_model(), device="cpu")


def test_a_map_in_a_bucket_is_that_of_a_disk(image, model, bucket, store, tmp_path):
    names = {"probabilities": "p.tif", "confidence": "c.tif", "polygons": "m.gpkg"}
    out = f"s3://{bucket}/maps/map.tif"
    found = classify_pixels(
        image, model, out, stac=True, **{name: f"s3://{bucket}/maps/{file}" for name, file in names.items()}
    )
    assert str(found) == out
    local = tmp_path / "local"
    classify_pixels(image, model, local / "map.tif", stac=True, **{n: local / f for n, f in names.items()})
    there = {name.partition("/maps/")[2]: name for name in store.find(f"{bucket}/maps")}
    assert set(there) == {path.name for path in local.iterdir()}
    for name, key in there.items():
        if not name.endswith((".json", ".gpkg")):
            assert store.cat_file(key) == (local / name).read_bytes(), name
    assert not [path for path in (tmp_path / "staging").rglob("*") if path.is_file()]
    with pytest.raises(OutputError, match=r"s3://.*map.tif already exists. Use `overwrite=True`"):
        classify_pixels(image, model, out)


def test_maps_of_each_image_are_kept(make_raster, model, bucket, store, caplog):
    rng = np.random.default_rng(0)
    images = [make_raster(f"{name}.tif", rng.integers(1, CLASSES + 1, (1, 40, 50)).astype(np.uint8)) for name in "ab"]
    out = f"s3://{bucket}/maps"
    found = classify_pixels(images[:1], model, out, per_image=True)
    assert list(map(str, found)) == [f"{out}/a.tif"]
    before = store.info(f"{out}/a.tif")["LastModified"]
    with caplog.at_level(logging.INFO):
        classify_pixels(images, model, out, per_image=True)
    assert "1 of 2 images are mapped already by the same call" in caplog.text
    assert store.info(f"{out}/a.tif")["LastModified"] == before
    assert store.exists(f"{out}/b.tif")


@pytest.fixture(scope="module")
def network_model():
    """One that can be saved, for workers."""
    return trained_model(network=build_network(ModelSpec("tu-test_resnet", 1, CLASSES)).eval())


@pytest.fixture
def new_job(image, network_model):
    """A job of 6 parts, which writes to a path or an address."""

    def make(out):
        specs = [outputs.class_spec(local_path(out), network_model.legend)]
        return plan_job(Scene.open(image), network_model, specs, MapSettings(batch_size=2), part_side=32, block=16)

    return make


def written_alone(new_job, model, folder):
    run_job(new_job(folder / "alone.tif"), model, device="cpu")
    return (folder / "alone.tif").read_bytes()


def test_another_machine_goes_on(new_job, network_model, bucket, store, tmp_path, monkeypatch, caplog):
    """One dies after three parts; another one, with an empty disk, makes the others."""
    upload, parts = object_store.upload, []

    def die(path, address):
        if "/parts/" in address:
            parts.append(address)
            if len(parts) > 3:
                raise OutputError("the connection is lost")
        upload(path, address)

    out = f"s3://{bucket}/maps/map.tif"
    with monkeypatch.context() as patch:
        patch.setattr(object_store, "upload", die)
        with pytest.raises(OutputError, match="connection is lost"):
            run_job(new_job(out), network_model, device="cpu")
    assert len(store.find(f"{bucket}/maps/.partial-map.tif")) == 4
    monkeypatch.setenv("GEOPSP_STAGING", str(tmp_path / "other"))
    stale = partial_path(local_path(out)) / "job.json"  # of another job that was killed there
    stale.parent.mkdir(parents=True)
    stale.write_text(json.dumps({"version": 1, "key": "0" * 64, "part": [64, 64], "batch_size": 9}))
    with caplog.at_level(logging.INFO):
        run_job(new_job(out), network_model, device="cpu")
    assert "Resuming: 3 of 6 parts are done." in caplog.text
    assert store.cat_file(out) == written_alone(new_job, network_model, tmp_path)
    assert {name.rpartition("/")[2] for name in store.find(f"{bucket}/maps")} == {
        "map.tif", "map.tif.aux.xml", "map.qml",
    }  # fmt: skip


def test_a_finished_map_waits_for_its_upload(new_job, network_model, bucket, store, tmp_path, monkeypatch):
    upload = object_store.upload

    def refuse(path, address):
        if address.endswith("/map.tif"):
            raise OutputError("the connection is lost.")
        upload(path, address)

    out = f"s3://{bucket}/map.tif"
    with monkeypatch.context() as patch:
        patch.setattr(object_store, "upload", refuse)
        with pytest.raises(OutputError, match=r"lost. The finished file is the local copy (.*)\.$"):
            run_job(new_job(out), network_model, device="cpu")
    assert not store.exists(out)
    with monkeypatch.context() as patch:
        patch.setattr("geopsp.inference.run_job.predict_missing_parts", None)  # nothing is made again
        run_job(new_job(out), network_model, device="cpu")
    assert store.cat_file(out) == written_alone(new_job, network_model, tmp_path)


def start_map(image, out, staging):
    """Make a map of 35 parts in a process of its own, whose local copies lie in a folder of its own."""
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    environment = os.environ | {"PYTHONPATH": paths, "GEOPSP_STAGING": str(staging), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, REPOSITORY / "tests" / "kill_maps.py", "make", image, out], env=environment
    )


@pytest.mark.slow
@pytest.mark.parametrize("same_machine", [True, False])
def test_a_killed_map_goes_on(same_machine, bucket, store, tmp_path):
    """On the same machine, or another one each time, it ends in the same bytes; no part is uploaded twice."""
    image = make_image(tmp_path / "image.tif", 300, 400)
    (tmp_path / "local").mkdir()
    assert start_map(image, tmp_path / "local", tmp_path / "unused").wait() == 0
    out, done = f"s3://{bucket}/maps", 0
    for number in range(4):
        run = start_map(image, out, tmp_path / ("staging" if same_machine else f"staging{number}"))
        while run.poll() is None and len(parts_of(store, bucket)) < done + 5:
            time.sleep(0.02)
        assert run.poll() is None, "it ended before it was killed"
        run.kill()
        assert run.wait() == -signal.SIGKILL
        assert len(parts_of(store, bucket)) >= done + 5
        done = len(parts_of(store, bucket))
        assert not store.exists(f"{out}/map.tif")
    first = {name: info["LastModified"] for name, info in parts_of(store, bucket).items()}
    with start_map(image, out, tmp_path / "staging") as run:
        while run.poll() is None:
            found = {name: info["LastModified"] for name, info in parts_of(store, bucket).items()}
            assert all(found.get(name, when) == when for name, when in first.items())
            time.sleep(0.1)
    assert run.returncode == 0
    there = {name.rpartition("/")[2]: store.cat_file(name) for name in store.find(f"{bucket}/maps")}
    assert there == contents(tmp_path / "local")


def parts_of(store, bucket):
    """The parts both of whose rasters are there: one that lacks a raster is made again."""
    store.invalidate_cache()
    found = store.find(f"{bucket}/maps", detail=True)
    names = [name.removesuffix(".confidence") for name in found if "/parts/" in name and name.endswith(".confidence")]
    return {name: found[f"{name}.classes"] for name in names if f"{name}.classes" in found}


@pytest.mark.slow
def test_workers_without_a_shared_disk(new_job, network_model, bucket, store, tmp_path):
    """Each has its own folder of local copies."""
    from distributed import Client, LocalCluster

    out = f"s3://{bucket}/map.tif"
    with ExitStack() as stack:
        cluster = LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            env={"GEOPSP_STAGING": str(tmp_path / "worker"), "CUDA_VISIBLE_DEVICES": ""},
        )
        client = stack.enter_context(Client(stack.enter_context(cluster)))
        run_job(new_job(out), network_model, device="cpu", client=client)
    assert list((tmp_path / "worker").rglob("model.json"))
    assert not list((tmp_path / "worker").rglob("*.classes"))
    assert store.cat_file(out) == written_alone(new_job, network_model, tmp_path)
    assert not store.find(f"{bucket}/.partial-map.tif")
