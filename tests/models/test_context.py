"""Contexts: pooling against torch's and by hand, the quick bottleneck against the plain one, ASPP against smp's."""

from __future__ import annotations

import pytest
import torch
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from segmentation_models_pytorch.decoders.deeplabv3 import decoder as smp_decoders
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from geopsp.models.context import ASPP, Bottleneck, PyramidPooling
from geopsp.models.layers import bin_matrix, masked_pool

QUICK = settings(max_examples=examples(12), deadline=None)
BINS = st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple)
SIDES = st.integers(2, 17)


def pool(features, weight, bins):
    return masked_pool(features, weight, (bins,))[0]


def wide(means, size):
    return F.interpolate(means, size, mode="bilinear", align_corners=False)


# ---- pooling


@given(size=st.integers(1, 40), bins=st.integers(1, 9))
@QUICK
def test_bins_are_those_of_adaptive_pooling(size, bins):
    matrix = bin_matrix(size, bins, device=torch.device("cpu"), dtype=torch.float32)
    pooled = F.adaptive_avg_pool1d(torch.eye(size)[None], bins)[0].T  # (bins, size) weights
    assert torch.equal(matrix > 0, pooled > 0)


@given(height=st.integers(1, 24), width=st.integers(1, 24), sizes=BINS)
@QUICK
def test_where_all_is_valid_it_is_adaptive_average_pooling(height, width, sizes):
    features = torch.randn(2, 3, height, width)
    pooled = masked_pool(features, torch.ones(2, 1, height, width), sizes)
    for means, bins in zip(pooled, sizes, strict=True):
        torch.testing.assert_close(means, F.adaptive_avg_pool2d(features, bins), rtol=1e-5, atol=1e-5)


@given(height=st.integers(1, 16), width=st.integers(1, 16), bins=st.integers(1, 6), seed=st.integers(0, 99))
@QUICK
def test_what_lies_in_invalid_cells_does_not_count(height, width, bins, seed):
    torch.manual_seed(seed)
    features, weight = torch.randn(1, 3, height, width), (torch.rand(1, 1, height, width) > 0.5).float()
    other = torch.where(weight > 0, features, 1e4 * torch.randn_like(features))
    pooled = pool(features, weight, bins)
    assert torch.equal(pooled, pool(other, weight, bins))
    if bins == 1 and weight.any():
        mean = features[0][:, weight[0, 0] > 0].mean(dim=1)
        torch.testing.assert_close(pooled[0, :, 0, 0], mean, rtol=1e-5, atol=1e-5)


def test_a_bin_without_valid_cells_takes_its_nearest_and_partly_valid_cells_count_in_part():
    features = torch.tensor([[1.0, 2.0, 3.0, 4.0]])[None, None]
    weight = torch.tensor([[0.0, 0.0, 1.0, 0.25]])[None, None]
    assert pool(features, weight, 2)[0, 0, 0].tolist() == pytest.approx([(3 + 1) / 1.25] * 2)
    assert pool(features, torch.ones_like(weight), 2)[0, 0, 0].tolist() == [1.5, 3.5]
    weight = torch.tensor([[1.0, 0.0, 0.0, 1.0]])[None, None]
    assert pool(features, weight, 4)[0, 0, 0].tolist() == [1, 1, 4, 4]
    assert pool(features[..., [0, 1, 3]], weight[..., [0, 1, 3]], 3)[0, 0, 0].tolist() == [1, 2.5, 4]  # as near to both
    assert pool(features, 0 * weight, 2).tolist() == [[[[0, 0], [0, 0]]]]


TURNS = {
    "right": lambda x: x,
    "left": lambda x: x.flip(3),
    "bottom": lambda x: x.mT,
    "top": lambda x: x.mT.flip(2),
}
"""From a map whose right part is empty to one whose other part is; `None` follows it back."""


@given(height=SIDES, width=st.integers(2, 9), bins=st.integers(1, 7), side=st.sampled_from(sorted(TURNS)))
@QUICK
def test_the_valid_half_has_the_context_that_it_would_have_alone(height, width, bins, side):
    """The bins keep their place and size; those that reach into the empty half count what they have of the other."""
    half = torch.randn(2, 3, height, width)
    whole = torch.cat([half, 1e4 * torch.randn_like(half)], dim=3)
    weight = torch.ones(2, 1, height, 2 * width)
    weight[..., width:] = 0
    turn = TURNS[side]
    means = pool(turn(whole), turn(weight), bins)
    context = turn_back(wide(means, turn(whole).shape[-2:]), side)[..., :width]

    edges = [(i * 2 * width // bins, min(width, -(-(i + 1) * 2 * width // bins))) for i in range(bins)]
    columns = [F.adaptive_avg_pool2d(half[..., a:b], (bins, 1)) for a, b in edges if a < width]
    alone = torch.cat(columns + columns[-1:] * (bins - len(columns)), dim=3)
    torch.testing.assert_close(context, wide(alone, (height, 2 * width))[..., :width], rtol=1e-4, atol=1e-4)
    if bins % 2 == 0:
        cropped = wide(F.adaptive_avg_pool2d(half, (bins, bins // 2)), (height, width))
        torch.testing.assert_close(context, cropped, rtol=1e-4, atol=1e-4)


def turn_back(x, side):
    return {"right": x, "left": x.flip(3), "bottom": x.mT, "top": x.flip(2).mT}[side]


# ---- the pyramid


def joined(pyramid, features, weight):
    """As the paper draws it: everything at one size, joined, convolved."""
    parts = [wide(means, features.shape[-2:]) for means in pyramid.pool(features, weight)]
    return pyramid.dropout(pyramid.bottleneck(torch.cat([features, *parts], dim=1)))


def both_ways(pyramid, features, weight):
    """Outputs and the gradients of input and parameters, of the quick form and of the joined one."""
    found = []
    for form in (pyramid, lambda x, w: joined(pyramid, x, w)):
        x = features.clone().requires_grad_()
        out = form(x, weight)
        pull = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        found.append([out, *torch.autograd.grad((out * pull).sum(), [x, *pyramid.parameters()])])
    return zip(*found, strict=True)


@given(batch=st.integers(1, 2), height=SIDES, width=SIDES, sizes=BINS, seed=st.integers(0, 99), share=st.floats(0, 1))
@QUICK
def test_the_quick_bottleneck_is_the_joined_one(batch, height, width, sizes, seed, share):
    torch.manual_seed(seed)
    weight = torch.rand(batch, 1, height, width)
    weight = weight.where(weight < share, 0)
    for dtype, near in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        pyramid = PyramidPooling(12, sizes, 8, 0.0).to(dtype).eval()  # BatchNorm of near-equal values has no bound
        for quick, plain in both_ways(pyramid, torch.randn(batch, 12, height, width, dtype=dtype), weight):
            scale = plain.abs().max().clamp_min(1)
            torch.testing.assert_close(quick / scale, plain / scale, rtol=0, atol=near)


@pytest.mark.parametrize(("size", "sizes"), [((9, 13), (1, 2, 3, 6)), ((16, 16), (1, 2, 3)), ((5, 7), (4,))])
def test_it_is_also_when_the_norms_count_the_batch(size, sizes):
    weight = (torch.rand(3, 1, *size) > 0.3).double()
    pyramid = PyramidPooling(16, sizes, 8, 0.0).double().train()
    for quick, plain in both_ways(pyramid, torch.randn(3, 16, *size).double(), weight):
        torch.testing.assert_close(quick, plain, rtol=1e-9, atol=1e-9)


def test_in_bfloat16_it_errs_no_more_than_the_joined_one():
    torch.manual_seed(0)
    pyramid, features = PyramidPooling(64, (1, 2, 3, 6), 32, 0.0).eval(), torch.randn(2, 64, 16, 16)
    weight = torch.ones(2, 1, 16, 16)
    with torch.inference_mode():
        exact = pyramid(features, weight)
        with torch.autocast("cpu", torch.bfloat16):
            quick, plain = pyramid(features, weight), joined(pyramid, features, weight)
    errors = [(found.float() - exact).square().mean().sqrt() for found in (quick, plain)]
    assert errors[0] < 1.4 * errors[1]  # 1.16 to 1.23, by the seed
    assert errors[0] < 0.01 * exact.square().mean().sqrt()


def test_the_parameters_are_those_of_the_joined_form():
    """So that weights of either form fit the other."""
    pyramid = PyramidPooling(16, (1, 2, 3), 8, 0.1)
    shapes = {name: tuple(value.shape) for name, value in pyramid.named_parameters()}
    assert shapes["bottleneck.0.weight"] == (8, 16 + 3 * 5, 3, 3)
    assert {name for name in shapes if name.endswith("0.weight")} == {
        "bottleneck.0.weight", "branches.0.0.weight", "branches.1.0.weight", "branches.2.0.weight",
    }  # fmt: skip


class Launches(TorchDispatchMode):
    """Names of the operations that are no views."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view and "empty" not in str(func):
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_constants_are_made_once():
    """A forward pass launches no more than it must: its matrices are those of the last one."""
    pyramid = PyramidPooling(32, (1, 2, 3, 6), 16, 0.1).eval()
    inputs = torch.randn(2, 32, 13, 17), torch.ones(2, 1, 13, 17)
    with torch.inference_mode(), Launches() as first:
        found = pyramid(*inputs)
    with torch.inference_mode(), Launches() as second:
        assert torch.equal(pyramid(*inputs), found)
    assert {"arange", "eye"} <= set(first.names)
    assert not {"arange", "eye", "upsample_linear1d", "constant_pad_nd"} & set(second.names)
    assert len(second.names) <= 120
    output = pyramid.train()(*inputs)  # constants that inference made serve training
    output.square().sum().backward()


def test_constants_of_tensors_without_numbers_are_not_kept():
    pyramid = PyramidPooling(32, (1, 2), 16, 0.1).eval()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        pyramid(torch.zeros(1, 32, 9, 11), torch.ones(1, 1, 9, 11))
    assert pyramid(torch.ones(1, 32, 9, 11), torch.ones(1, 1, 9, 11)).sum().item() != 0


def test_invalid_ground_does_not_reach_the_valid_part_through_the_pyramid():
    pyramid = PyramidPooling(16, (1, 2, 3, 6), 8, 0.1).eval()
    features, weight = torch.randn(1, 16, 12, 12), torch.ones(1, 1, 12, 12)
    weight[..., 6:] = 0
    other = features.clone()
    other[..., 6:] = 50
    near, far = (pyramid(f, weight)[..., :5] for f in (features, other))
    torch.testing.assert_close(near, far)


@pytest.mark.parametrize("channels", [64, 128, 256, 512])
@pytest.mark.parametrize("sizes", [(1,), (1, 2, 3), (1, 2, 3, 6)])
def test_the_global_bin_tells_one_tile_from_another(channels, sizes):
    """A norm over too few values would give +-1, or nothing, whatever the tile."""
    pyramid = PyramidPooling(channels, sizes, 8, 0.1)
    branch = pyramid.branches[0]
    values = branch[1](branch[0](torch.randn(6, channels, 1, 1)))
    assert values.round(decimals=3).unique().numel() > values.numel() / 2


def test_the_bottleneck_alone_sees_its_neighbours_alone():
    context, features = Bottleneck(8, 4, 0.1).eval(), torch.randn(1, 8, 9, 9, requires_grad=True)
    context(features, torch.ones(1, 1, 9, 9))[0, :, 4, 4].sum().backward()
    seen = features.grad.abs().sum(dim=1)[0] > 0
    assert seen.sum() <= 9
    assert seen[3:6, 3:6].sum() == seen.sum()


# ---- ASPP


def smp_twin(aspp, channels, rates, outputs):
    """smp's ASPP with the weights of ours, but for the branch of the mean, whose norm is another."""
    twin = smp_decoders.ASPP(channels, outputs, rates, separable=True, dropout=0.1).eval()
    first, *atrous = zip(aspp.branches, twin.convs, strict=False)
    first[1].load_state_dict(first[0].state_dict())
    for ours, theirs in atrous:
        theirs[0][0].weight.data, theirs[0][1].weight.data = ours[0].weight.data, ours[1].weight.data
    twin.project[0].weight.data = aspp.project[0].weight.data
    return twin


def test_but_for_the_mean_aspp_is_that_of_smp():
    aspp = ASPP(12, (2, 3, 5), 8, 0.1).eval()
    aspp.project[0].weight.data[:, -8:] = 0
    features = torch.randn(2, 12, 11, 14)
    theirs = smp_twin(aspp, 12, (2, 3, 5), 8)(features)
    torch.testing.assert_close(aspp(features, torch.ones(2, 1, 11, 14)), theirs)


def test_the_mean_of_aspp_is_that_of_valid_ground():
    aspp = ASPP(12, (2,), 8, 0.1).eval()
    aspp.project[0].weight.data[:, :-8] = 0
    features, weight = torch.randn(2, 12, 6, 10), torch.ones(2, 1, 6, 10)
    weight[..., 5:] = 0
    alone = aspp(features[..., :5], torch.ones(2, 1, 6, 5))
    torch.testing.assert_close(aspp(features, weight)[..., :5], alone)
    assert alone.flatten(2).std(dim=2).max() < 1e-5


@pytest.mark.parametrize("rates", [(1,), (12, 24, 36), (6, 12, 18, 24)])
def test_any_rates_train_at_a_batch_of_one(rates):
    aspp = ASPP(16, rates, 8, 0.1).train()
    out = aspp(torch.randn(1, 16, 4, 4), torch.ones(1, 1, 4, 4))
    assert out.shape == (1, 8, 4, 4)
    out.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in aspp.parameters())
