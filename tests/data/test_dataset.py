"""Chips as tensors: normalised, 0 where invalid, and in validation every pixel counted once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from chips_common import LEGEND, chipset, write
from common import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchvision.transforms import v2

from geopsp.chips.chip_set import ChipSet
from geopsp.core.bands import BandStats, Normalization
from geopsp.core.legend import IGNORE_INDEX
from geopsp.data.augment import RandomD4
from geopsp.data.chip_statistics import chip_statistics
from geopsp.data.dataset import ChipDataset, ChipFiles, Sample, TiledChipDataset
from geopsp.errors import ChipError
from geopsp.raster.scene import Scene

NONE = v2.Identity()


def whole_sample(chips: ChipSet, row: int, norm: Normalization) -> Sample:
    """The chip as it is."""
    return TiledChipDataset(chips, np.array([row]), norm, size=chips.tile_size)[0]


@pytest.fixture
def chips(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 4000, (4, 2, 50, 50)).astype(np.uint16)
    labels = rng.choice(np.array([0, 7, 9, 33, IGNORE_INDEX], np.uint8), (4, 50, 50))
    masks = rng.random((4, 50, 50)) > 0.2
    found = chipset(tmp_path, images, labels, masks=masks)
    return found, images, np.where(masks, labels, IGNORE_INDEX).astype(np.uint8), masks


# ---- normalisation


@given(
    data=hnp.arrays(np.uint16, (2, 5, 4)),
    valid=hnp.arrays(bool, (5, 4)),
    mean=st.floats(0, 60000),
    std=st.floats(0.1, 9000),
)
@settings(max_examples=examples(12), deadline=None)
def test_pixels_are_normalised_where_valid_and_0_elsewhere(data, valid, mean, std):
    norm = Normalization(np.full(2, mean, np.float32), np.full(2, std, np.float32))
    out = norm(data, valid)
    assert out.dtype == np.float32
    assert (out[:, ~valid] == 0).all()
    np.testing.assert_allclose(out[:, valid], (data[:, valid] - mean) / std, rtol=1e-4, atol=6e4 / std * 1e-6)


@pytest.mark.parametrize("nodata", [np.nan, np.inf, -np.finfo(np.float64).max, np.finfo(np.float32).min, -9999.0])
def test_whatever_stands_for_nodata_becomes_0_without_a_warning(nodata):
    data = np.array([[[0.1, nodata, 0.3]]])
    norm = Normalization(np.array([0.2], np.float32), np.array([0.01], np.float32))
    assert norm(data, np.array([[True, False, True]]))[0, 0].tolist() == pytest.approx([-10, 0, 10], rel=1e-5)


def test_a_band_without_spread_is_only_shifted():
    stats = BandStats.from_array(np.stack([np.full((3, 3), 5), np.arange(9).reshape(3, 3)]), np.ones((3, 3), bool))
    norm = Normalization.from_stats(stats)
    assert norm.std.tolist() == pytest.approx([1, np.arange(9).std()])
    assert (norm(np.full((2, 1, 1), 5), np.ones((1, 1), bool))[0] == 0).all()


def test_the_training_pixels_have_mean_0_and_spread_1(chips):
    found, _, _, _ = chips
    norm = Normalization.from_stats(chip_statistics(found, np.arange(4)))
    pixels = torch.cat([s.image[:, s.valid[0] > 0] for s in (whole_sample(found, i, norm) for i in range(4))], dim=1)
    torch.testing.assert_close(pixels.mean(1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(pixels.std(1, correction=0), torch.ones(2), atol=1e-5, rtol=0)


# ---- reading


def test_a_sample_holds_what_the_files_hold(chips):
    found, images, labels, masks = chips
    norm = Normalization(np.array([100, 200], np.float32), np.array([10, 20], np.float32))
    sample = whole_sample(found, 2, norm)
    assert (sample.image.dtype, sample.valid.dtype, sample.label.dtype) == (torch.float32, torch.float32, torch.int64)
    expected = (images[2].astype(float) - [[[100]], [[200]]]) / [[[10]], [[20]]] * masks[2]
    np.testing.assert_allclose(sample.image, expected, rtol=1e-5)
    assert np.array_equal(sample.valid[0] > 0, masks[2])
    assert np.array_equal(sample.label, LEGEND.codes_to_indices(labels[2]))
    assert (sample.label[torch.from_numpy(labels[2] == 33)] == IGNORE_INDEX).all()


def test_statistics_are_of_the_valid_pixels_of_the_chips_asked_for(chips):
    found, images, _, masks = chips
    stats = chip_statistics(found, np.array([1, 3]))
    values = np.concatenate([images[i][:, masks[i]] for i in (1, 3)], axis=1).astype(float)
    np.testing.assert_allclose(stats.mean, values.mean(1))
    np.testing.assert_allclose(stats.std, values.std(1))
    assert stats.count == values.shape[1]


def test_nan_and_nodata_become_0(tmp_path):
    image = np.random.default_rng(0).normal(size=(2, 8, 8)).astype(np.float32)
    image[0, 1, 1], image[1, 2, 2], image[:, 3, 3] = np.nan, -9999, np.inf
    found = chipset(tmp_path, [np.zeros_like(image)], [np.zeros((8, 8), np.uint8)])
    write(tmp_path / "images" / "0.tif", image, nodata=-9999)
    sample = whole_sample(found, 0, Normalization(np.zeros(2, np.float32), np.ones(2, np.float32)))
    assert torch.isfinite(sample.image).all()
    assert (sample.valid[0] == 0).nonzero().tolist() == [[1, 1], [2, 2], [3, 3]]
    assert (sample.image[:, sample.valid[0] == 0] == 0).all()


def damage(path, how):
    if how == "gone":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:1500])
    else:
        write(path, np.ones((1, 9, 9), np.uint8))


@pytest.mark.parametrize("how", ["gone", "empty", "cut", "size"])
@pytest.mark.parametrize("part", ["images", "labels"])
def test_a_damaged_chip_is_a_chip_error(how, part, chips):
    found = chips[0]
    damage(found.folders[0] / part / "1.tif", how)
    with pytest.raises(ChipError, match=r"1\.tif.*Export the chips again"):
        whole_sample(found, 1, Normalization.from_stats(found.statistics))
    assert len(whole_sample(found, 0, Normalization.from_stats(found.statistics))) == 4


@pytest.mark.parametrize("shape", [(2, 40, 40), (3, 50, 50)])
def test_a_chip_of_another_size_or_with_other_bands_is_a_chip_error(shape, chips):
    found = chips[0]
    write(found.folders[0] / "images" / "1.tif", np.ones(shape, np.uint16))
    with pytest.raises(ChipError, match=f"{shape[0]} x {shape[1]} x {shape[2]}.*but must have 2 x 50 x 50"):
        ChipFiles(found).read(1, 0, 0, 50)


def test_a_chip_of_another_type_is_a_chip_error(chips):
    found = chips[0]
    write(found.folders[0] / "images" / "1.tif", np.ones((2, 50, 50), np.int16))
    with pytest.raises(ChipError, match=r"1\.tif has int16 pixels, but its folder says uint16"):
        ChipFiles(found).read(1, 0, 0, 50)


def test_reading_equals_the_scene_reader(chips):
    found = chips[0]
    for row, path in enumerate(found.index["image"]):
        patch = Scene.open(path).read()
        data, valid, _ = ChipFiles(found).read(row, 0, 0, 50)
        assert data.dtype == patch.data.dtype
        assert np.array_equal(data, patch.data)
        assert np.array_equal(valid, patch.valid)


def test_what_label_files_call_nodata_is_read_all_the_same_where_the_image_is_valid(chips):
    """ArcGIS says so of 0, which is its background; what is no class is not in the legend."""
    found, _, _, valid = chips
    codes = np.full((50, 50), 7, np.uint8)
    write(found.folders[0] / "labels" / "1.tif", codes[None], nodata=7)
    assert np.array_equal(ChipFiles(found).read(1, 0, 0, 50).codes, np.where(valid[1], 7, IGNORE_INDEX))


def test_an_alpha_band_says_what_is_valid(tmp_path):
    image = np.random.default_rng(0).integers(1, 200, (4, 9, 9)).astype(np.uint8)
    image[3] = 255
    image[3, 2:4] = 0
    found = chipset(tmp_path, [image[:3]], [np.zeros((9, 9), np.uint8)])
    write(tmp_path / "images" / "0.tif", image, photometric="RGB", alpha="YES")
    data, valid, _ = ChipFiles(found).read(0, 0, 0, 9)
    assert np.array_equal(data, image[:3])
    assert np.array_equal(valid, image[3] > 0)


# ---- training chips


@pytest.mark.parametrize("size", [50, 49, 32, 1])
def test_crops_have_the_size_asked_for_and_lie_anywhere(size, chips):
    found, images, labels, masks = chips
    raw = Normalization(np.zeros(2, np.float32), np.ones(2, np.float32))
    dataset = ChipDataset(found, np.array([3, 1]), raw, size=size, transform=NONE)
    assert len(dataset) == 2
    torch.manual_seed(0)
    for _ in range(5):
        image, valid, label, place = dataset[0]
        assert (place.dtype, place.shape, int(place)) == (torch.int64, (), 3)
        assert image.shape == (2, size, size)
        assert valid.shape == (1, size, size)
        assert label.shape == (size, size)
        whole = images[3].astype(np.float32) * masks[3]
        spots = [
            (r, c)
            for r in range(51 - size)
            for c in range(51 - size)
            if np.array_equal(whole[:, r : r + size, c : c + size], image)
        ]
        assert spots
        r, c = spots[0]
        if size > 1:
            expected = np.where(masks[3], LEGEND.codes_to_indices(labels[3]), IGNORE_INDEX)[r : r + size, c : c + size]
            assert np.array_equal(label, expected)


def test_a_seed_repeats_crops_and_changes(chips):
    found = chips[0]
    dataset = ChipDataset(
        found, np.arange(4), Normalization.from_stats(found.statistics), size=32, transform=RandomD4()
    )
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        runs.append([dataset[i] for i in range(4)])
    for one, other in zip(*runs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_an_item_with_a_seed_depends_on_nothing_else_and_leaves_no_trace(chips):
    found = chips[0]
    dataset = ChipDataset(
        found, np.arange(4), Normalization.from_stats(found.statistics), size=20, transform=RandomD4()
    )
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    one = dataset[2, 99]
    assert torch.equal(torch.rand(3), expected)
    other = dataset[2, 99]
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    torch.manual_seed(99)
    assert torch.equal(one.image, dataset[2].image)
    assert len({float(dataset[2, seed].image.sum()) for seed in range(8)}) > 4


def test_labels_are_read_by_the_table_of_their_folder(chips):
    """Joined folders may give one code two meanings."""
    found, _, labels, _ = chips
    other = np.full(256, IGNORE_INDEX, np.uint8)
    other[7], other[0] = 0, 1
    joined = replace(found, tables=(found.tables[0], other), index=found.index.assign(table=[0, 0, 1, 1]))
    norm = Normalization.from_stats(found.statistics)
    assert np.array_equal(whole_sample(joined, 1, norm).label, LEGEND.codes_to_indices(labels[1]))
    assert np.array_equal(whole_sample(joined, 3, norm).label, other[labels[3]])


# ---- validation chips


@given(tile=st.integers(32, 70), size=st.integers(16, 40))
@settings(max_examples=examples(12), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_pixel_of_a_chip_counts_exactly_once(tile, size, tmp_path_factory):
    size = min(size, tile)
    numbers = np.arange(tile * tile, dtype=np.float32).reshape(1, tile, tile)
    labels = np.random.default_rng(tile).choice(np.array([0, 7, 9, IGNORE_INDEX], np.uint8), (2, tile, tile))
    found = chipset(tmp_path_factory.mktemp("chips"), [numbers, numbers + tile * tile], labels)
    dataset = TiledChipDataset(
        found, np.array([0, 1]), Normalization(np.zeros(1, np.float32), np.ones(1, np.float32)), size=size
    )
    counted = np.zeros(2 * tile * tile, int)
    seen = np.full(2 * tile * tile, IGNORE_INDEX)
    for i in range(len(dataset)):
        image, valid, label, row = dataset[i]
        assert int(row) == i // (len(dataset) // 2)
        assert image.shape == (1, size, size)
        assert valid.all()
        known = label != IGNORE_INDEX
        spots = image[0][known].long().numpy()
        np.add.at(counted, spots, 1)
        seen[spots] = label[known].numpy()
    expected = LEGEND.codes_to_indices(labels).ravel()
    assert np.array_equal(counted, (expected != IGNORE_INDEX).astype(int))
    assert np.array_equal(seen, expected)
