from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.inference.outputs import class_spec, fraction_spec, probability_spec
from geopsp.raster.cog.overviews import downsample, is_blank

LEGEND = Legend.from_names({0: "a", 3: "b", 7: "c"})
CLASSES = class_spec(Path("m.tif"), LEGEND)
SHARE = fraction_spec("confidence", Path("c.tif"))
FLOATS = probability_spec(Path("p.tif"), LEGEND, "float16")


def by_hand(rows, choose, dtype):
    """Each pixel of at most four, in reading order."""
    bands, height, width = rows.shape
    coarse = np.zeros((bands, -(-height // 2), -(-width // 2)), dtype)
    for band, row, col in np.ndindex(coarse.shape):
        coarse[band, row, col] = choose(rows[band, 2 * row : 2 * row + 2, 2 * col : 2 * col + 2].ravel().tolist())
    return coarse


def commonest(four):
    known = [value for value in four if value != IGNORE_INDEX]
    return Counter(known).most_common(1)[0][0] if known else IGNORE_INDEX  # of equals, the one met first


def mean(four):
    known = [value for value in four if value != IGNORE_INDEX]
    return int(np.floor(sum(known) / len(known) + 0.5)) if known else IGNORE_INDEX


def float_mean(four):
    known = [value for value in four if not np.isnan(value)]
    return sum(known) / len(known) if known else np.nan


SHAPES = st.tuples(st.just(1), st.integers(1, 9), st.integers(1, 9))


@given(arrays(np.uint8, SHAPES, elements=st.sampled_from([0, 3, 7, 9, IGNORE_INDEX])))
def test_classes_become_the_commonest_of_four_and_of_equals_the_first(rows):
    np.testing.assert_array_equal(downsample(rows, CLASSES), by_hand(rows, commonest, np.uint8))


def test_all_ways_in_which_four_classes_can_meet():
    four = np.stack(np.meshgrid(*[[0, 3, 7, 9, IGNORE_INDEX]] * 4), axis=-1).reshape(-1, 2, 2).astype(np.uint8)
    rows = np.concatenate(four, axis=1)[None]
    np.testing.assert_array_equal(downsample(rows, CLASSES), by_hand(rows, commonest, np.uint8))


@given(arrays(np.uint8, SHAPES, elements=st.sampled_from([0, 1, 2, 128, 253, 254, IGNORE_INDEX])))
def test_shares_become_the_mean_of_what_is_known_half_up(rows):
    np.testing.assert_array_equal(downsample(rows, SHARE), by_hand(rows, mean, np.uint8))


@given(arrays(np.float16, SHAPES, elements=st.sampled_from([0, 0.25, 0.5, 1, np.nan])))
def test_floats_become_the_mean_of_what_is_known(rows):
    spec = probability_spec(Path("p.tif"), Legend.from_names({0: "a"}), "float16")
    np.testing.assert_array_equal(downsample(rows, spec), by_hand(rows, float_mean, np.float32).astype(np.float16))


@pytest.mark.parametrize("spec", [CLASSES, SHARE, FLOATS])
def test_nothing_stays_nothing_and_takes_no_memory(spec):
    rows = spec.blank(100_001, 100_003)
    assert is_blank(rows, spec)
    assert is_blank(rows[:, 5:99, 7:], spec)
    coarse = downsample(rows, spec)
    assert coarse.shape == (len(spec.bands), 50_001, 50_002)
    assert is_blank(coarse, spec)


def test_other_rows_that_take_no_memory_are_something():
    assert not is_blank(np.broadcast_to(np.uint8(3), (1, 4, 4)), CLASSES)
    assert not is_blank(np.broadcast_to(np.float16(0), (3, 4, 4)), FLOATS)
