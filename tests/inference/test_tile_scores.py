"""Scores are exact: what wins in a tile wins where tiles agree, and nothing overflows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from inference_common import numba_ops

from geopsp.core.grid import Window
from geopsp.errors import ModelError
from geopsp.inference.blend import SUM_ONE, BlendBuffer
from geopsp.inference.device_blender import _score
from geopsp.inference.tile_plan import SCORE_ONE, TilePlan
from geopsp.inference.tile_scores import area_window, score_tile

ALONE = bytes([128] * 32)
LAYOUTS = (torch.contiguous_format, torch.channels_last)
OPS = numba_ops()


def edge(left, right, size=32):
    """Weights of a tile that shares so many pixels with its neighbours."""
    return bytes([40] * left + [128] * (size - left - right) + [40] * right)


@given(
    sides=st.tuples(*(st.integers(0, 16) for _ in range(4))),
    classes=st.sampled_from([2, 5, 40]),
    seed=st.integers(0, 99),
    everywhere=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
)
@settings(max_examples=examples(30), deadline=None)
def test_areas_partition_a_tile_and_hold_its_classes_and_probabilities(sides, classes, seed, everywhere, layout):
    scores = torch.from_numpy(np.random.default_rng(seed).normal(0, 3, (1, classes, 32, 32)).astype(np.float32))
    scores = scores.to(memory_format=layout)[0]
    edges = edge(*sides[:2]), edge(*sides[2:])
    found = score_tile(OPS.from_tensor(scores), edges, OPS, everywhere=everywhere)
    seen = np.zeros((32, 32), int)
    seen[found.interior] += 1
    assert np.array_equal(found.index, scores.argmax(0)[found.interior])
    assert not (everywhere and 0 not in found.index.shape)
    chances = scores.softmax(0)
    for area, shares in found.overlaps:
        seen[area] += 1
        assert str(shares.dtype).endswith("int32")
        np.testing.assert_allclose(shares / SCORE_ONE, chances[:, *area], atol=2 / SCORE_ONE)
        assert np.array_equal(shares.argmax(0), scores.argmax(0)[area])
    assert (seen == 1).all()


@given(seed=st.integers(0, 99), classes=st.sampled_from([2, 5]))
@settings(max_examples=examples(10), deadline=None)
def test_a_batch_on_a_device_has_the_same(seed, classes):
    """But for what a probability is rounded to, by 1; the likeliest class, the first of equal ones, is the same."""
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 3, (2, classes, 32, 32)).astype(np.float32))
    logits[:, :, 5:9] = logits[:, :, 5:9].round()
    scores, usable = _score(logits)
    assert usable.wait()
    for tile, theirs in zip(logits, scores.numpy(), strict=True):
        (_, ours), *rest = score_tile(tile.numpy(), (ALONE, ALONE), OPS, everywhere=True).overlaps
        assert not rest
        assert np.abs(ours - theirs).max() <= 1
        assert np.array_equal(ours.argmax(0), theirs.argmax(0))


def test_the_likeliest_class_has_one_share_more():
    scores = torch.tensor([0.25, 0.5, 0.25]).log().view(3, 1, 1).expand(3, 32, 32)
    found = score_tile(OPS.from_tensor(scores), (ALONE, ALONE), OPS, everywhere=True)
    (_, shares), *rest = found.overlaps
    assert not rest
    assert shares[:, 0, 0].tolist() == [
        round(0.25 * (SCORE_ONE - 1)),
        round(0.5 * (SCORE_ONE - 1)) + 1,
        round(0.25 * (SCORE_ONE - 1)),
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_numbers_that_are_none_are_an_error(value, everywhere, channel):
    scores = torch.zeros(3, 32, 32)
    scores[channel, 20, 7] = value
    with pytest.raises(ModelError, match="not finite"):
        score_tile(OPS.from_tensor(scores), (ALONE, ALONE), OPS, everywhere=everywhere)
    assert not _score(scores[None])[1].wait()


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_pixel_without_any_class_is_an_error(everywhere):
    scores = torch.zeros(3, 32, 32)
    scores[:, 31, 31] = -torch.inf
    with pytest.raises(ModelError, match="not finite"):
        score_tile(OPS.from_tensor(scores), (ALONE, ALONE), OPS, everywhere=everywhere)
    assert not _score(scores[None])[1].wait()


def test_a_class_out_of_the_running_is_no_error():
    scores = torch.zeros(3, 32, 32)
    scores[0] = -torch.inf
    found = score_tile(OPS.from_tensor(scores), (ALONE, edge(4, 4)), OPS, everywhere=False)
    assert (found.index == 1).all()
    assert all((shares[0] == 0).all() for _, shares in found.overlaps)


@pytest.mark.parametrize("area", [None, (slice(7, 31), slice(12, 13)), (slice(0, 0), slice(0, 9))])
def test_the_first_of_equals_counts(area):
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.integers(0, 3, (7, 50, 40)).astype(np.int32))
    index = torch.full((50, 40), 99, dtype=torch.uint8)
    OPS.argmax(OPS.from_tensor(values), OPS.from_tensor(index), area)
    expected = np.full((50, 40), 99)
    where = area or (slice(None), slice(None))
    expected[where] = values.numpy().argmax(0)[where]
    np.testing.assert_array_equal(index, expected)


def test_the_largest_sum_fits_32_bits():
    plan = TilePlan(32, 32, 32, 0)
    buffer = BlendBuffer(plan, Window(0, 0, 32, 32), 2, OPS, needs_scores=True, needs_agreement=False)
    scores = torch.zeros(2, 32, 32)
    scores[0] = -torch.inf
    found = score_tile(OPS.from_tensor(scores), (ALONE, ALONE), OPS, everywhere=True)
    assert int(found.overlaps[0][1].max()) == SCORE_ONE
    for weight in (128 * 128 - 1, 1):
        weights = np.full((32, 32), weight, np.int32)
        buffer.add(Window(0, 0, 32, 32), np.ones((32, 32), bool), found, weights)
    sums = np.concatenate([finished.sums.copy() for _, finished in buffer.finish_rows(32)], axis=1)
    assert (sums[1] == SUM_ONE).all()
    assert (sums[0] == 0).all()


def test_an_area_of_a_tile_on_the_map():
    assert area_window((slice(2, 5), slice(1, 32)), Window(100, 200, 32, 32)) == Window(101, 202, 31, 3)
