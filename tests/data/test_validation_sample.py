"""The validation chips that are scored after each epoch."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geopsp.chips.chip_set import ChipSet
from geopsp.data.dataset import TiledChipDataset
from geopsp.data.validation_sample import MIN_TILES, TILE_COST, VALIDATION_SHARE, epoch_sample, sample_rows


@given(
    hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 0, 0, 5])),
    st.integers(1, 12),
)
def test_a_sample_holds_every_class_that_there_is(pixels, size):
    rows = sample_rows(pixels, size)
    assert len(set(rows.tolist())) == len(rows)
    assert min(size, len(pixels)) <= len(rows) <= min(size, len(pixels)) + pixels.shape[1]
    assert ((pixels[rows].sum(axis=0) > 0) == (pixels.sum(axis=0) > 0)).all()
    np.testing.assert_array_equal(rows, sample_rows(pixels, size))


def test_a_sample_is_drawn_from_all_chips():
    pixels = np.ones((1000, 2), np.int64)
    rows = sample_rows(pixels, 100)
    assert len(rows) == 100
    assert 400 < rows.mean() < 600


def test_a_sample_takes_a_twentieth_of_the_time(small_world):
    chips = ChipSet.open(small_world["chips"])
    dataset = TiledChipDataset(chips, np.repeat(np.arange(len(chips)), 50), None, size=chips.tile_size // 2)
    few = epoch_sample(dataset, 4000)
    assert 0.9 * VALIDATION_SHARE < len(few) * TILE_COST / 4000 < 1.1 * VALIDATION_SHARE
    assert set(few.rows) <= set(dataset.rows)
    assert MIN_TILES <= len(epoch_sample(dataset, 1)) <= MIN_TILES + 4 * len(chips.legend)


def test_few_chips_are_all_scored(small_world):
    chips = ChipSet.open(small_world["chips"])
    dataset = TiledChipDataset(chips, np.arange(MIN_TILES), None, size=chips.tile_size)
    assert epoch_sample(dataset, 1) is dataset
