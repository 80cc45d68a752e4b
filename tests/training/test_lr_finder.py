"""Learning rates: found by short trainings, given as one or two."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from geopsp import PSPNetClassifier, prepare_data
from geopsp.errors import OptionError, TrainingError
from geopsp.training import lr_finder
from geopsp.training.lr_finder import FACTORS, best_rate
from geopsp.training.options import FitOptions, parse_lr

RULE = 2e-3
"""Of random weights and 8 chips per step."""


@pytest.fixture
def model(small_world):
    data = prepare_data(small_world["chips"], chip_size=32, batch_size=8, seed=3)
    data = replace(data, train_rows=data.train_rows[:32], valid_rows=data.valid_rows[:8])
    return PSPNetClassifier(data, "tu-test_resnet", encoder_weights=None)


def losses_by_rate(model, steps=20):
    model.lr_find(allow_plot=False, steps=steps)
    _, rates, losses = model._rate_test
    return dict(zip(rates, losses, strict=True))


RATES = (2e-4, 6e-4, 2e-3, 6e-3, 2e-2)


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([3, 2, 1, 4, 5], 2e-3),
        ([3, 0.9, 1, 4, 5], 6e-4),
        ([3, 0.97, 1, 0.98, 5], 2e-3),  # hardly lower than at the rate by rule
        ([2, math.nan, math.nan, math.inf, math.nan], 2e-4),
        ([0.5, 0.5, 1, 0.5, 1], 2e-4),  # the lowest of equals
    ],
)
def test_the_best_rate_is_that_of_the_lowest_loss(losses, best):
    assert best_rate(RATES, losses) == best


def test_without_a_finite_loss_there_is_an_error():
    with pytest.raises(TrainingError, match=r"at any learning rate from 0\.0002 to 0\.02"):
        best_rate(RATES, [math.nan] * len(RATES))


def test_trainings_do_not_depend_on_each_other(model, monkeypatch):
    """Each begins with the same weights and sees the same chips."""
    losses = losses_by_rate(model)
    assert len(set(losses.values())) == len(FACTORS)
    monkeypatch.setattr(lr_finder, "FACTORS", FACTORS[::-1])
    assert losses_by_rate(model) == losses


def test_the_loss_is_that_after_training(model):
    """A training of the same steps, written down plainly, ends with the same loss on the validation chips."""
    steps = len(model.data.train_dl) + 2  # more than an epoch
    loss = losses_by_rate(model, steps=len(FACTORS) * steps)[RULE]
    data, network = model.data, model.model.network.train()
    optimizer = lr_finder.make_optimizer(network, (RULE, RULE), torch.device("cpu"))
    torch.manual_seed(data.seed)
    loader, weight, epoch, step = model._loaders(data.seed).train_loader(), model._class_weight(), 0, 0
    while step < steps:
        loader.sampler.set_epoch(epoch)
        for sample in loader:
            if step < steps:
                for group in optimizer.param_groups:
                    group["lr"] = RULE * lr_finder.rate_factor(step / steps)
                batch = lr_finder.make_batch(sample, data.legend, model.model.losses)
                lr_finder.MicroBatchGradients(model.model.losses, 8)(network, batch, weight)
                torch.nn.utils.clip_grad_norm_(network.parameters(), lr_finder.CLIP)
                optimizer.step()
                optimizer.zero_grad()
                step += 1
        epoch += 1
    network.eval()
    with torch.inference_mode():
        total = [
            torch.nn.functional.cross_entropy(network(image, valid), label, ignore_index=255, reduction="sum")
            for image, valid, label, _ in data.valid_dl
        ]
    assert loss == pytest.approx(float(sum(total)) / sum(int((b.label != 255).sum()) for b in data.valid_dl), rel=1e-3)


def test_too_few_steps_are_refused(model):
    with pytest.raises(OptionError, match="`steps` is 9"):
        model.lr_find(steps=9)


def test_a_rate_is_one_or_two():
    assert parse_lr(0.1) == (0.1, 0.1)
    assert parse_lr(slice(1e-5, 1e-3)) == parse_lr((1e-5, 1e-3)) == (1e-5, 1e-3)
    assert parse_lr(slice(1e-3)) == (1e-4, 1e-3)
    assert parse_lr(np.float32(0.5)) == (0.5, 0.5)
    for wrong in ("fast", (1, 2, 3), slice(None), None, True):
        with pytest.raises(OptionError, match="slice"):
            parse_lr(wrong)


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0}, {"lr": (0.0, 0.0)}, {"lr": (1e-3, float("nan"))}, {"monitor": "taste"}, {"accumulate": 0},
        {"epochs": 2.5}, {"clip": None},
        {"clip": 0.0}, {"ema": 1.0}, {"minutes": 0.0}, {"minutes": 1.0, "epochs": 3}, {"precision": "float16"},
    ],
)  # fmt: skip
def test_options_out_of_range(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        FitOptions(**options)
