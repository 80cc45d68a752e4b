"""A network that echoes its input gives the raster back, in place, whatever the tiles and the windows."""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import shapely
import torch
from common import examples
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from inference_common import CLASSES, Echo, torch_ops
from pipeline_common import PLACES, Noisy, holes, joined, pipeline_of, raster
from torch import nn

from geopsp.core.grid import Window
from geopsp.core.legend import IGNORE_INDEX
from geopsp.errors import RasterError
from geopsp.inference.blend import BlendBuffer
from geopsp.inference.class_buffer import ClassBuffer
from geopsp.inference.pipeline import TilePipeline
from geopsp.labels.area import AreaOfInterest

HOLES = ("none", "all", "wedge", "top", "bottom", "left", "scattered", "one")


def codes_of(data, legend):
    """The codes that an echo gives for pixels 1 to CLASSES, nodata for 0."""
    return np.append(IGNORE_INDEX, legend.codes).astype(np.uint8)[data]


@given(
    height=st.one_of(st.integers(1, 4), st.integers(1, 170)),
    width=st.one_of(st.integers(1, 4), st.integers(1, 170)),
    size=st.sampled_from([32, 64]),
    share=st.floats(0, 0.5),
    batch_size=st.integers(1, 7),
    threads=st.integers(1, 3),
    hole=st.sampled_from(HOLES),
    crs=st.sampled_from(sorted(PLACES)),
    seed=st.integers(0, 99),
)
@example(height=1, width=170, size=32, share=0.5, batch_size=1, threads=2, hole="none", crs="EPSG:4326", seed=0)
@example(height=170, width=1, size=32, share=0.25, batch_size=4, threads=1, hole="wedge", crs="EPSG:32632", seed=0)
@example(height=150, width=90, size=32, share=0.5, batch_size=4, threads=3, hole="top", crs="EPSG:32632", seed=0)
@example(height=150, width=90, size=32, share=0.5, batch_size=4, threads=1, hole="bottom", crs="EPSG:32632", seed=0)
@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_echo_gives_the_raster_back(height, width, size, share, batch_size, threads, hole, crs, seed):
    rng = np.random.default_rng(seed)
    data = rng.integers(1, CLASSES + 1, (height, width)).astype(np.uint8)
    data[holes(rng, height, width, hole)] = 0
    wants = ("probabilities", "confidence", "disagreement")
    with raster(data, crs=crs, nodata=0) as scene:
        pipeline = pipeline_of(
            scene, size=size, overlap=int(share * size), batch_size=batch_size, threads=threads, wants=wants
        )
        found = joined(pipeline)
    valid = data != 0
    assert np.array_equal(found["classes"][0], codes_of(data, pipeline.legend))
    assert np.array_equal(found["disagreement"][0], np.where(valid, 0, IGNORE_INDEX))
    assert np.array_equal(found["confidence"][0], np.where(valid, 254, IGNORE_INDEX))
    assert np.array_equal(np.isnan(found["probabilities"]).all(axis=0), ~valid)
    assert np.array_equal(np.nanargmax(np.where(valid, found["probabilities"], 0), axis=0)[valid], data[valid] - 1)


@given(
    cuts=st.tuples(*(st.lists(st.integers(1, 149), max_size=4) for _ in "rc")),
    share=st.sampled_from([0, 0.1, 0.25, 0.5]),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=examples(12), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_map_is_the_same_to_the_bit_in_whatever_windows_it_is_made(cuts, share, threads, seed):
    rng = np.random.default_rng(seed)
    data = rng.integers(1, 200, (150, 150)).astype(np.uint8)
    data[holes(rng, 150, 150, "wedge" if seed % 2 else "none")] = 0
    torch.manual_seed(seed)
    wants = ("probabilities", "confidence", "disagreement")
    with raster(data, nodata=0) as scene:
        conv = Noisy()
        pipeline = pipeline_of(scene, overlap=int(32 * share), network=conv, wants=wants, threads=threads)
        whole = joined(pipeline_of(scene, overlap=int(32 * share), network=conv, wants=wants))
        rows, cols = (sorted({0, 150, *some}) for some in cuts)
        for (top, bottom), (left, right) in ((a, b) for a in pairwise(rows) for b in pairwise(cols)):
            window = Window(left, top, right - left, bottom - top)
            for name, part in joined(pipeline, window).items():
                expected = whole[name][:, top:bottom, left:right]
                assert np.array_equal(part, expected, equal_nan=part.dtype.kind == "f"), name


@pytest.mark.parametrize(("size", "overlap"), [(32, 0), (32, 3), (32, 8), (32, 16), (64, 31)])
@pytest.mark.parametrize("hole", ["none", "wedge"])
def test_the_classes_are_the_same_whatever_else_is_asked_for(size, overlap, hole):
    """Where a tile is alone its class is taken as it is; with other products all goes through the blending."""
    rng = np.random.default_rng(overlap)
    data = rng.integers(1, 200, (141, 173)).astype(np.uint8)
    data[holes(rng, 141, 173, hole)] = 0
    torch.manual_seed(overlap)
    network = Noisy()
    with raster(data, nodata=0) as scene:
        alone = joined(pipeline_of(scene, size=size, overlap=overlap, network=network))
        together = joined(pipeline_of(scene, size=size, overlap=overlap, network=network, wants=("probabilities",)))
    assert np.array_equal(alone["classes"], together["classes"])
    assert len(np.unique(alone["classes"])) > 2


@pytest.mark.parametrize("overlap", [0, 8, 20, 31])
@pytest.mark.parametrize("wants", [(), ("probabilities", "disagreement")])
def test_other_devices_would_make_the_same_map(overlap, wants):
    rng = np.random.default_rng(overlap)
    data = rng.integers(1, 200, (141, 173)).astype(np.uint8)
    data[holes(rng, 141, 173, "wedge")] = 0
    torch.manual_seed(overlap)
    network = Noisy()
    with raster(data, nodata=0) as scene:
        ours = joined(pipeline_of(scene, size=64, overlap=overlap, network=network, wants=wants))
        options = {"size": 64, "overlap": overlap, "network": network, "wants": wants}
        theirs = joined(pipeline_of(scene, **options, ops=torch_ops()))
    assert np.array_equal(ours["classes"], theirs["classes"])
    for name in ours.keys() - {"classes"}:
        np.testing.assert_allclose(
            ours[name].astype(float),
            theirs[name].astype(float),
            atol=1 if name != "probabilities" else 1e-3,
            equal_nan=True,
        )


@pytest.mark.parametrize(("size", "overlap"), [(32, 0), (32, 8), (32, 16), (64, 31)])
@pytest.mark.parametrize("seed", range(4))
def test_constant_in_constant_out_to_the_last_bit(size, overlap, seed):
    """Also if two classes are all but equal, and everywhere the same number in all products."""
    torch.manual_seed(seed)
    logits = torch.randn(CLASSES)
    logits[3] = logits[1] + 3e-7

    class Constant(nn.Module):
        def forward(self, image, valid=None):
            return logits.view(1, -1, 1, 1).expand(len(image), -1, *image.shape[-2:])

    with raster(np.ones((131, 97), np.uint8)) as scene:
        wants = ("probabilities", "confidence", "disagreement")
        found = joined(pipeline_of(scene, size=size, overlap=overlap, network=Constant(), wants=wants))
    for name, pixels in found.items():
        assert (pixels == pixels[:, :1, :1]).all(), name
    assert (found["disagreement"] == 0).all()
    np.testing.assert_allclose(found["probabilities"][:, 0, 0], logits.softmax(0), atol=1e-3)
    assert abs(found["confidence"][0, 0, 0] / 254 - float(logits.softmax(0).max())) <= 0.5 / 254 + 1e-5


class ByBrightness(nn.Module):
    """The logit of class 1 differs from tile to tile."""

    def forward(self, image, valid=None):
        high = image.amax(dim=(1, 2, 3)).view(-1, 1, 1, 1) - 5
        rest = torch.full_like(image[:, :1].expand(-1, CLASSES - 2, -1, -1), -torch.inf)
        zero = torch.zeros_like(image[:, :1])
        return torch.cat([zero, zero + high, rest], dim=1)


def test_seams_are_blended_by_the_weights_and_disagreement_is_said():
    """Two tiles that disagree: in the overlap each counts by its distance from its own edge."""
    data = np.ones((32, 56), np.uint8)
    data[:, 50] = 9
    with raster(data) as scene:
        found = joined(pipeline_of(scene, network=ByBrightness(), wants=("probabilities", "disagreement")))
    left, right = (float(torch.sigmoid(torch.tensor(x))) for x in (-4.0, 4.0))
    share = (np.arange(8) + 0.5) / 8
    expected = np.concatenate([np.full(24, left), left + (right - left) * share, np.full(24, right)])
    np.testing.assert_allclose(found["probabilities"][1], np.broadcast_to(expected, (32, 56)), atol=1e-3)
    apart = np.where((np.arange(56) >= 24) & (np.arange(56) < 32), round(254 * (right - left)), 0)
    assert np.array_equal(found["disagreement"][0], np.broadcast_to(apart, (32, 56)))


@pytest.mark.parametrize("hole", HOLES)
def test_tiles_without_a_valid_pixel_are_not_computed_and_the_others_are_full_batches(hole):
    rng = np.random.default_rng(0)
    data = rng.integers(1, CLASSES + 1, (150, 120)).astype(np.uint8)
    data[holes(rng, 150, 120, hole)] = 0
    batches = []

    class Counting(Echo):
        def forward(self, image, valid=None):
            batches.append(int(valid.amax(dim=(1, 2, 3)).sum()))
            assert image.shape == (4, 1, 32, 32)
            return super().forward(image, valid)

    told = []
    with raster(data, nodata=0) as scene:
        pipeline = pipeline_of(scene, network=Counting(), batch_size=4)
        list(pipeline.rows(scene.grid.window, lambda done, total, note="": told.append((done, total))))
    tiles = [(row, col) for row in pipeline.tiles.rows for col in pipeline.tiles.cols]
    worth = sum(bool(data[row : row + 32, col : col + 32].any()) for row, col in tiles)
    assert sum(batches) == worth
    assert len(batches) == -(-worth // 4)
    assert told == sorted(told)
    assert told[-1] == (len(tiles), len(tiles))


def test_another_batch_size_moves_near_ties_only():
    rng = np.random.default_rng(1)
    data = rng.integers(1, 200, (300, 400)).astype(np.uint8)
    torch.manual_seed(0)
    network = Noisy()
    with raster(data) as scene:
        maps = [joined(pipeline_of(scene, network=network, batch_size=n))["classes"] for n in (1, 4, 9)]
    for found in maps[1:]:
        assert (found != maps[0]).sum() <= maps[0].size / 100_000


def test_outside_of_the_area_there_is_no_map_and_nothing_is_computed():
    data = np.random.default_rng(0).integers(1, CLASSES + 1, (100, 120)).astype(np.uint8)
    seen = []

    class Watching(Echo):
        def forward(self, image, valid=None):
            seen.append(valid.sum(dim=(1, 2, 3)).tolist())
            return super().forward(image, valid)

    import geopandas as gpd

    (left, top), cell = PLACES["EPSG:32632"]
    triangle = shapely.Polygon([(left, top), (left + 50 * cell, top), (left, top - 60 * cell)])
    area = AreaOfInterest.read(gpd.GeoDataFrame(geometry=[triangle], crs="EPSG:32632"))
    with raster(data) as scene:
        pipeline = pipeline_of(scene, network=Watching(), batch_size=1, area=area)
        found = joined(pipeline)["classes"][0]
        inside = area.inside(scene.grid)
    assert 0 < inside.sum() < inside.size / 3
    assert np.array_equal(found, np.where(inside, codes_of(data, pipeline.legend), IGNORE_INDEX))
    assert len(seen) < len(pipeline.tiles) / 2
    assert all(count > 0 for batch in seen for count in batch)


@pytest.mark.parametrize(("buffer_type", "wants"), [(ClassBuffer, ()), (BlendBuffer, ("confidence",))])
def test_what_is_held_does_not_grow_with_the_raster(monkeypatch, buffer_type, wants):
    """The canvas holds a tile's height of rows, what is given out no more, and few tiles wait."""
    made, waiting, most = [], [0], [0]
    init, batches, predict = buffer_type.__init__, TilePipeline._batches, TilePipeline._predict

    def keep(self, *args, **options):
        init(self, *args, **options)
        made.append(self)

    def counted(self, window):
        for batch in batches(self, window):
            waiting[0] += 1
            most[0] = max(most[0], waiting[0])
            yield batch

    def counting(self, batch, ops):
        waiting[0] -= 1
        return predict(self, batch, ops)

    monkeypatch.setattr(buffer_type, "__init__", keep)
    monkeypatch.setattr(TilePipeline, "_batches", counted)
    monkeypatch.setattr(TilePipeline, "_predict", counting)
    for height in (64, 640, 2400):
        with raster(np.ones((height, 40), np.uint8)) as scene:
            pipeline = pipeline_of(scene, batch_size=2, threads=2, wants=wants)
            rows = [piece["classes"].shape[1] for piece in pipeline.rows(scene.grid.window)]
        assert max(rows) <= 32
        assert sum(rows) == height
        assert made[-1].index.shape == (32, 40)
        assert not wants or made[-1].sums.shape == (CLASSES, 32, 40)
    assert most[0] <= 4


def our_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("geopsp")]


def test_a_damaged_raster_is_a_raster_error_and_threads_end(tmp_path):
    data = np.random.default_rng(0).integers(1, 6, (400, 400)).astype(np.uint8)
    with raster(data, tiled=True, blockxsize=64, blockysize=64, compress="deflate") as scene:
        path = Path(scene.sources[0].path)
        content = bytearray(path.read_bytes())
        content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
        path.write_bytes(content)
        with pytest.raises(RasterError, match=r"image\.tif"):
            joined(pipeline_of(scene, size=64))
    assert not our_threads()


def test_threads_end_when_the_network_fails_and_when_nobody_wants_more():
    class Failing(nn.Module):
        def forward(self, image, valid=None):
            raise RuntimeError("no")

    with raster(np.ones((300, 300), np.uint8)) as scene:
        with pytest.raises(RuntimeError, match="no"):
            joined(pipeline_of(scene, network=Failing()))
        rows = pipeline_of(scene, threads=2).rows(scene.grid.window)
        next(rows)
        rows.close()
    assert not our_threads()


def test_the_number_of_threads_and_gradients_are_as_before():
    before = torch.get_num_threads()
    with raster(np.ones((100, 100), np.uint8)) as scene:
        rows = pipeline_of(scene).rows(scene.grid.window)
        next(rows)
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        rows.close()
    assert torch.get_num_threads() == before
