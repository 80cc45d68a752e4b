"""Losses against torch's and smp's where those are right, and finite where those are not."""

from __future__ import annotations

import inspect
import json
import math

import numpy as np
import pytest
import torch
from common import examples, slow
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from segmentation_models_pytorch.losses import DiceLoss, LovaszLoss, TverskyLoss
from torch.nn import functional as F

from geopsp.core.legend import IGNORE_INDEX
from geopsp.errors import OptionError
from geopsp.models import losses, region_losses
from geopsp.models.loss_options import ADDED
from geopsp.models.losses import (
    BOUNDARY_WIDTH,
    WEIGHT_CAP,
    LossSpec,
    class_weights,
    cross_entropy,
    draw_mixup_share,
    ignore_channels,
    labels_at,
    mixup_batch,
    near_boundary,
    presence_loss,
    total_loss,
)
from geopsp.models.network import TrainingOutput, mask_channels
from geopsp.models.region_losses import dice, lovasz, tversky

QUICK = settings(max_examples=examples(12), deadline=None)


def batch(seed, classes, ignored=0.3, shape=(2, 7, 5)):
    """Logits that want a gradient, and labels."""
    torch.manual_seed(seed)
    labels = torch.randint(0, classes, shape)
    labels[torch.rand(shape) < ignored] = IGNORE_INDEX
    return (3 * torch.randn(shape[0], classes, *shape[1:])).requires_grad_(), labels


def everywhere(labels):
    return torch.ones(len(labels), 1, *labels.shape[1:])


def output(logits, points=False, aux="pixel"):
    n = len(logits)
    spots = torch.rand(n, 16, 2) if points else None
    second = {"none": None, "pixel": logits * 0.5, "presence": logits.flatten(2).mean(2)}[aux]
    return TrainingOutput(logits, second, spots, logits.flatten(2)[:, :, :16] if points else None)


def total(aux="none", **options):
    def loss(logits, labels):
        return total_loss(output(logits, aux=aux), labels, everywhere(labels), LossSpec(**options), None)

    return loss


WEIGHT = torch.tensor([0.5, 1.0, 2.0, 4.0])

PIXEL_LOSSES = {
    "cross_entropy": cross_entropy,
    "cross_entropy, weighted": lambda x, y: cross_entropy(x, y, weight=WEIGHT),
    "cross_entropy, focal": lambda x, y: cross_entropy(x, y, focal=True),
    "cross_entropy, smoothed": lambda x, y: cross_entropy(x, y, smoothing=0.2),
    "cross_entropy, hardest": lambda x, y: cross_entropy(x, y, hardest=0.3),
    "cross_entropy, all at once": lambda x, y: cross_entropy(
        x, y, weight=WEIGHT, focal=True, smoothing=0.1, hardest=0.5
    ),
    "dice, micro": lambda x, y: dice(x, y, average="micro"),
    "dice, macro": lambda x, y: dice(x, y, average="macro"),
    "tversky": lambda x, y: tversky(x, y, alpha=0.3, beta=0.7),
    "tversky, misses are free": lambda x, y: tversky(x, y, alpha=1.0, beta=0.0),
    "lovasz": lovasz,
}  # fmt: skip
"""Everything that takes the logits and labels of pixels, in any number of axes."""

TOTALS = {
    "total_loss": total(),
    "total_loss, pixel aux": total("pixel"),
    "total_loss, of everything": total(
        "pixel", focal_loss=True, dice_loss_fraction=0.2, lovasz_fraction=0.2, tversky_fraction=0.2, ohem=0.5
    ),
}

EVERY = PIXEL_LOSSES | TOTALS


def test_no_loss_is_forgotten():
    """A function that takes logits and labels has to be in the list above; tile-wise ones are tested on their own."""
    public = {**vars(losses), **vars(region_losses)}
    takes = {
        name
        for name, thing in public.items()
        if inspect.isfunction(thing)
        and not name.startswith("_")
        and {"logits", "labels"} <= set(inspect.signature(thing).parameters)
    }
    assert takes - {"presence_loss"} == {name.split(",")[0] for name in PIXEL_LOSSES}


@pytest.mark.parametrize("ignored", ["all", "some", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", EVERY)
def test_every_loss_is_finite_in_float32_and_blind_to_ignored_pixels(name, dtype, ignored):
    logits, labels = batch(3, 4, {"all": 1.1, "some": 0.4, "none": -1}[ignored])
    logits = (100 * logits.detach()).to(dtype).requires_grad_()
    loss = EVERY[name](logits, labels)
    (grad,) = torch.autograd.grad(loss, logits)
    unknown = (labels == IGNORE_INDEX)[:, None].expand_as(grad)
    assert loss.dtype == torch.float32
    assert loss.shape == ()
    assert torch.isfinite(loss)
    assert torch.isfinite(grad).all()
    assert (grad[unknown] == 0).all()
    if ignored == "all":
        assert loss.item() == 0


@pytest.mark.parametrize("name", EVERY)
def test_every_loss_counts_half_precision_as_if_it_were_float32(name):
    logits, labels = batch(4, 4)
    half = logits.detach().bfloat16()
    torch.testing.assert_close(EVERY[name](half, labels), EVERY[name](half.float(), labels))


@pytest.mark.parametrize("name", EVERY)
def test_every_loss_does_not_see_what_ignored_pixels_hold(name):
    logits, labels = batch(5, 4)
    other = torch.where((labels == IGNORE_INDEX)[:, None], 9 * torch.randn_like(logits), logits)
    torch.testing.assert_close(EVERY[name](other, labels), EVERY[name](logits, labels))


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_every_pixel_loss_takes_points_too(name):
    logits, labels = batch(6, 4)
    flat = PIXEL_LOSSES[name](logits.flatten(2), labels.flatten(1))
    torch.testing.assert_close(flat, PIXEL_LOSSES[name](logits, labels))


@pytest.mark.parametrize("name", EVERY)
def test_every_loss_falls_along_its_gradient_to_almost_nothing_when_all_is_right(name):
    logits, labels = batch(7, 4)
    loss = EVERY[name](logits, labels)
    (grad,) = torch.autograd.grad(loss, logits)
    assert 0 < EVERY[name](logits - 0.01 * grad / grad.norm(), labels) < loss
    right = 60 * F.one_hot(labels.where(labels != IGNORE_INDEX, 0), 4).movedim(-1, 1).float()
    if "smoothed" not in name and "all at once" not in name:
        assert EVERY[name](right, labels) < 1e-6


@given(
    seed=st.integers(0, 999), classes=st.integers(2, 9), weighted=st.booleans(), smoothing=st.sampled_from([0, 0.1, 1])
)
@QUICK
def test_cross_entropy_is_torchs(seed, classes, weighted, smoothing):
    """torch spreads a smoothed label by the classes' weights, ours evenly: the two agree where all weigh the same."""
    logits, labels = batch(seed, classes)
    labels[0, 0, 0] = 0
    weight = torch.rand(classes) + 0.1 if weighted and not smoothing else None
    ours = cross_entropy(logits, labels, weight=weight, smoothing=smoothing)
    theirs = F.cross_entropy(logits, labels, weight=weight, ignore_index=IGNORE_INDEX, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs)
    (grad,) = torch.autograd.grad(ours, logits)
    torch.testing.assert_close(grad, torch.autograd.grad(theirs, logits)[0])


def test_labels_of_weight_0_alone_cost_nothing():
    logits, labels = batch(0, 2, ignored=0)
    loss = cross_entropy(logits, labels * 0, weight=torch.tensor([0.0, 1.0]))
    assert loss.item() == 0


def logits_of(chances):
    """(pixels, classes) of chances -> (1, classes, pixels)."""
    return torch.tensor(chances).log().T[None]


def test_silenced_channels_never_win():
    logits = torch.randn(2, 4, 3, 3)
    quiet = mask_channels(logits, [1, 3])
    assert set(quiet.argmax(dim=1).unique().tolist()) <= {0, 2}
    assert torch.equal(quiet[:, [0, 2]], logits[:, [0, 2]])
    assert mask_channels(logits, []) is logits


def test_focal_loss_turns_to_the_hard_pixels():
    """arcgis.learn scales the mean of the batch, which leaves the gradient's direction as it was."""
    logits = torch.tensor([[[2.0, -0.2], [0.0, 0.0]]], requires_grad=True)  # sure of the first pixel, not of the second
    labels = torch.tensor([[0, 0]])
    plain, focal = (
        torch.autograd.grad(cross_entropy(logits, labels, focal=flag), logits)[0][0, 0].abs() for flag in (False, True)
    )
    assert focal[1] / focal[0] > 5 * plain[1] / plain[0]


def test_focal_loss_by_hand():
    """One pixel of p = 3/4 and one of p = 1/4 for the true class."""
    logits, labels = logits_of([[3 / 4, 1 / 4], [3 / 4, 1 / 4]]), torch.tensor([[0, 1]])
    expected = ((1 / 4) ** 2 * -math.log(3 / 4) + (3 / 4) ** 2 * -math.log(1 / 4)) / 2
    assert cross_entropy(logits, labels, focal=True).item() == pytest.approx(expected, rel=1e-6)


def test_smoothed_focal_loss_scales_by_the_chance_of_the_true_class():
    logits, labels = logits_of([[3 / 4, 1 / 4]]), torch.tensor([[0]])
    smooth = -0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4)
    loss = cross_entropy(logits, labels, focal=True, smoothing=0.2)
    assert loss.item() == pytest.approx((1 / 4) ** 2 * smooth, rel=1e-6)


def test_the_hardest_by_hand():
    """Chances of the true class of five labelled pixels: 2/5 of five are the two of least chance."""
    true = [0.9, 0.2, 0.5, 0.01, 0.4, 0.6]
    logits, labels = logits_of([[p, 1 - p] for p in true]), torch.tensor([[0, 0, 0, IGNORE_INDEX, 0, 0]])
    mean = -(math.log(0.2) + math.log(0.4)) / 2
    assert cross_entropy(logits, labels, hardest=0.4).item() == pytest.approx(mean, rel=1e-6)
    assert cross_entropy(logits, labels, hardest=0.01).item() == pytest.approx(-math.log(0.2), rel=1e-6)


def test_the_hardest_are_chosen_without_class_weights_and_then_weighted():
    logits, labels = logits_of([[0.2, 0.8], [0.7, 0.3], [0.9, 0.1]]), torch.tensor([[0, 1, 0]])
    loss = cross_entropy(logits, labels, weight=torch.tensor([1.0, 100.0]), hardest=1 / 3)
    assert loss.item() == pytest.approx(-math.log(0.2), rel=1e-6)


@given(seed=st.integers(0, 999), share=st.floats(0.01, 0.99))
@QUICK
def test_the_hardest_are_as_many_as_asked_for(seed, share):
    """Also where all pixels are equally hard."""
    logits, labels = batch(seed, 3)
    logits = (logits * 0).detach().requires_grad_()
    (grad,) = torch.autograd.grad(cross_entropy(logits, labels, hardest=share), logits)
    known = int((labels != IGNORE_INDEX).sum())
    assert int((grad.abs().sum(1) > 0).sum()) == max(1, round(share * known))


@given(seed=st.integers(0, 999), classes=st.integers(2, 6), ignored=st.sampled_from([-1, 0.3]))
@QUICK
def test_dice_and_tversky_are_smps_over_the_classes_present(seed, classes, ignored):
    """smp divides by all classes, also those that are not there."""
    logits, labels = batch(seed, classes, ignored)
    scale = classes / len(set(labels.unique().tolist()) - {IGNORE_INDEX})
    close = {"rtol": 1e-4, "atol": 1e-5}
    theirs = DiceLoss("multiclass", ignore_index=IGNORE_INDEX)(logits, labels.clone())
    torch.testing.assert_close(dice(logits, labels, average="macro"), theirs * scale, **close)
    theirs = TverskyLoss("multiclass", ignore_index=IGNORE_INDEX, alpha=0.2, beta=0.9)(logits, labels.clone())
    torch.testing.assert_close(tversky(logits, labels, alpha=0.2, beta=0.9), theirs * scale, **close)
    half = tversky(logits, labels, alpha=0.5, beta=0.5)
    torch.testing.assert_close(half, dice(logits, labels, average="macro"))


def test_dice_and_tversky_by_hand():
    """p = 3/4 for class 0 in two pixels, one of which is 0 and one 1."""
    logits, labels = logits_of([[3 / 4, 1 / 4], [3 / 4, 1 / 4]]), torch.tensor([[0, 1]])
    zero, one = 2 * 0.75 / (1.5 + 1), 2 * 0.25 / (0.5 + 1)
    assert dice(logits, labels, average="macro").item() == pytest.approx(1 - (zero + one) / 2)
    assert dice(logits, labels, average="micro").item() == pytest.approx(1 - 2 * (0.75 + 0.25) / (2 + 2))
    labels[0, 1] = IGNORE_INDEX
    assert dice(logits, labels, average="macro").item() == pytest.approx(1 - 2 * 0.75 / (0.75 + 1))
    assert dice(logits, labels, average="micro").item() == pytest.approx(1 - 2 * 0.75 / 2)
    assert tversky(logits, labels, alpha=9, beta=0.3).item() == pytest.approx(1 - 0.75 / (0.75 + 0.3 * 0.25))


def test_tverskys_alpha_weighs_what_is_wrongly_found():
    """Class 0 is found everywhere: nothing of it is missed, half is wrong."""
    logits, labels = logits_of([[1 - 1e-7, 1e-7], [1 - 1e-7, 1e-7]]), torch.tensor([[0, 1]])
    missed = 1  # class 1 scores 0
    assert tversky(logits, labels, alpha=3, beta=0.1).item() == pytest.approx((3 / 4 + missed) / 2, rel=1e-4)


@given(seed=st.integers(0, 999), classes=st.integers(2, 6), ignored=st.sampled_from([-1, 0.3, 0.9]))
@QUICK
def test_lovasz_is_smps(seed, classes, ignored):
    logits, labels = batch(seed, classes, ignored)
    labels[0, 0, 0] = 1
    ours, theirs = (
        lovasz(logits, labels),
        LovaszLoss("multiclass", per_image=False, ignore_index=IGNORE_INDEX)(logits, labels),
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    (grad,) = torch.autograd.grad(ours, logits)
    torch.testing.assert_close(grad, torch.autograd.grad(theirs, logits)[0], rtol=1e-3, atol=1e-5)


def test_lovasz_of_certain_answers_is_one_minus_iou():
    """Three of class 0 and one of class 1, where the map has two of each: IoU 2/3 and 1/2."""
    labels, found = torch.tensor([[0, 0, 0, 1]]), torch.tensor([[0, 0, 1, 1]])
    logits = 60 * F.one_hot(found, 3).movedim(-1, 1).float()
    assert lovasz(logits, labels).item() == pytest.approx((1 / 3 + 1 / 2) / 2)


@given(counts=st.lists(st.integers(0, 10**9), min_size=1, max_size=12))
@QUICK
def test_balance_is_capped_and_has_mean_1(counts):
    weights = class_weights(torch.tensor(counts))
    assert weights.dtype == torch.float32
    present = torch.tensor(counts) > 0
    assert (weights[~present] == 0).all()
    if present.any():
        assert weights[present].max() <= weights[present].min() * WEIGHT_CAP * (1 + 1e-5)
        total = sum(counts)
        mean = sum(w * c / total for w, c in zip(weights.tolist(), counts, strict=True))
        assert mean == pytest.approx(1, rel=1e-5)


def test_balance_by_hand():
    assert class_weights(torch.tensor([400, 100])).tolist() == pytest.approx([5 / 6, 10 / 6])
    assert class_weights(torch.tensor([10**6, 1]))[1] / class_weights(torch.tensor([10**6, 1]))[0] == pytest.approx(10)
    assert class_weights(torch.tensor([7, 7, 0])).tolist() == [1, 1, 0]
    common, rare = class_weights(torch.tensor([1000, 10]), 0.3).tolist()
    assert rare / common == pytest.approx(100**0.3)
    assert class_weights(torch.tensor([1000, 10]), 0.0).tolist() == [1, 1]


def test_presence_by_hand():
    """Tiles: whole (0 there, 1 and 2 known to be absent), part (1 there, the rest unknown), empty (nothing known)."""
    labels = torch.tensor([[[0, 0]], [[1, IGNORE_INDEX]], [[IGNORE_INDEX, IGNORE_INDEX]]])
    logits = torch.tensor([[0.3, -1.0, 2.0], [0.7, 0.4, -3.0], [1.0, 1.0, 1.0]]).requires_grad_()

    def there(x):
        return math.log(1 + math.exp(-x))

    loss = presence_loss(logits, labels, everywhere(labels))
    assert loss.item() == pytest.approx((there(0.3) + there(1.0) + there(-2.0) + there(0.4)) / 4)
    (grad,) = torch.autograd.grad(loss, logits)
    assert (grad != 0).tolist() == [[True] * 3, [False, True, False], [False] * 3]


def test_presence_counts_a_tile_as_whole_if_all_that_it_shows_is_labelled():
    labels = torch.tensor([[[1, IGNORE_INDEX]], [[IGNORE_INDEX, IGNORE_INDEX]]])
    valid = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 0.0]]]])
    logits = torch.zeros(2, 2, requires_grad=True)
    (grad,) = torch.autograd.grad(presence_loss(logits, labels, valid), logits)
    assert (grad != 0).tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_presence_is_finite_in_float32_also_of_nothing(dtype):
    _, labels = batch(0, 4, ignored=1.1)
    logits = torch.full((2, 4), 100, dtype=dtype, requires_grad=True)
    loss = presence_loss(logits, labels, everywhere(labels))
    assert (loss.dtype, loss.item()) == (torch.float32, 0)
    assert (torch.autograd.grad(loss, logits)[0] == 0).all()
    labels[:] = 1
    wrong = presence_loss(logits, labels, everywhere(labels))
    assert wrong.dtype == torch.float32
    assert wrong.item() == pytest.approx(75)


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
    logits, labels = batch(5, 4)
    out = output(logits, points=True)
    at = labels_at(labels, out.points)
    parts = {
        "ce": cross_entropy(out.logits, labels, weight=WEIGHT, focal=True, smoothing=0.1, hardest=0.7),
        "dice": dice(out.logits, labels, average="macro"),
        "lovasz": lovasz(out.logits, labels),
        "tversky": tversky(out.logits, labels, alpha=0.1, beta=0.8),
        "aux": cross_entropy(out.aux, labels, weight=WEIGHT),
        "points": cross_entropy(out.point_logits, at, weight=WEIGHT),
    }
    spec = LossSpec(
        focal_loss=True, dice_loss_fraction=0.25, dice_loss_average="macro", lovasz_fraction=0.125,
        tversky_fraction=0.0625, tversky_alpha=0.1, tversky_beta=0.8, label_smoothing=0.1, ohem=0.7, aux_weight=0.3,
    )  # fmt: skip
    shares = {"ce": 0.5625, "dice": 0.25, "lovasz": 0.125, "tversky": 0.0625, "aux": 0.3, "points": 1}
    expected = sum(share * parts[name] for name, share in shares.items())
    torch.testing.assert_close(total_loss(out, labels, everywhere(labels), spec, WEIGHT), expected)
    micro = total_loss(out, labels, everywhere(labels), LossSpec(dice_loss_fraction=1, aux_weight=0), None)
    points = cross_entropy(out.point_logits, at)
    torch.testing.assert_close(micro, dice(logits, labels, average="micro") + points)


def test_the_total_takes_any_auxiliary_head_or_none():
    logits, labels = batch(6, 3)
    valid, plain = everywhere(labels), cross_entropy(logits, labels)
    none, tile = output(logits, aux="none"), output(logits, aux="presence")
    torch.testing.assert_close(total_loss(none, labels, valid, LossSpec(), None), plain)
    expected = plain + 0.4 * presence_loss(tile.aux, labels, valid)
    torch.testing.assert_close(total_loss(tile, labels, valid, LossSpec(), WEIGHT[[1, 1, 1]]), expected)


@pytest.mark.parametrize("aux", ["none", "pixel", "presence"])
def test_a_batch_without_a_label_costs_nothing(aux):
    logits, labels = batch(0, 4, ignored=1.1)
    loss = total_loss(output(logits, points=True, aux=aux), labels, everywhere(labels), LossSpec(), WEIGHT)
    assert loss.item() == 0
    assert (torch.autograd.grad(loss, logits)[0] == 0).all()


@pytest.mark.parametrize("aux", ["pixel", "presence"])
@pytest.mark.parametrize("spec", [slow(LossSpec()), LossSpec(lovasz_fraction=0.2, tversky_fraction=0.2, ohem=0.5)])
def test_the_total_compiles_whole(aux, spec):
    logits, labels = batch(1, 4)
    spots = output(logits, points=True).points

    def loss(logits):
        out = output(logits, aux=aux)._replace(points=spots, point_logits=logits.flatten(2)[:, :, :16])
        return total_loss(out, labels, everywhere(labels), spec, WEIGHT)

    eager, compiled = loss(logits), torch.compile(loss, backend="eager", fullgraph=True)(logits)
    torch.testing.assert_close(compiled, eager)
    torch.testing.assert_close(torch.autograd.grad(compiled, logits), torch.autograd.grad(eager, logits))


def test_ignored_channels_become_unknown_and_nothing_else_changes():
    labels = torch.tensor([[[0, 1, 2], [3, IGNORE_INDEX, 1]]])
    before = labels.clone()
    assert ignore_channels(labels, [1, 3]).tolist() == [
        [[0, IGNORE_INDEX, 2], [IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX]]
    ]
    assert torch.equal(ignore_channels(labels, []), labels)
    assert torch.equal(labels, before)
    assert ignore_channels(labels.to(torch.uint8), (0,)).dtype == torch.uint8


def test_a_class_that_one_model_ignores_still_counts_for_the_next():
    """arcgis.learn keeps ignored classes for later models."""
    logits, labels = batch(2, 4)
    before = cross_entropy(logits, labels)
    spec = LossSpec(ignore_classes=("water",))
    less = cross_entropy(logits, ignore_channels(labels, [2]))
    (grad,) = torch.autograd.grad(less, logits)
    assert (grad[(labels == 2)[:, None].expand_as(grad)] == 0).all()
    assert cross_entropy(logits, labels) == before
    assert LossSpec().ignore_classes == ()
    with pytest.raises(AttributeError):
        spec.ignore_classes = ()
    assert isinstance(spec.ignore_classes, tuple)


def test_mix_by_hand():
    image = torch.tensor([[[[1.0, 2.0, 0.0]]], [[[5.0, 0.0, 7.0]]]])
    valid = torch.tensor([[[[1.0, 1.0, 0.0]]], [[[1.0, 0.0, 1.0]]]])
    labels = torch.tensor([[[0, 1, IGNORE_INDEX]], [[2, IGNORE_INDEX, 1]]])
    blend, both, own, partner = mixup_batch(image, valid, labels, share=0.75)
    assert blend.flatten().tolist() == [0.75 * 1 + 0.25 * 5, 0, 0, 0.75 * 5 + 0.25 * 1, 0, 0]
    assert both.flatten().tolist() == [1, 0, 0] * 2
    assert own.flatten().tolist() == [0, IGNORE_INDEX, IGNORE_INDEX, 2, IGNORE_INDEX, IGNORE_INDEX]
    assert partner.flatten().tolist() == [2, IGNORE_INDEX, IGNORE_INDEX, 0, IGNORE_INDEX, IGNORE_INDEX]


@given(seed=st.integers(0, 999), n=st.integers(1, 4), share=st.floats(0, 1))
@QUICK
def test_mix_changes_neither_its_input_nor_a_batch_of_one(seed, n, share):
    logits, labels = batch(seed, 3, shape=(n, 4, 6))
    valid = (torch.rand(n, 1, 4, 6) < 0.7).float()
    image, labels = logits.detach() * valid, labels.masked_fill(valid[:, 0] == 0, IGNORE_INDEX)
    given = [part.clone() for part in (image, valid, labels)]
    blend, both, own, partner = mixup_batch(image, valid, labels, share=share)
    assert all(torch.equal(a, b) for a, b in zip(given, (image, valid, labels), strict=True))
    assert torch.equal(both, valid * valid.roll(1, 0))
    expected = (share * image + (1 - share) * image.roll(1, 0)) * both
    torch.testing.assert_close(blend, expected)
    assert torch.equal(partner, torch.where(both[:, 0] > 0, labels.roll(1, 0), IGNORE_INDEX))
    if n == 1:
        assert all(torch.equal(a, b) for a, b in zip(given, (blend, both, own), strict=True))
        assert torch.equal(own, partner)


def test_all_of_the_own_image_is_the_own_image():
    logits, labels = batch(0, 3)
    blend, _, own, partner = mixup_batch(logits.detach(), everywhere(labels), labels, share=1.0)
    assert torch.equal(blend, logits)
    assert torch.equal(own, labels)
    assert torch.equal(partner, labels.roll(1, 0))


def test_shares_follow_torchs_random_state_and_a_beta_distribution():
    torch.manual_seed(1)
    first = [draw_mixup_share() for _ in range(3)]
    torch.manual_seed(1)
    assert [draw_mixup_share() for _ in range(3)] == first
    assert len(set(first)) == 3
    shares = torch.tensor([draw_mixup_share() for _ in range(2000)])
    assert 0 <= shares.min() <= shares.max() <= 1
    assert shares.mean().item() == pytest.approx(1 / 2, abs=0.03)
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.01)


def test_the_spec_comes_back_from_json():
    spec = LossSpec(True, True, 0.5, "macro", 0.1, 0.2, 0.4, 0.6, 0.1, 0.5, True, ("water", "road"), 0.1)
    assert LossSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert spec.to_json() == json.loads(json.dumps(spec.to_json()))
    plain = LossSpec(boundary_weight=0, class_weight_power=0)
    assert hash(LossSpec.from_json({})) == hash(plain)
    assert plain.to_json() == json.loads(json.dumps(LossSpec.from_json(plain.to_json()).to_json()))
    assert plain.to_json().keys().isdisjoint(ADDED)  # so that fingerprints of earlier models stay
    before = LossSpec.from_json({"class_balancing": True, "aux_weight": 0.1})
    assert before == LossSpec(True, aux_weight=0.1, boundary_weight=0, class_weight_power=0)
    with pytest.raises(OptionError, match="has no option `dise`"):
        LossSpec.from_json({"dise": 1})


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *[(f"{name}_fraction", bad) for name in ("dice_loss", "lovasz", "tversky") for bad in (-0.1, 1.5, math.nan)],
        *[("label_smoothing", bad) for bad in (-0.1, 1.1, math.nan)],
        *[(name, bad) for name in ("tversky_alpha", "tversky_beta", "aux_weight") for bad in (-1, math.nan, math.inf)],
        *[("boundary_weight", bad) for bad in (-1, 101, math.nan)],
        *[("class_weight_power", bad) for bad in (-0.1, 1.1, math.nan)],
        *[("ohem", bad) for bad in (0, -0.5, 1.01, math.nan)],
        ("dice_loss_average", "weighted"),
    ],
)
def test_the_spec_is_checked(name, wrong):
    with pytest.raises(OptionError, match=f"`{name}` is {wrong!r}, but must be"):
        LossSpec(**{name: wrong})


def test_shares_are_at_most_1_in_all():
    with pytest.raises(OptionError, match=r"`dice_loss_fraction` \(0.5\), .* \(0.4\) and .* \(0.2\) add up to 1.1"):
        LossSpec(dice_loss_fraction=0.5, lovasz_fraction=0.4, tversky_fraction=0.2)
    with pytest.raises(OptionError, match="both 0"):
        LossSpec(tversky_alpha=0, tversky_beta=0)
    assert LossSpec(dice_loss_fraction=0.6, lovasz_fraction=0.3, tversky_fraction=0.1).entropy_fraction == 0
    assert LossSpec(dice_loss_fraction=0.6, lovasz_fraction=0.3).entropy_fraction == pytest.approx(0.1)


@given(
    hnp.arrays(np.int64, (2, 9, 7), elements=st.sampled_from([0, 0, 0, 0, 0, 1, 4, IGNORE_INDEX])),
    st.floats(0, 5),
)
def test_pixels_near_another_class_count_more(labels, boundary):
    near = np.zeros(labels.shape, bool)
    for chip, row, col in np.ndindex(labels.shape):
        rows, cols = (slice(max(0, i - BOUNDARY_WIDTH), i + BOUNDARY_WIDTH + 1) for i in (row, col))
        around = set(labels[chip, rows, cols].ravel().tolist()) - {IGNORE_INDEX}
        near[chip, row, col] = labels[chip, row, col] != IGNORE_INDEX and len(around) > 1
    np.testing.assert_array_equal(near_boundary(torch.from_numpy(labels)).numpy(), near)
    if (labels == IGNORE_INDEX).all():
        return
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 5, 9, 7))).float()
    weights = np.where(near, 1 + boundary, 1)[labels != IGNORE_INDEX]
    plain = F.cross_entropy(logits, torch.from_numpy(labels), ignore_index=IGNORE_INDEX, reduction="none").numpy()
    found = cross_entropy(logits, torch.from_numpy(labels), boundary=boundary)
    np.testing.assert_allclose(found, np.average(plain[labels != IGNORE_INDEX], weights=weights), rtol=1e-4)


def test_the_total_loss_weighs_boundaries_of_the_main_output_only():
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[:, :, 4:] = 1
    logits, valid = torch.randn(1, 2, 8, 8), torch.ones(1, 1, 8, 8)
    output = TrainingOutput(logits, torch.randn(1, 2, 8, 8), None, None)
    plain, more = (total_loss(output, labels, valid, LossSpec(boundary_weight=each), None) for each in (0, 2))
    expected = cross_entropy(logits, labels, boundary=2) - cross_entropy(logits, labels)
    torch.testing.assert_close(more - plain, expected)
