"""Small inputs of every kind that is read, and what interrupted commands leave; made in a process of the server."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LEFT, TOP, CELL = 600_000, 5_300_000, 2
HEIGHT, WIDTH = 96, 128

TRAIN = (
    "--backbone", "tu-test_resnet", "--weights", "none", "--epochs", "2", "--lr", "0.001", "--split", "random",
    "--workers", "0", "--device", "cpu", "--encoder-depth", "3", "--pyramid-sizes", "1,2", "--batch-size", "4", "-q",
)  # fmt: skip
PREDICT = ("--device", "cpu", "--batch-size", "4", "--precision", "fp32", "-q")
CUT = ("--size", "32", "--workers", "1", "-q")
CHIPS = ("--class-field", "kind", *CUT)


def write_raster(name: str, data: Any, **profile: Any) -> None:
    import rasterio
    from rasterio.transform import from_origin

    count, height, width = data.shape
    profile = {"driver": "GTiff", "crs": "EPSG:32632", "transform": from_origin(LEFT, TOP, CELL, CELL)} | profile
    with rasterio.open(name, "w", dtype=data.dtype, count=count, height=height, width=width, **profile) as dataset:
        dataset.write(data)
        if profile["driver"] == "GTiff" and count == 2:
            dataset.descriptions = ("red", "nir")


def in_child(*args: str, patch: Callable[[], None] | None = None) -> None:
    """Run a command in a process of its own, which a patch may end early."""
    from geopsp.cli.commands import main

    pid = os.fork()
    if not pid:
        try:
            if patch:
                patch()
            main(list(args))
        except SystemExit as end:
            os._exit(end.code if isinstance(end.code, int) else 1)
        os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 0, (args, code)


def ends(owner: Any, name: str, when: Callable[..., bool]) -> None:
    """Let the process end before a function is called, as a kill would."""
    original = getattr(owner, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        if when(*args):
            os._exit(0)
        return original(*args, **options)

    setattr(owner, name, wrapped)


def stop_training() -> None:
    from geopsp.training.callbacks import EpochLogger

    ends(EpochLogger, "on_train_epoch_start", lambda _, trainer, __: trainer.current_epoch == 1)


def stop_map() -> None:
    from geopsp.inference import run_job

    ends(run_job, "assemble", lambda *_: True)


def stop_export() -> None:
    from geopsp.chips.journal import ExportJournal

    ends(
        ExportJournal,
        "add",
        lambda journal, _: (journal.__dict__.setdefault("rows", []).append(1), len(journal.rows) > 2)[1],
    )


def make() -> None:
    """Write all into the working folder."""
    import geopandas as gpd
    import rasterio
    import rasterio.shutil
    import shapely

    rng = np.random.default_rng(0)
    data = rng.integers(1, 200, (2, HEIGHT, WIDTH)).astype("uint8")
    data[:, :, -6:] = 0
    write_raster("s.tif", data, nodata=0, compress="deflate")
    write_raster("plain.tif", data, nodata=0)
    rasterio.shutil.copy("s.tif", "cog.tif", driver="COG", blocksize=64, overview_resampling="average")
    rasterio.shutil.copy("s.tif", "s.vrt", driver="VRT")
    west, east, top, foot = LEFT, LEFT + WIDTH * CELL, TOP, TOP - HEIGHT * CELL
    middle = (west + east) / 2
    shapes = [
        shapely.box(west, foot, middle, top),
        shapely.box(middle, foot, east - 40, top),
        shapely.MultiPolygon(
            [shapely.box(west + 20, foot + 20, west + 80, top - 30), shapely.box(middle + 9, foot, east, top - 99)]
        ),
    ]
    frame = gpd.GeoDataFrame({"kind": ["wood", "pond", "sand"], "rank": [1, 2, 3]}, geometry=shapes, crs="EPSG:32632")
    for name in ("l.gpkg", "l.fgb", "l.shp"):
        frame.to_file(name)
    frame.to_crs("EPSG:4326").to_file("l.geojson")
    frame.to_parquet("l.parquet")
    frame.drop(columns="geometry").assign(wkt=frame.geometry.to_wkt()).to_csv("l.csv", index=False)
    codes = np.zeros((1, HEIGHT, WIDTH), "uint8")
    codes[:, 30:70, 20:90], codes[:, 60:, 50:] = 1, 2
    write_raster("codes.png", codes, driver="PNG", worldfile="YES")
    write_raster("codes.tif", codes, compress="lzw")
    rgb = np.stack([codes[0] * 100, codes[0] * 50, 255 - codes[0] * 100])
    for folder in ("images", "masks"):
        Path(folder).mkdir()
    write_raster("images/a.png", data[[0, 1, 0]], driver="PNG")
    write_raster("masks/a.png", rgb, driver="PNG")
    Path("classes.csv").write_text("name,r,g,b\nnone,0,0,255\nwood,100,50,155\npond,200,100,55\n", encoding="utf-8")
    classes = {"none": [0, 0, 255], "wood": [100, 50, 155], "pond": [200, 100, 55]}
    Path("classes.json").write_text(json.dumps(classes), encoding="utf-8")
    Path("mapping.yaml").write_text(
        "wood: {name: forest, code: 3, color: '#22683a'}\npond: water\nsand: null\n'*': other\n", encoding="utf-8"
    )
    Path("item.json").write_text(json.dumps(stac_item()), encoding="utf-8")
    write_arcgis_model("parcels")
    in_child("chips", "s.tif", "--labels", "l.gpkg", "--out", "chips", *CHIPS)
    in_child("chips", "images/a.png", "--labels", "l.gpkg", "--out", "pngs", "--format", "png", *CHIPS)
    shutil.copytree("chips", "arcgis")
    for name in ("chips.json", "chips.parquet", ".geopsp-files"):
        Path("arcgis", name).unlink()
    in_child("train", "chips", "--out", "model", "--run", "run", "--cache", "cache", *TRAIN)
    shutil.rmtree("run")
    save_encoder("model", "encoder.pth")
    Path("out").mkdir()
    in_child("train", "chips", "--out", "out/again", "--run", "run", *TRAIN, patch=stop_training)
    in_child("predict", "model", "s.tif", "--out", "map.tif", "--confidence", "confidence.tif", *PREDICT)
    in_child("predict", "model", "s.tif", "--out", "out/map.tif", *PREDICT, patch=stop_map)
    in_child("chips", "s.tif", "--labels", "l.gpkg", "--out", "out/chips", *CHIPS, patch=stop_export)
    shutil.move("out", "half")


def write_arcgis_model(name: str) -> None:
    """What arcgis.learn saves, but for the weights."""
    classes = [{"Value": value, "Name": word, "Color": [value, 9, 200]} for value, word in ((1, "roof"), (2, "street"))]
    definition = {
        "ModelName": "PSPNetClassifier", "ModelType": "ImageClassification", "ModelFile": f"{name}.pth",
        "ModelParameters": {"backbone": "resnet50"}, "ExtractBands": [0, 1, 2], "ImageHeight": 224, "Classes": classes,
    }  # fmt: skip
    Path(f"{name}.emd").write_text(json.dumps(definition), encoding="utf-8")
    with zipfile.ZipFile(f"{name}.dlpk", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(f"{name}.emd")
        archive.writestr(f"{name}.pth", b"no pickle" * 99)


def save_encoder(model: str, path: str) -> None:
    import torch
    from safetensors.torch import load_file

    state = load_file(Path(model, "weights.safetensors"))
    prefix = "encoder."
    torch.save({name.removeprefix(prefix): each for name, each in state.items() if name.startswith(prefix)}, path)


def stac_item() -> dict[str, Any]:
    box = [10.3365, 47.8438, 10.34, 47.8456]
    ring = [[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]], [box[0], box[1]]]
    bands = [{"name": "red", "common_name": "red"}, {"name": "nir", "common_name": "nir"}]
    asset = {"href": "./s.tif", "type": "image/tiff; application=geotiff", "roles": ["data"], "eo:bands": bands,
             "raster:bands": [{"nodata": 0, "scale": 1, "offset": 0}, {"nodata": 0}]}  # fmt: skip
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": "scene", "bbox": box, "links": [],
        "geometry": {"type": "Polygon", "coordinates": [ring]}, "assets": {"data": asset},
        "properties": {"datetime": "2024-05-01T10:00:00Z"},
    }  # fmt: skip
