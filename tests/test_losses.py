"""Losses against torch's and smp's where those are right, and finite where those are not."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segmentation_models_pytorch.losses import DiceLoss
from torch.nn import functional as F

from geopsp.errors import OptionError
from geopsp.legend import IGNORE
from geopsp.losses import WEIGHT_CAP, LossSpec, balance, cross_entropy, dice, labels_at, total_loss
from geopsp.models.pspnet import TrainingOutput

QUICK = settings(max_examples=25, deadline=None)


def batch(seed, classes, ignored=0.3, shape=(2, 7, 5)):
    """Logits that want a gradient, and labels."""
    torch.manual_seed(seed)
    labels = torch.randint(0, classes, shape)
    labels[torch.rand(shape) < ignored] = IGNORE
    return (3 * torch.randn(shape[0], classes, *shape[1:])).requires_grad_(), labels


@given(seed=st.integers(0, 999), classes=st.integers(2, 9), weighted=st.booleans())
@QUICK
def test_cross_entropy_is_torchs(seed, classes, weighted):
    logits, labels = batch(seed, classes)
    labels[0, 0, 0] = 0
    weight = torch.rand(classes) + 0.1 if weighted else None
    ours = cross_entropy(logits, labels, weight=weight)
    theirs = F.cross_entropy(logits, labels, weight=weight, ignore_index=IGNORE)
    torch.testing.assert_close(ours, theirs)
    (grad,) = torch.autograd.grad(ours, logits)
    torch.testing.assert_close(grad, torch.autograd.grad(theirs, logits)[0])


@given(seed=st.integers(0, 999), focal=st.booleans())
@QUICK
def test_ignored_pixels_have_no_gradient(seed, focal):
    logits, labels = batch(seed, 3)
    loss = cross_entropy(logits, labels, weight=torch.rand(3), focal=focal) + dice(logits, labels)
    (grad,) = torch.autograd.grad(loss, logits)
    unknown = (labels == IGNORE)[:, None].expand_as(grad)
    assert (grad[unknown] == 0).all()
    assert torch.isfinite(grad).all()


def output(logits, points=False):
    n = len(logits)
    spots = torch.rand(n, 16, 2) if points else None
    return TrainingOutput(logits, logits * 0.5, spots, logits.flatten(2)[:, :, :16] if points else None)


@pytest.mark.parametrize("spec", [LossSpec(), LossSpec(focal_loss=True), LossSpec(dice_loss_fraction=0.5)])
def test_a_batch_without_a_label_costs_nothing(spec):
    logits, labels = batch(0, 4, ignored=1.1)
    loss = total_loss(output(logits, points=True), labels, spec, torch.rand(4))
    assert loss.item() == 0
    (grad,) = torch.autograd.grad(loss, logits)
    assert (grad == 0).all()


def test_labels_of_weight_0_alone_cost_nothing():
    logits, labels = batch(0, 2, ignored=0)
    loss = cross_entropy(logits, labels * 0, weight=torch.tensor([0.0, 1.0]))
    assert loss.item() == 0


def test_focal_loss_by_hand():
    """One pixel of p = 3/4 and one of p = 1/4 for the true class."""
    logits = torch.tensor([[[math.log(3.0), math.log(3.0)], [0.0, 0.0]]])
    labels = torch.tensor([[0, 1]])
    expected = ((1 / 4) ** 2 * -math.log(3 / 4) + (3 / 4) ** 2 * -math.log(1 / 4)) / 2
    assert cross_entropy(logits, labels, focal=True).item() == pytest.approx(expected, rel=1e-6)


@given(seed=st.integers(0, 999), classes=st.integers(2, 6), ignored=st.sampled_from([0.0, 0.3]))
@QUICK
def test_dice_is_smps_over_the_classes_present(seed, classes, ignored):
    """smp divides by all classes, also those that are not there."""
    logits, labels = batch(seed, classes, ignored)
    present = len(set(labels.unique().tolist()) - {IGNORE})
    theirs = DiceLoss("multiclass", ignore_index=IGNORE)(logits, labels.clone())
    torch.testing.assert_close(dice(logits, labels), theirs * classes / present, rtol=1e-4, atol=1e-5)


def test_dice_by_hand():
    """p = 3/4 for class 0 in two pixels, one of which is 0 and one 1."""
    logits = torch.tensor([[[math.log(3.0), math.log(3.0)], [0.0, 0.0]]])
    zero, one = 2 * 0.75 / (1.5 + 1), 2 * 0.25 / (0.5 + 1)
    assert dice(logits, torch.tensor([[0, 1]])).item() == pytest.approx(1 - (zero + one) / 2)
    assert dice(logits, torch.tensor([[0, IGNORE]])).item() == pytest.approx(1 - 2 * 0.75 / (0.75 + 1))


def test_half_precision_logits_are_counted_in_float32():
    logits, labels = batch(3, 4)
    half = logits.detach().to(torch.bfloat16) * 100
    for loss in (cross_entropy(half, labels), dice(half, labels)):
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss)


@given(counts=st.lists(st.integers(0, 10**9), min_size=1, max_size=12))
@QUICK
def test_balance_is_capped_and_has_mean_1(counts):
    weights = balance(torch.tensor(counts))
    assert weights.dtype == torch.float32
    present = torch.tensor(counts) > 0
    assert (weights[~present] == 0).all()
    if present.any():
        assert weights[present].max() <= weights[present].min() * WEIGHT_CAP * (1 + 1e-5)
        total = sum(counts)
        mean = sum(w * c / total for w, c in zip(weights.tolist(), counts, strict=True))
        assert mean == pytest.approx(1, rel=1e-5)


def test_balance_by_hand():
    assert balance(torch.tensor([400, 100])).tolist() == pytest.approx([5 / 6, 10 / 6])
    assert balance(torch.tensor([10**6, 1]))[1] / balance(torch.tensor([10**6, 1]))[0] == pytest.approx(10)
    assert balance(torch.tensor([7, 7, 0])).tolist() == [1, 1, 0]


@given(height=st.integers(1, 9), width=st.integers(1, 9), dx=st.floats(0.01, 0.99), dy=st.floats(0.01, 0.99))
@QUICK
def test_the_label_of_a_point_is_its_pixels(height, width, dx, dy):
    labels = torch.arange(2 * height * width).view(2, height, width)
    rows, cols = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.stack([(cols + dx) / width, (rows + dy) / height], dim=-1).view(1, -1, 2).expand(2, -1, -1)
    assert torch.equal(labels_at(labels, points), labels.flatten(1))


def test_points_on_the_outer_edge_belong_to_the_last_pixel():
    labels = torch.arange(6).view(1, 2, 3)
    assert labels_at(labels, torch.tensor([[[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]]])).tolist() == [[5, 0, 3]]


def test_the_total_is_the_weighted_sum():
    logits, labels = batch(5, 3)
    out, weight = output(logits, points=True), torch.tensor([1.0, 2.0, 3.0])
    at = labels_at(labels, out.points)
    parts = {
        "ce": cross_entropy(out.logits, labels, weight=weight),
        "dice": dice(out.logits, labels),
        "aux": cross_entropy(out.aux, labels, weight=weight),
        "points": cross_entropy(out.point_logits, at, weight=weight),
    }
    spec = LossSpec(dice_loss_fraction=0.25, aux_weight=0.3)
    expected = 0.75 * parts["ce"] + 0.25 * parts["dice"] + 0.3 * parts["aux"] + parts["points"]
    torch.testing.assert_close(total_loss(out, labels, spec, weight), expected)


def test_the_spec_is_checked_and_comes_back_from_json():
    spec = LossSpec(True, True, 0.5, 0.1)
    assert LossSpec.from_json(spec.to_json()) == spec
    for share in (-0.1, 1.5, math.nan):
        with pytest.raises(OptionError, match="dice_loss_fraction"):
            LossSpec(dice_loss_fraction=share)
