"""Chips that are sent as they are stored, and transformed on the device, are those that a CPU loads."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import v2

from geopsp import prepare_data
from geopsp.core.legend import IGNORE_INDEX
from geopsp.data.augment import make_transforms
from geopsp.data.batch_transforms import BatchTransforms
from geopsp.data.chip_batch import ChipBatch, PackedChips, chip_bytes
from geopsp.data.dataset import RawChip, Sample
from geopsp.data.drawn_changes import NOISE, SCALE, SIGMA, ChangeLayout

CPU = torch.device("cpu")
SEEDS = range(24)


class Holes:
    """Chips with invalid corners, whose values no float32 holds where that is the type; their labels have gaps."""

    margin = 0

    def __init__(self, reader, kind):
        self.reader, self.kind = reader, kind

    def read(self, row, top, left, size):
        chip = self.reader.read(row, top, left, size)
        valid, codes = chip.valid.copy(), chip.codes.copy()
        valid[: size // 3, : row % size], codes[:, -3:] = False, IGNORE_INDEX
        data = chip.data.astype(self.kind)
        if self.kind == "float64":
            data[:, ~valid] = 1e300
        return RawChip(data, valid, np.where(valid, codes, IGNORE_INDEX).astype(np.uint8))


@pytest.fixture(scope="module")
def data(small_world):
    return prepare_data(small_world["chips"], batch_size=4, workers=0)


def dataset(data, transform, kind=None):
    found = replace(data, transforms=transform).train_ds
    kind = kind or data.chips.dtype
    found.reader, found.chips = Holes(found.reader, kind), replace(found.chips, dtype=kind)
    return found


def packed(chips, items):
    batch = PackedChips(chips).__getitems__(items)
    return batch, BatchTransforms(chips.normalization, getattr(chips, "transform", None))(batch, CPU)


def require_same(sample, expected, *, but=()):
    """Labels and valid masks are equal; pixels but for rounding, except those of some chips."""
    whole = Sample(*(torch.stack(parts) for parts in zip(*expected, strict=True)))
    assert [part.dtype for part in sample] == [part.dtype for part in whole]
    assert torch.equal(sample.valid, whole.valid)
    assert torch.equal(sample.label, whole.label)
    assert torch.equal(sample.row, whole.row)
    chosen = [number for number in range(len(whole.image)) if number not in but]
    torch.testing.assert_close(sample.image[chosen], whole.image[chosen], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("level", ["none", "light", "medium", "strong"])
def test_a_chip_and_a_seed_give_the_same_chip(data, level):
    chips = dataset(data, make_transforms(level))
    items = [(seed % len(chips), 1000 + seed) for seed in SEEDS]
    batch, sample = packed(chips, items)
    assert batch.image.dtype == torch.from_numpy(chips.reader.read(0, 0, 0, 32).data).dtype
    noisy = set(torch.nonzero(batch.changes[:, NOISE])[:, 0].tolist())
    require_same(sample, [chips[item] for item in items], but=noisy)
    if level == "strong":
        assert noisy
        assert (batch.changes[:, SIGMA] > 0).any()
    if level != "none":
        scales = batch.changes[:, SCALE]
        assert scales.min() < 1 < scales.max()
    for number in noisy:  # other noise, as strong
        assert sample.image[number].std() == pytest.approx(float(chips[items[number]].image.std()), rel=0.2)


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "float32", "int32", "float64"])
def test_pixels_of_all_types_are_normalised_alike(data, kind):
    chips = dataset(data, make_transforms("light"), kind)
    items = [(seed % len(chips), seed) for seed in SEEDS]
    batch, sample = packed(chips, items)
    assert batch.image.dtype == {"int32": torch.float32, "float64": torch.float32}.get(kind, batch.image.dtype)
    require_same(sample, [chips[item] for item in items])


def test_tiles_and_transforms_of_the_user(data):
    tiles = data.valid_ds
    batch, sample = packed(tiles, [0, 1, 2])
    assert not batch.is_final
    require_same(sample, [tiles[item] for item in (0, 1, 2)])
    chips = dataset(data, v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]))
    batch, sample = packed(chips, [(0, 1), (1, 2)])
    assert batch.is_final
    require_same(sample, [chips[item] for item in ((0, 1), (1, 2))])


@pytest.mark.parametrize(
    ("transform", "known"),
    [
        (make_transforms("strong"), True),
        (None, True),
        (v2.Identity(), True),
        (v2.Compose(list(reversed(make_transforms("light").transforms))), False),
        (v2.Compose([make_transforms("light")]), False),
        (v2.RandomHorizontalFlip(), False),
        (lambda *parts: parts, False),
    ],
)
def test_only_own_transforms_in_their_order_are_known(transform, known):
    assert (ChangeLayout.of(transform, 3) is not None) == known


class Launches(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view:
            self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def test_launches_do_not_grow_with_the_batch(data):
    counts = []
    for number in (2, 16):
        chips = dataset(data, make_transforms("light"))
        batch = PackedChips(chips).__getitems__([(n % len(chips), n) for n in range(number)])
        with Launches() as launches:
            BatchTransforms(chips.normalization, chips.transform)(batch, CPU)
        assert not {"_local_scalar_dense", "nonzero", "item"} & set(launches.names), "nothing waits for the GPU"
        counts.append(sum(launches.names.values()))
    assert counts[0] == counts[1] < 90


def test_all_of_it_is_on_the_gpu(data):
    chips = dataset(data, make_transforms("light"))
    batch = PackedChips(chips).__getitems__([(0, 1), (1, 2)])
    with FakeTensorMode(allow_non_fake_inputs=True):
        sample = BatchTransforms(chips.normalization, chips.transform)(batch, torch.device("cuda"))
    assert {part.device.type for part in sample} == {"cuda"}
    assert sample.image.shape == (2, 2, 32, 32)


def test_the_wire_carries_bytes(data):
    raw, own = dataset(data, make_transforms("light"), "uint8"), dataset(data, v2.RandomHorizontalFlip(), "uint8")
    batch = PackedChips(raw).__getitems__([(0, 1)])
    assert isinstance(batch, ChipBatch)
    size = sum(part.nbytes for part in (batch.image, batch.valid, batch.label))
    assert size == chip_bytes(raw, packed=True) == 32 * 32 * (2 + 2)
    assert chip_bytes(own, packed=True) == 32 * 32 * (8 + 2)
    sample = raw[0, 1]
    assert chip_bytes(raw, packed=False) == sum(part.nbytes for part in sample[:3]) == 32 * 32 * (8 + 12)
