"""Chips that workers cut are those that one process cuts, to the byte of every file."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pytest
import shapely
from common import slow, square

from geopsp.chips import dask_cutter, dask_rows
from geopsp.chips.chip_folder import JOURNAL
from geopsp.chips.cutter import plan
from geopsp.chips.dask_cutter import split_rows
from geopsp.chips.export_training_data import export_training_data
from geopsp.chips.labelled_scenes import LabelledScenes
from geopsp.chips.options import ChipSpec
from geopsp.core.owned_files import UNFINISHED
from geopsp.errors import InputNotFoundError, OptionError, OutputError, RasterError
from geopsp.labels import feature_index

LEFT, TOP = 601234.0, 5301717.0
KINDS = ["crop", "water", "crop", "road"]
SHAPES = [
    square(LEFT + 10, TOP - 10, 60),
    square(LEFT + 50, TOP - 30, 30),
    square(LEFT + 110, TOP - 60, 50),
    shapely.Point(LEFT + 90, TOP - 80).buffer(17),
]


@pytest.fixture
def labels():
    return gpd.GeoDataFrame({"kind": KINDS}, geometry=SHAPES, crs="EPSG:32632")


@pytest.fixture
def many_runs(monkeypatch):
    """A task is one row of chips."""
    monkeypatch.setattr(dask_cutter, "MAX_CHIPS", 1)
    monkeypatch.setattr(dask_cutter, "MAX_ROWS_PER_BLOCK", 0)


def files(folder):
    """What a folder holds; the manifest without the times of its inputs."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "options",
    [
        slow({"tile_size": 16, "stride": 11, "rotation_angle": 90}),
        {"tile_size": 16, "skip_empty": True, "min_labelled": 0.5, "chip_format": "png"},
        slow({"tile_size": 24, "random_chips": 40, "seed": 3}),
        {"tile_size": 24, "random_chips": 5, "grid": False, "rotation_angle": 180},
    ],
)
def test_workers_write_the_files_of_one_process(options, make_raster, labels, dask_client, many_runs, tmp_path):
    mask = np.ones((61, 83), bool)
    mask[:20, :30] = False
    images = [make_raster("a.tif", mask=mask), make_raster("b.tif", size=(40, 90), origin=(LEFT + 40, TOP), seed=1)]
    told = {name: [] for name in ("one", "many")}
    for name, client in (("one", None), ("many", dask_client)):
        export_training_data(
            images, labels, tmp_path / name, "kind", client=client, progress=lambda *step, n=name: told[n].append(step),
            **options,
        )  # fmt: skip
    assert files(tmp_path / "one") == files(tmp_path / "many")
    assert told["one"] == told["many"]


def test_an_export_of_workers_resumes_and_appends(make_raster, labels, dask_client, many_runs, tmp_path):
    """Begun by a cluster and stopped, it goes on here, and the other way round; what workers had begun is removed."""
    image, one, many = make_raster(), tmp_path / "one", tmp_path / "many"
    for seed, name in ((7, "x"), (8, "y")):
        export_training_data(image, labels, one, "kind", 16, random_chips=3, seed=seed, append=name == "y")

    def stop(done, total):
        if done > 12:
            raise KeyboardInterrupt

    def export(seed, **options):
        export_training_data(image, labels, many, "kind", 16, random_chips=3, seed=seed, **options)

    partial = tmp_path / ".partial-many"
    with pytest.raises(KeyboardInterrupt):
        export(7, client=dask_client, progress=stop)
    assert not list(partial.glob(".cut*"))
    begun = len((partial / JOURNAL).read_text().splitlines())
    assert begun > 2
    left = partial / f".cut{UNFINISHED}abcd"
    (left / "run").mkdir(parents=True)
    (left / "run" / "000000.tif").touch()
    export(7)
    with pytest.raises(KeyboardInterrupt):
        export(8, append=True, progress=stop)
    export(8, append=True, client=dask_client)
    assert files(one) == files(many)


def test_labels_of_a_large_file_are_read_by_the_workers(
    make_raster, make_labels, dask_client, many_runs, tmp_path, monkeypatch
):
    monkeypatch.setattr("geopsp.vector.layer.READ_WHOLE_BYTES", 0)
    path = make_labels("labels.gpkg", SHAPES, {"kind": KINDS})
    area = make_labels("area.gpkg", [square(LEFT + 20, TOP - 20, 90)])
    image = make_raster()
    for name, client in (("one", None), ("many", dask_client)):
        export_training_data(image, path, tmp_path / name, "kind", 16, aoi=area, client=client)
    assert files(tmp_path / "one") == files(tmp_path / "many")
    inputs = LabelledScenes.open(image, path, class_field="kind", aoi=area)
    assert isinstance(inputs.labels.features, feature_index.FeaturesOnDisk)
    assert inputs.files_read() == ([str(image)], [str(path), str(area)])


def test_a_task_that_is_made_twice_leaves_no_files(make_raster, labels, dask_client, many_runs, tmp_path, monkeypatch):
    """As after the death of a worker: of two attempts at a row, the files of the one that is taken are kept."""
    plain = dask_rows._list_files
    failed = []

    def lose(folder):
        if len(failed) < 2:
            failed.append(folder)
            raise RasterError("the worker is lost")
        return plain(folder)

    image = make_raster()
    export_training_data(image, labels, tmp_path / "one", "kind", 16)
    monkeypatch.setattr(dask_rows, "_list_files", lose)
    export_training_data(image, labels, tmp_path / "many", "kind", 16, client=dask_client)
    assert len(failed) == 2
    assert files(tmp_path / "one") == files(tmp_path / "many")


def test_the_error_of_a_row_ends_the_export_which_resumes(make_raster, labels, dask_client, tmp_path, monkeypatch):
    monkeypatch.setattr("geopsp.cluster.tasks.RETRIES", 0)
    monkeypatch.setattr(dask_rows, "write_chip", lambda *_: (_ for _ in ()).throw(OutputError("Cannot write the chip")))
    with pytest.raises(OutputError, match="Cannot write the chip"):
        export_training_data(make_raster(), labels, tmp_path / "chips", "kind", 16, client=dask_client)
    assert not [path for path in tmp_path.iterdir() if "chips" in path.name and path.is_dir()]


def job_of(image, labels, staging, **changes):
    inputs = LabelledScenes.open(image, labels, class_field="kind")
    given = {"fingerprint": tuple(inputs.fingerprint_of_files())} | changes
    return dask_rows.CuttingJob(inputs, ChipSpec(16), "tif", staging, **given)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda order, image: order.path.unlink(), OutputError, "does not see .*, where the chip folder is made"),
        (lambda order, image: image.unlink(), InputNotFoundError, "does not see the image .*all machines share"),
        (lambda order, image: shutil.copy(image, image.with_name("new")).replace(image), RasterError, "differ"),
    ],
)
def test_a_worker_that_does_not_see_files_is_named(change, error, message, make_raster, labels, tmp_path, monkeypatch):
    monkeypatch.setattr("distributed.get_worker", lambda: SimpleNamespace(address="tcp://far:1"))
    image = make_raster()
    with dask_cutter.order_file(job_of(image, labels, tmp_path), tmp_path / "order") as order:
        change(order, image)
        with pytest.raises(error, match=f"The worker tcp://far:1.*{message}"):
            dask_rows.open_job.__wrapped__(order)


def test_an_export_that_was_cancelled_is_not_gone_on_with(make_raster, labels, tmp_path):
    with dask_cutter.order_file(job_of(make_raster(), labels, tmp_path), tmp_path / "order") as order:
        dask_rows.open_job(order)
    with pytest.raises(OutputError, match="was cancelled"):
        dask_rows.cut_batch(0, order)


def test_runs_of_rows_hold_all_rows_in_order_and_whole_blocks(make_raster, labels):
    image = make_raster("tiled.tif", size=(400, 70), tiled=True, blockxsize=32, blockysize=32)
    inputs = LabelledScenes.open(image, labels, class_field="kind")
    for threads in (1, 3, 100):
        rows = plan(inputs, ChipSpec(16))
        runs = split_rows(rows, inputs, ChipSpec(16), threads)
        assert [row for run in runs for row in run] == rows
        assert all(run[0].row % 32 == 0 for run in runs)
        assert len(runs) == {1: 7, 3: 13, 100: 13}[threads]


def test_threads_and_a_cluster_exclude_each_other(make_raster, labels, tmp_path):
    with pytest.raises(OptionError, match="`workers` are threads of this process"):
        export_training_data(make_raster(), labels, tmp_path / "chips", "kind", 16, workers=2, scheduler="local")
    with pytest.raises(OptionError, match="must be a Dask client"):
        export_training_data(make_raster(), labels, tmp_path / "chips", "kind", 16, client="tcp://here:1")


def test_the_options_of_the_cluster_are_no_part_of_the_key(make_raster, labels, dask_client, tmp_path, capsys):
    image, out = make_raster(), tmp_path / "chips"
    export_training_data(image, labels, out, "kind", 16, client=dask_client)
    assert "client" not in json.loads((out / "chips.json").read_text())["exports"][0]["options"]
    export_training_data(image, labels, out, "kind", 16)
    assert "nothing to do" in capsys.readouterr().err


def test_a_cluster_cannot_cut_chips_into_an_object_store(make_raster, labels):
    with pytest.raises(OptionError, match="cannot write chips to s3://bucket/chips"):
        export_training_data(make_raster(), labels, "s3://bucket/chips", "kind", 16, scheduler="tcp://127.0.0.1:1")
