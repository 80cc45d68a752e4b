"""Shares are exact: what wins in a tile wins where tiles agree, and nothing overflows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geopsp.errors import ModelError
from geopsp.grid import Window
from geopsp.maps.blend import FULL, Canvas
from geopsp.maps.plan import MapPlan
from geopsp.maps.shares import ONE, first_of, inside, tell

CPU = torch.device("cpu")
ALONE = bytes([128] * 32)


def edge(left, right, size=32):
    """Weights of a tile that shares so many pixels with its neighbours."""
    return bytes([40] * left + [128] * (size - left - right) + [40] * right)


@given(
    sides=st.tuples(*(st.integers(0, 16) for _ in range(4))),
    classes=st.integers(2, 40),
    seed=st.integers(0, 99),
    everywhere=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_areas_partition_a_tile_and_hold_its_classes_and_probabilities(sides, classes, seed, everywhere):
    scores = torch.from_numpy(np.random.default_rng(seed).normal(0, 3, (classes, 32, 32)).astype(np.float32))
    told = tell(scores, (edge(*sides[:2]), edge(*sides[2:])), everywhere=everywhere)
    seen = np.zeros((32, 32), int)
    seen[told.core] += 1
    assert np.array_equal(told.index, scores.argmax(0)[told.core])
    assert not (everywhere and told.index.numel())
    chances = scores.softmax(0)
    for area, shares in told.rims:
        seen[area] += 1
        assert shares.dtype == torch.int32
        np.testing.assert_allclose(shares / ONE, chances[:, *area], atol=2 / ONE)
        assert np.array_equal(shares.argmax(0), scores.argmax(0)[area])
    assert (seen == 1).all()


def test_the_likeliest_class_has_one_share_more():
    told = tell(torch.tensor([0.25, 0.5, 0.25]).log().view(3, 1, 1).expand(3, 32, 32), (ALONE, ALONE), everywhere=True)
    (_, shares), *rest = told.rims
    assert not rest
    assert shares[:, 0, 0].tolist() == [round(0.25 * (ONE - 1)), round(0.5 * (ONE - 1)) + 1, round(0.25 * (ONE - 1))]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("everywhere", [False, True])
def test_numbers_that_are_none_are_an_error(value, everywhere):
    scores = torch.zeros(3, 32, 32)
    scores[1, 20, 7] = value
    with pytest.raises(ModelError, match="not finite"):
        tell(scores, (ALONE, ALONE), everywhere=everywhere)


def test_a_class_out_of_the_running_is_no_error():
    scores = torch.zeros(3, 32, 32)
    scores[0] = -torch.inf
    told = tell(scores, (ALONE, edge(4, 4)), everywhere=False)
    assert (told.index == 1).all()
    assert all((shares[0] == 0).all() for _, shares in told.rims)


def test_the_first_of_equals_counts():
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.integers(0, 3, (7, 50, 40)).astype(np.int32))
    np.testing.assert_array_equal(first_of(values, values.amax(0)), values.numpy().argmax(0))
    assert first_of(values.to("meta"), values.amax(0).to("meta")).shape == (50, 40)


def test_the_largest_sum_fits_32_bits():
    plan = MapPlan(32, 32, 32, 0)
    canvas = Canvas(plan, Window(0, 0, 32, 32), 2, CPU, shares=True, disagreement=False)
    scores = torch.zeros(2, 32, 32)
    scores[0] = -torch.inf
    told = tell(scores, (ALONE, ALONE), everywhere=True)
    assert int(told.rims[0][1].max()) == ONE
    for weight in (128 * 128 - 1, 1):
        weights = torch.full((32, 32), weight, dtype=torch.int32)
        canvas.add(Window(0, 0, 32, 32), torch.ones(32, 32, dtype=torch.bool), told, weights)
    sums = torch.cat([finished.sums.clone() for _, finished in canvas.up_to(32)], dim=1)
    assert (sums[1] == FULL).all()
    assert (sums[0] == 0).all()


def test_an_area_of_a_tile_on_the_map():
    assert inside((slice(2, 5), slice(1, 32)), Window(100, 200, 32, 32)) == Window(101, 202, 31, 3)
