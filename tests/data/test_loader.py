"""Batches depend on seed, epoch and position alone; ranks share them out; validation counts everything once."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

import geopsp.data.loader
from geopsp import prepare_data
from geopsp.data.dataset import Sample
from geopsp.data.loader import ChipLoaders, EpochSampler, chip_weights, tile_loader
from geopsp.errors import OptionError

QUICK = settings(max_examples=examples(40), deadline=None)
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than there are cores


@pytest.fixture(scope="module")
def data(small_world):
    return few(prepare_data(small_world["chips"], batch_size=6, workers=0))


def few(data):
    return replace(data, train_rows=data.train_rows[:26], valid_rows=data.valid_rows[:11])


class Numbers(Dataset):
    """Items that say who they are, and what would be drawn for them."""

    chips, size = SimpleNamespace(bands=["red"], dtype="uint8"), 1

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, item):
        number, seed = item if isinstance(item, tuple) else (item, 0)
        return Sample(*torch.tensor([[number], [seed % 1000], [0], [number]]))


def loaders(count, valid=1, **options) -> ChipLoaders:
    return ChipLoaders(Numbers(count), Numbers(valid), **{"batch_size": 4, "seed": 0, "workers": 0} | options)


def rows(batches) -> list[list[int]]:
    return [batch.row.ravel().tolist() for batch in batches]


def flat(batches) -> list[int]:
    return [number for batch in rows(batches) for number in batch]


# ---- the order of an epoch


@given(count=st.integers(1, 60), seed=st.integers(0, 9), epoch=st.integers(0, 9))
@QUICK
def test_an_epoch_shows_each_chip_once_with_a_seed_of_its_own(count, seed, epoch):
    sampler = EpochSampler(count, seed=seed)
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert drawn == list(sampler)
    assert len(drawn) == len(sampler) == count
    assert sorted(item for item, _ in drawn) == list(range(count))
    assert len({own for _, own in drawn}) == count


def test_epochs_and_seeds_differ():
    orders = set()
    for seed in range(4):
        sampler = EpochSampler(30, seed=seed)
        for epoch in range(4):
            sampler.set_epoch(epoch)
            orders.add(tuple(sampler))
    assert len(orders) == 16


@given(
    count=st.integers(1, 60), world=st.integers(1, 5), batch=st.integers(1, 9), accumulate=st.integers(1, 3),
    epoch=st.integers(0, 3), weighted=st.booleans(),
)  # fmt: skip
@QUICK
def test_ranks_share_an_epoch_as_one_would_see_it(count, world, batch, accumulate, epoch, weighted):
    """The ranks' batches together are those of one rank with batches as many times as large."""
    if count < world:
        return
    own = loaders(count, batch_size=batch, weights=torch.arange(1.0, count + 1) if weighted else None)
    many = [own.train_loader(rank=rank, world=world, accumulate=accumulate) for rank in range(world)]
    one = replace(own, batch_size=batch * world).train_loader(accumulate=accumulate)
    for each in (*many, one):
        each.sampler.set_epoch(epoch)
    shares = [rows(each) for each in many]
    assert all(len(share) == len(each) for share, each in zip(shares, many, strict=True))
    sizes = [len(part) for part in shares[0]]
    assert all([len(part) for part in share] == sizes for share in shares)
    assert sum(sizes) == (count // world // batch * batch or count // world), "what fills a batch is used"
    assert set(sizes[:-1]) <= {batch * accumulate}
    for number, whole in enumerate(rows(one)):
        if len(whole) == batch * accumulate * world:
            assert sorted(i for share in shares for i in share[number]) == sorted(whole)
    if not weighted:
        drawn = [i for share in shares for part in share for i in part]
        assert len(drawn) == len(set(drawn))


@pytest.mark.parametrize(("count", "sizes"), [(3, [3]), (4, [4]), (9, [4, 4]), (1, [1])])
def test_a_last_batch_that_is_not_full_is_left_out_where_there_are_others(count, sizes):
    assert [len(batch) for batch in rows(loaders(count).train_loader())] == sizes


def test_a_batch_size_is_taken_as_it_is():
    assert [len(batch) for batch in rows(loaders(19, batch_size=6).train_loader())] == [6, 6, 6]


# ---- the same whatever the number of workers


def epochs(given_feed: ChipLoaders, numbers) -> list[list[Sample]]:
    batches, found = given_feed.train_loader(), []
    for number in numbers:
        batches.sampler.set_epoch(number)
        found.append(list(batches))
    return found


def same(one: list[Sample], other: list[Sample]) -> bool:
    pairs = [(a, b) for left, right in zip(one, other, strict=True) for a, b in zip(left, right, strict=True)]
    return all(torch.equal(a, b) for a, b in pairs)


def test_an_epoch_is_the_same_for_any_number_of_workers_and_gone_on_from(data):
    plain = data.feed
    torch.manual_seed(1)
    alone = epochs(plain, [0, 1, 2])
    torch.manual_seed(2)
    torch.rand(7)
    with_workers = epochs(replace(plain, workers=2), [1, 2])
    assert same(alone[1], with_workers[0])
    assert same(alone[2], with_workers[1])
    assert not same(alone[0], alone[1])
    assert not same(alone[0], epochs(replace(plain, seed=plain.seed + 1), [0])[0])


def test_the_same_chip_changes_otherwise_in_another_epoch(data):
    chips = [dict(zip(flat(batches), torch.cat([b.image for b in batches]), strict=True)) for batches in
             epochs(data.feed, [0, 1])]  # fmt: skip
    both = set(chips[0]) & set(chips[1])
    assert sum(torch.equal(chips[0][row], chips[1][row]) for row in both) < len(both) / 4


@pytest.mark.slow
def test_an_epoch_is_the_same_in_another_run(data, small_world):
    code = (
        "import torch; from geopsp import prepare_data; torch.rand(5); "
        f"data = prepare_data({str(small_world['chips'])!r}, batch_size=6, workers=0); "
        "data.train_rows = data.train_rows[:26]; batches = data.train_dl; batches.sampler.set_epoch(3); "
        "print(sum(float((batch.image.double() * (i + 1)).sum()) for i, batch in enumerate(batches)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    expected = sum(float((b.image.double() * (i + 1)).sum()) for i, b in enumerate(epochs(data.feed, [3])[0]))
    assert float(done.stdout) == pytest.approx(expected, abs=1e-6)


class Listener(L.LightningModule):
    """Trains nothing much, and notes what it is shown in each epoch."""

    def __init__(self):
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.zeros(1)), {}

    def training_step(self, batch, step):
        self.seen.setdefault(self.current_epoch, []).extend(batch.image.ravel().tolist())
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")
@pytest.mark.filterwarnings("ignore:.*isinstance")
def test_lightning_shows_each_epoch_as_it_is_also_when_it_goes_on(workers, tmp_path):
    """It makes its first iterator before it tells the epoch; a run that goes on must not see epoch 0 again."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    shown = Listener()
    for last in (2, 4):
        trainer = L.Trainer(max_epochs=last, default_root_dir=tmp_path, enable_checkpointing=False, **quiet)
        start = tmp_path / "state.ckpt" if last == 4 else None
        trainer.fit(shown, loaders(12, workers=workers).train_loader(), ckpt_path=start, weights_only=False)
        trainer.save_checkpoint(tmp_path / "state.ckpt")
    sampler = EpochSampler(12, seed=0)
    for epoch in range(4):
        sampler.set_epoch(epoch)
        assert shown.seen[epoch] == [item for item, _ in sampler]


def test_the_next_epoch_begins_while_the_last_batch_is_computed():
    """Processes do not wait for its first batch to be asked for; what they load is the same, whoever goes on where."""
    own = loaders(12, valid=5)
    for make in (own.train_loader, own.val_loader):
        plain = make()
        ahead = replace(own, workers=1).train_loader(epochs=4) if make == own.train_loader else None
        ahead = ahead or replace(own, workers=1).val_loader(epochs=4)
        begun = []
        for epoch in (0, 1, 3):  # an epoch that was not begun
            for loader in (plain, ahead):
                if isinstance(loader.sampler, EpochSampler):
                    loader.sampler.set_epoch(epoch)
            batches = iter(ahead)
            found = [next(batches) for _ in range(len(ahead))]  # Lightning asks for no more
            assert same(list(plain), found)
            begun.append(ahead._ahead is not None)
        assert begun == [True, True, make == own.val_loader], "nothing follows the last epoch"
        assert replace(own, workers=0).train_loader(epochs=4)._ahead is None


# ---- validation


@given(count=st.integers(1, 70), world=st.integers(1, 5), batch=st.integers(1, 9))
@QUICK
def test_validation_shows_each_item_once_over_all_ranks_in_order(count, world, batch):
    if count < world:
        return
    own = loaders(1, valid=count, batch_size=batch)
    shares = [rows(own.val_loader(rank=rank, world=world)) for rank in range(world)]
    assert [i for share in shares for part in share for i in part] == list(range(count))
    assert len({len(share) for share in shares}) == 1, "a rank would wait for another"
    assert all(1 <= len(part) <= max(batch, min(world, 2)) for share in shares for part in share)
    if world == 1:
        assert len(shares[0]) == -(-count // batch)


def test_validation_is_the_same_with_workers(data):
    assert same(list(data.feed.val_loader()), list(replace(data.feed, workers=2).val_loader()))


def test_a_loader_of_one_dataset(data):
    batches = list(tile_loader(data.valid_ds, 5, workers=0))
    assert torch.equal(torch.cat([batch.row for batch in batches]), torch.from_numpy(data.valid_rows))
    assert isinstance(batches[0], Sample)
    assert [part.dtype for part in batches[0]] == [torch.float32, torch.float32, torch.int64, torch.int64]


# ---- sampling by class


def test_weights_by_hand():
    """Of four chips all hold class 0, one holds class 1, none class 2: weights 1, and sqrt(4 / 1) for the one."""
    counts = np.array([[5, 0, 0], [9, 3, 0], [1, 0, 0], [2, 0, 0]])
    assert chip_weights(counts).tolist() == pytest.approx([1, 2, 1, 1])


@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=20))
@QUICK
def test_weights_are_finite_at_least_1_and_those_of_the_rarest_class(counts):
    counts = np.array(counts)
    weights = chip_weights(counts)
    share = (counts > 0).mean(axis=0)
    expected = [max([1, *(share[c] ** -0.5 for c in range(3) if chip[c])]) for chip in counts]
    assert weights.tolist() == pytest.approx(expected)


def test_chips_are_drawn_by_weight():
    sampler = EpochSampler(4, seed=0, weights=torch.tensor([1.0, 3.0, 0.0, 4.0]))
    tally = np.zeros(4)
    for epoch in range(500):
        sampler.set_epoch(epoch)
        np.add.at(tally, [item for item, _ in sampler], 1)
    assert tally / tally.sum() == pytest.approx([1 / 8, 3 / 8, 0, 1 / 2], abs=0.03)


def test_balanced_sampling_draws_rare_classes_more_often(data):
    counts = np.zeros(len(data.chips), int)
    counts[data.train_rows[:1]] = 1
    index = data.chips.index.assign(**{f"pixels_{data.legend.codes[-1]}": counts})
    rare = replace(data, chips=replace(data.chips, index=index), balanced_sampling=True)
    weights = rare.feed.weights
    assert weights is not None
    assert weights[0] > 2 * weights[1:].max()
    assert data.feed.weights is None


# ---- options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "`batch_size` is 0, but must be a whole number of at least 1"),
        ({"workers": -1}, "`workers` is -1"),
        ({"seed": -1}, "`seed` is -1"),
        ({"weights": torch.ones(5)}, "5.* for each of 9 chips"),
        ({"weights": torch.zeros(9)}, "all are 0"),
        ({"weights": torch.full((9,), torch.nan)}, "not finite"),
        ({"weights": torch.arange(-1.0, 8)}, "negative"),
    ],
)
def test_options_out_of_range(options, words):
    with pytest.raises(OptionError, match=words):
        loaders(9, **options)


@pytest.mark.parametrize("part", ["train_loader", "val_loader"])
def test_more_ranks_than_chips(part):
    with pytest.raises(OptionError, match="3 chips cannot be shared by 4"):
        getattr(loaders(3, valid=3), part)(rank=0, world=4)
    with pytest.raises(OptionError, match="rank is 2, but must be from 0 to 1"):
        getattr(loaders(3, valid=3), part)(rank=2, world=2)


@pytest.mark.parametrize(
    ("cores", "gpus", "world", "expected"),
    [
        (2, 0, 1, 0),
        (4, 0, 1, 0),
        (6, 0, 1, 5),
        (64, 0, 1, 8),
        (2, 1, 1, 1),
        (16, 4, 4, 3),
        (16, 4, 32, 3),
        (4, 8, 8, 1),
    ],
)
def test_workers_by_device_and_cores(cores, gpus, world, expected, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(cores), raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert geopsp.data.loader._default_workers(world) == expected


# ---- what prepare_data gives


def test_data_hand_over_what_they_were_given(small_world):
    data = prepare_data(small_world["chips"], batch_size=6, workers=0, seed=7, balanced_sampling=True)
    assert (data.feed.batch_size, data.feed.workers, data.feed.seed) == (6, 0, 7)
    assert data.feed.weights is not None
    assert isinstance(data.train_dl, DataLoader)
    assert {len(batch.image) for batch in data.train_dl} == {6}


def test_an_open_batch_size_stays_open(small_world):
    data = prepare_data(small_world["chips"], batch_size=None, workers=0)
    assert data.batch_size is None
    assert "as many as fit" in repr(data)
    assert len(next(iter(data.train_dl)).image) == 8
    assert replace(data, batch_size=3).feed.batch_size == 3


@pytest.mark.parametrize(("options", "words"), [({"workers": -2}, "workers"), ({"batch_size": 0}, "batch_size")])
def test_prepare_data_checks_first(options, words, tmp_path):
    with pytest.raises(OptionError, match=words):
        prepare_data(tmp_path / "nothing", **options)
