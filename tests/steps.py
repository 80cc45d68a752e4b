"""All steps of the work as commands of the shell, in a folder of their own: for tests that break them off."""

from __future__ import annotations

import fnmatch
import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from rasterio.transform import from_origin

LEFT, TOP, CELL, HEIGHT, WIDTH = 601234.0, 5301717.0, 2.0, 160, 192


@dataclass(frozen=True)
class Step:
    """A command, in words that are separated by blanks; it runs in a folder that `prepare` made."""

    name: str
    command: str
    outputs: tuple[str, ...]
    """Patterns of what it writes."""

    again: str = ""
    """What the same command needs more after it was broken off."""

    compared: tuple[str, ...] = ("*",)
    """Patterns of the outputs whose bytes are the same each time."""


TRAIN = "train chips --out new/model --backbone tu-test_resnet --no-unet --weights none --batch-size 4 --lr 0.002"

STEPS = {
    step.name: step
    for step in (
        Step("export", "chips scene.tif --labels labels.gpkg --class-field kind --size 32 --stride 24 --out new/chips",
             ("new/chips/*",)),
        Step("export as JPEG", "chips scene.tif --labels labels.gpkg --class-field kind --size 64 --out new/chips "
             "--format jpg --bands 1 --json new/report.json", ("new/chips/*", "new/report.json")),
        Step("append", "chips scene.tif --labels labels.gpkg --class-field kind --size 32 --stride 24 --out more "
             "--append", ("more/*",)),
        Step("train", f"{TRAIN} --epochs 2", ("new/model/*", "new/model.run/*"), "--resume",
             ("new/model/weights.safetensors",)),
        Step("predict", "predict model scene.tif --out new/map.tif --sieve 9 --confidence new/sure.tif --polygons "
             "new/map.gpkg", ("new/map.*", "new/sure.*")),
        Step("predict each", "predict model scene.tif scene2.tif --per-image --out new/maps", ("new/maps/*",)),
        *(
            Step(f"polygonize {ending}", f"polygonize map.tif --out new/areas.{ending} --min-area 90",
                 ("new/areas.*",))
            for ending in ("gpkg", "shp", "geojson", "parquet", "fgb")
        ),
        Step("picture", "chips scene.tif --labels labels.gpkg --class-field kind --size 64 --out new/chips --picture "
             "new/chips.png", ("new/chips/*", "new/chips.png")),
        Step("evaluate", "evaluate model chips --json new/scores.json", ("new/scores.json",)),
    )
}  # fmt: skip


def prepare(folder: Path, *, with_model: bool = True) -> None:
    """Make the inputs of all steps; to be called in a process of its own if others are forked from this one."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    pixels = rng.integers(1, 200, (2, HEIGHT, WIDTH)).astype("uint8")
    pixels[0, :, 90:] //= 3
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 2, "height": HEIGHT, "width": WIDTH, "crs": "EPSG:32632"}
    for name, more in (("scene.tif", 0), ("scene2.tif", 5000)):
        place = from_origin(LEFT + more, TOP, CELL, CELL)
        with rasterio.open(folder / name, "w", **profile, transform=place) as dataset:
            dataset.write(pixels)
    classes = np.kron(rng.integers(0, 3, (HEIGHT // 8, WIDTH // 8)), np.ones((8, 8))).astype("uint8")
    classes[rng.random(classes.shape) < 0.02] = 1
    with rasterio.open(folder / "map.tif", "w", **profile | {"count": 1}, transform=place) as dataset:
        dataset.write(classes, 1)
    shapes = [shapely.box(LEFT + 2, TOP - 300, LEFT + 180, TOP - 4), shapely.Point(LEFT + 260, TOP - 90).buffer(60)]
    gpd.GeoDataFrame({"kind": ["a", "b"]}, geometry=shapes, crs="EPSG:32632").to_file(folder / "labels.gpkg")

    from geopsp import export_training_data

    export_training_data(folder / "scene.tif", folder / "labels.gpkg", folder / "chips", "kind", 32)
    shutil.copytree(folder / "chips", folder / "more")
    (folder / "thesis.txt").write_text("mine")
    if not with_model:
        return
    from geopsp import PSPNetClassifier, prepare_data

    data = prepare_data(folder / "chips", batch_size=4)
    PSPNetClassifier(data, "tu-test_resnet", use_unet=False, encoder_weights=None).save(folder / "model")


def run(step: Step, more: str = "") -> tuple[int, str]:
    """Run a step in the current folder; return its exit status and what it said."""
    from click.testing import CliRunner

    from geopsp.cli.commands import main

    result = CliRunner().invoke(main, [*step.command.split(), *more.split()])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stderr


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files in a folder, hidden ones too."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def outputs(step: Step, files: dict[str, bytes]) -> dict[str, bytes]:
    """Return those of the files that are the step's outputs and have the same bytes each time."""
    return {
        name: without_times(content) if name.endswith(".gpkg") else content
        for name, content in files.items()
        if _any(name, step.outputs) and _any(name, step.compared)
    }


def without_times(package: bytes) -> bytes:
    """Return what a GeoPackage holds, but the times at which it was written."""
    with closing(sqlite3.connect(":memory:")) as base:
        base.deserialize(package)
        return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "", "\n".join(base.iterdump())).encode()


def others(step: Step, files: dict[str, bytes]) -> dict[str, bytes]:
    """Return those of the files that are not the step's outputs."""
    return {name: content for name, content in files.items() if not _any(name, step.outputs)}


def _any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
