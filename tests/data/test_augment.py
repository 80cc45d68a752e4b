"""Image, validity and label move together, exactly where the change is exact."""

from __future__ import annotations

import pytest
import torch
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

from geopsp.core.legend import IGNORE_INDEX
from geopsp.data.augment import (
    AUGMENTATION,
    AUGMENTATIONS,
    RandomBlurOrNoise,
    RandomBrightness,
    RandomD4,
    RandomGamma,
    RandomScale,
    default_transforms,
    make_transforms,
    transform_chip,
)

QUICK = settings(max_examples=examples(15), deadline=None)


def chip(seed, size=16, bands=2):
    """An image equal to its label in every band, and 0 where it is invalid; the label is IGNORE there."""
    torch.manual_seed(seed)
    label, valid = torch.randint(0, 200, (size, size)), (torch.rand(1, size, size) > 0.2).float()
    image = label.float().expand(bands, -1, -1) * valid
    return image, valid, label.where(valid[0] > 0, IGNORE_INDEX)


def moves_together(image, valid, label):
    seen = valid[0] > 0
    assert image.dtype == valid.dtype == torch.float32
    assert label.dtype == torch.int64
    assert torch.equal(label != IGNORE_INDEX, seen)
    assert (image[:, ~seen] == 0).all()
    assert torch.equal(image[0][seen], label[seen].float())


@given(seed=st.integers(0, 9999))
@QUICK
def test_a_symmetry_moves_image_validity_and_label_together(seed):
    image, valid, label = chip(seed)
    moved = transform_chip(RandomD4(), image, valid, label)
    moves_together(*moved)
    assert torch.equal(moved[0].sort().values.sum(), image.sort().values.sum())
    assert moved[1].sum() == valid.sum()


def test_all_eight_symmetries_occur_equally_often():
    image = torch.arange(9.0).view(1, 3, 3)
    valid, label = torch.ones(1, 3, 3), image[0].long()
    expected = {
        tuple(way.flatten().tolist())
        for turned in (torch.rot90(image, k, (-2, -1)) for k in range(4))
        for way in (turned, turned.flip(-1))
    }
    torch.manual_seed(0)
    found = [tuple(transform_chip(RandomD4(), image, valid, label)[0].flatten().tolist()) for _ in range(400)]
    assert set(found) == expected
    assert len(expected) == 8
    assert min(found.count(way) for way in expected) > 25


class Nearest(RandomScale):
    """Moves the image as the mask moves, so that both can be compared pixel by pixel."""

    def transform(self, inpt, params):
        moved = super().transform(tv_tensors.Mask(inpt), params)
        return tv_tensors.wrap(moved.as_subclass(torch.Tensor), like=inpt)


@given(seed=st.integers(0, 9999), scale=st.floats(0.5, 2))
@QUICK
def test_scaling_moves_all_together(seed, scale):
    moves_together(*transform_chip(Nearest(scale, scale, chance=1), *chip(seed)))


@given(seed=st.integers(0, 9999), scale=st.floats(0.5, 2))
@QUICK
def test_scaling_changes_lengths_by_the_factor(seed, scale):
    """A slope of 1 a pixel has a slope of 1 / scale afterwards, in both directions alike."""
    torch.manual_seed(seed)
    size = 96
    image = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")).float()
    image, valid, _ = transform_chip(
        RandomScale(scale, scale, chance=1), image, torch.ones(1, size, size), image[0].long()
    )
    inner = F.avg_pool2d(valid, 5, 1, 2)[0] > 0.99
    for plane, axis in ((image[0], 0), (image[1], 1)):
        steps = plane.diff(dim=axis)[inner.narrow(axis, 0, size - 1) & inner.narrow(axis, 1, size - 1)]
        assert float(steps.mean()) == pytest.approx(1 / scale, rel=0.03)


@pytest.mark.parametrize("scale", [0.71, 1.37])
def test_labels_lie_under_the_image(scale):
    """Nearest and bilinear differ by chance, not by a shift: of a slope the mean difference is 0."""
    size = 96
    image = torch.arange(float(size)).expand(1, size, size)
    moved, valid, label = transform_chip(
        RandomScale(scale, scale, 1), image, torch.ones(1, size, size), image[0].long()
    )
    inner = F.avg_pool2d(valid, 5, 1, 2)[0] > 0.99
    assert float((label - moved[0])[inner].mean()) == pytest.approx(0, abs=0.06)


def corners(found) -> tuple[list[float], list[float]]:
    tops, lefts = zip(*found, strict=True)
    return list(tops), list(lefts)


def lie_anywhere(tops, lefts) -> None:
    for ends in (tops, lefts):
        assert min(ends) < 4
        assert max(ends) > 28
    assert abs(float(torch.corrcoef(torch.tensor([tops, lefts]))[0, 1])) < 0.5


def test_parts_that_are_enlarged_lie_anywhere():
    torch.manual_seed(0)
    image = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij"))
    given_chip = image, torch.ones(1, 64, 64), image[0].long()
    found = [transform_chip(RandomScale(2, 2, 1), *given_chip)[0] for _ in range(60)]
    assert all(float(plane.max() - plane.min()) == pytest.approx(31, abs=0.6) for part in found for plane in part)
    lie_anywhere(*corners([(float(part[0].min()), float(part[1].min())) for part in found]))


def test_chips_that_are_made_smaller_lie_anywhere():
    torch.manual_seed(0)
    given_chip = torch.ones(1, 64, 64), torch.ones(1, 64, 64), torch.ones(64, 64).long()
    found = [transform_chip(RandomScale(0.5, 0.5, 1), *given_chip)[1][0] for _ in range(60)]
    assert all(int(seen.sum()) == 32 * 32 for seen in found)
    lie_anywhere(*corners([(float(seen.any(1).int().argmax()), float(seen.any(0).int().argmax())) for seen in found]))


@given(seed=st.integers(0, 9999), scale=st.floats(0.4, 0.9))
@QUICK
def test_what_comes_from_outside_is_unlabelled(seed, scale):
    torch.manual_seed(seed)
    size = 40
    image, valid, label = torch.ones(3, size, size), torch.ones(1, size, size), torch.ones(size, size).long()
    image, valid, label = transform_chip(RandomScale(scale, scale, chance=1), image, valid, label)
    outside = valid[0] == 0
    assert outside.sum() == pytest.approx(size**2 * (1 - scale**2), abs=2.5 * size)
    assert (label[outside] == IGNORE_INDEX).all()
    assert (label[~outside] == 1).all()
    assert (image[:, outside] == 0).all()
    inner = F.avg_pool2d(valid, 3, 1, 1)[0] > 0.99  # not at an edge, where a bilinear image fades
    assert (image[:, inner] > 0.99).all()


@given(seed=st.integers(0, 9999), scale=st.floats(1.01, 2))
@QUICK
def test_enlarging_shows_nothing_from_outside(seed, scale):
    torch.manual_seed(seed)
    _, valid, label = transform_chip(
        RandomScale(scale, scale, chance=1), torch.ones(1, 32, 32), torch.ones(1, 32, 32), torch.ones(32, 32).long()
    )
    assert valid.all()
    assert (label == 1).all()


def test_the_chance_of_scaling():
    torch.manual_seed(0)
    image, valid, label = chip(0)
    same = [torch.equal(transform_chip(RandomScale(0.5, 0.6, 0.25), image, valid, label)[0], image) for _ in range(200)]
    assert 0.6 < sum(same) / len(same) < 0.9


@given(seed=st.integers(0, 9999))
@QUICK
def test_brightness_changes_pixels_and_nothing_else(seed):
    image, valid, label = chip(seed, bands=3)
    moved = transform_chip(RandomBrightness(0.2, 0.2, 0.05), image, valid, label)
    assert torch.equal(moved[1], valid)
    assert torch.equal(moved[2], label)
    assert (moved[0][:, valid[0] == 0] == 0).all()
    seen = valid[0] > 0
    for band, before in zip(moved[0], image, strict=True):
        a, b = before[seen], band[seen]
        slope = float(((a - a.mean()) * (b - b.mean())).sum() / (a - a.mean()).square().sum())
        shift = float(b.mean() - slope * a.mean())
        assert 0.75 <= slope <= 1.25
        assert -0.26 <= shift <= 0.26
        torch.testing.assert_close(b, a * slope + shift, rtol=1e-3, atol=1e-2)


@given(seed=st.integers(0, 9999))
@QUICK
def test_the_standard_change_keeps_the_contract(seed):
    image, valid, label = chip(seed, size=32, bands=4)
    moved, seen, labels = transform_chip(default_transforms(), image, valid, label)
    assert moved.shape == image.shape
    assert type(moved) is type(seen) is type(labels) is torch.Tensor
    assert set(seen.unique().tolist()) <= {0.0, 1.0}
    assert (moved[:, seen[0] == 0] == 0).all()
    assert (labels[seen[0] == 0] == IGNORE_INDEX).all()
    assert set(labels.unique().tolist()) <= set(label.unique().tolist()) | {IGNORE_INDEX}


@pytest.mark.parametrize(
    "transform",
    [
        v2.RandomHorizontalFlip(1),
        v2.RandomRotation((45, 45)),  # fills image and mask with 0
        v2.RandomAffine(0, translate=(0.5, 0.5)),
        v2.Compose([v2.RandomVerticalFlip(1), v2.RandomCrop(8), v2.GaussianNoise(0, 0.1)]),
        v2.GaussianBlur(3),
    ],
)
def test_torchvisions_own_transforms_work(transform):
    torch.manual_seed(1)
    image, valid, label = torch.ones(3, 16, 16), torch.ones(1, 16, 16), torch.full((16, 16), 7)
    image, valid, label = transform_chip(transform, image, valid, label)
    assert set(label.unique().tolist()) <= {7, IGNORE_INDEX}
    assert torch.equal(label == 7, valid[0] > 0)
    assert (image[:, valid[0] == 0] == 0).all()


def test_labels_may_come_as_bytes_and_the_chip_given_stays_as_it_was():
    image, valid, label = chip(3)
    before = image.clone(), valid.clone(), label.clone()
    torch.manual_seed(1)
    wide = transform_chip(default_transforms(), image, valid, label)
    torch.manual_seed(1)
    narrow = transform_chip(default_transforms(), image, valid, label.to(torch.uint8))
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(wide, narrow, strict=True))
    assert all(torch.equal(a, b) for a, b in zip((image, valid, label), before, strict=True))


def test_a_rotation_that_fills_with_0_adds_no_label_of_class_0():
    image, valid, label = torch.ones(1, 16, 16), torch.ones(1, 16, 16), torch.full((16, 16), 7)
    _, valid, label = transform_chip(v2.RandomRotation((45, 45)), image, valid, label)
    assert 0.6 < valid.mean() < 0.9
    assert (label == 0).sum() == 0


def test_light_is_what_version_0_1_did():
    """Runs are resumed by this text."""
    assert repr(make_transforms("light")) == (
        "Compose(\n      RandomSymmetry()\n      RandomScale(low=0.75, high=1.4, chance=0.5)\n"
        "      RandomBrightness(contrast=0.2, brightness=0.2, each=0.05)\n)"
    )


def test_the_levels_stand_in_one_order_everywhere():
    from geopsp.training import options

    assert tuple(AUGMENTATIONS) == options.AUGMENTATIONS
    assert options.AUGMENTATION == AUGMENTATION
    assert repr(default_transforms()) == repr(make_transforms(AUGMENTATION))


def test_stronger_levels_change_more():
    torch.manual_seed(0)
    image, valid = torch.randn(3, 64, 64), torch.ones(1, 64, 64)
    label = torch.zeros(64, 64, dtype=torch.long)
    change = {}
    for level in AUGMENTATIONS:
        stats = []
        for seed in range(60):
            torch.manual_seed(seed)
            moved, seen, _ = transform_chip(make_transforms(level), image, valid, label)
            values = moved[:, seen[0] > 0]
            stats.append(torch.stack([values.mean(), values.std()]))
        change[level] = float(torch.stack(stats).std(dim=0).mean())
    assert change["none"] == 0
    assert change["none"] < change["light"] < change["medium"] < change["strong"]


@pytest.mark.parametrize("level", AUGMENTATIONS)
@given(seed=st.integers(0, 9999))
@QUICK
def test_every_level_keeps_validity_and_labels_together(level, seed):
    image, valid, label = chip(seed, size=32)
    moved, seen, labels = transform_chip(make_transforms(level), image / 100 - 1, valid, label)
    assert moved.shape == image.shape
    assert torch.isfinite(moved).all()
    assert torch.equal(labels != IGNORE_INDEX, seen[0] > 0)
    assert (moved[:, seen[0] == 0] == 0).all()
    assert set(labels.unique().tolist()) <= {*label.unique().tolist(), IGNORE_INDEX}


@given(seed=st.integers(0, 9999))
@QUICK
def test_gamma_keeps_the_order_and_the_ends(seed):
    torch.manual_seed(seed)
    values = torch.linspace(-5, 5, 101).view(1, 1, -1)
    bent = RandomGamma(2.0)(tv_tensors.Image(values)).as_subclass(torch.Tensor)
    assert (bent.diff() > 0).all()
    outside = values.abs() >= 3
    torch.testing.assert_close(bent[outside], values[outside])


def test_blur_smooths_and_noise_does_not_move_the_mean():
    torch.manual_seed(0)
    image = tv_tensors.Image(torch.randn(1, 128, 128))
    found = [RandomBlurOrNoise(1.0, 0.2, 1.0)(image).as_subclass(torch.Tensor) for _ in range(20)]
    steps = [float(each.diff().abs().mean()) for each in found]
    plain = float(image.diff().abs().mean())
    assert min(steps) < plain < max(steps)
    assert all(abs(float(each.mean() - image.mean())) < 0.01 for each in found)
