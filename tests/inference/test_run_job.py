"""Maps as files: whole or not at all, the same bytes however they came about."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Lock

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from common import REPOSITORY, slow
from inference_common import CLASSES, Echo, trained_model
from rasterio.enums import ColorInterp
from rasterio.features import sieve as gdal_sieve
from rio_cogeo import cog_validate
from torch import nn

from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.core.lock import output_lock
from geopsp.errors import OptionError, OutputError, RasterError
from geopsp.inference import outputs
from geopsp.inference import run_job as run_job_module
from geopsp.inference.job import KEY_TAG, MODEL_TAG
from geopsp.inference.options import MapSettings
from geopsp.inference.part_size import part_width
from geopsp.inference.plan_job import plan_job
from geopsp.inference.resources import Resources
from geopsp.inference.run_job import run_job
from geopsp.labels.lazy_area import LazyAreaOfInterest
from geopsp.raster import legend_io as sidecars
from geopsp.raster.scene import Scene


@pytest.fixture
def scene(make_raster):
    rng = np.random.default_rng(0)
    data = rng.integers(1, CLASSES + 1, (1, 150, 230)).astype(np.uint8)
    data[:, :40, 100:] = 0
    return Scene.open(make_raster("image.tif", data, nodata=0))


class Mixed(nn.Module):
    """Blobs of classes that differ from tile to tile, so that seams have to be blended."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(1, CLASSES, 7, padding=3).requires_grad_(False)
        self.mix = nn.Conv2d(1, CLASSES, 1).requires_grad_(False)

    def forward(self, image, valid=None):
        return self.conv(image) + self.mix(image.mean(dim=(2, 3), keepdim=True))


def all_products(folder, legend, kind="uint8"):
    return [
        outputs.class_spec(folder / "map.tif", legend),
        outputs.fraction_spec("confidence", folder / "confidence.tif"),
        outputs.probability_spec(folder / "probabilities.tif", legend, kind),
        outputs.fraction_spec("disagreement", folder / "disagreement.tif"),
    ]


def make(scene, folder, network=None, *, kind="uint8", only=False, part_side=64, overwrite=False, **options):
    """A map and all that goes with it, and its job."""
    folder.mkdir(exist_ok=True)
    model = trained_model(network=network or Mixed())
    wanted = all_products(folder, model.legend, kind)[: 1 if only else None]
    call = {name: options.pop(name) for name in ("client", "device", "progress", "resources") if name in options}
    aoi = LazyAreaOfInterest(options.pop("aoi")) if "aoi" in options else None
    job = plan_job(scene, model, wanted, MapSettings(**options), part_side=part_side, block=32, aoi=aoi)
    run_job(job, model, overwrite=overwrite, **call)
    return job


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def require_same(ours, theirs):
    """The same files with the same bytes; what differs, and by how many pixels, is said."""
    found, wanted = contents(ours), contents(theirs)
    assert found.keys() == wanted.keys()
    for name in found:
        if found[name] != wanted[name]:
            apart = (pixels(ours / name) != pixels(theirs / name)) if name.endswith(".tif") else None
            lengths = len(found[name]), len(wanted[name])
            raise AssertionError(f"{name}: {lengths} bytes, pixels apart: {None if apart is None else apart.nonzero()}")


def pixels(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


def test_what_a_map_and_its_companions_are(scene, tmp_path):
    job = make(scene, tmp_path / "out", Echo())
    out = tmp_path / "out"
    assert sorted(contents(out)) == [
        "confidence.qml", "confidence.tif", "disagreement.qml", "disagreement.tif", "map.qml", "map.tif",
        "map.tif.aux.xml", "probabilities.qml", "probabilities.tif",
    ]  # fmt: skip
    data = scene.read().data[0]
    assert np.array_equal(pixels(out / "map.tif")[0], np.append(IGNORE_INDEX, job.legend.codes)[data])
    for product in job.rasters:
        valid, errors, warnings = cog_validate(product.path, strict=True)
        assert (valid, errors, warnings) == (True, [], [])
        with rasterio.open(product.path) as dataset:
            assert (dataset.crs, dataset.transform) == (scene.grid.crs, scene.grid.transform)
            assert dataset.descriptions == product.bands
            if product.legend is None:
                assert dataset.colorinterp == (ColorInterp.gray, *[ColorInterp.undefined] * (dataset.count - 1))
            assert dataset.tags()[KEY_TAG] == job.key
            assert "sha256" in dataset.tags()[MODEL_TAG]
            assert np.array_equal(dataset.read(1) == IGNORE_INDEX, data == 0)
    with rasterio.open(out / "map.tif") as dataset:
        assert dataset.colormap(1)[90][:3] == next(info.rgb for info in job.legend if info.code == 90)
    assert job.done


@pytest.mark.parametrize(
    "options", [*map(slow, ({}, {"padding": 0})), {"kind": "float16"}, {"padding": 16, "sieve": 9}]
)
def test_the_bytes_depend_neither_on_parts_nor_on_threads(options, scene, tmp_path):
    make(scene, tmp_path / "one", part_side=256, **options)
    for number, (side, threads) in enumerate([(64, 1), (32, 3), (128, 2)]):
        folder, resources = tmp_path / f"other{number}", Resources(torch.device("cpu"), batch_size=1, threads=threads)
        job = make(scene, folder, part_side=side, resources=resources, **options)
        assert len(job.parts) > 1
        require_same(folder, tmp_path / "one")


def test_a_sieve_is_gdal_s_on_the_whole_map(scene, tmp_path):
    make(scene, tmp_path / "raw", only=True)
    make(scene, tmp_path / "sieved", only=True, sieve=20)
    raw = pixels(tmp_path / "raw" / "map.tif")[0]
    expected = gdal_sieve(raw, 20, mask=raw != IGNORE_INDEX, connectivity=4)
    expected[raw == IGNORE_INDEX] = IGNORE_INDEX
    assert np.array_equal(pixels(tmp_path / "sieved" / "map.tif")[0], expected)
    assert (expected != raw).any()


class Watched(Mixed):
    """Counts the tiles that it is shown, and fails after some."""

    def __init__(self, after=None, error=None):
        super().__init__()
        self.shown, self.after, self.error = 0, after, error
        self.lock = Lock()

    def forward(self, image, valid=None):
        with self.lock:
            if self.shown == self.after:
                raise self.error or RuntimeError("in the middle")
            self.shown += len(image)
        return super().forward(image, valid)


def test_what_failed_goes_on_where_it_was_and_ends_in_the_same_bytes(scene, tmp_path, capsys):
    make(scene, tmp_path / "whole", Watched())
    full = Watched()
    make(scene, tmp_path / "again", full)
    out, network = tmp_path / "out", Watched(after=full.shown * 2 // 3, error=RasterError("the disk was pulled"))
    with pytest.raises(RasterError, match="pulled"):
        make(scene, out, network)
    assert [path.name for path in out.iterdir()] == [".partial-map.tif"]
    rest = Watched()
    make(scene, out, rest)
    assert rest.shown < full.shown * 0.75
    assert "parts are done" in capsys.readouterr().err
    require_same(out, tmp_path / "whole")


def test_a_failure_before_the_first_part_leaves_nothing(scene, tmp_path):
    with pytest.raises(RuntimeError, match="in the middle"):
        make(scene, tmp_path / "out", Watched(after=1))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("change", ["model", "area", *map(slow, ("option", "image"))])
def test_another_model_option_or_image_begins_anew_and_says_so(change, scene, make_raster, tmp_path, capsys):
    out, other = tmp_path / "out", Watched()
    area = gpd.GeoDataFrame(geometry=[shapely.box(*scene.grid.bounds()).buffer(-40)], crs=scene.grid.crs)
    with pytest.raises(RuntimeError, match="in the middle"):
        make(scene, out, Watched(after=16))
    if change == "model":
        other.mix.weight.add_(1e-3)
    if change == "image":
        path = Path(scene.sources[0].path)
        stat = path.stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    changed = {"padding": 9} if change == "option" else {"aoi": area} if change == "area" else {}
    make(scene, out, other, **changed)
    assert "used a different model, input or options; starting over" in capsys.readouterr().err
    full = Watched()
    full.load_state_dict(other.state_dict())
    make(scene, tmp_path / "whole", full, **changed)
    assert other.shown == full.shown
    require_same(out, tmp_path / "whole")


def test_a_run_that_ends_while_files_take_their_places_is_ended_by_the_next(scene, tmp_path, monkeypatch):
    make(scene, tmp_path / "whole")
    out, moved, replace = tmp_path / "out", [], Path.replace

    def pulled(self, target):
        if Path(target).parent == out and Path(target).suffix == ".tif" and not str(self).endswith(".new"):
            moved.append(target)
            if len(moved) == 3:
                raise OSError("pulled the plug")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", pulled)
    with pytest.raises(OutputError, match="plug"):
        make(scene, out)
    assert not (out / "map.tif").exists()
    monkeypatch.undo()
    never = Watched(after=0)
    never.load_state_dict(Mixed().state_dict())
    make(scene, out, Mixed())
    require_same(out, tmp_path / "whole")


@pytest.mark.parametrize("taken", ["map.tif", "confidence.tif"])
def test_an_output_that_exists_stays_and_nothing_is_computed(taken, scene, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / taken).write_text("mine")
    with pytest.raises(OutputError, match="already exists"):
        make(scene, out, Watched(after=0))
    assert contents(out) == {taken: b"mine"}
    make(scene, out, overwrite=True)
    assert len(contents(out)) == 9


def test_another_place_is_not_taken_for_ours(scene, tmp_path):
    """A file of somebody else's with the right name does not pass for a product that is done."""
    out = tmp_path / "out"
    job = make(scene, out)
    assert job.done
    (tmp_path / "mine.tif").write_text("mine")
    model = trained_model(network=Mixed())
    wanted = all_products(out, model.legend)
    wanted[1] = outputs.fraction_spec("confidence", tmp_path / "mine.tif")
    other = plan_job(scene, model, wanted, MapSettings(), part_side=64, block=32)
    assert other.key == job.key
    assert not other.done
    other.folder.mkdir()
    assert not other.only_folder_left
    with pytest.raises(OutputError, match="already exists"):
        run_job(other, model)
    run_job(other, model, overwrite=True)
    assert (tmp_path / "mine.tif").read_bytes() == (out / "confidence.tif").read_bytes()


def test_what_is_left_of_another_job_is_never_published(scene, tmp_path):
    """Where the folder is another job's, a map that is done stays as it is."""
    job = make(scene, tmp_path / "out", only=True)
    before = contents(tmp_path / "out")
    staged = job.staged_path(job.rasters[0])
    staged.parent.mkdir(parents=True)
    staged.write_bytes(b"half of a map")
    (job.folder / "job.json").write_text(json.dumps({"key": "another"}))
    assert not job.only_folder_left
    with pytest.raises(OutputError, match="already exists"):
        make(scene, tmp_path / "out", only=True)
    (job.folder / "job.json").unlink()
    make(scene, tmp_path / "out", only=True)
    assert contents(tmp_path / "out") == before


def test_an_image_that_changes_meanwhile_is_told(scene, tmp_path):
    path = Path(scene.sources[0].path)

    class Changing(Mixed):
        def forward(self, image, valid=None):
            os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))
            return super().forward(image, valid)

    with pytest.raises(RasterError, match="has changed since the map was begun"):
        make(scene, tmp_path / "out", Changing())
    assert not (tmp_path / "out" / "map.tif").exists()


def test_a_style_that_somebody_made_stays(scene, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "map.qml").write_text("mine")
    make(scene, tmp_path / "out", only=True)
    assert (tmp_path / "out" / "map.qml").read_text() == "mine"
    make(scene, tmp_path / "out", only=True, overwrite=True)
    assert (tmp_path / "out" / "map.qml").read_text() == "mine"


def test_products_of_another_disk_are_copied(scene, tmp_path, monkeypatch):
    make(scene, tmp_path / "whole")
    replace = Path.replace

    def far(self, target):
        if self.name == "confidence.tif" and self.parent.name == "done":
            raise OSError(errno.EXDEV, "another disk")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", far)
    make(scene, tmp_path / "out")
    monkeypatch.undo()
    require_same(tmp_path / "out", tmp_path / "whole")


def test_a_map_in_a_link_s_place_lies_where_that_points_to(scene, tmp_path):
    """The link stays; names and colours are found by either name, and none of an older map's is left."""
    out, far = tmp_path / "out", tmp_path / "far"
    for folder in (out, far):
        folder.mkdir()
    (far / "real.tif").write_text("old")
    (far / "real.tif.aux.xml").write_text("old")
    (out / "map.tif").symlink_to(far / "real.tif")
    make(scene, tmp_path / "plain", only=True)
    with pytest.raises(OutputError, match=r"out/map\.tif already exists"):
        make(scene, out, only=True)
    make(scene, out, only=True, overwrite=True)
    assert (out / "map.tif").is_symlink()
    assert sorted(contents(out)) == ["map.qml", "map.tif", "map.tif.aux.xml"]
    assert sorted(contents(far)) == ["real.qml", "real.tif", "real.tif.aux.xml"]
    for name, content in contents(tmp_path / "plain").items():
        assert (out / name).read_bytes() == (far / name.replace("map", "real")).read_bytes() == content


def test_a_link_in_a_folder_that_cannot_be_written_costs_nothing_but_its_colours(scene, tmp_path, monkeypatch, capsys):
    """The map is made where the link points, with all that belongs to it, and what the link lacks is said."""
    out, far, dressed = tmp_path / "out", tmp_path / "far", []
    for folder in (out, far):
        folder.mkdir()
    (out / "map.tif").symlink_to(far / "real.tif")

    def class_files(path, legend):
        dressed.append(path)
        if path.parent == out:
            raise OutputError("The folder cannot be written.")
        sidecars.write_class_files(path, legend)

    monkeypatch.setattr(run_job_module, "write_class_files", class_files)
    job = make(scene, out, only=True)
    assert job.done
    assert dressed == [far / "real.tif", out / "map.tif"]
    assert sorted(contents(far)) == ["real.qml", "real.tif", "real.tif.aux.xml"]
    words = f"The colours of {out / 'map.tif'}, a link to {far / 'real.tif'}, may be missing or out of date: The folder"
    assert words in capsys.readouterr().err
    far.joinpath("real.tif").unlink()
    monkeypatch.setattr(run_job_module, "write_class_files", fail)
    with pytest.raises(OutputError, match="nowhere"):
        make(scene, out, only=True)
    assert job.publishing, "nothing is computed again"


def fail(*_, **__):
    raise OutputError("It can be written nowhere.")


def test_two_runs_of_one_map_do_not_meet(scene, tmp_path):
    (tmp_path / "out").mkdir()
    with output_lock(tmp_path / "out" / "map.tif"), pytest.raises(OutputError, match="Another run"):
        make(scene, tmp_path / "out")


def test_settings_out_of_range(scene, tmp_path):
    for options in ({"padding": 17}, {"padding": -1}, {"batch_size": 0}, {"sieve": -1}, {"precision": "int8"}):
        with pytest.raises(OptionError, match="but must be"):
            make(scene, tmp_path / "out", **options)
    model = trained_model()
    model.legend = Legend.from_names({i: f"class {i}" for i in range(CLASSES)})
    with pytest.raises(OptionError, match="no class 'background'"):
        plan_job(
            scene, model, [outputs.class_spec(tmp_path / "m.tif", model.legend)], MapSettings(predict_background=False)
        )


def test_a_part_is_as_wide_as_memory_allows(scene):
    legend = Legend.from_names({i: f"class {i}" for i in range(200)})
    few = [outputs.class_spec(Path("m"), Legend.from_names({0: "a", 1: "b"}))]
    many = [outputs.class_spec(Path("m"), legend), outputs.probability_spec(Path("p"), legend)]
    assert part_width(scene, 512, few, 2, 512) == 8192
    assert part_width(scene, 512, many, 200, 512) == 2048


SCRIPT = REPOSITORY / "tests" / "kill_maps.py"


def run(script_mode, folder, *more):
    """The script in a process of its own, in which nothing of torch has run yet, so that it may fork."""
    command = [sys.executable, str(SCRIPT), script_mode, str(folder), *map(str, more)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
@pytest.mark.slow
@pytest.mark.parametrize("kills", [12, 100])
def test_many_kills_end_in_the_same_bytes(kills, tmp_path):
    found = run("kill", tmp_path, kills)
    assert found["kills"] >= kills
    assert found["half"] == 0, "a map was seen before its job had ended"
    assert found["same"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
def test_a_full_disk_is_told_and_the_same_call_ends_in_the_same_bytes(tmp_path):
    found = run("full", tmp_path)
    assert all("Is the disk full" in error for error in found["errors"])
    assert len(found["errors"]) >= 2
    assert found["half"] == 0
    assert found["same"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted as Linux does")
def test_memory_grows_neither_with_height_nor_with_width(tmp_path):
    found = run("memory", tmp_path)
    assert found["tall"] - found["small"] < 90, found  # 10 to 45 as it is; 260 where all columns are one part
    assert found["wide"] - found["small"] < 90, found


def test_a_warped_mosaic_is_the_same_in_whatever_parts_and_after_a_failure(make_raster, tmp_path):
    """Images in two CRSs: what is read does not depend on where a run begins."""
    data = [np.random.default_rng(seed).integers(1, 200, (1, 260, 300)).astype(np.uint8) for seed in (1, 2)]
    west = make_raster("west.tif", data[0][:, :90, :90], nodata=0)
    east = make_raster("east.tif", data[1], crs="EPSG:32633", origin=(161234.0, 5311717.0), cell=2.3, nodata=0)
    left, _, _, top = Scene.open([west, east]).sources[1].grid.bounds()
    scene = Scene.open([west, east], extent=(left + 60, top - 500, left + 560, top - 100))
    assert any(source.warped for source in scene.sources)
    make(scene, tmp_path / "whole", Watched(), part_side=1024)
    make(scene, tmp_path / "parts", Watched(), part_side=64)
    assert (pixels(tmp_path / "parts" / "map.tif") != IGNORE_INDEX).mean() > 0.5
    for name in ("map.tif", "probabilities.tif"):
        assert np.array_equal(pixels(tmp_path / "whole" / name), pixels(tmp_path / "parts" / name))
    with pytest.raises(RuntimeError, match="in the middle"):
        make(scene, tmp_path / "out", Watched(after=30))
    make(scene, tmp_path / "out", Watched())
    require_same(tmp_path / "out", tmp_path / "parts")
