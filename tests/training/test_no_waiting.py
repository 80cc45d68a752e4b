"""Steps never wait for the numbers of a GPU; counted on a CPU, where each reading is an operation of torch."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from geopsp import PSPNetClassifier, prepare_data
from geopsp.core.legend import IGNORE_INDEX
from geopsp.data.dataset import Sample
from geopsp.models.network import mask_channels
from geopsp.training import fit as fit_module
from geopsp.training.callbacks import EMAWeights, EpochLogger
from geopsp.training.lightning_module import SegmentationTask
from geopsp.training.metrics import count_pairs, count_pairs_on_gpu
from geopsp.training.step import pad_batch

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "bincount", "item", "equal", "is_nonzero"}
"""Operations whose result or size the host has to know."""


class Waits(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in WAITING or (name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def data(small_world):
    found = prepare_data(small_world["chips"], batch_size=8, workers=0)
    return replace(found, train_rows=found.train_rows[::3][:24], valid_rows=found.valid_rows[::6][:4])


def test_no_step_waits(data, monkeypatch):
    """With all losses, an average of the weights and validation as a GPU counts it."""
    waits, calls = Waits(), Counter()

    def watch(owner, name):
        inner = getattr(owner, name)

        def watched(*args):
            calls[name] += 1
            with waits:
                return inner(*args)

        monkeypatch.setattr(owner, name, watched)

    for owner, name in (
        (SegmentationTask, "training_step"), (SegmentationTask, "validation_step"),
        (EMAWeights, "on_train_batch_end"), (EpochLogger, "on_train_batch_end"),
    ):  # fmt: skip
        watch(owner, name)
    monkeypatch.setattr("geopsp.training.lightning_module.count_pairs", count_pairs_on_gpu)
    model = PSPNetClassifier(
        data, "tu-test_resnet", encoder_weights=None, device="cpu", pointrend=True, class_balancing=True, ohem=0.5,
        dice_loss_fraction=0.3, lovasz_fraction=0.1, boundary_weight=2.0, ignore_classes=["background"],
    )  # fmt: skip
    model.fit(2, 1e-3, ema=0.9, calibrate=None)
    assert calls["training_step"] == 6
    # the average reads its count: it lies on the host, whatever the device
    assert waits.found.total() <= calls["on_train_batch_end"], waits.found


@pytest.mark.parametrize("quantity", ["loss", "gradient"])
@pytest.mark.parametrize("last", [False, True])
def test_a_step_that_is_not_finite_is_told_one_step_later_and_changes_nothing(data, monkeypatch, quantity, last):
    """Its weights stay, its own chips are named; also if it is the last one of an epoch."""
    from geopsp.errors import TrainingError

    wrong, seen, inner = 2 if last else 1, [], SegmentationTask._step

    def step(task, loss, batch):
        seen.append((batch.row.tolist(), [p.detach().clone() for p in task.network.parameters()]))
        if len(seen) == wrong + 1:
            if quantity == "gradient":
                next(p for p in task.network.parameters() if p.grad is not None).grad[0] = math.inf
            else:
                loss = loss * math.nan
        inner(task, loss, batch)

    monkeypatch.setattr(SegmentationTask, "_step", step)
    model = PSPNetClassifier(data, "tu-test_resnet", use_unet=False, encoder_weights=None, device="cpu")
    with pytest.raises(TrainingError, match=f"The {quantity} became (nan|inf) at step {wrong} ") as error:
        model.fit(1, 1e-3, ema=0)
    names = data.loaders.train.names
    assert all(names[row] in str(error.value) for row in seen[wrong][0])
    after = list(model.model.network.parameters())
    assert all(torch.equal(old, new) for old, new in zip(seen[wrong][1], after, strict=True))
    assert any(not torch.equal(old, new) for old, new in zip(seen[wrong - 1][1], after, strict=True))


@pytest.mark.parametrize("classes", [1, 2, 9])
def test_pairs_are_counted_alike_on_a_gpu(classes):
    labels = torch.randint(classes + 1, (3, 17, 19))
    labels[labels == classes] = IGNORE_INDEX
    predicted = torch.randint(classes, labels.shape)
    with Waits() as waits:
        found = count_pairs_on_gpu(labels, predicted, classes)
    assert not waits.found
    assert torch.equal(found, count_pairs(labels, predicted, classes))


def test_excluded_channels_are_masked_without_a_copy_from_the_host():
    for logits in (torch.randn(2, 4, 3, 3), torch.randn(2, 4)):
        expected = logits.clone()
        expected[:, [1, 3]] = -torch.inf
        assert torch.equal(mask_channels(logits, [1, 3]), expected)


def test_a_batch_that_is_filled_up_counts_as_it_did(data):
    network = PSPNetClassifier(data, "tu-test_resnet", encoder_weights=None, device="cpu").model.network.eval()
    sample = next(iter(data.valid_dl))
    part = Sample(*(each[:1] for each in sample))
    whole = pad_batch(part, 3)
    assert [each.dtype for each in whole] == [each.dtype for each in part]
    assert len(whole.image) == 3
    assert whole.label[1:].unique().tolist() == [IGNORE_INDEX]
    assert pad_batch(sample, 1) is sample
    with torch.inference_mode():
        found, expected = network(whole.image, whole.valid), network(part.image, part.valid)
    torch.testing.assert_close(found[:1], expected, rtol=1e-4, atol=1e-5)
    assert torch.isfinite(found).all()


def test_the_time_left_goes_by_the_middle_of_the_last_epochs(monkeypatch):
    """One epoch that was held up says nothing of the others."""
    rows = [{"seconds": seconds, "train_seconds": seconds - 2, "valid_miou": 0.5} for seconds in (10, 10, 1000, 10)]
    log, notes = EpochLogger(rows, None), []
    log.num_earlier, log.display, log.epoch_start = 0, lambda *words: notes.append(words[-1]), 0.0
    monkeypatch.setattr("geopsp.training.callbacks.time.monotonic", lambda: 4.0)
    trainer = SimpleNamespace(num_training_batches=2, max_epochs=11, current_epoch=4, lightning_module=None)
    task = SegmentationTask.__new__(SegmentationTask)
    torch.nn.Module.__init__(task)
    task.loss = 0.25
    log.on_train_batch_end(trainer, task, None, None, 0)
    assert notes == ["loss 0.250, best mIoU 0.500, 1:06 left"], "4 s, a validation of 2 s, 6 epochs of 10 s"


def test_other_processes_take_the_best_weights_from_the_first(data, monkeypatch):
    """They may not see its folder: it may be on another machine, or removed already."""
    model = PSPNetClassifier(data, "tu-test_resnet", use_unet=False, encoder_weights=None, device="cpu")
    best = {name: torch.zeros_like(value) for name, value in model.model.network.state_dict().items()}
    monkeypatch.setattr("lightning.pytorch.strategies.SingleDeviceStrategy.broadcast", lambda self, given, src=0: (
        best if isinstance(given, dict) and given.keys() == best.keys() else given
    ))  # fmt: skip
    monkeypatch.setattr(fit_module, "is_main_process", lambda: False)
    monkeypatch.setattr(fit_module, "damage", lambda _: pytest.fail("read"))
    model.fit(1, 1e-3, calibrate=None)
    assert all(torch.equal(value, best[name]) for name, value in model.model.network.state_dict().items())
