"""Tiles are counted, disk space is checked, time is measured."""

from __future__ import annotations

import dataclasses
import shutil
import time
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import shapely
import torch
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from geopsp.core.bands import BandStats
from geopsp.core.grid import Window
from geopsp.core.legend import Legend
from geopsp.errors import OutputError
from geopsp.inference import disk_space, estimate
from geopsp.inference.classify_pixels import MAX_SIDE
from geopsp.inference.disk_space import check_disk, format_bytes
from geopsp.inference.estimate import count_tiles, estimate_map, estimate_maps, format_duration, striped
from geopsp.inference.options import MapSettings
from geopsp.inference.outputs import class_spec, fraction_spec, probability_spec
from geopsp.inference.plan_job import plan_job
from geopsp.inference.predict_parts import measure_cost, tile_seconds
from geopsp.inference.resources import ComputeCost, Resources
from geopsp.inference.tile_plan import TilePlan
from geopsp.labels.area import AreaOfInterest
from geopsp.models.build import ModelSpec
from geopsp.models.saved_model import TrainedModel
from geopsp.raster.cog.part_grid import PartGrid
from geopsp.raster.scene import Scene

CPU = torch.device("cpu")
LEGEND = Legend.from_names({0: "background", 1: "a", 2: "b"})


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)

    def forward(self, image, valid):
        return self.layer(image)


@pytest.fixture
def model():
    statistics = BandStats(10, *(np.full(3, value, float) for value in (100, 1000, 0, 255)))
    bands = ("red", "green", "blue")
    return TrainedModel(
        ModelSpec("x", 3, 3), LEGEND, bands, statistics, "uint8", 32, (2.0, 2.0), "metre", network=Plain()
    )


class Dark:
    """A scene of which a tile is empty if its first column is at least `limit`."""

    layers = (None,)
    grid = None

    def __init__(self, limit):
        self.limit, self.asked = limit, 0

    def known_empty(self, window):
        self.asked += 1
        return window.col >= self.limit


@given(width=st.integers(1, 700), height=st.integers(1, 700), overlap=st.integers(0, 16), limit=st.integers(0, 700))
@settings(max_examples=examples(50), deadline=None)
def test_tiles_are_those_that_the_columns_of_parts_are_made_of(width, height, overlap, limit):
    plan, parts = TilePlan(width, height, 32, overlap), PartGrid(width, height, 128, 128, 64)
    columns = [parts.part(number * parts.shape[0]).window for number in range(parts.shape[1])]
    windows = [Window(each.col, 0, each.width, height) for each in columns]
    found = count_tiles(Dark(limit), plan, parts)
    assert found.exact
    assert found.total == sum(map(plan.count, windows))
    tiles = [col for window in windows for _, cols in plan.tiles(window) for col in cols]
    assert found.empty == sum(col >= limit for col in tiles)


@pytest.mark.parametrize("side", [100_000, 1_000_000])
def test_large_maps_are_looked_at_here_and_there(side):
    """So many questions and no more; a third of the map is empty, and it finds that."""
    plan, scene = TilePlan(side, side // 2, 512, 128), Dark(side * 2 // 3)
    found = count_tiles(scene, plan, PartGrid(side, side // 2))
    assert not found.exact
    assert scene.asked <= estimate.MAX_CHECKS
    assert found.empty / found.total == pytest.approx(1 / 3, abs=0.02)
    assert f"(about {found.empty:,} empty)" in str(found)


def test_many_images_are_asked_less_often():
    scene = Dark(0)
    scene.layers = (None,) * 1000
    count_tiles(scene, TilePlan(50_000, 50_000, 512, 128), PartGrid(50_000, 50_000))
    assert scene.asked <= estimate.MIN_CHECKS


def test_tiles_outside_of_the_area_are_skipped(make_raster, make_labels):
    scene = Scene.open(make_raster(size=(300, 400)))
    left, bottom, right, top = scene.grid.bounds()
    plan = TilePlan(400, 300, 32, 0)
    area = AreaOfInterest.read(make_labels("aoi.gpkg", [shapely.box(left, bottom, left + (right - left) / 2, top)]))
    found = count_tiles(scene, plan, PartGrid(400, 300), area)
    expected = sum(not area.inside(scene.grid.crop(Window(col, row, 32, 32))).any()
                   for row, cols in plan.tiles(scene.grid.full_window) for col in cols)  # fmt: skip
    assert found.empty == pytest.approx(expected, abs=len(plan.rows))
    assert not found.exact


def test_sparse_files_say_what_is_empty(make_raster):
    data = np.zeros((1, 300, 400), "uint8")
    data[:, :100, :100] = 7
    path = make_raster(
        data=data, nodata=0, tiled=True, blockxsize=32, blockysize=32, sparse_ok=True, compress="deflate"
    )
    found = count_tiles(Scene.open(path), TilePlan(400, 300, 32, 0), PartGrid(400, 300))
    assert found.total == 130
    assert found.computed == 16


@pytest.mark.parametrize(
    ("free", "filled", "says"),
    [
        (10**9, 1, "Output: up to 11 MB in {} (1.0 GB free)."),
        (10**6, 1, "warns"),
        (10**4, 1, "raises"),
        (10**4, 0.0005, "Output: up to 6 kB in {} (10 kB free)."),
    ],
)
def test_disks(free, filled, says, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    parts = PartGrid(1000, 600)
    products = (class_spec(tmp_path / "m.tif", LEGEND), probability_spec(tmp_path / "p.tif", LEGEND, "float16"))
    if says == "raises":
        with pytest.raises(
            OutputError, match=r"has 10 kB free, but the map needs 11 MB uncompressed, and 11 kB even if"
        ) as error:
            list(check_disk([(products, parts)], filled=filled))
        assert str(tmp_path) in str(error.value)
        return
    notes = list(check_disk([(products, parts)], filled=filled))
    assert notes == ([] if says == "warns" else [says.format(tmp_path)])
    assert ("1 MB free, but the map needs 11 MB uncompressed" in caplog.text) == (says == "warns")


def test_what_parts_hold_is_not_needed_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**4))
    parts, products = PartGrid(3000, 5000), (class_spec(tmp_path / "m.tif", LEGEND),)
    held = tmp_path / "job"
    with pytest.raises(OutputError, match="Free some space"):
        list(check_disk([(products, parts)], job_folders=[held]))
    (held / "parts").mkdir(parents=True)
    (held / "parts" / "0").write_bytes(bytes(30_000))
    (held / "job.json").write_bytes(bytes(5000))
    assert disk_space.bytes_in(held) == 35_000
    assert not list(check_disk([(products, parts)], job_folders=[held]))
    assert "may become full" in caplog.text


@given(value=st.integers(0, 255))
@settings(max_examples=5, deadline=None)
def test_one_value_takes_as_little_as_is_said(value):
    assert len(zlib.compress(bytes([value]) * 512 * 512)) <= 512 * 512 * disk_space.BEST_COMPRESSION * 1.1


def test_the_largest_map_is_counted_in_no_time():
    scene, start = Dark(0), time.process_time()
    found = count_tiles(scene, TilePlan(MAX_SIDE, MAX_SIDE, 32, 8), PartGrid(MAX_SIDE, MAX_SIDE, 2048))
    assert found.empty == found.total > (MAX_SIDE // 24) ** 2
    assert time.process_time() - start < 10


def test_tiles_in_words():
    assert str(estimate.TileCount(1, 0, exact=True)) == "1 tile"
    assert str(estimate.TileCount(1, 1, exact=True)) == "1 tile (1 empty)"
    assert str(estimate.TileCount(2000, 10, exact=False)) == "2,000 tiles (about 10 empty)"


def test_bytes_by_hand(tmp_path):
    """The parts of all products lie beside the first; four thirds for overviews."""
    (tmp_path / "a").mkdir()
    found = disk_space.disk_bytes(
        [((class_spec(tmp_path / "m.tif", LEGEND), fraction_spec("confidence", tmp_path / "a" / "c.tif"),
           probability_spec(tmp_path / "p.tif", LEGEND, "float16")), PartGrid(300, 200))],
    )  # fmt: skip
    pixels = 300 * 200 * 4 / 3
    assert found == {tmp_path: pytest.approx(pixels * (2 + 1 + 2 * 6)), tmp_path / "a": pytest.approx(pixels)}


def test_parts_of_many_maps_are_there_for_a_while_only(tmp_path):
    """The products of all stay; of parts there are those of the largest maps, so many as are made at once."""
    maps = [((class_spec(tmp_path / f"{side}.tif", LEGEND),), PartGrid(side, side)) for side in (300, 100, 200)]
    for at_once, parts in ((1, 300**2), (2, 300**2 + 200**2), (9, 300**2 + 200**2 + 100**2)):
        found = disk_space.disk_bytes(maps, at_once=at_once)
        assert found == {tmp_path: pytest.approx((300**2 + 200**2 + 100**2 + parts) * 4 / 3)}


def test_a_link_s_disk_is_the_one_that_is_written(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "m.tif").symlink_to(tmp_path / "far" / "m.tif")
    maps = [((class_spec(tmp_path / "m.tif", LEGEND),), PartGrid(30, 20))]
    assert list(disk_space.disk_bytes(maps)) == [tmp_path / "far"]


def known_cost(*, seconds=3.0, needed=38e6, free=1e9):
    """What a test knows instead of measuring it."""
    return lambda: ComputeCost(seconds, needed, free)


def test_what_many_maps_cost_together(make_raster, model, tmp_path, monkeypatch):
    """Tiles, disk and time of all: the time of one batch times all of their tiles, also if each has few."""
    jobs = [
        plan_job(Scene.open(make_raster(f"{side}.tif", size=(side, side))), model,
                 [class_spec(tmp_path / f"m{side}.tif", LEGEND)], MapSettings(padding=0)) for side in (300, 320)
    ]  # fmt: skip
    tiles, disk, spent = estimate_maps(jobs, measure=known_cost())
    assert tiles == "2 images: 200 tiles in all."
    assert disk.startswith(f"Output: up to {disk_space.format_bytes((300**2 + 2 * 320**2) * 4 / 3)} in")
    assert spent == "Estimated: 10 min, 38 MB of memory (1.0 GB free)."
    assert len(list(estimate_maps(jobs))) == 2
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=300))
    with pytest.raises(OutputError, match="0 kB free, but the maps need"):
        list(estimate_maps(jobs, measure=known_cost()))


def test_a_cluster_is_told_what_seams_cost(make_raster, model, tmp_path):
    scene = Scene.open(make_raster(size=(300, 400)))
    job = plan_job(
        scene, model, [class_spec(tmp_path / "m.tif", LEGEND)], MapSettings(padding=8), part_side=64, block=32
    )
    windows = [job.parts.part(number).window for number in range(len(job.parts))]
    more = sum(map(job.tiles.count, windows)) / len(job.tiles) - 1
    _, seams, *_ = estimate_map(job, on_this_machine=False)
    assert f"once for each part: {more:.0%} more tiles" in seams
    assert "more tiles" not in " ".join(estimate_map(job, on_this_machine=True))


def test_whole_rows_kept_together(make_raster):
    parts = PartGrid(400, 300, 128, 128, 64)
    rows = Scene.open(make_raster("rows.tif", size=(300, 400), blockysize=1))
    tiles = Scene.open(make_raster("tiles.tif", size=(300, 400), tiled=True, blockxsize=64, blockysize=64))
    (note,) = striped(rows, parts)
    assert "rows.tif stores whole rows together, so it is read 4 times" in note
    assert not list(striped(tiles, parts))
    assert not list(striped(rows, PartGrid(400, 300)))


def job_of(make_raster, model, tmp_path, **options):
    scene = Scene.open(make_raster(size=(300, 400)))
    return plan_job(scene, model, [class_spec(tmp_path / "m.tif", LEGEND)], MapSettings(padding=0, **options))


def test_the_time_is_estimated(make_raster, model, tmp_path, monkeypatch, caplog):
    """From 200 tiles on, if it is asked for."""
    job = job_of(make_raster, model, tmp_path)
    tiles, disk = estimate_map(job, on_this_machine=True, measure=known_cost())
    assert disk.startswith("Output: up to ")
    assert tiles == "130 tiles of 32 x 32 pixels."
    monkeypatch.setattr(estimate, "MIN_TIMED_TILES", 100)
    assert len(list(estimate_map(job, on_this_machine=False))) == 2
    *_, spent = estimate_map(job, on_this_machine=True, measure=known_cost())
    assert spent == "Estimated: 6 min, 38 MB of memory (1.0 GB free)."
    assert not caplog.records
    *_, spent = estimate_map(job, on_this_machine=True, measure=known_cost(free=1e6))
    assert spent.startswith("Estimated: 6 min")
    assert "Memory may run out: about 38 MB are needed, but 1 MB are free." in caplog.text


def test_the_cost_that_is_measured(make_raster, model, tmp_path):
    """All threads' batches, the weights and the rows that are held."""
    job = job_of(make_raster, model, tmp_path)
    cost = measure_cost(job, model, Resources(CPU, batch_size=2, threads=3))
    assert cost.tile_seconds > 0
    assert 384e6 < cost.needed_bytes < 390e6
    assert cost.free_bytes > 1e6


def test_the_measurement_computes_two_batches_a_thread(make_raster, model, tmp_path):
    job = job_of(make_raster, model, tmp_path, test_time_augmentation=True)
    shown = []
    model.network.layer.register_forward_hook(
        lambda module, inputs, output: shown.append((tuple(inputs[0].shape), torch.get_num_threads()))
    )
    before, start = torch.get_num_threads(), time.perf_counter()
    assert 0 < tile_seconds(job, model, Resources(CPU, batch_size=2, threads=3)) < time.perf_counter() - start
    assert shown == [((2, 3, 32, 32), 1)] * (8 * 3 * 2)
    assert torch.get_num_threads() == before


def test_a_failed_try_leaves_the_threads(make_raster, model, tmp_path):
    job = job_of(make_raster, model, tmp_path)
    before = torch.get_num_threads()
    bad = dataclasses.replace(job, compiled=True)
    model.network.forward = None
    with pytest.raises(TypeError):
        tile_seconds(bad, model, Resources(CPU, batch_size=1, threads=1))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(0.1, "1 s"), (99.4, "99 s"), (100, "2 min"), (5999, "100 min"), (7200, "2 h 0 min"), (200_000, "2 days 7 h")],
)
def test_time_in_words(seconds, says):
    assert format_duration(seconds) in {says, "1 h 40 min"}


def test_bytes_in_words():
    assert [format_bytes(count) for count in (4e5, 2.5e8, 1.25e9, 4.2e13)] == [
        "400 kB",
        "250 MB",
        "1.2 GB",
        "42,000.0 GB",
    ]
