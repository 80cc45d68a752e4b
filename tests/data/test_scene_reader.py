"""Windows of scenes are what an export would cut, wherever they lie and whoever asks."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
from common import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.windows import Window as RioWindow
from shapely.affinity import translate
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from geopsp.chips.export_training_data import index_chips
from geopsp.chips.labelled_scenes import LabelledScenes
from geopsp.chips.options import ChipSpec
from geopsp.core.bands import Normalization
from geopsp.core.grid import Window
from geopsp.core.legend import IGNORE_INDEX
from geopsp.data.dataset import ChipDataset, ChipFiles, TiledChipDataset
from geopsp.data.scene_reader import SceneChipReader, safe_margin
from geopsp.data.split import split_chips
from geopsp.errors import ChipError

SIZE = 32

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two scenes side by side, the second with nodata, and discs of two classes on both."""
    folder, rng = tmp_path_factory.mktemp("scenes"), np.random.default_rng(5)
    paths = []
    for number, (height, width) in enumerate([(83, 117), (70, 64)]):
        data = rng.integers(1, 4000, (2, height, width)).astype("uint16")
        data[:, : 9 * number, : 30 * number] = 0
        paths.append(folder / f"scene_{number}.tif")
        transform = rasterio.transform.from_origin(601234.0 + 300 * number, 5301717.0, 2, 2)
        with rasterio.open(
            paths[-1], "w", driver="GTiff", dtype="uint16", count=2, height=height, width=width, crs="EPSG:32632",
            transform=transform, nodata=0,
        ) as dataset:  # fmt: skip
            dataset.write(data)
    x, y = rng.uniform((601234, 5301717 - 160), (601234 + 420, 5301717), (20, 2)).T
    discs = shapely.buffer(shapely.points(x, y), rng.uniform(8, 30, 20))
    labels = gpd.GeoDataFrame({"kind": ["a", "b"] * 10}, geometry=discs, crs="EPSG:32632")
    return paths, labels


@pytest.fixture(scope="module")
def ground(world):
    return LabelledScenes.open(*world, class_field="kind")


@pytest.fixture(scope="module")
def chips(ground):
    return index_chips(ground, ChipSpec(SIZE, rotation_angle=120.0, random_chips=5))


def by_hand(world, ground, chips, row, top, left, size):
    """Pixels, validity and codes from whole arrays, read and burned by rasterio alone."""
    place = chips.index.iloc[row]
    path = world[0][[scene.name for scene in ground.scenes].index(place["source"])]
    with rasterio.open(path) as dataset:
        limits = {}
        for axis, length, shift in (("row", dataset.height, top), ("col", dataset.width, left)):
            limits[axis] = int(np.clip(place[axis] + shift, 0, max(length, place[axis] + SIZE) - size))
        window = RioWindow(limits["col"], limits["row"], size, size)
        data = dataset.read(window=window, boundless=True, fill_value=0)
        around = SIZE
        shapes = [
            (shape, ground.legend.code_of(kind))
            for shape, kind in zip(world[1].geometry, world[1]["kind"], strict=True)
        ]
        shapes.sort(key=lambda pair: -pair[0].area)
        codes = rasterio.features.rasterize(
            shapes, (dataset.height + 2 * around, dataset.width + 2 * around),
            transform=dataset.transform @ rasterio.Affine.translation(-around, -around), dtype="uint8",
        )  # fmt: skip
    codes = codes[limits["row"] + around :, limits["col"] + around :][:size, :size]
    valid = (data != 0).any(axis=0)
    return data, valid, np.where(valid, codes, IGNORE_INDEX)


def same(one, other) -> bool:
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@given(data=st.data())
@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_window_is_the_chip_moved_within_its_scene(data, world, ground, chips):
    windows = SceneChipReader(ground, chips, margin=SIZE // 2)
    row = data.draw(st.sampled_from(np.flatnonzero(chips.index["angle"] == 0).tolist()))
    size = data.draw(st.integers(16, SIZE))
    top, left = data.draw(st.tuples(*[st.integers(-windows.margin, SIZE - size + windows.margin)] * 2))
    found = windows.read(row, top, left, size)
    for mine, theirs in zip(found, by_hand(world, ground, chips, row, top, left, size), strict=True):
        assert np.array_equal(mine, theirs)


def test_a_chip_is_what_the_ground_gives(ground, chips):
    windows = SceneChipReader(ground, chips, margin=7)
    for row, place in enumerate(chips.index.itertuples()):
        chip = ground.read_chip(ground.scene(place.source), Window(place.col, place.row, SIZE, SIZE), place.angle)
        assert same(windows.read(row, 0, 0, SIZE), (chip.patch.data, chip.patch.valid, chip.codes))


@given(data=st.data())
@settings(max_examples=examples(10), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_of_a_turned_copy_all_that_is_asked_for_lies_within(data, ground, chips):
    windows = SceneChipReader(ground, chips, margin=SIZE // 2)
    row = data.draw(st.sampled_from(np.flatnonzero(chips.index["angle"] != 0).tolist()))
    size = data.draw(st.integers(16, SIZE))
    top, left = data.draw(st.tuples(*[st.integers(-windows.margin, SIZE - size + windows.margin)] * 2))
    whole, part = windows.read(row, 0, 0, SIZE), windows.read(row, top, left, size)
    if 0 <= top <= SIZE - size and 0 <= left <= SIZE - size:
        spots = [(top, left)]
    else:
        spots = [(r, c) for r in range(SIZE - size + 1) for c in range(SIZE - size + 1)]
    assert any(
        same(part, [a[..., r : r + size, c : c + size] for a in (whole.data, whole.valid, whole.codes)])
        for r, c in spots
    )


def test_another_process_gets_the_same(ground, chips):
    windows = SceneChipReader(ground, chips, margin=9)
    windows.read(0, 0, 0, SIZE)
    again = pickle.loads(pickle.dumps(windows))
    for row in range(0, len(chips), 3):
        assert same(windows.read(row, -5, 3, SIZE), again.read(row, -5, 3, SIZE))


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")  # rasterio silences it for all threads at a time
def test_threads_do_not_mix_up_windows(ground, chips):
    windows = SceneChipReader(ground, chips, margin=16)
    places = [(row, top, left, SIZE) for row in range(len(chips)) for top, left in ((0, 0), (-9, 4), (16, -16))]
    alone = [windows.read(*place) for place in places]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda place: windows.read(*place), places))
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))


def training(ground, chips, rows=None, *, margin=SIZE // 2) -> ChipDataset:
    rows = np.arange(len(chips)) if rows is None else rows
    reader = SceneChipReader(ground, chips, margin=margin)
    return ChipDataset(
        chips, rows, Normalization.from_stats(chips.statistics), size=SIZE, transform=v2.Identity(), reader=reader
    )


class Counted(Dataset):
    """Samples, and how many files of the scenes the process has open."""

    def __init__(self, dataset, folder):
        self.dataset, self.folder = dataset, folder

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, number):
        image, _, label, _ = self.dataset[number, number]
        return image, label, sum(path.parent == self.folder.resolve() for path in open_files())


def open_files() -> Iterator[Path]:
    """What the process has open; other threads open and close files meanwhile."""
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            yield link.readlink()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files where the system lists them")
def test_workers_give_the_same_and_open_each_file_once(ground, chips, world):
    counted = Counted(training(ground, chips), world[0][0].parent)
    alone, shared = (list(DataLoader(counted, None, num_workers=workers)) for workers in (0, 2))
    for (image, label, _), (image_2, label_2, open_files) in zip(alone, shared, strict=True):
        assert np.array_equal(image, image_2)
        assert np.array_equal(label, label_2)
        assert open_files <= len(ground.scenes)


def test_training_draws_from_around_the_chip_and_validation_does_not(ground, chips):
    rows = np.flatnonzero((chips.index["angle"] == 0) & (chips.index["valid"] == 1))
    dataset = training(ground, chips, rows)
    assert len({float(dataset[0, seed].image.sum()) for seed in range(20)}) > 9
    whole = TiledChipDataset(chips, rows, dataset.normalization, size=SIZE, reader=dataset.reader)
    plain = training(ground, chips, rows, margin=0)
    assert all(np.array_equal(whole[i].image, plain[i, 3].image) for i in range(len(rows)))


def test_chips_without_files_cannot_be_read_from_files(chips):
    with pytest.raises(ChipError, match=r"have no files\. Export them"):
        ChipFiles(chips)


def test_a_chip_is_called_by_its_place(ground, chips):
    first = chips.index.iloc[0]
    assert training(ground, chips).names[0] == f"{first['source']}, column 0, row 0, 0 degrees"
    assert len(set(training(ground, chips).names)) == len(chips)


# ---- how far training windows may move


@given(
    stride=st.integers(8, 48), gap=st.floats(0, 200), seed=st.integers(0, 50), by=st.sampled_from(["blocks", "source"])
)
@settings(max_examples=examples(12), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_training_window_meets_a_validation_chip(stride, gap, seed, by, ground):
    chips = index_chips(ground, ChipSpec(16, stride=stride))
    split = split_chips(chips, share=0.2, seed=seed, by=by, gap=gap)
    margin = safe_margin(chips, split.train, split.audit.gap)
    assert 0 <= margin <= 8
    assert margin == 8 or 2 * (2 * (margin + 1)) > split.audit.gap
    shapes = chips.index.geometry.to_numpy()
    tree = shapely.STRtree(shapes[split.valid])
    for across in (-2 * margin, 2 * margin):
        for down in (-2 * margin, 2 * margin):
            moved = [translate(shape, across, down).buffer(-1e-3) for shape in shapes[split.train]]
            assert not len(tree.query(moved, predicate="intersects")[0])


@pytest.mark.parametrize(("gap", "margin"), [(None, 0), (0.0, 0), (7.9, 1), (8.0, 2), (31.0, 7), (64.0, 16), (1e9, 16)])
def test_the_margin_is_half_the_gap_and_at_most_half_a_chip(gap, margin, chips):
    """Pixels of 2 m, chips of 32."""
    assert safe_margin(chips, np.arange(len(chips)), gap) == margin


def test_the_margin_counts_the_largest_pixels(chips):
    """Scenes of coarser pixels move over more ground."""
    wide = chips.index.geometry.scale(1, 3)
    assert safe_margin(replace(chips, index=chips.index.set_geometry(wide)), np.arange(3), 48.0) == 4
