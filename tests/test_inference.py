"""A model that echoes its input gives the raster back, in place, whatever the tiles."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from torch import nn

from geopsp.dataset import Normalization
from geopsp.errors import OptionError, OutputError, RasterError
from geopsp.grid import Window
from geopsp.inference import Canvas, classify, network_predict, predict_slabs, preflight, read_ahead
from geopsp.legend import IGNORE, Legend
from geopsp.models.build import ModelSpec
from geopsp.package import TrainedModel
from geopsp.scene import Scene
from geopsp.stats import BandStats
from geopsp.tiling import TilePlan

CLASSES = 5
CPU = torch.device("cpu")
RAW = Normalization(np.zeros(1, np.float32), np.ones(1, np.float32))
"""Leaves pixels as they are."""

PLACES = {
    "EPSG:32632": ((601234.0, 5301717.0), 2.0),
    "EPSG:4326": ((11.5, 48.25), 1e-5),
    "EPSG:3857": ((-1e6, -2e6), 0.3),
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def echo(image, valid):
    """Logits that are high for the class that the pixel's value names: pixel k + 1 is class k."""
    logits = torch.zeros(len(image), CLASSES, *image.shape[-2:])
    index = (image[:, :1].round().long() - 1).clamp(0, CLASSES - 1)
    return logits.scatter(1, index, 12.0)


class Echo(nn.Module):
    def forward(self, image, valid=None):
        return echo(image, valid)


def write(path, data, *, crs="EPSG:32632", **profile):
    origin, cell = PLACES[crs]
    data = data[None] if data.ndim == 2 else data
    with rasterio.open(
        path, "w", driver="GTiff", dtype=data.dtype, count=len(data), height=data.shape[1], width=data.shape[2],
        crs=crs, transform=from_origin(*origin, cell, cell), **profile,
    ) as dataset:  # fmt: skip
        dataset.write(data)
    return path


@contextmanager
def raster(data, **profile):
    """The scene of a raster that is gone afterwards."""
    with TemporaryDirectory() as folder:
        scene = Scene.open(write(Path(folder) / "image.tif", data, **profile))
        yield scene
        del scene


def slabs_of(scene, plan, predict=echo, *, classes=CLASSES, batch_size=3, **options):
    return list(
        predict_slabs(
            scene, predict, plan, classes=classes, normalization=RAW, batch_size=batch_size, device=CPU, **options
        )
    )


def whole(slabs):
    """(index, probability, valid) of all slabs together."""
    index = np.concatenate([slab.index for slab in slabs])
    valid = np.concatenate([slab.valid for slab in slabs])
    if slabs[0].probability is None:
        return index, None, valid
    return index, np.concatenate([slab.probability for slab in slabs], axis=1), valid


def holes(rng, height, width, kind):
    """True where there is no ground: none, all of it, a wedge, a half, scattered pixels, all but one pixel."""
    rows, cols = np.indices((height, width))
    return {
        "none": np.zeros((height, width), bool),
        "all": np.ones((height, width), bool),
        "wedge": cols * height > rows * width,
        "top": rows < height - height // 3,
        "bottom": rows >= height // 3,
        "left": cols < width - width // 3,
        "scattered": rng.random((height, width)) < 0.3,
        "one": (rows != height // 2) | (cols != width - 1),
    }[kind]


HOLES = ("none", "all", "wedge", "top", "bottom", "left", "scattered", "one")


@given(
    height=st.one_of(st.integers(1, 4), st.integers(1, 170)),
    width=st.one_of(st.integers(1, 4), st.integers(1, 170)),
    size=st.sampled_from([32, 64]),
    share=st.floats(0, 0.5),
    batch_size=st.integers(1, 7),
    hole=st.sampled_from(HOLES),
    crs=st.sampled_from(sorted(PLACES)),
    seed=st.integers(0, 99),
)
@example(height=1, width=170, size=32, share=0.5, batch_size=1, hole="none", crs="EPSG:4326", seed=0)
@example(height=170, width=1, size=32, share=0.25, batch_size=4, hole="wedge", crs="EPSG:32632", seed=0)
@example(height=150, width=90, size=32, share=0.5, batch_size=4, hole="top", crs="EPSG:32632", seed=0)
@example(height=150, width=90, size=32, share=0.5, batch_size=4, hole="bottom", crs="EPSG:32632", seed=0)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_echo_gives_the_raster_back(height, width, size, share, batch_size, hole, crs, seed):
    rng = np.random.default_rng(seed)
    data = rng.integers(1, CLASSES + 1, (height, width)).astype(np.uint8)
    data[holes(rng, height, width, hole)] = 0
    plan = TilePlan(width, height, size, int(share * size))
    with raster(data, crs=crs, nodata=0) as scene:
        index, probability, valid = whole(slabs_of(scene, plan, batch_size=batch_size, probabilities=True))
    assert np.array_equal(index, np.where(data == 0, IGNORE, data - 1))
    assert np.array_equal(valid, data != 0)
    right = np.take_along_axis(probability, np.clip(data[None].astype(int) - 1, 0, None), axis=0)[0]
    expected = float(torch.softmax(torch.tensor([12.0] + [0.0] * (CLASSES - 1)), 0)[0])
    np.testing.assert_allclose(right[valid], expected, atol=1e-6)


@pytest.mark.parametrize(("size", "overlap"), [(32, 0), (32, 8), (32, 16), (64, 31)])
def test_constant_logits_stay_constant_across_seams(size, overlap):
    logits = torch.tensor([0.3, 0.1, 0.29, -2.0, 0.0])

    def constant(image, valid):
        return logits.view(1, -1, 1, 1).expand(len(image), -1, *image.shape[-2:])

    with raster(np.ones((131, 97), np.uint8)) as scene:
        index, probability, _ = whole(slabs_of(scene, TilePlan(97, 131, size, overlap), constant, probabilities=True))
    assert (index == 0).all()
    np.testing.assert_allclose(
        probability, np.broadcast_to(logits.softmax(0).view(-1, 1, 1), probability.shape), atol=1e-6
    )


def test_seams_are_blended_by_the_weights():
    """Two tiles that disagree: in the overlap each counts by its distance from its own edge."""

    def by_brightness(image, valid):
        """Logit of class 1 that differs from tile to tile."""
        high = image.amax(dim=(1, 2, 3)).view(-1, 1, 1, 1)
        return torch.cat([torch.zeros_like(image[:, :1]), torch.zeros_like(image[:, :1]) + high - 5], dim=1)

    data = np.ones((32, 56), np.uint8)
    data[:, 50] = 9
    with raster(data) as scene:
        _, probability, _ = whole(
            slabs_of(scene, TilePlan(56, 32, 32, 8), by_brightness, classes=2, probabilities=True)
        )
    left, right = (float(torch.sigmoid(torch.tensor(x))) for x in (-4.0, 4.0))
    rising = (np.arange(8) + 0.5) / 8
    share = rising / (rising + rising[::-1])
    expected = np.concatenate([np.full(24, left), left + (right - left) * share, np.full(24, right)])
    np.testing.assert_allclose(probability[1], np.broadcast_to(expected, (32, 56)), atol=1e-6)


@pytest.mark.parametrize("hole", HOLES)
def test_tiles_without_a_valid_pixel_are_not_computed_and_the_others_are_full_batches(hole):
    rng = np.random.default_rng(0)
    data = rng.integers(1, CLASSES + 1, (150, 120)).astype(np.uint8)
    data[holes(rng, 150, 120, hole)] = 0
    plan = TilePlan(120, 150, 32, 8)
    worth = sum(
        bool(data[w.row : w.row + 32, w.col : w.col + 32].any()) for row in plan.rows for w in plan.windows(row)
    )
    batches = []

    def counting(image, valid):
        batches.append(int(valid.amax(dim=(1, 2, 3)).sum()))
        assert image.shape == (4, 1, 32, 32)
        return echo(image, valid)

    told = []
    with raster(data, nodata=0) as scene:
        slabs_of(scene, plan, counting, batch_size=4, progress=lambda done, total: told.append((done, total)))
    assert sum(batches) == worth
    assert len(batches) == -(-worth // 4)
    assert told == sorted(told)
    assert told[-1] == (len(plan), len(plan))


def test_batch_size_changes_nothing():
    rng = np.random.default_rng(1)
    data = rng.integers(1, 200, (100, 130)).astype(np.uint8)
    torch.manual_seed(0)
    conv = nn.Conv2d(1, CLASSES, 5, padding=2).requires_grad_(False)
    with raster(data) as scene:
        maps = [
            whole(slabs_of(scene, TilePlan(130, 100, 32, 8), lambda x, _: conv(x / 50), batch_size=n))
            for n in (1, 4, 9)
        ]
    for index, _, _ in maps[1:]:
        assert np.array_equal(index, maps[0][0])


def test_memory_does_not_grow_with_height(monkeypatch):
    """The canvas holds a tile's height of rows, and so does each slab; few tiles wait."""
    made, waiting, most = [], [0], [0]
    init, read = Canvas.__init__, Scene.read

    def keep(self, *args, **options):
        init(self, *args, **options)
        made.append(self)

    def counted(self, window=None):
        waiting[0] += 1
        most[0] = max(most[0], waiting[0])
        return read(self, window)

    def predict(image, valid):
        waiting[0] -= int(valid.amax(dim=(1, 2, 3)).sum())
        return echo(image, valid)

    monkeypatch.setattr(Canvas, "__init__", keep)
    monkeypatch.setattr(Scene, "read", counted)
    for height in (64, 640, 3200):
        with raster(np.ones((height, 40), np.uint8)) as scene:
            plan = TilePlan(40, height, 32, 8)
            slabs = predict_slabs(
                scene, predict, plan, classes=CLASSES, normalization=RAW, batch_size=2, device=CPU, probabilities=True
            )
            rows = [len(slab.index) for slab in slabs]
        assert max(rows) <= 32
        assert sum(rows) == height
        assert made[-1].sum.shape == (CLASSES, 32, 40)
        assert made[-1].mass.shape == made[-1].valid.shape == (1, 32, 40)
    assert most[0] <= 3 * 2 + 1


def test_every_slab_is_its_own():
    """A slab that is kept does not change when the next one is made."""
    data = np.random.default_rng(0).integers(1, CLASSES + 1, (200, 30)).astype(np.uint8)
    with raster(data) as scene:
        kept, copies = [], []
        for slab in predict_slabs(
            scene, echo, TilePlan(30, 200, 32, 8), classes=CLASSES, normalization=RAW, batch_size=2, device=CPU,
            probabilities=True,
        ):  # fmt: skip
            kept.append(slab)
            copies.append((slab.index.copy(), slab.probability.copy(), slab.valid.copy()))
    for slab, (index, probability, valid) in zip(kept, copies, strict=True):
        assert np.array_equal(slab.index, index)
        assert np.array_equal(slab.probability, probability)
        assert np.array_equal(slab.valid, valid)


def test_probabilities_come_home_only_when_asked_for():
    with raster(np.ones((40, 40), np.uint8)) as scene:
        assert all(slab.probability is None for slab in slabs_of(scene, TilePlan(40, 40, 32, 8)))


def test_the_canvas_gives_rows_once():
    plan = TilePlan(20, 100, 32, 8)
    canvas = Canvas(plan, 2, CPU)
    assert list(canvas.up_to(0)) == []
    assert [len(slab.index) for slab in canvas.up_to(24)] == [24]
    assert list(canvas.up_to(24)) == []
    assert [len(slab.index) for slab in canvas.up_to(100)] == [32, 32, 12]


# ---- reading


def test_tiles_are_read_in_order_and_not_all_at_once(monkeypatch):
    started = []
    read = Scene.read
    monkeypatch.setattr(Scene, "read", lambda self, window=None: (started.append(window), read(self, window))[1])
    plan = TilePlan(200, 200, 32, 0)
    with raster(np.ones((200, 200), np.uint8)) as scene:
        tiles = read_ahead(scene, plan, depth=3)
        window, patch = next(tiles)
        assert window == Window(0, 0, 32, 32)
        assert patch.data.shape == (1, 32, 32)
        assert len(started) <= 4
        rest = [w for w, _ in tiles]
    assert [window, *rest] == [w for row in plan.rows for w in plan.windows(row)]


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("geopsp-read")]


def test_a_damaged_raster_is_a_raster_error_and_the_thread_ends(tmp_path):
    data = np.random.default_rng(0).integers(1, 6, (400, 400)).astype(np.uint8)
    path = write(tmp_path / "cut.tif", data, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    path.write_bytes(content)
    scene = Scene.open(path)
    with pytest.raises(RasterError, match=r"cut\.tif"):
        slabs_of(scene, TilePlan(400, 400, 64, 8))
    assert not reading_threads()


def test_the_reading_thread_ends_when_the_network_fails():
    def failing(image, valid):
        raise RuntimeError("no")

    with raster(np.ones((300, 300), np.uint8)) as scene, pytest.raises(RuntimeError, match="no"):
        slabs_of(scene, TilePlan(300, 300, 32, 8), failing)
    assert not reading_threads()


# ---- classify


def trained_model(*, size=32, bands=("level",), dtype="uint8", network=None, cell=2.0):
    legend = Legend.from_names({0: "background", 3: "water", 4: "forest", 90: "road", 254: "last"})
    count = len(bands)
    statistics = BandStats(9, np.zeros(count), np.full(count, 9.0), np.zeros(count), np.ones(count))
    spec = ModelSpec("resnet18", count, CLASSES)
    return TrainedModel(spec, network or Echo(), legend, bands, statistics, dtype, size, (cell, cell), "metre")


@pytest.mark.parametrize(("height", "width"), [(150, 90), (20, 41), (1, 300), (300, 1)])
@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326"])
def test_an_echo_through_files(height, width, crs, tmp_path):
    rng = np.random.default_rng(2)
    data = rng.integers(1, CLASSES + 1, (height, width)).astype(np.uint8)
    data[holes(rng, height, width, "scattered")] = 0
    path = write(tmp_path / "image.tif", data, crs=crs, nodata=0)
    model = trained_model()
    out = classify(Scene.open(path), model, tmp_path / "map.tif", probabilities=tmp_path / "p.tif", batch_size=3)
    codes = np.array([*model.legend.codes, IGNORE])
    with rasterio.open(path) as image, rasterio.open(out) as found, rasterio.open(tmp_path / "p.tif") as chances:
        assert np.array_equal(found.read(1), np.where(data == 0, IGNORE, codes[data.astype(int) - 1]))
        for result in (found, chances):
            assert (result.crs, result.transform, result.shape) == (image.crs, image.transform, image.shape)
            assert result.nodata == IGNORE
        assert {code: found.colormap(1)[code][:3] for code in model.legend.codes} == {
            info.code: info.rgb for info in model.legend
        }
        assert chances.descriptions == tuple(model.legend.names)
        steps = chances.read()
        assert (steps[:, data == 0] == IGNORE).all()
        assert (steps[:, data != 0].argmax(0) == data[data != 0] - 1).all()
        assert (steps[:, data != 0].max(0) == 254).all()


def test_a_constant_is_constant_in_the_files_too(tmp_path):
    class Constant(nn.Module):
        def forward(self, image, valid=None):
            logits = torch.tensor([0.3, 0.1, 0.29, -2.0, 0.0])
            return logits.view(1, -1, 1, 1).expand(len(image), -1, *image.shape[-2:])

    scene = Scene.open(write(tmp_path / "image.tif", np.ones((101, 77), np.uint8)))
    classify(scene, trained_model(network=Constant()), tmp_path / "map.tif", probabilities=tmp_path / "p.tif")
    with rasterio.open(tmp_path / "map.tif") as found, rasterio.open(tmp_path / "p.tif") as chances:
        assert np.unique(found.read(1)).tolist() == [0]
        steps = chances.read()
    assert (np.ptp(steps.reshape(CLASSES, -1).astype(int), axis=1) <= 1).all()


def test_a_failure_on_the_way_leaves_no_file(tmp_path):
    class Failing(Echo):
        calls = 0

        def forward(self, image, valid=None):
            self.calls += 1
            if self.calls == 3:
                raise RuntimeError("in the middle")
            return super().forward(image, valid)

    scene = Scene.open(write(tmp_path / "image.tif", np.ones((300, 90), np.uint8)))
    with pytest.raises(RuntimeError, match="in the middle"):
        classify(scene, trained_model(network=Failing()), tmp_path / "map.tif", probabilities=tmp_path / "p.tif")
    assert [path.name for path in tmp_path.iterdir()] == ["image.tif"]


def test_memory_that_runs_out_is_told(tmp_path):
    class Hungry(nn.Module):
        def forward(self, image, valid=None):
            raise torch.OutOfMemoryError("CUDA out of memory")

    scene = Scene.open(write(tmp_path / "image.tif", np.ones((40, 40), np.uint8)))
    with pytest.raises(OptionError, match="Lower batch_size"):
        classify(scene, trained_model(network=Hungry()), tmp_path / "map.tif", batch_size=7)


@pytest.mark.parametrize("options", [{"padding": -1}, {"padding": 17}, {"batch_size": 0}])
def test_options_out_of_range(options, tmp_path):
    scene = Scene.open(write(tmp_path / "image.tif", np.ones((40, 40), np.uint8)))
    with pytest.raises(OptionError, match=r"found overlap|needed at least 1"):
        classify(scene, trained_model(), tmp_path / "map.tif", **options)
    assert not (tmp_path / "map.tif").exists()


@pytest.mark.parametrize("taken", ["map.tif", "p.tif"])
def test_an_existing_output_stays_before_anything_is_computed(taken, tmp_path):
    class Never(nn.Module):
        def forward(self, image, valid=None):
            raise AssertionError

    scene = Scene.open(write(tmp_path / "image.tif", np.ones((40, 40), np.uint8)))
    (tmp_path / taken).write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        classify(scene, trained_model(network=Never()), tmp_path / "map.tif", probabilities=tmp_path / "p.tif")
    assert (tmp_path / taken).read_text() == "mine"
    classify(scene, trained_model(), tmp_path / "map.tif", probabilities=tmp_path / "p.tif", overwrite=True)
    with rasterio.open(tmp_path / "map.tif") as found:
        assert (found.read(1) == 0).all()


def test_preflight_names_another_type_and_pixel_size(tmp_path):
    same = Scene.open(write(tmp_path / "same.tif", np.ones((40, 40), np.uint8)))
    assert preflight(same, trained_model()) == []
    assert preflight(same, trained_model(cell=2.4)) == []
    (dtype,) = preflight(same, trained_model(dtype="uint16"))
    assert "uint8" in dtype
    assert "uint16" in dtype
    (size,) = preflight(same, trained_model(cell=0.5))
    assert "2 metre" in size
    assert "0.5" in size
    degrees = Scene.open(write(tmp_path / "degrees.tif", np.ones((40, 40), np.uint8), crs="EPSG:4326"))
    assert preflight(degrees, trained_model()) == []


def test_the_network_predicts_in_evaluation_mode():
    class Spy(nn.Module):
        def forward(self, image, valid=None):
            assert not self.training
            assert not torch.is_grad_enabled() or not image.requires_grad
            return image.repeat(1, 2, 1, 1).to(torch.bfloat16)

    predict = network_predict(trained_model(network=Spy().train()), CPU)
    logits = predict(torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32))
    assert logits.dtype == torch.float32


def test_a_real_network_maps_and_repeats_itself(tmp_path):
    from geopsp.models.build import build

    torch.manual_seed(0)
    network = build(ModelSpec("resnet18", 3, CLASSES, pointrend=True))
    data = np.random.default_rng(0).integers(1, 9, (3, 70, 50)).astype(np.uint8)
    scene = Scene.open(write(tmp_path / "image.tif", data))
    model = trained_model(bands=("red", "green", "blue"), network=network)
    maps = []
    for name in ("a.tif", "b.tif"):
        with rasterio.open(classify(scene, model, tmp_path / name, padding=4)) as found:
            maps.append(found.read(1))
    assert np.array_equal(*maps)
    assert set(np.unique(maps[0])) <= set(model.legend.codes)
