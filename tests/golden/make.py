"""Made the data beside this file, by the version of commit 246788e. It runs with that version only.

It is kept as documentation of how the data came about. What `test_golden.py` asks is that later versions read what
this one wrote; made anew by a later version, the data would prove nothing.

    git worktree add ../then 246788e && cd ../then && PYTHONPATH=. python PATH/TO/tests/golden/make.py OUT

Images, in EPSG:32632, bands red and nir, 2 m, 0 is nodata:

    scene.tif     640 x 560, what is mapped
    field.tif     256 x 192 of it, what chips are cut from
    shifted.tif   128 x 96, half a pixel off, so that it is warped in a mosaic
    red.tif, nir.tif   field.tif as one file a band
    labels.geojson     polygons of the kinds pond, wood and sand

What was made of them:

    model/        a PSPNet of three stages with a U-Net decoder and an auxiliary loss, trained on the scene
    chips/        field.tif cut into chips of 64 pixels, with a class mapping
    ledger.jsonl  the ledger of that export just before it ended
    half_map/     the folder .partial-map.tif of a map of scene.tif of which parts 0 and 2 of 4 are done
    expected.npz  classes of the whole maps of scene.tif and of field.tif
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import rasterio.features
import torch
from geopsp.maps.job import plan_job
from geopsp.maps.parts import make_here, mapper_for
from geopsp.maps.products import classes
from geopsp.maps.settings import MapSettings
from geopsp.scene import Scene
from rasterio.transform import from_origin

from geopsp import PSPNetClassifier, classify_pixels, export_training_data, prepare_data

MTIME = 1_700_000_000
"""Seconds; when all images were changed, as keys say."""

LEFT, TOP, CELL, WIDTH, HEIGHT = 601234, 5301717, 2, 640, 560
MAPPING = {"pond": {"name": "water", "code": 7, "color": "#2040c0"}, "wood": "forest", "sand": None}
CHIPS = {"class_field": "kind", "tile_size": 64, "class_mapping": MAPPING}
MAP = {"precision": "fp32", "device": "cpu"}


def polygons() -> list[tuple[str, list[tuple[int, int]]]]:
    """Kind and outline, in whole metres, of ponds with cut corners, woods, and some sand."""
    rng = np.random.default_rng(5)
    found = []
    for number in range(40):
        kind = ("pond", "wood", "wood", "pond", "sand")[number % 5]
        x, y = LEFT + int(rng.integers(20, 1140)), TOP - int(rng.integers(20, 980))
        w, h = (int(side) for side in rng.integers(40, 180, 2))
        c = 12 if kind == "pond" else 0
        ring = [(x + c, y), (x + w - c, y), (x + w, y - c), (x + w, y - h + c), (x + w - c, y - h), (x + c, y - h)]
        ring += [(x, y - h + c), (x, y - c)]
        found.append((kind, [*dict.fromkeys(ring), ring[0]]))
    return found


def write_labels() -> gpd.GeoDataFrame:
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
    features = [
        {"type": "Feature", "properties": {"kind": kind, "rank": number % 3},
         "geometry": {"type": "Polygon", "coordinates": [ring]}}
        for number, (kind, ring) in enumerate(polygons())
    ]  # fmt: skip
    lines = ",\n".join(json.dumps(feature) for feature in features)
    text = f'{{"type": "FeatureCollection", "crs": {json.dumps(crs)}, "features": [\n{lines}\n]}}\n'
    Path("labels.geojson").write_text(text, encoding="utf-8")
    return gpd.read_file("labels.geojson")


def pixels(labels: gpd.GeoDataFrame) -> np.ndarray:
    """(2, HEIGHT, WIDTH) uint8, water bright in red and woods in nir, with a texture that deflates well."""
    shapes = labels.assign(size=labels.area).sort_values("size", ascending=False)
    codes = shapes["kind"].map({"pond": 1, "wood": 2, "sand": 3})
    place = from_origin(LEFT, TOP, CELL, CELL)
    truth = rasterio.features.rasterize(zip(shapes.geometry, codes, strict=True), (HEIGHT, WIDTH), transform=place)
    levels = np.array([[70, 150, 60, 110], [60, 50, 160, 120]], np.uint8)
    tile = np.random.default_rng(1).integers(0, 12, (2, 32, 32)).astype(np.uint8)
    texture = np.tile(tile, (1, -(-HEIGHT // 32), -(-WIDTH // 32)))[:, :HEIGHT, :WIDTH]
    data = levels[:, truth] + texture
    data[:, :, -25:] = 0
    return data


def write_image(name: str, data: np.ndarray, names: tuple[str, ...], *, col: float = 0, row: float = 0) -> None:
    profile = {"driver": "GTiff", "dtype": "uint8", "nodata": 0, "crs": "EPSG:32632", "compress": "deflate"}
    place = from_origin(LEFT + CELL * col, TOP - CELL * row, CELL, CELL)
    count, height, width = data.shape
    with rasterio.open(name, "w", count=count, height=height, width=width, transform=place, **profile) as dataset:
        dataset.write(data)
        dataset.descriptions = names
    os.utime(name, (MTIME, MTIME))


def make() -> None:
    labels = write_labels()
    data = pixels(labels)
    names = ("red", "nir")
    part = data[:, 60:252, 90:346]
    write_image("scene.tif", data, names)
    write_image("field.tif", part, names, col=90, row=60)
    write_image("shifted.tif", data[:, 200:296, 300:428], names, col=300.5, row=200.5)
    for i, name in enumerate(names):
        write_image(f"{name}.tif", part[i : i + 1], (name,), col=90, row=60)
    ledger: list[str] = []
    export_training_data(
        "field.tif", labels, "chips",
        progress=lambda *_: ledger.append(Path(".partial-chips/ledger.jsonl").read_text(encoding="utf-8")), **CHIPS,
    )  # fmt: skip
    Path("ledger.jsonl").write_text(ledger[-1], encoding="utf-8")
    train(labels)
    half_a_map()
    maps = {}
    for name in ("scene", "field"):
        classify_pixels(f"{name}.tif", "model", f"{name}_map.tif", **MAP)
        with rasterio.open(f"{name}_map.tif") as dataset:
            maps[name] = dataset.read(1)
    np.savez_compressed("expected.npz", **maps)


def train(labels: gpd.GeoDataFrame) -> None:
    torch.manual_seed(0)
    data = prepare_data(
        images="scene.tif", labels=labels, class_field="kind", class_mapping=MAPPING, chip_size=64, batch_size=8,
        split="random", workers=0,
    )  # fmt: skip
    model = PSPNetClassifier(
        data, "tu-mobilenetv3_small_050", pyramid_sizes=(1, 2), aux_loss=True, aux="presence", encoder_depth=3,
        encoder_weights=None, dice_loss_fraction=0.3, class_balancing=True, device="cpu",
    )  # fmt: skip
    model.fit(12, 3e-3, monitor="valid_miou")
    model.save("model")


def half_a_map() -> None:
    """What lies beside a map that a kill has interrupted."""
    model = PSPNetClassifier.from_model("model").model
    scene, settings = Scene.open("scene.tif", bands=model.bands), MapSettings(precision="fp32")
    job = plan_job(scene, model, [classes(Path("map.tif"), model.legend)], settings, part_side=512)
    assert job.plan.parts == 4
    batch_size = job.begin(1)
    mapper = mapper_for(job, model, torch.device("cpu"), batch_size=batch_size, threads=1)
    make_here(job, [0, 2], mapper, None)
    assert job.missing() == [1, 3]
    for empty in ("done", "sieved"):  # git keeps none
        next(Path(".partial-map.tif").glob(f"*/{empty}")).rmdir()
    Path(".partial-map.tif").rename("half_map")


WANTED = (
    "scene.tif", "field.tif", "shifted.tif", "red.tif", "nir.tif", "labels.geojson", "ledger.jsonl", "expected.npz",
    "model", "chips", "half_map",
)  # fmt: skip

if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        make()
        for wanted in WANTED:
            (shutil.copytree if Path(wanted).is_dir() else shutil.copy)(wanted, target / wanted)
        os.chdir(target)
