"""Commands whose inputs and outputs are addresses: what a disk gets, and nothing but addresses in what they say."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import geopandas as gpd
import pytest
from click.testing import CliRunner
from common import slow
from onnx_common import MODEL

from geopsp import (
    ChipSet,
    PixelClassifier,
    Scene,
    assess_map,
    classify_pixels,
    compare_maps,
    draw_sample,
    prepare_data,
    read_sample,
    show_map,
    write_report,
)
from geopsp.active_learning.candidates import LabelledGround
from geopsp.cli import main
from geopsp.core import object_store
from geopsp.errors import OutputError, PackageError
from geopsp.labels.class_mapping import read_mapping
from geopsp.labels.mask_classes import read_mask_classes
from geopsp.models.weights import init_encoder
from geopsp.training.networks import CLASSIFIERS


@pytest.fixture(scope="module")
def here(small_world, trained, tmp_path_factory) -> Path:
    """A folder with a scene, its labels, chips, a model, a map and a sample with reference labels."""
    folder = tmp_path_factory.mktemp("here")
    for name, target in (("scene.tif", "part"), ("labels.gpkg", "labels"), ("chips", "few_chips")):
        (folder / name).symlink_to(small_world[target])
    (folder / "model").symlink_to(trained)
    classify_pixels(folder / "scene.tif", folder / "model", folder / "map.tif")
    gpd.read_file(folder / "labels.gpkg").to_parquet(folder / "labels.parquet", write_covering_bbox=True)
    draw_sample(folder / "map.tif", folder / "points.gpkg", size=60)
    with closing(sqlite3.connect(folder / "points.gpkg")) as base, base:
        for (trigger,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            base.execute(f'DROP TRIGGER "{trigger}"')  # those of the index need functions of GDAL
        base.execute("UPDATE points SET reference = map_class")
    (folder / "classes.yaml").write_text("a: ground\n", encoding="utf-8")
    (folder / "masks.csv").write_text("name,value\na,1\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def world(s3_server, here) -> str:
    """The same in a bucket."""
    import s3fs

    system = s3fs.S3FileSystem(
        key="key", secret="secret", endpoint_url=s3_server, client_kwargs={"region_name": "us-east-1"}
    )
    system.call_s3("create_bucket", Bucket="world")
    for path in here.iterdir():
        system.put(os.path.realpath(path), f"world/{path.name}", recursive=path.is_dir())
    return "s3://world"


@pytest.fixture
def out(bucket, tmp_path, monkeypatch) -> str:
    """The address of a folder that is not there; nothing is written to the folder of the user."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield f"s3://{bucket}/out"
    assert not list(folder.iterdir())


def shell(line, *, code=0):
    """What a command says; it never names a local copy."""
    found = CliRunner().invoke(main, line.split(), catch_exceptions=False)
    assert found.exit_code == code, found.output
    assert os.environ["GEOPSP_STAGING"] not in found.output
    assert "s3:/w" not in found.output
    return found


COMMANDS = {
    "sample": (
        "sample {w}/map.tif --out {o}/points.gpkg --zones {w}/labels.gpkg --zone-field kind --aoi {w}/labels.parquet",
        ["points.gpkg"],
    ),
    "assess a layer": (
        "assess {w}/map.tif {w}/labels.gpkg --reference-field kind --json {o}/a.json --csv {o}/a.csv --html {o}/a.html",
        ["a.csv", "a.html", "a.json"],
    ),
    "assess a sample": ("assess {w}/map.tif {w}/points.gpkg --csv {o}/a.csv", ["a.csv"]),
    "change": (
        "change {w}/map.tif {w}/map.tif --out {o}/change.tif --polygons {o}/regions.fgb --csv {o}/c.csv",
        ["c.csv", "change.qml", "change.tif", "change.tif.aux.xml", "change.tif.yaml", "regions.fgb",
         "regions.qml"],
    ),
    "suggest": (
        "suggest {w}/model {w}/scene.tif --out {o}/next.gpkg --number 2 --labelled {w}/labels.gpkg --symmetries 1",
        ["next.gpkg", "next.gpkg.yaml"],
    ),
    "export onnx": ("export {w}/model --to onnx --out {o}/m.onnx --chips {w}/chips", ["m.onnx"]),
    "export stac": ("export {w}/model --to stac --out {o}/m.json", ["m.json"]),
    "export dlpk": ("export {w}/model --to dlpk --out {o}/m.dlpk --images {w}/scene.tif", ["m.dlpk"]),
    "export hub": (
        "export {w}/model --to hub --out {o}/hub",
        [f"hub/{name}" for name in (".geopsp-files", "README.md", "config.json", "history.csv", "model.json",
                                    "model.stac.json", "weights.safetensors")],
    ),
    "report": (
        "report {w}/model --chips {w}/chips --map {w}/map.tif --images {w}/scene.tif --out {o}/r.html", ["r.html"]
    ),
    "calibrate": (
        "calibrate {w}/model {w}/chips --out {o}/model",
        [f"model/{name}" for name in (".geopsp-files", "history.csv", "model.json", "model.stac.json",
                                      "training.json", "weights.safetensors")],
    ),
    "evaluate": (
        "evaluate {w}/model {w}/chips --json {o}/s.json --report {o}/r.html", ["r.html", "s.json"]
    ),
    "compare": (
        "compare {w}/model {w}/model {w}/chips --json {o}/c.json --csv {o}/c.csv --resamples 100", ["c.csv", "c.json"]
    ),
}  # fmt: skip


SLOW = {"calibrate", "compare", "evaluate", "export dlpk", "export onnx", "report"}
"""What goes the way of others, and takes longer."""


@pytest.mark.parametrize("name", [slow(name) if name in SLOW else name for name in COMMANDS])
def test_a_command(name, world, here, out, store, tmp_path):
    line, files = COMMANDS[name]
    dry = shell(f"{line} --dry-run".format(w=world, o=out))
    assert world in dry.output
    assert not store.exists(out)
    assert not [path for path in (tmp_path / "staging").rglob("*") if "out" in path.parts and path.is_file()]
    said = shell(line.format(w=world, o=out))
    key = out.removeprefix("s3://")
    assert sorted(each.removeprefix(f"{key}/") for each in store.find(key)) == sorted(files)
    assert f"Wrote {out}" in said.output
    if name in {"assess a layer", "assess a sample", "change"}:
        local = tmp_path / "local"
        shell(line.format(w=here, o=local))
        for file in files:
            if file.endswith((".csv", ".qml", ".xml", ".fgb")):
                assert store.cat_file(f"{key}/{file}") == (local / file).read_bytes(), file


def test_the_suggestion_says_what_comes_next(world, out):
    said = shell(f"suggest {world}/model {world}/scene.tif --out {out}/next.gpkg --number 2 --symmetries 1")
    assert f"--labels '{out}/next.gpkg|layername=labels'" in said.output


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("model", "s3://world/model: PSPNetClassifier"),
        ("chips", "s3://world/chips: "),
        ("map.tif", "s3://world/map.tif"),
        ("labels.gpkg", "s3://world/labels.gpkg"),
        ("labels.parquet", "s3://world/labels.parquet"),
    ],
)
def test_info(name, what, world, out):
    assert what in shell(f"info {world}/{name}").output
    assert f"{world}/{name}" in shell(f"info {world}/{name} --json").output


def test_info_of_an_onnx_file(out, store):
    store.put_file(str(MODEL), f"{out}/m.onnx")
    assert f"{out}/m.onnx: PSPNetClassifier" in shell(f"info {out}/m.onnx").output


def test_training(world, out, store, tmp_path):
    """Its run stays on the disk, and no file of it is uploaded."""
    line = (
        f"train {world}/chips --out {out}/model --epochs 1 --backbone tu-test_resnet --weights none --valid-path "
        f"{world}/labels.gpkg --batch-size 8"
    )
    assert "Would write" in shell(f"{line} --dry-run").output
    shell(line)
    key = out.removeprefix("s3://")
    assert sorted(name.removeprefix(f"{key}/model/") for name in store.find(key)) == [
        ".geopsp-files", "history.csv", "model.json", "model.stac.json", "report.html", "train.yaml", "training.json",
        "weights.safetensors",
    ]  # fmt: skip
    assert store.cat_file(f"{key}/model/history.csv").startswith(b"epoch")
    for file in ("report.html", "training.json", "train.yaml"):
        assert f"{os.environ['GEOPSP_STAGING']}/s3" not in store.cat_file(f"{key}/model/{file}").decode()
    again = shell(f"train --config {out}/model --out {out}/other --dry-run")
    assert f"{out}/other" in again.output
    assert not list((tmp_path / "staging" / "work").rglob("*.ckpt"))


def test_a_run_is_repeated_from_what_lies_beside_its_output(world, out):
    shell(f"polygonize {world}/map.tif --out {out}/m.gpkg --save-config {out}/run.yaml")
    shell(f"predict {world}/model {world}/scene.tif --out {out}/m.tif")
    assert f"{out}/n.gpkg" in shell(f"polygonize --config {out}/run.yaml --out {out}/n.gpkg").output
    assert f"{out}/n.tif" in shell(f"predict --config {out}/m.tif --out {out}/n.tif").output
    assert "none.yaml" in shell(f"predict --config {out}/none.yaml --out {out}/n.tif", code=2).output


def test_python(world, here, out, tmp_path):
    drawn = draw_sample(f"{world}/map.tif", f"{out}/points.gpkg", size=40)
    assert list(read_sample(f"{out}/points.gpkg").points.geometry) == list(drawn.points.geometry)
    ours, theirs = (assess_map(f"{place}/map.tif", f"{place}/points.gpkg").to_json() for place in (world, here))
    assert ours == theirs
    assert (
        str(assess_map(f"{world}/map.tif", read_sample(f"{world}/points.gpkg")).save(f"{out}/a.csv")) == f"{out}/a.csv"
    )
    found = compare_maps(f"{world}/map.tif", f"{world}/map.tif", f"{out}/c.tif", polygons=f"{out}/c.gpkg")
    assert (str(found.out), str(found.polygons)) == (f"{out}/c.tif", f"{out}/c.gpkg")
    assert Scene.open(found.out).grid == Scene.open(here / "map.tif").grid
    assert len(show_map(f"{world}/map.tif", f"{world}/scene.tif", f"{world}/labels.parquet").axes)
    model = PixelClassifier.from_model(f"{world}/model")
    assert str(write_report(model, f"{out}/r.html")) == f"{out}/r.html"
    assert repr(ChipSet.open(f"{world}/chips")).endswith(f" in {world}/chips>")
    assert len(LabelledGround.open(f"{world}/chips").chips) == len(ChipSet.open(here / "chips"))
    assert LabelledGround.open(f"{world}/labels.gpkg").chips is None


def test_weights_and_tables(world, here, out):
    data = prepare_data(f"{world}/chips", batch_size=8, valid_path=f"{world}/labels.gpkg")
    classifier = CLASSIFIERS["pspnet"](data, "tu-test_resnet", pretrained_path=f"{world}/model")
    assert classifier.model.settings["encoder_weights"].startswith(f"{world}/model/weights.safetensors")
    network = classifier.model.network
    assert init_encoder(network, "tu-test_resnet", f"{world}/model", ("red", "nir")) == f"{world}/model"
    assert init_encoder(network, "tu-test_resnet", f"{world}/model/weights.safetensors", ("red", "nir"))
    assert read_mapping(f"{world}/classes.yaml") == read_mapping(here / "classes.yaml")
    assert read_mask_classes(f"{world}/masks.csv").classes == read_mask_classes(here / "masks.csv").classes


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("demo --data {w} --out {o}/demo", "--data is {w}, but must be on a disk of this machine"),
        ("train {w}/chips --out {o}/m --run {o}/run", "--run is {o}/run, but must be on a disk of this machine"),
        ("train {w}/chips --out {o}/m --cache {o}/c", "--cache is {o}/c, but must be on a disk of this machine"),
        ("sample {w}/none.tif --out {o}/p.gpkg", "{w}/none.tif"),
        ("sample {w}/map.tif --out {w}/points.gpkg", "{w}/points.gpkg already exists. Use --overwrite"),
        ("sample {w}/map.tif --zones {w}/l.gpkg --out {w}/l.gpkg --overwrite", "{w}/l.gpkg is also an input"),
        ("assess {w}/map.tif {w}/none.gpkg", "No such folder: {w}/none.gpkg"),
        ("change {w}/map.tif {w}/map.tif --out {o}/c.tif --reference {w}/labels.gpkg", "is not a sample file"),
        ("export {w}/none --to onnx --out {o}/m.onnx", "No such folder: {w}/none"),
        ("export {w}/chips --to onnx --out {o}/m.onnx", "{w}/chips has no model.json"),
        ("evaluate {w}/model {w}/none", "There is no folder {w}/none with a file chips.json or map.txt"),
        ("train {w}/model --out {o}/m", "There is no folder {w}/model with a file chips.json or map.txt"),
        ("calibrate {w}/model {w}/chips --out {w}/model", "{w}/model already exists"),
        ("report {w}/model --out {o}/r.pdf", "{o}/r.pdf ends in '.pdf'"),
        ("info {w}/none", "{w}/none"),
    ],
)
def test_what_is_refused_is_one_line(line, told, world, out, store):
    said = shell(line.format(w=world, o=out), code=2)
    assert told.format(w=world, o=out) in said.stderr.replace("\n", " ")
    assert "Traceback" not in said.stderr
    assert not store.exists(out)


def test_a_message_names_the_address_and_not_the_copy(world, out, store, monkeypatch):
    """But for the copy itself, where it is meant."""
    damaged = f"{out}/model"
    store.cp(f"{world}/model", damaged, recursive=True)
    store.pipe_file(f"{damaged}/weights.safetensors", b"x")
    with pytest.raises(PackageError, match=rf"{damaged}/weights.safetensors is not the file that was saved"):
        PixelClassifier.from_model(damaged)

    upload = object_store.upload

    def refuse(path, address):
        if address.endswith(".csv"):
            raise OutputError("the connection is lost.")
        upload(path, address)

    monkeypatch.setattr(object_store, "upload", refuse)
    with pytest.raises(OutputError) as error:
        assess_map(f"{world}/map.tif", f"{world}/points.gpkg").save(f"{out}/a.csv")
    copy = str(error.value).partition("complete: the local copy ")[2].removesuffix(".")
    assert Path(copy).read_text(encoding="utf-8")
