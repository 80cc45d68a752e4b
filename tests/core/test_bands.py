import json

import numpy as np
import pytest
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geopsp.core.bands import BandStats, Normalization

DTYPES = ["uint8", "int16", "uint16", "float32"]


def assert_equal_to_numpy(stats, values):
    assert stats.count == values.shape[1]
    np.testing.assert_allclose(stats.mean, values.mean(axis=1, dtype=float), rtol=1e-12)
    np.testing.assert_allclose(stats.std, values.std(axis=1, dtype=float), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(stats.low, values.min(axis=1))
    np.testing.assert_array_equal(stats.high, values.max(axis=1))


@pytest.mark.parametrize("dtype", DTYPES)
@given(seed=st.integers(0, 999), cuts=st.lists(st.integers(0, 40), max_size=4))
@settings(max_examples=examples(15), deadline=None)
def test_merged_parts_equal_the_whole(dtype, seed, cuts):
    rng = np.random.default_rng(seed)
    data = (rng.normal(120, 9, (3, 40, 7))).astype(dtype)
    valid = rng.random((40, 7)) > 0.3
    total = BandStats.empty(3)
    for part, seen in zip(np.split(data, sorted(cuts), axis=1), np.split(valid, sorted(cuts)), strict=True):
        total = total.merge(BandStats.from_array(part, seen))
    assert_equal_to_numpy(total, data[:, valid])
    assert BandStats.from_json(json.loads(json.dumps(total.to_json()))).to_json() == total.to_json()


@given(hnp.arrays("uint16", (2, 5, 6)), hnp.arrays(bool, (5, 6)))
@settings(max_examples=examples(40), deadline=None)
def test_only_valid_pixels_count(data, valid):
    stats = BandStats.from_array(data, valid)
    assert stats.count == valid.sum()
    if valid.any():
        assert_equal_to_numpy(stats, data[:, valid].astype(float))


def test_a_large_offset_does_not_drown_the_spread():
    values = np.array([[[1e9 + 1, 1e9 + 2, 1e9 + 3]]])
    parts = [BandStats.from_array(values[:, :, i : i + 1], np.ones((1, 1), bool)) for i in range(3)]
    total = parts[0].merge(parts[1]).merge(parts[2])
    assert total.std[0] == pytest.approx(np.sqrt(2 / 3))


def test_nothing_is_neutral_and_survives_json():
    none = BandStats.empty(2)
    some = BandStats.from_array(np.arange(8).reshape(2, 2, 2), np.ones((2, 2), bool))
    assert none.merge(none).count == 0
    for merged in (none.merge(some), some.merge(none)):
        assert merged.to_json() == some.to_json()
    row = json.loads(json.dumps(none.to_json(), allow_nan=False))
    assert len(BandStats.from_json(row).mean) == 2
    np.testing.assert_array_equal(none.std, [0, 0])


@pytest.mark.parametrize("value", [0.1, -1e-7, 123456.789, 0.0])
def test_a_band_of_one_value_is_normalised_to_0(value):
    """The spread of equal floats is not quite 0."""
    data, valid = np.full((2, 7, 9), value), np.ones((7, 9), bool)
    data[1] = np.arange(9)
    parts = [BandStats.from_array(data[:, i : i + 3], valid[i : i + 3]) for i in (0, 3, 6)]
    norm = Normalization.from_stats(parts[0].merge(parts[1]).merge(parts[2]))
    assert norm.std[0] == 1
    np.testing.assert_allclose(norm(data, valid)[0], 0, atol=1e-2 if value > 1 else 1e-8)
    np.testing.assert_allclose(norm.std[1], np.arange(9).std(), rtol=1e-6)


@given(gain=st.floats(1e-4, 100), bias=st.floats(-100, 100))
def test_statistics_before_a_conversion(gain, bias):
    values = np.random.default_rng(0).normal(5, 2, (1, 6, 7))
    valid = np.ones((6, 7), bool)
    found = BandStats.from_array(values * gain + bias, valid).before([(gain, bias)])
    expected = BandStats.from_array(values, valid)
    for name in ("mean", "std", "low", "high"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-4)
