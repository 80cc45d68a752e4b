"""Every command, with good input and bad."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import onnx
import pandas as pd
import pytest
import rasterio
from click.testing import CliRunner
from common import SAMPLE, slow
from onnx_common import GOLDEN, MODEL

from geopsp.chips.chip_set import ChipSet
from geopsp.cli.commands import main

TINY = "tu-test_resnet"


@pytest.fixture
def chips(small_world):
    """Enough for a training whose scores nobody reads."""
    return small_world["few_chips"]


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def fails(*arguments, says):
    """The command prints one line that says so, and exits with 2."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    last = lines[-1]
    assert last.startswith("Error: "), result.stderr
    assert says in last, last
    assert "Traceback" not in result.output


def test_the_whole_way(small_world, tmp_path):
    chips, model, out = tmp_path / "chips", tmp_path / "model", tmp_path / "map.tif"
    result = run("chips", small_world["scene"], "--labels", small_world["labels"], "--class-field", "kind",
                 "--out", chips, "--size", 64)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "background" in result.stdout
    result = run("train", chips, "--out", model, "--backbone", TINY, "--epochs", 1, "--lr", 1e-3, "--no-unet",
                 "--pyramid-sizes", "1,2", "--pointrend", "--weights", "none", "--batch-size", 4)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "pyramid (1, 2), plain decoder, PointRend" in result.stdout
    result = run("evaluate", model, chips, "--json", tmp_path / "scores.json")
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert f"mIoU {scores['miou']:.4f}" in result.stdout
    result = run("predict", model, small_world["part"], "--out", out, "--polygons", tmp_path / "map.gpkg",
                 "--probabilities", tmp_path / "p.tif")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "CPU" in result.stderr or "GPU" in result.stderr
    result = run("polygonize", out, "--out", tmp_path / "simple.parquet", "--simplify", 4, "--min-area", 100)
    assert result.exit_code == 0, result.output
    assert len(gpd.read_parquet(tmp_path / "simple.parquet")) <= len(gpd.read_file(tmp_path / "map.gpkg", layer="map"))
    for path, words in ((small_world["scene"], "EPSG:32632"), (chips, "chips of 64 x 64"), (model, "test_resnet"),
                        (out, "0 background, 1 a, 2 b")):  # fmt: skip
        result = run("info", path)
        assert result.exit_code == 0, result.output
        assert words in result.stdout


@pytest.mark.parametrize(
    ("network", "options", "says"),
    [
        ("pspnet", ["--aux-loss", "--aux", "presence", "--batch-size", 0], "auxiliary loss by presence"),
        ("fcn", ["--dice", 0.2, "--lovasz", 0.1, "--tversky", 0.1, "--no-aux-loss", "--mixup"], "plain decoder"),
        slow(
            "unet",
            ["--ema", 0.9, "--accumulate", 2, "--balanced-sampling", "--workers", 1, "--output-stride", 16],
            "output stride 16",
        ),
        slow(
            "deeplab",
            ["--freeze", "--ohem", 0.5, "--label-smoothing", 0.1, "--ignore-classes", "b"],
            "rates (6, 12, 18)",
        ),
    ],
)
def test_every_network_trains_from_the_shell(network, options, says, chips, tmp_path):
    model = tmp_path / "model"
    result = run("train", chips, "--out", model, "--network", network, "--backbone", TINY, *options,
                 "--weights", "none", "--epochs", 1, "--lr", "0.0001,0.001", "--cache", tmp_path / "cache")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert says in result.stdout
    assert says in run("info", model).stdout
    assert not (tmp_path / "model.run").exists(), "what is only good for going on goes when the model is saved"
    result = run("train", chips, "--out", tmp_path / "next", "--network", network, "--backbone", TINY,
                 "--pretrained", model, "--epochs", 1, "--lr", 1e-3, *options, "--run", tmp_path / "run",
                 "--tensorboard")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "the whole network's weights" in result.stderr
    assert {"history.csv", "run.json", "last.ckpt", "tensorboard"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }


def test_chips_with_every_option_and_more_appended(small_world, tmp_path):
    """Labels under other names, turned copies, random chips, a report and a picture; then PNG chips besides."""
    (tmp_path / "classes.yaml").write_text("a: meadow\nb: pond\n")
    usual = ["chips", small_world["scene"], "--labels", small_world["labels"], "--class-field", "kind", "--out",
             tmp_path / "chips", "--size", 64, "--class-mapping", tmp_path / "classes.yaml"]  # fmt: skip
    result = run(*usual, "--where", "kind IN ('a', 'b')", "--priority", "pond", "--rotation-angle", 180,
                 "--stride", 128, "--random-chips", 5, "--seed", 3, "--min-valid", 0.5, "--min-labelled", 0.5,
                 "--skip-empty", "--order", "given", "--mosaic", "--workers", 1,
                 "--json", tmp_path / "report.json", "--picture", tmp_path / "chips.png")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "pond" in result.stdout
    assert (tmp_path / "report.json").stat().st_size
    assert (tmp_path / "chips.png").read_bytes().startswith(b"\x89PNG")
    first = sorted(path.name for path in (tmp_path / "chips" / "images").iterdir())
    assert any(name.endswith("_r180.tif") for name in first)
    fails(*usual, says="already exists")
    left, bottom, right, top = rasterio.open(small_world["scene"]).bounds
    result = run(*usual, "--append", "--extent", f"{left},{bottom},{(left + right) / 2},{top}", "--cell-size", 2)
    assert result.exit_code == 0, result.output
    again = run(*usual, "--append", "--extent", f"{left},{bottom},{(left + right) / 2},{top}", "--cell-size", 2)
    assert "nothing to do" in again.stderr
    names = sorted(path.name for path in (tmp_path / "chips" / "images").iterdir())
    assert names[: len(first)] == first or set(first) < set(names)
    fails(*usual, "--append", "--overwrite", says="exclude each other")
    fails(*usual, "--append", "--format", "jpg", says="jpg chips have 1 or 3 bands of uint8. Use --format tif")


def test_training_straight_from_images(small_world, tmp_path):
    result = run("train", small_world["scene"], "--labels", small_world["labels"], "--class-field", "kind",
                 "--chip-size", 32, "--out", tmp_path / "model", "--backbone", TINY, "--epochs", 1, "--lr", 1e-3,
                 "--weights", "none", "--split", "blocks", "--gap", 64)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "Split: " in result.stderr
    fails("train", small_world["chips"], "--out", tmp_path / "m", "--where", "x > 1", "--stride", 9,
          says="--stride, --where only apply to chips that are cut from images")  # fmt: skip


@pytest.mark.parametrize("extent", ["1,2,3", "a,b,c,d", ""])
def test_an_extent_that_is_none(extent, small_world, tmp_path):
    result = run("chips", small_world["scene"], "--labels", small_world["labels"], "--out", tmp_path / "c",
                 "--extent", extent)  # fmt: skip
    assert result.exit_code == 2
    assert "is not an extent such as 500000" in result.output


@pytest.mark.slow
def test_a_killed_export_goes_on(tmp_path):
    """SIGKILL at many moments; the same command ends with the same bytes as one that ran through."""
    command = [sys.executable, "-m", "geopsp.cli", "chips", str(SAMPLE / "scene_west.tif"), "--labels",
               f"{SAMPLE / 'labels.gpkg'}|layername=landcover", "--class-field", "landcover", "--size", "64",
               "--stride", "40", "--rotation-angle", "90", "--random-chips", "50"]  # fmt: skip
    subprocess.run([*command, "--out", tmp_path / "whole"], check=True, capture_output=True)
    kills = 0
    while not (tmp_path / "killed").exists():
        with subprocess.Popen([*command, "--out", tmp_path / "killed"], stderr=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL) as process:  # fmt: skip
            try:
                process.wait(5 + kills % 3)
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
    assert kills > 0
    files = [sorted(p.relative_to(top) for p in top.rglob("*")) for top in (tmp_path / "whole", tmp_path / "killed")]
    assert files[0] == files[1]
    for name in files[0]:
        ours, theirs = (tmp_path / folder / name for folder in ("whole", "killed"))
        assert ours.is_dir() or ours.read_bytes() == theirs.read_bytes(), name


@pytest.mark.slow
def test_a_killed_training_goes_on(small_world, tmp_path):
    """SIGKILL in the middle; the same command with --resume ends as if nothing had been."""
    command = [sys.executable, "-m", "geopsp.cli", "train", str(small_world["chips"]), "--backbone", TINY, "--weights",
               "none", "--epochs", "8", "--lr", "0.001", "--pointrend"]  # fmt: skip
    subprocess.run([*command, "--out", tmp_path / "whole"], check=True, capture_output=True)
    with subprocess.Popen([*command, "--out", tmp_path / "killed"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "epoch 2/8  train loss" in line:
                process.kill()
    assert not (tmp_path / "killed").exists()
    assert (tmp_path / "killed.run" / "last.ckpt").exists()
    fails(*command[3:], "--out", tmp_path / "killed", says="already holds a run")
    command = [part for part in command if part not in {"--lr", "0.001"}]  # the run knows its rate
    done = subprocess.run(
        [*command, "--out", tmp_path / "killed", "--resume"], check=True, capture_output=True, text=True
    )
    assert "epoch 1/8" not in done.stderr
    whole, again = (pd.read_csv(tmp_path / name / "history.csv") for name in ("whole", "killed"))
    columns = [name for name in whole if "seconds" not in name]
    pd.testing.assert_frame_equal(again[columns], whole[columns])
    assert (tmp_path / "whole/weights.safetensors").read_bytes() == (
        tmp_path / "killed/weights.safetensors"
    ).read_bytes()


def test_help_names_every_command():
    text = run("--help").output
    for command in ("chips", "train", "evaluate", "predict", "polygonize", "info", "demo"):
        assert command in text
        assert run(command, "--help").exit_code == 0


def test_bad_input_to_chips(small_world, make_raster, make_labels, tmp_path):
    scene, labels, out = small_world["scene"], small_world["labels"], tmp_path / "chips"
    fails("chips", tmp_path / "no.tif", "--labels", labels, "--out", out, says="No raster found")
    fails("chips", labels, "--labels", labels, "--out", out, says=f"Cannot read {labels} as a raster")
    fails("chips", scene, "--labels", tmp_path / "no.gpkg", "--out", out, says="No such file")
    fails(
        "chips",
        scene,
        "--labels",
        labels,
        "--class-field",
        "sort",
        "--out",
        out,
        says="has no field 'sort'. Fields: kind",
    )
    fails("chips", make_raster("bare.tif", crs=None), "--labels", labels, "--out", out, says="has no CRS")
    fails("chips", make_raster("far.tif", origin=(701234.0, 5301717.0)), "--labels", labels, "--out", out,
          says="do not overlap the image: they are 99 km away")  # fmt: skip
    fails(
        "chips",
        scene,
        "--labels",
        labels,
        "--out",
        out,
        "--size",
        8,
        says="--size is 8, but must be a whole number of at least 16 (pixels)",
    )
    fails("chips", scene, "--labels", labels, "--out", small_world["chips"], says="already exists")
    fails("chips", scene, "--labels", labels, "--out", labels / "chips", says="Cannot create")
    data = small_world["scene"].read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: len(data) // 2])
    fails("chips", tmp_path / "cut.tif", "--labels", labels, "--out", out, says=f"Cannot read {tmp_path / 'cut.tif'}")
    empty = make_labels("empty.gpkg", [], {"kind": []})
    fails("chips", scene, "--labels", empty, "--out", out, says="contains no features, or none that --where selects")
    assert not out.exists()


def test_bad_input_to_train(small_world, tmp_path):
    chips, out = small_world["chips"], tmp_path / "model"
    fails("train", tmp_path / "nothing", "--out", out, says="No such folder")
    (tmp_path / "empty").mkdir()
    fails("train", tmp_path / "empty", "--out", out, says="not a finished chip folder")
    half = shutil.copytree(chips, tmp_path / "half")
    next((half / "images").glob("*.tif")).unlink()
    fails("train", half, "--out", out, says="is incomplete: 1 of")
    fails("train", chips, "--out", out, "--backbone", "resnet19", says="resnet18")
    fails("train", chips, "--out", out, "--chip-size", 33, says="--chip-size is 33")
    fails(
        "train",
        chips,
        "--out",
        out,
        "--epochs",
        0,
        "--weights",
        "none",
        "--backbone",
        "resnet18",
        says="--epochs is 0, but must be",
    )
    fails("train", chips, "--out", small_world["scene"], says="already exists")
    tiny = ("train", chips, "--out", out, "--weights", "none", "--backbone", TINY)
    fails(*tiny, "--ignore-classes", "c", says="the classes are background, a, b")
    fails(*tiny, "--dice", 0.6, "--lovasz", 0.6, says="0.6")
    fails(*tiny, "--output-stride", 7, says="--output-stride is 7, but must be one of 8, 16, 32")
    fails(*tiny, "--accumulate", 0, says="--accumulate is 0, but must be")
    fails(*tiny, "--devices", 2, "--batch-size", 0, says="Set --batch-size")
    fails(
        *tiny,
        "--network",
        "unet",
        "--no-unet",
        says="--no-unet only applies to the network pspnet, not to unet",
    )
    fails(*tiny, "--chip-size", 0, says="--chip-size is 0, but must be")
    fails(*tiny, "--lr", "1,2,3", says="must be one learning rate, or two")
    assert run(*tiny, "--lr", "quick").exit_code == 2
    assert run("train", chips, "--out", out, "--pyramid-sizes", "a,b").exit_code == 2
    assert not out.exists()


def test_a_chip_size_that_the_network_cannot_take(small_world, tmp_path):
    chips = tmp_path / "chips"
    assert (
        run("chips", small_world["scene"], "--labels", small_world["labels"], "--out", chips, "--size", 50).exit_code
        == 0
    )
    fails("train", chips, "--out", tmp_path / "m", says="multiple of 32")


def test_bad_input_to_predict(small_world, trained, make_raster, tmp_path):
    scene, out = small_world["scene"], tmp_path / "map.tif"
    fails("predict", tmp_path / "no", scene, "--out", out, says="No such folder")
    fails("predict", small_world["chips"], scene, "--out", out, says="has no model.json")
    fails(
        "predict",
        trained,
        make_raster("one.tif", bands=1),
        "--out",
        out,
        says="has 1 band without names, but 2 are needed",
    )
    fails(
        "predict",
        trained,
        make_raster("n.tif", bands=2, names=("green", "blue")),
        "--out",
        out,
        says="no band red, nir",
    )
    lost = shutil.copytree(trained, tmp_path / "lost")
    (lost / "weights.safetensors").unlink()
    fails("predict", lost, scene, "--out", out, says="has no weights.safetensors")
    changed = shutil.copytree(trained, tmp_path / "changed")
    content = bytearray((changed / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (changed / "weights.safetensors").write_bytes(content)
    fails("predict", changed, scene, "--out", out, says="checksum differs")
    fails("predict", trained, scene, "--out", trained / "model.json", says="--out is")
    fails("predict", trained, scene, "--out", out, "--padding", 40, says="between 0 and half a tile")
    fails("predict", trained, scene, "--out", out, "--device", "abacus", says="'abacus'")
    fails("predict", trained, scene, "--out", out, "--polygons", tmp_path / "map.dwg", says=".gpkg")
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--tile-size 64", "tile_size", 64), ("--padding 9", "padding", 9), ("--batch-size 2", "batch_size", 2),
        ("--tta", "test_time_augmentation", True), ("--test-time-augmentation", "test_time_augmentation", True),
        ("--extent -1,2,3.5,4", "extent", (-1, 2, 3.5, 4)), ("--aoi a.gpkg|layername=b", "aoi", "a.gpkg|layername=b"),
        ("--cell-size 0.5", "cell_size", 0.5), ("--no-background", "predict_background", False),
        ("--confidence c.tif", "confidence", "c.tif"), ("--probabilities p", "probabilities", "p"),
        ("--probability-type float16", "probability_type", "float16"), ("--polygons p.fgb", "polygons", "p.fgb"),
        ("--disagreement d.tif", "disagreement", "d.tif"), ("--sieve 12", "sieve", 12),
        ("--per-image", "per_image", True), ("--order -cloud", "order", "-cloud"),
        ("--precision bf16", "precision", "bf16"), ("--compiled", "compiled", True), ("--compile", "compiled", True),
        ("--scheduler local", "scheduler", "local"), ("--device cuda:1", "device", "cuda:1"),
        ("--overwrite", "overwrite", True), ("--bands 3,nir", "bands", (3, "nir")),
        ("--simplify 2 --keep a,7", "polygon_options", {"simplify": 2, "keep": ("a", "7")}),
    ],
)  # fmt: skip
def test_each_option_of_predict_is_passed_on(words, name, value, monkeypatch, tmp_path):
    """Under the name that Python knows; the others are as Python has them."""
    monkeypatch.chdir(tmp_path)
    calls = []
    monkeypatch.setattr("geopsp.models.manifest.read_manifest", lambda path: {})
    monkeypatch.setattr(
        "geopsp.inference.classify_pixels.classify_pixels",
        lambda *args, **options: calls.append((args, options)) or Path("map.tif"),
    )
    for given in ((), words.split(" ")):
        result = run("predict", "model", "a.tif", "b.tif", "--out", "map.tif", *given)
        assert result.exit_code == 0, result.output
    (args, usual), (_, options) = calls
    assert args == (["a.tif", "b.tif"], Path("model"), "map.tif")
    assert options == usual | {name: value}
    assert options != usual
    assert usual == {}, "what is not given is left to Python's defaults"


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--connectivity 8", "connectivity", 8), ("--simplify 1.5", "simplify", 1.5), ("--smooth 2", "smooth", 2),
        ("--min-area 50", "min_area", 50), ("--fill-holes 9.5", "fill_holes", 9.5), ("--keep a,7", "keep", ("a", "7")),
        ("--drop b", "drop", ("b",)), ("--dissolve", "dissolve", True), ("--regularize", "regularize", True),
        ("--regularize 1.5", "regularize", 1.5), ("--regularize --overwrite", "regularize", True),
    ],
)  # fmt: skip
def test_each_option_of_polygonize_is_passed_on(words, name, value, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "geopsp.polygons.raster_to_polygons.raster_to_polygons", lambda *args, **options: calls.append(options)
    )
    for given in ((), words.split(" ")):
        result = run("polygonize", "a.tif", "--out", "a.gpkg", "--confidence", "c.tif", *given)
        assert result.exit_code == 0, result.output
    usual, options = calls
    assert usual == {"confidence": "c.tif"}
    assert options == usual | {name: value} | ({"overwrite": True} if "--overwrite" in words else {})


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--connectivity 0", "--connectivity is 0, but must be one of 4, 8"),
        ("--keep=", "--keep is (), but must be a list of class names"),
        ("--drop ,", "--drop is (), but must be a list of class names"),
        ("--smooth -1", "--smooth is -1"),
        ("--simplify nan", "--simplify is nan"),
    ],
)
def test_what_means_nothing_is_no_default(words, says, make_raster, tmp_path):
    fails("polygonize", make_raster(), "--out", tmp_path / "a.gpkg", *words.split(" "), says=says)
    assert not (tmp_path / "a.gpkg").exists()


def test_metres_that_are_none(tmp_path):
    result = run("polygonize", "--regularize", "a.tif", "--out", tmp_path / "a.gpkg")
    assert result.exit_code == 2
    assert "'a.tif' is not a number of metres" in result.output


def test_each_image_by_itself(small_world, trained, tmp_path):
    """Into a folder, whose maps are named."""
    result = run("predict", trained, small_world["part"], "--out", tmp_path / "maps", "--per-image", "--sieve", 5,
                 "--confidence", tmp_path / "sure")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout.split("\n")[:2] == [f"Wrote {tmp_path / 'maps' / 'part.tif'}", f"Wrote {tmp_path / 'sure'}"]
    assert (tmp_path / "sure" / "part.tif").exists()


def test_nothing_of_the_user_s_is_lost(small_world, trained, tmp_path):
    """Neither an image that is also the output, nor a folder that is not ours; said before any work."""
    scene = shutil.copy(small_world["scene"], tmp_path / "own.tif")
    fails("predict", trained, scene, "--out", scene, "--overwrite", says="would be lost")
    twice = ("--out", tmp_path / "m.tif", "--probabilities", tmp_path / "a" / ".." / "m.tif")
    fails("predict", trained, scene, *twice, "--overwrite", says="have the same name")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    fails("train", small_world["chips"], "--out", tmp_path / "photos", "--overwrite", says="geopsp did not write")
    fails(
        "chips",
        scene,
        "--labels",
        small_world["labels"],
        "--out",
        scene,
        "--overwrite",
        says="is a file, but must be a folder",
    )
    assert (tmp_path / "photos" / "cat.jpg").exists()
    with rasterio.open(scene) as dataset:
        assert dataset.count == 2


def test_unnamed_bands_must_be_said(small_world, trained, tmp_path):
    """A raster with more bands than the model needs and no names is refused; numbers settle it."""
    with rasterio.open(small_world["part"]) as source:
        data, profile = source.read(), source.profile | {"count": 3}
    with rasterio.open(tmp_path / "bare.tif", "w", **profile) as dataset:
        dataset.write(data[[1, 1, 0]])
    out = tmp_path / "map.tif"
    fails(
        "predict",
        trained,
        tmp_path / "bare.tif",
        "--out",
        out,
        says="has 3 bands without names, but 2 are needed: red, nir",
    )
    assert run("predict", trained, tmp_path / "bare.tif", "--out", out, "--bands", "3,1").exit_code == 0
    assert run("predict", trained, small_world["part"], "--out", tmp_path / "named.tif").exit_code == 0
    with rasterio.open(out) as one, rasterio.open(tmp_path / "named.tif") as other:
        found = one.read()
        assert (found == other.read()).all()
        assert len(np.unique(found)) > 1
    fails(
        "predict",
        trained,
        tmp_path / "bare.tif",
        "--out",
        tmp_path / "x.tif",
        "--bands",
        "1",
        says="the model needs red, nir",
    )


def test_evaluate_where_a_class_is_missing(small_world, trained, make_labels, tmp_path):
    """Held-out labels need not hold every class; one that the model does not know is refused."""
    frame = gpd.read_file(small_world["labels"])
    frame = frame[frame["kind"] == "b"]
    for kinds, name in ((["b"], "only_b"), (["a", "z"], "with_z")):
        columns = {"kind": (kinds * len(frame))[: len(frame)]}
        labels = make_labels(f"{name}.gpkg", list(frame.geometry), columns, crs=frame.crs)
        where = ("--class-field", "kind", "--out", tmp_path / name, "--size", 32)
        result = run("chips", small_world["scene"], "--labels", labels, *where)
        assert result.exit_code == 0, result.output
    scores = tmp_path / "scores.json"
    assert run("evaluate", trained, tmp_path / "only_b", "--json", scores).exit_code == 0
    found = json.loads(scores.read_text(), parse_constant=pytest.fail)
    assert found["per_class"]["a"]["recall"] is None
    assert found["per_class"]["b"]["recall"] > 0.9
    fails("evaluate", trained, tmp_path / "only_b", "--json", scores, says="already exists")
    fails(
        "evaluate",
        trained,
        tmp_path / "with_z",
        says="classes that are not known here: z. Known classes: background, a, b.",
    )


def test_bad_input_to_the_others(small_world, tmp_path):
    fails("polygonize", tmp_path / "no.tif", "--out", tmp_path / "a.gpkg", says="No such file")
    fails("info", tmp_path / "no", says="No such file or folder")
    fails("info", tmp_path, says="is neither a chip folder (chips.json) nor a model (model.json)")
    fails("evaluate", tmp_path, small_world["chips"], says="has no model.json")
    fails("demo", "--data", tmp_path, "--out", tmp_path / "demo", says="does not hold the sample data")


def test_overwrite(small_world, trained, tmp_path):
    out = tmp_path / "map.tif"
    predict = ("predict", trained, small_world["part"], "--out", out)
    assert run(*predict).exit_code == 0
    fails(*predict, says="--overwrite")
    assert run(*predict, "--overwrite").exit_code == 0
    with rasterio.open(out) as dataset:
        assert dataset.count == 1


@pytest.mark.slow
def test_demo(tmp_path):
    """The real demo makes all that it names, and is as good as the README says."""
    result = run("demo", "--out", tmp_path / "demo")
    assert result.exit_code == 0, result.output
    for name in ("report.html", "map.tif", "map.gpkg", "map.png", "scores.json", "model", "chips"):
        assert (tmp_path / "demo" / name).exists()
    scores = json.loads((tmp_path / "demo" / "scores.json").read_text())
    assert scores["miou"] > 0.70
    assert scores["boat_car_confused"] < 0.10


def test_chips_of_folders_of_images_and_masks(make_raster, tmp_path):
    for number in range(2):
        make_raster(f"images/{number}.tif", size=(40, 40))
        make_raster(f"masks/{number}_mask.tif", np.full((1, 40, 40), 255 * number, "uint8"))
    masks = [tmp_path / "masks" / f"{number}_mask.tif" for number in range(2)]
    for name, labels in (("a", [masks[0].parent]), ("b", [f"{masks[0].parent}/*.tif"]), ("c", masks)):
        options = [part for label in labels for part in ("--labels", label)]
        result = run("chips", tmp_path / "images", *options, "--out", tmp_path / name, "--size", 32)
        assert result.exit_code == 0, result.output
        assert "2 masks" in result.output
        assert "use --class-mapping; if 255 means unlabelled, --label-nodata 255." in result.output
    result = run("chips", tmp_path / "images", masks[1], "--labels", masks[0], "--out", tmp_path / "d", "--size", 32)
    assert result.exit_code == 2
    assert "put the pattern in quotes: --labels" in result.output
    result = run(
        "chips", tmp_path / "images", "--labels", masks[0].parent, "--out", tmp_path / "e", "--size", 32,
        "--label-nodata", "none", "--mask-classes", tmp_path / "none.csv",
    )  # fmt: skip
    assert result.exit_code == 2
    assert "Check the path of --mask-classes" in result.output
    result = run("polygonize", masks[1], "--out", tmp_path / "p.gpkg", "--nodata", "none")
    assert result.exit_code == 0, result.output


def test_export(tmp_path, monkeypatch):
    monkeypatch.setattr("geopsp.export.onnx_file.onnx_model", lambda _: onnx.load(MODEL))
    saved, out = GOLDEN / "model", tmp_path / "model.onnx"
    result = run("export", saved, "--to", "onnx", "--out", out, "--images", GOLDEN / "scene.tif")
    assert result.exit_code == 0, result.output
    assert "checked in ONNX Runtime on images: 100.0000 % of" in result.stderr
    assert result.stdout.strip() == f"Wrote {out}"
    fails("export", saved, "--to", "onnx", "--out", out, says=f"{out} already exists. Use --overwrite to replace it")
    fails("export", saved, "--to", "onnx", "--out", tmp_path / "model", says="must end in .onnx")
    fails("export", tmp_path, "--to", "onnx", "--out", out, says="has no model.json")
    help_text = run("export", "--help").output
    assert "--no-pointrend" in help_text


def test_help_of_the_export_loads_no_torch():
    code = (
        "import sys; from geopsp.cli import main\n"
        "try: main(['export', '--help'])\n"
        "finally: assert not {'torch', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_dry_run_says_what_would_be_made_and_writes_nothing(small_world, trained, tmp_path):
    """The chips are those of the export; the map's path is that of the map."""
    chips, model = tmp_path / "chips", tmp_path / "model"
    cutting = ("chips", small_world["scene"], "--labels", small_world["labels"], "--class-field", "kind",
               "--out", chips, "--size", 64)  # fmt: skip
    before = files_in(tmp_path)
    result = run(*cutting, "--dry-run")
    assert result.exit_code == 0, result.output
    assert files_in(tmp_path) == before
    assert result.stdout.splitlines()[-1] == "Nothing was written."
    written = run(*cutting).stdout
    assert written.splitlines()[1:4] == result.stdout.splitlines()[1:4]
    training = ("train", chips, "--out", model, "--backbone", TINY, "--weights", "none", "--batch-size", 4)
    before = files_in(tmp_path)
    result = run(*training, "--epochs", 3, "--dry-run")
    assert result.exit_code == 0, result.output
    assert files_in(tmp_path) == before
    steps = len(ChipSet.open(chips).index) // 4
    assert "3 epochs: " in result.stdout
    assert int(result.stdout.split("3 epochs: ")[1].split(" steps")[0]) <= 3 * steps
    assert "GiB free. Disk: " in result.stdout
    assert "7 min: about" in run(*training, "--minutes", 7, "--dry-run").stdout
    mapping = ("predict", trained, small_world["scene"], "--out", tmp_path / "map.tif", "--dry-run")
    result = run(*mapping)
    assert result.exit_code == 0, result.output
    assert files_in(tmp_path) == before
    assert f"  {tmp_path / 'map.tif'}\n" in result.stdout
    assert "Estimated: " in result.stdout
    (tmp_path / "map.tif").write_bytes(b"mine")
    fails(*mapping, says="map.tif")


def test_a_model_holds_the_run_that_made_it(chips, tmp_path):
    """`--config` takes the model's folder too, and trains the same weights again."""
    first, second = tmp_path / "first", tmp_path / "second"
    result = run("train", chips, "--out", first, "--backbone", TINY, "--weights", "none", "--epochs", 1,
                 "--lr", 1e-3, "--batch-size", 4, "--no-unet", "--json")  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["wrote"], found["model"]["epochs"]) == ([str(first), str(first / "report.html")], 1)
    assert found["scores"]["miou"] == found["model"]["metrics"]["miou"]
    assert "train.yaml" in files_in(first)
    result = run("train", "--config", first, "--out", second)
    assert result.exit_code == 0, result.output
    assert (first / "weights.safetensors").read_bytes() == (second / "weights.safetensors").read_bytes()
    assert run("train", "--config", first, "--overwrite").exit_code == 0


def test_calibrate_saves_a_model_that_differs_in_its_calibration_alone(small_world, trained, tmp_path):
    out = tmp_path / "calibrated"
    result = run("calibrate", trained, small_world["few_chips"], "--out", out, "--method", "vector")
    assert result.exit_code == 0, result.output
    assert "Calibrated: " in result.stdout
    assert (out / "weights.safetensors").read_bytes() == (trained / "weights.safetensors").read_bytes()
    assert json.loads((out / "model.json").read_text())["calibration"]["method"] == "vector"
    fails("calibrate", trained, small_world["chips"], "--out", out, says=f"{out} already exists")
