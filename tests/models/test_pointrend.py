"""PointRend: where points lie, which are chosen, what becomes of them."""

from __future__ import annotations

import pytest
import torch
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from geopsp.models.pointrend import PointHead, PointRend, inside_cells, sample_points, uncertainty

QUICK = settings(max_examples=examples(12), deadline=None)


@given(height=st.integers(1, 9), width=st.integers(1, 9))
@QUICK
def test_sampling_at_pixel_centres_gives_the_pixels(height, width):
    features = torch.randn(2, 3, height, width)
    rows, cols = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.stack([(cols + 0.5) / width, (rows + 0.5) / height], dim=-1).view(1, -1, 2).expand(2, -1, -1)
    torch.testing.assert_close(sample_points(features, points), features.flatten(2), rtol=1e-4, atol=1e-5)


def test_sampling_between_centres_is_bilinear_and_keeps_to_the_border():
    features = torch.tensor([[0.0, 4.0]])[None, None]
    points = torch.tensor([[[0.5, 0.5], [0.375, 0.1], [0.0, 0.0], [1.0, 1.0]]])
    assert sample_points(features, points)[0, 0].tolist() == pytest.approx([2, 1, 0, 4])


def test_uncertainty_is_minus_the_lead():
    logits = torch.tensor([[3.0, 1.0], [1.0, 5.0], [2.5, 5.0]])[None]
    assert uncertainty(logits)[0].tolist() == pytest.approx([-0.5, 0])
    assert uncertainty(torch.zeros(1, 1, 4)).tolist() == [[0, 0, 0, 0]]


def pointrend(classes=3, fine=4, share=1 / 32):
    return PointRend(fine, classes, width=8, layers=3, train_share=1 / 64, share=share)


class CoarseHead(nn.Module):
    def forward(self, fine, coarse):
        return coarse


def bilinear(coarse, size):
    return F.interpolate(coarse, size, mode="bilinear", align_corners=False)


def test_a_head_that_answers_with_the_coarse_logits_does_no_harm():
    """At the centres of a map enlarged at one stroke, the coarse map's samples are that map."""
    rend = pointrend(share=1.0)
    rend.head = CoarseHead()
    coarse, valid = torch.randn(2, 3, 8, 8), torch.ones(2, 1, 64, 64)
    refined = rend.refine(coarse, torch.randn(2, 4, 16, 16), valid)
    torch.testing.assert_close(refined, bilinear(coarse, 64), rtol=1e-4, atol=1e-4)


@given(seed=st.integers(0, 50), height=st.integers(8, 20), width=st.integers(8, 20))
@QUICK
def test_only_the_least_certain_cells_are_decided_anew(seed, height, width):
    torch.manual_seed(seed)
    rend = pointrend(share=1 / 8)
    rend.head = Constant(100.0)
    logits, valid = torch.randn(2, 3, height, width), (torch.rand(2, 1, height, width) > 0.3).float()
    decided = rend._replace_uncertain(logits, logits, torch.zeros(2, 4, height, width), valid)
    changed = (decided == 100).all(dim=1)
    assert torch.equal(decided[~changed[:, None].expand_as(decided)], logits[~changed[:, None].expand_as(logits)])
    count = max(16, height * width // 8)
    assert (changed.flatten(1).sum(1) == count).all()
    for cells, unsure, seen in zip(changed, uncertainty(logits), valid[:, 0] > 0, strict=True):
        if seen.sum() >= count:
            assert seen[cells].all()
            assert unsure[cells].min() >= unsure[seen & ~cells].max() if (seen & ~cells).any() else True
        else:
            assert cells[seen].all()


class Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, fine, coarse):
        return torch.full_like(coarse, self.value)


class Position(nn.Module):
    """Answers with the first channels of the fine map: where the point lies, if the map holds coordinates."""

    def forward(self, fine, coarse):
        return fine[:, :2]


@pytest.mark.parametrize("size", [(64, 64), (37, 53), (512, 32)])
def test_points_are_put_back_where_they_were_taken(size):
    """A fine map of coordinates comes back as coordinates, also under bfloat16: they are float32 throughout."""
    height, width = size
    rend = pointrend(classes=2, share=1.0)
    rend.head = Position()
    rows, cols = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    fine = torch.cat([torch.stack([rows, cols]), torch.zeros(2, height, width)])[None]
    with torch.autocast("cpu", torch.bfloat16):
        refined = rend.refine(torch.zeros(1, 2, height // 8, width // 8), fine, torch.ones(1, 1, height, width))
    torch.testing.assert_close(refined[0, 0], rows, rtol=0, atol=0.01)
    torch.testing.assert_close(refined[0, 1], cols, rtol=0, atol=0.01)


def test_training_points_are_unsure_and_valid_where_they_can_be():
    torch.manual_seed(0)
    rend = pointrend(classes=2)
    coarse, valid = torch.zeros(1, 2, 16, 16), torch.ones(1, 1, 128, 128)
    coarse[:, 0] = torch.linspace(-9, 9, 16)  # the surer, the farther from the middle column
    valid[:, :, :64] = 0
    points, logits = rend.train_points(coarse, torch.randn(1, 4, 32, 32, requires_grad=True), valid)
    assert points.shape == (1, 256, 2)
    assert logits.shape == (1, 2, 256)
    chosen = points[0, :192]
    assert (chosen[:, 1] > 0.49).all()
    assert (chosen[:, 0] - 0.5).abs().max() < 0.33
    assert (points[0, 192:, 0] - 0.5).abs().max() > 0.4


def test_gradients_of_points_reach_both_maps():
    """In arcgis.learn the hook detaches."""
    rend = pointrend()
    coarse, fine = torch.randn(1, 3, 8, 8, requires_grad=True), torch.randn(1, 4, 16, 16, requires_grad=True)
    rend.train_points(coarse, fine, torch.ones(1, 1, 64, 64))[1].sum().backward()
    assert coarse.grad.abs().sum() > 0
    assert fine.grad.abs().sum() > 0


def test_the_head_sees_the_coarse_logits_in_every_layer():
    head = PointHead(4, 3, width=8, layers=3)
    assert [layer.in_channels for layer in head.layers] == [7, 11, 11]
    assert head.classify.in_channels == 11


def test_every_number_of_points_is_fixed_by_the_shapes():
    """So that compiled and exported networks need no other program for other pictures; 1024 points of 512 x 512."""
    rend = PointRend(4, 3, width=8, layers=3, train_share=1 / 256, share=1 / 32)
    coarse, fine = torch.randn(1, 3, 8, 8), torch.randn(1, 4, 16, 16)
    for valid in (torch.ones(1, 1, 512, 512), torch.zeros(1, 1, 512, 512)):
        points, logits = rend.train_points(coarse, fine, valid)
        assert points.shape == (1, 1024, 2)
        assert logits.shape == (1, 3, 1024)
        assert torch.isfinite(logits).all()
    assert torch.isfinite(rend.refine(coarse, fine, torch.zeros(1, 1, 64, 64))).all()


def test_coordinates_stay_float32_under_autocast():
    rend = pointrend()
    coarse, fine = torch.randn(1, 3, 8, 8), torch.randn(1, 4, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        points, _ = rend.train_points(coarse.bfloat16(), fine.bfloat16(), torch.ones(1, 1, 64, 64))
    assert points.dtype == torch.float32
    assert (points * 256 != (points * 256).round()).any()


def test_cells_without_data_are_never_decided_anew():
    """Which of them fill up the points depends on the device, and pixels beside them take part of their logits."""
    head = PointRend(4, 3, width=8, layers=1, train_share=1 / 16, share=1 / 4)
    coarse, fine, valid = torch.randn(2, 3, 8, 8), torch.randn(2, 4, 16, 16), torch.zeros(2, 1, 32, 32)
    with torch.inference_mode():
        found = head.refine(coarse, fine, valid)
        wanted = F.interpolate(coarse, (16, 16), mode="bilinear", align_corners=False)
        wanted = F.interpolate(wanted, (32, 32), mode="bilinear", align_corners=False)
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)
        valid[:, :, 4:8, 4:8] = 1
        anew = (head.refine(coarse, fine, valid) != wanted).any(dim=1)
    assert anew.any()
    assert not anew[:, 12:].any()


@pytest.mark.parametrize("size", [(1, 1), (5, 8), (64, 64)])
def test_points_of_apples_gpus_are_those_of_others(size):
    """They know no padding by the border, so points are moved inside instead."""
    features, points = torch.randn(2, 3, *size), torch.rand(2, 200, 2)
    points[:, :4] = torch.tensor([[0, 0], [1, 1], [0, 1], [1, 0]])
    grid = inside_cells(points[:, :, None] * 2 - 1, *size)
    found = F.grid_sample(features, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[..., 0]
    assert torch.allclose(found, sample_points(features, points), atol=1e-5)
