"""Tiny rasters and labels, off-origin and non-square."""

from __future__ import annotations

import faulthandler
import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
from common import once
from hypothesis import HealthCheck, settings
from rasterio.transform import from_origin

MakeRaster = Callable[..., Path]

os.environ["GEOPSP_SYNC"] = "0"  # no test cuts the power; those of sync.py set it themselves


ANY_MACHINE = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    "print_blob": True,
}
"""How fast it is, and what else it does, fails no property."""

settings.register_profile("same", derandomize=True, max_examples=10, **ANY_MACHINE)
settings.register_profile("other", derandomize=False, **ANY_MACHINE)
settings.load_profile("same")  # examples that were tried here are those tried elsewhere; `make test-all` tries others


LONG = (
    "fuzz/test_fuzz", "cli/test_commands", "training/test_distributed", "export/test_onnx_file", "training/test_fit",
    "storage/test_remote_commands", "active_learning/test_suggest_chips", "models/test_network", "test_benchmarks",
    "models/test_timm_encoder", "training/test_networks", "chips/test_export_training_data", "test_notebooks",
    "training/test_training_data", "assessment/test_compare_models", "vector/test_write", "export/test_dlpk",
    "test_golden", "training/test_fit_time", "polygons/test_raster_to_polygons", "labels/test_polygon_labels",
    "inference/test_dask_workers", "storage/test_remote_folders", "test_kills", "test_faults", "inference/test_run_job",
    "models/test_inference_memory", "inference/test_onnx_maps", "test_notebook_kernel", "cluster/test_deaths",
)  # fmt: skip
"""Files that take long, some of them with few tests; they run first, so that no process waits for the last ones."""


@pytest.hookimpl(trylast=True)  # once it is known which tests run
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files for processes that take one after the other: long ones first, then by their number of tests."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    tests = Path(__file__).parent
    assert all((tests / f"{name}.py").is_file() for name in LONG), "LONG names a file that is not there"
    names = {item.path: item.path.relative_to(tests).with_suffix("").as_posix() for item in items}
    counts = Counter(item.path for item in items)
    ranks = {name: rank for rank, name in enumerate(LONG)}
    items.sort(key=lambda item: (ranks.get(names[item.path], len(LONG)), -counts[item.path], names[item.path]))


def pytest_collection_finish() -> None:
    """Take what has been imported out of the garbage collector's sight, which would look through it again and again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let libraries look for what is left at the end."""
    gc.unfreeze()


HANGING = 240
"""Seconds without a new test after which it is shown where each thread stands."""

_watch = {"stderr": 2, "set": 0.0}


def pytest_configure() -> None:
    _watch["stderr"] = os.dup(2)  # before pytest captures it


def pytest_runtest_logstart() -> None:
    """Set the watch again, at most once in ten seconds: it takes longer than most tests."""
    if time.monotonic() - _watch["set"] > 10:
        _watch["set"] = time.monotonic()
        faulthandler.dump_traceback_later(HANGING, file=_watch["stderr"])


@pytest.fixture(scope="session", autouse=True)
def as_a_user_runs_it() -> Iterator[None]:
    """Messages are printed, in spite of pytest's handlers at the root logger; nothing waits for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geopsp.core.log.handler.always", True)
        patch.setattr("os.fsync", lambda _: None)
        yield


found_entry_points = cache(entry_points)
"""Each of Lightning's trainers would else read the entry points of all packages again."""


def remember_memory(memory: Any) -> None:
    """Let networks of one structure be asked once for the memory that they need: it takes half a second."""
    derive: Callable[..., int] = memory._forward_bytes_by_shapes
    if derive.__module__ == __name__:
        return
    known: dict[Any, int] = {}

    def found(network: Any, *shape: Any) -> int:
        key = (type(network), repr(network), *shape)
        if key not in known:
            known[key] = derive(network, *shape)
        return known[key]

    memory._forward_bytes_by_shapes = found


@pytest.fixture(autouse=True)
def independent_of_others() -> Iterator[None]:
    """A test depends neither on those that ran before nor on how fast the processor is at the moment."""
    if torch := sys.modules.get("torch"):
        torch.default_generator.manual_seed(0)  # `torch.manual_seed` takes a thousand times as long
    if options := sys.modules.get("geopsp.training.resolve_options"):
        options.choose_precision = lambda *_, **__: "fp32"  # test_precision.py calls the trial itself
    if memory := sys.modules.get("geopsp.models.memory"):
        remember_memory(memory)
    if registry := sys.modules.get("lightning.fabric.utilities.registry"):
        registry.entry_points = found_entry_points
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")  # it keeps figures, and warns after twenty


@pytest.fixture
def make_raster(tmp_path: Path) -> MakeRaster:
    """A GeoTIFF: `make_raster("a.tif", data, origin=, cell=, crs=, names=, mask=)`; data is (bands, h, w)."""

    def make(
        name: str = "image.tif",
        data: Any = None,
        *,
        size: tuple[int, int] = (61, 83),
        bands: int = 3,
        dtype: str = "uint8",
        origin: tuple[float, float] = (601234.0, 5301717.0),
        cell: float = 2.0,
        crs: str | None = "EPSG:32632",
        transform: Any = None,
        names: tuple[str, ...] | None = None,
        mask: Any = None,
        seed: int = 0,
        **profile: Any,
    ) -> Path:
        if data is None:
            data = np.random.default_rng(seed).integers(1, 200, (bands, *size)).astype(dtype)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        count, height, width = data.shape
        options = {"driver": "GTiff", "dtype": data.dtype, "count": count, "height": height, "width": width, "crs": crs}
        options["transform"] = transform or from_origin(*origin, cell, cell)
        with rasterio.open(path, "w", **options | profile) as dataset:
            dataset.write(data)
            if names:
                dataset.descriptions = names
            if mask is not None:
                dataset.write_mask(mask)
        return path

    return make


@pytest.fixture
def make_labels(tmp_path: Path) -> Callable[..., Path]:
    """A GeoPackage: `make_labels("l.gpkg", [geometry...], {"class": [...]}, crs=, layer=)`."""

    def make(
        name: str,
        shapes: list[Any],
        columns: dict[str, list[Any]] | None = None,
        *,
        crs: str = "EPSG:32632",
        **options: Any,
    ) -> Path:
        path = tmp_path / name
        gpd.GeoDataFrame(columns or {"id": range(len(shapes))}, geometry=shapes, crs=crs).to_file(path, **options)
        return path

    return make


@pytest.fixture(scope="module")
def dask_client() -> Iterator[Any]:
    """A client of a Dask cluster of two workers, which are threads of this process; results travel as between two."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, protocol="tcp://", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of a run have in common: what is dear is made in one of them."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def small_world(shared_folder: Path) -> dict[str, Path]:
    """A scene of two bands with three kinds of ground, a ninth of it, its polygons, and chips of both."""
    folder = shared_folder / "world"
    once(shared_folder, "world", lambda: make_small_world(folder))
    return {
        "folder": folder,
        "scene": folder / "scene.tif",
        "part": folder / "part.tif",
        "labels": folder / "labels.gpkg",
        "chips": folder / "chips",
        "few_chips": folder / "few_chips",
        "cache": folder / "cache",
    }


def make_small_world(folder: Path) -> None:
    """Ground is told apart by level; discs of class `b` are bright in band 2 only."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    height, width, cell, left, top = 352, 416, 2.0, 601234.0, 5301717.0
    centres = rng.uniform((20, 20), (width - 20, height - 20), (26, 2))
    discs = [shapely.Point(left + x * cell, top - y * cell).buffer(9 * cell) for x, y in centres]
    field = shapely.box(left, top - height * cell, left + 0.45 * width * cell, top)
    transform = from_origin(left, top, cell, cell)
    truth = rasterio.features.rasterize([(field, 1), *((d, 2) for d in discs)], (height, width), transform=transform)
    data = rng.normal(1000, 60, (2, height, width))
    data[0] += 400 * (truth == 1)
    data[1] += 500 * (truth == 2)
    data[:, :, -20:] = 0
    with rasterio.open(
        folder / "scene.tif", "w", driver="GTiff", dtype="uint16", count=2, height=height, width=width,
        crs="EPSG:32632", transform=transform, nodata=0,
    ) as dataset:  # fmt: skip
        dataset.write(data.clip(0).astype("uint16"))
        dataset.descriptions = ("red", "nir")
    part = rasterio.windows.Window(150, 100, 128, 128)
    with rasterio.open(folder / "scene.tif") as scene:
        profile = scene.profile | {"width": 128, "height": 128, "transform": scene.window_transform(part)}
        with rasterio.open(folder / "part.tif", "w", **profile) as dataset:
            dataset.write(scene.read(window=part))
            dataset.descriptions = scene.descriptions
    frame = gpd.GeoDataFrame({"kind": ["a"] + ["b"] * len(discs)}, geometry=[field, *discs], crs="EPSG:32632")
    frame.to_crs("EPSG:4326").to_file(folder / "labels.gpkg", layer="kinds")
    from geopsp import export_training_data

    for scene, chips in (("scene.tif", "chips"), ("part.tif", "few_chips")):
        export_training_data(folder / scene, folder / "labels.gpkg", folder / chips, "kind", 32)


@pytest.fixture(scope="session")
def trained(small_world: dict[str, Path]) -> Path:
    """The folder of a model that learned the small world."""
    once(small_world["folder"], "model", lambda: train_small_world(small_world))
    return small_world["folder"] / "model"


def train_small_world(small_world: dict[str, Path]) -> None:
    from geopsp import PSPNetClassifier, prepare_data
    from geopsp.data.cache import open_cache

    data = prepare_data(small_world["chips"], batch_size=8)
    data = replace(data, decoder=open_cache(data.chips, small_world["cache"]))  # the record of the model names no cache
    model = PSPNetClassifier(data, "tu-test_resnet", encoder_weights=None)
    model.fit(5, 3e-3, monitor="valid_miou")
    model.save(small_world["folder"] / "model")


@pytest.fixture(scope="session")
def onnx_file(trained: Path, small_world: dict[str, Path]) -> Path:
    """The model that learned the small world, as an ONNX file."""
    from geopsp.export.export_model import export_model

    path = small_world["folder"] / "model.onnx"
    once(path.parent, "onnx", lambda: export_model(trained, path, chips=small_world["chips"]))
    return path
