"""The first layer on other bands: responses keep their size, and a set's scale of pixel values is accounted for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from geopsp.models.stem import (
    BAND_CORRELATION,
    PIXEL_CORRELATION,
    match_stem,
    response_variance,
    standardise_stem,
)


def filters_of(seed, out=5, bands=4, size=3):
    return torch.randn(out, bands, size, size, generator=torch.Generator().manual_seed(seed))


def images_of_the_model(bands, count=4000, size=3):
    """Standardised images that correlate as the model says: (count, bands, size, size)."""
    places = np.stack(np.meshgrid(range(size), range(size), indexing="ij"), axis=-1).reshape(-1, 2)
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1)
    between = np.where(np.eye(bands), 1.0, BAND_CORRELATION)
    covariance = np.kron(between, PIXEL_CORRELATION**distances)
    rng = np.random.default_rng(0)
    drawn = rng.multivariate_normal(np.zeros(len(covariance)), covariance, size=count, method="cholesky")
    return torch.tensor(drawn.reshape(count, bands, size, size), dtype=torch.float32)


def test_expected_variance_is_that_of_drawn_images():
    filters = filters_of(1)
    response = F.conv2d(images_of_the_model(4, count=20000), filters).flatten(1)
    torch.testing.assert_close(response.var(0), response_variance(filters).float(), rtol=0.05, atol=0.0)


@settings(max_examples=examples(20), deadline=None)
@given(st.integers(0, 99), st.lists(st.one_of(st.none(), st.integers(0, 3)), min_size=1, max_size=6, unique=True))
def test_the_size_of_the_response_is_kept_on_any_bands(seed, positions):
    filters = filters_of(seed)
    matched = match_stem(filters, positions)
    assert matched.shape == (5, len(positions), 3, 3)
    torch.testing.assert_close(response_variance(matched).sum(), response_variance(filters).sum(), rtol=1e-4, atol=0.0)
    mean = filters.mean(1)
    scale = None
    for band, position in enumerate(positions):  # each is its own filter or the mean, all by one factor
        source = mean if position is None else filters[:, position]
        factor = (matched[:, band] * source).sum() / (source * source).sum()
        torch.testing.assert_close(matched[:, band], source * factor, rtol=1e-4, atol=1e-5)
        scale = factor if scale is None else scale
        torch.testing.assert_close(factor, scale, rtol=1e-4, atol=0.0)


def test_the_same_bands_change_nothing_but_their_order():
    filters = filters_of(3)
    torch.testing.assert_close(match_stem(filters, (0, 1, 2, 3)), filters)
    torch.testing.assert_close(match_stem(filters, (3, 1, 0, 2)), filters[:, [3, 1, 0, 2]])
    assert match_stem(torch.zeros(2, 2, 3, 3), (0, None)).abs().sum() == 0


def layer(filters):
    conv = nn.Conv2d(filters.shape[1], filters.shape[0], 3, bias=False)
    conv.weight.data = filters
    return nn.Sequential(conv, nn.BatchNorm2d(filters.shape[0]))


@pytest.mark.parametrize("training", [True, False])
def test_standardised_bands_give_what_the_published_scale_gave(training):
    """Of images whose statistics are those of the pretraining, trained or frozen."""
    std, mean = torch.tensor([0.08, 0.12, 0.005, 0.4]), torch.tensor([0.1, 0.3, 0.002, -2.0])
    bands = images_of_the_model(4, count=400, size=6)
    bands = (bands - bands.mean((0, 2, 3), keepdim=True)) / bands.std((0, 2, 3), keepdim=True)
    seen = bands * std[:, None, None] + mean[:, None, None]
    before = layer(filters_of(7)).train()
    before[1].momentum = 1.0
    before(seen)  # the running statistics of pretraining
    state = {"0.weight": before[0].weight.data} | {f"1.{k}": v.clone() for k, v in before[1].state_dict().items()}
    after = layer(torch.zeros(5, 4, 3, 3))
    after.load_state_dict(standardise_stem(state, "0.weight", "1.running_mean", std.tolist()))
    expected, found = (net.train(training)(x) for net, x in ((before, seen), (after, bands)))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0.03)


@pytest.mark.parametrize("scale", [0.05, 1.0, 30.0])
def test_an_unknown_scale_is_estimated_from_the_running_variance(scale):
    filters = filters_of(8)
    seen = F.conv2d(images_of_the_model(4, count=20000) * scale, filters).flatten(1)
    state = {"w": filters, "n.running_mean": torch.ones(5), "n.running_var": seen.var(0)}
    found = standardise_stem(state, "w", "n.running_mean", ())
    torch.testing.assert_close(found["w"], filters * scale, rtol=0.05, atol=0.0)
    assert found["n.running_mean"].abs().sum() == 0
    assert found["n.running_var"] is state["n.running_var"]
    assert standardise_stem({"w": filters}, "w", "", ())["w"].equal(filters)
