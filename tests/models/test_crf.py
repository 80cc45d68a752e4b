"""Mean-field inference of the CRF: against a dense one in numpy, and what must hold for any image."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from geopsp.core.jit import compile_ahead
from geopsp.errors import OptionError
from geopsp.models import crf_torch
from geopsp.models.crf import MAX_HALO, CRFOptions, CRFParameters, crf_parameters
from geopsp.models.mean_field import COMPILED, LEAST_PROBABILITY
from geopsp.models.mean_field_torch import mean_field

WHOLE = CRFParameters(
    appearance_weight=3, appearance_sigma=2.5, color_sigma=0.7, smoothness_weight=1.5, smoothness_sigma=1.3,
    iterations=4, radius=12, dilation=1,
)  # fmt: skip
"""Parameters whose kernels reach all over an image of 13 pixels."""


def image_of(seed, classes=3, bands=2, rows=9, cols=13, holes=0.2):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet([0.5] * classes, (rows, cols)).transpose(2, 0, 1).astype(np.float32)
    image = rng.normal(size=(bands, rows, cols)).astype(np.float32)
    return tuple(map(torch.from_numpy, (np.ascontiguousarray(probabilities), image, rng.random((rows, cols)) >= holes)))


def dense(probabilities, image, valid, crf, excluded=()):
    """Mean-field inference by its formula, over all pairs of pixels, in float64."""
    classes = len(probabilities)
    known = valid.numpy().ravel()
    rows, cols = np.indices(valid.shape).reshape(2, -1)[:, known]
    prior = np.maximum(probabilities.numpy().reshape(classes, -1)[:, known].astype(float), LEAST_PROBABILITY)
    prior[list(excluded)] = 0
    with np.errstate(divide="ignore"):
        unary = -np.log(prior / prior.sum(axis=0))
    colours = image.numpy().reshape(len(image), -1)[:, known].astype(float)
    distance = np.square(rows[:, None] - rows) + np.square(cols[:, None] - cols)
    contrast = np.square(colours[:, :, None] - colours[:, None]).mean(axis=0)
    appearance = np.exp(-distance / (2 * crf.appearance_sigma**2) - contrast / (2 * crf.color_sigma**2))
    smoothness = np.exp(-distance / (2 * crf.smoothness_sigma**2))
    pairwise = np.zeros_like(distance, dtype=float)
    for kernel, weight in ((appearance, crf.appearance_weight), (smoothness, crf.smoothness_weight)):
        scaled = weight * kernel / kernel.sum(axis=1, keepdims=True)
        np.fill_diagonal(scaled, 0)
        pairwise += scaled
    potts = 1 - np.eye(classes)
    belief = np.exp(-unary)
    belief /= belief.sum(axis=0)
    for _ in range(crf.iterations):
        energy = unary + potts @ (belief @ pairwise.T)
        belief = np.exp(energy.min(axis=0) - energy)
        belief /= belief.sum(axis=0)
    found = np.zeros((classes, known.size))
    found[:, known] = belief
    return found.reshape(classes, *valid.shape)


def by_tensors(probabilities, image, valid, crf, excluded=()):
    """What a GPU would give, on the CPU."""
    prior = probabilities.clamp(min=LEAST_PROBABILITY)
    prior[list(excluded)] = 0
    prior = torch.where(valid, prior / prior.sum(dim=0), 0)
    return crf_torch.mean_field(prior, image, valid, crf)


@pytest.mark.parametrize("excluded", [(), (1,)])
@pytest.mark.parametrize("changes", [{}, {"appearance_weight": 0.0}, {"smoothness_weight": 0.0}, {"iterations": 1}])
def test_an_untruncated_crf_is_the_dense_one(changes, excluded):
    crf, inputs = replace(WHOLE, **changes), image_of(0)
    expected = dense(*inputs, crf, excluded)
    assert np.abs(expected - inputs[0].numpy()).max() > 0.1, "it does something"
    for found in (mean_field(*inputs, crf, excluded=excluded), by_tensors(*inputs, crf, excluded)):
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


@settings(max_examples=examples(12), deadline=None)
@given(
    seed=st.integers(0, 99),
    bands=st.integers(1, 4),
    classes=st.integers(2, 6),
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    radius=st.integers(2, 9),
    dilation=st.sampled_from([1, 2]),
    holes=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_tensors_give_the_same(seed, bands, classes, shape, radius, dilation, holes):
    crf = replace(WHOLE, radius=radius, dilation=dilation)
    probabilities, image, valid = image_of(seed, classes, bands, *shape, holes)
    found = mean_field(probabilities, image, valid, crf)
    assert (found - by_tensors(probabilities, image, valid, crf)).abs().max() < 1e-4
    assert (found.sum(dim=0)[valid] - 1).abs().max() < 1e-5 if valid.any() else True
    assert not found[:, ~valid].any()


@settings(max_examples=examples(15), deadline=None)
@given(seed=st.integers(0, 99), row=st.integers(0, 40), col=st.integers(0, 40), height=st.integers(1, 20))
def test_a_pixel_depends_on_its_halo_alone(seed, row, col, height):
    """To the last bit, wherever the array begins, and in any number of threads."""
    crf = CRFParameters(appearance_sigma=2, smoothness_sigma=0.6, iterations=3)
    inputs = image_of(seed, 3, 2, 61, 57, 0.1)
    whole = mean_field(*inputs, crf)
    halo, width = crf.halo, min(9, 57 - col)
    assert halo == 12
    height = min(height, 61 - row)
    top, left = max(0, row - halo), max(0, col - halo)
    cut = (..., slice(top, row + height + halo), slice(left, col + width + halo))
    with ThreadPoolExecutor(3) as pool:
        core = slice(row - top, row - top + height)
        part = mean_field(*(each[cut] for each in inputs), crf, core=core, pool=pool)
    assert torch.equal(part[..., col - left : col - left + width], whole[:, row : row + height, col : col + width])


def test_nodata_neither_gives_nor_takes():
    probabilities, image, valid = image_of(1)
    other = [each.clone() for each in (probabilities, image)]
    other[0][:, ~valid] = torch.tensor([1.0, 0, 0])[:, None]
    other[1][:, ~valid] = 77
    found = mean_field(probabilities, image, valid, WHOLE)
    assert torch.equal(found, mean_field(*other, valid, WHOLE))


def test_a_uniform_image_with_equal_probabilities_stays():
    probabilities = torch.tensor([0.5, 0.3, 0.2])[:, None, None].expand(3, 20, 20).clone()
    found = mean_field(probabilities, torch.zeros(1, 20, 20), torch.ones(20, 20, dtype=torch.bool), WHOLE)
    assert (found.argmax(dim=0) == 0).all()
    inner = found[:, 12:, 12:]  # no pixel prefers another class than its neighbours, and all agree more
    assert (inner[0] > 0.5).all()
    even = torch.full((4, 20, 20), 0.25)
    assert (
        mean_field(even, torch.zeros(1, 20, 20), torch.ones(20, 20, dtype=torch.bool), WHOLE) - even
    ).abs().max() < 1e-6


def test_no_weight_changes_nothing():
    probabilities, image, valid = image_of(2)
    crf = replace(WHOLE, appearance_weight=0.0, smoothness_weight=0.0)
    expected = torch.where(valid, probabilities, 0)
    assert crf.halo == 0
    assert (mean_field(probabilities, image, valid, crf) - expected).abs().max() < 1e-4


def test_noisy_probabilities_snap_to_an_edge():
    rng = np.random.default_rng(3)
    truth = np.zeros((64, 64), int)
    truth[:, 29:] = 1
    smooth = 1 / (1 + np.exp(-(np.arange(64) - 32 + 0 * truth) / 4.0))  # the network's border is wide, and 3 pixels off
    noisy = np.clip(smooth + rng.normal(size=(64, 64)) * 0.15, 0.01, 0.99).astype(np.float32)
    probabilities = torch.from_numpy(np.stack([1 - noisy, noisy]))
    image = torch.from_numpy((truth + rng.normal(size=(64, 64)) * 0.05).astype(np.float32))[None]
    valid = torch.ones(64, 64, dtype=torch.bool)
    crf = CRFParameters()
    before = (probabilities.argmax(dim=0).numpy() != truth).mean()
    after = (mean_field(probabilities, image, valid, crf).argmax(dim=0).numpy() != truth).mean()
    assert before > 0.04
    assert after < 0.005


def test_everything_is_compiled_ahead(monkeypatch):
    from geopsp.models import crf_numba

    compile_ahead(COMPILED)
    counts = [len(getattr(crf_numba, name).overloads) for name in ("_similarities", "_factors", "_update")]
    mean_field(*image_of(0), WHOLE)
    assert [len(getattr(crf_numba, name).overloads) for name in ("_similarities", "_factors", "_update")] == counts


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"appearance_weight": -1}, r"`appearance_weight` is -1, but must be a number from 0 to 50"),
        ({"color_sigma": 0}, r"`color_sigma` is 0, but must be"),
        ({"iterations": 0}, r"`iterations` is 0, but must be a whole number from 1 to 100"),
        ({"radius": 2.5}, r"`radius` is 2.5, but must be a whole number"),
        ({"smoothness_sigma": float("nan")}, r"`smoothness_sigma` is nan"),
        (
            {"radius": 200, "iterations": 9},
            r"radius of 200 pixels times 9 iterations is 1800 pixels, but may be at most",
        ),
        ({"radius": 4, "dilation": 5}, r"`dilation` is 5, but the appearance kernel ends at 4 pixels"),
        ({"radius": 40, "dilation": 1}, r"gives the appearance kernel 40 neighbours on each side of a pixel"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        crf_parameters(CRFOptions(**options), {})


def test_parameters_are_those_given_then_those_fitted_then_defaults():
    assert crf_parameters(crf=False, settings={"crf": {"iterations": 2}}) is None
    assert crf_parameters(crf=True, settings={}) == CRFParameters()
    fitted = {"crf": {**CRFParameters(color_sigma=0.5, iterations=2).to_json(), "without": {"miou": 0.3}}}
    assert crf_parameters(crf=True, settings=fitted) == CRFParameters(color_sigma=0.5, iterations=2)
    given = CRFOptions(iterations=7)
    assert crf_parameters(given, fitted) == CRFParameters(color_sigma=0.5, iterations=7)
    with pytest.raises(OptionError, match="The model's own parameters of the CRF cannot be used: `iterations`"):
        crf_parameters(crf=True, settings={"crf": {"iterations": "many"}})
    assert crf_parameters(crf=True, settings={"crf": "nonsense"}) == CRFParameters()


@pytest.mark.parametrize(
    "crf",
    [CRFParameters(), CRFParameters(appearance_sigma=30), CRFParameters(appearance_sigma=3, radius=5, dilation=2)],
)
def test_offsets_are_half_of_the_kernel(crf):
    offsets = crf.offsets()
    both = {*offsets, *((-down, -across) for down, across in offsets)}
    side = 2 * (crf.appearance_radius // crf.spacing) + 1
    assert len(both) == 2 * len(offsets) == side**2 - 1
    assert side <= 13
    assert max(map(max, both)) == crf.appearance_radius <= crf.reach
    assert crf.halo == crf.reach * crf.iterations <= MAX_HALO
